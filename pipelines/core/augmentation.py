"""Draws applied to a batch of pictures on their device; what training does, and what the preview shows."""

import math

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

from pipelines.core.draws import Draws
from pipelines.core.params.augment import AugmentPolicy

GREY = 128.0
"""what lies outside of a picture, and under an erased rectangle; also the border of a letterbox"""
LUMA = (0.299, 0.587, 0.114)
"""ITU-R 601, as Pillow converts to grey"""


def apply(images: torch.Tensor, draws: Draws, policy: AugmentPolicy) -> torch.Tensor:
    """Change each picture as drawn. A change that `policy` switches off is not computed: zeros give the same bits back.

    Args:
        images: (B, 3, H, W) float, 0 to 255.
        draws: for these B pictures.
        policy: which the draws are of.

    Returns:
        (B, 3, H, W) float, 0 to 255.
    """
    if policy.rotation or policy.shift or policy.zoom:
        images = _move(images, draws)
    elif policy.flip:
        images = torch.where(_column(draws.flip, images, dtype=torch.bool), images.flip(-1), images)
    if policy.brightness:
        images = (images * _column(draws.brightness, images)).clamp(0.0, 255.0)
    if policy.contrast:
        mean = _grey(images).mean(dim=(1, 2, 3), keepdim=True)  # (B, 1, 1, 1)
        images = _blend(mean, images, _column(draws.contrast, images))
    if policy.saturation:
        images = _blend(_grey(images), images, _column(draws.saturation, images))
    if policy.erase:
        images = _erase(images, draws)
    return images


def _column(values: object, images: torch.Tensor, *, dtype: torch.dtype | None = None) -> torch.Tensor:
    """(B,) numbers as (B, 1, 1, 1), of the type and on the device of `images`."""
    return torch.as_tensor(values).to(images.device, dtype or images.dtype).view(-1, 1, 1, 1)


def _grey(images: torch.Tensor) -> torch.Tensor:
    """(B, 1, H, W)"""
    return LUMA[0] * images[:, 0:1] + LUMA[1] * images[:, 1:2] + LUMA[2] * images[:, 2:3]


def _blend(base: torch.Tensor, images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """`base` at factor 0, `images` at 1, beyond them above 1; as Pillow's ImageEnhance."""
    return (base + (images - base) * factor).clamp(0.0, 255.0)


def _move(images: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Flip, turn, zoom and shift, all by one bilinear sampling.

    A place (x, y) of the result, both in [-1, 1], is looked up in the picture: the changes undone in reverse order.
    The grid is computed element by element rather than by a matrix product, whose last digits depend on B.
    """
    height, width = images.shape[2:]
    x = ((2 * torch.arange(width) + 1) / width - 1).to(images).view(1, 1, width)
    y = ((2 * torch.arange(height) + 1) / height - 1).to(images).view(1, height, 1)

    def row(values: object) -> torch.Tensor:
        return _column(values, images).view(-1, 1, 1)

    # double precision of the draws is kept up to here
    radians = draws.angle * (math.pi / 180.0)
    cos, sin = row(np.cos(radians) / draws.zoom), row(np.sin(radians) / draws.zoom)
    x = x - row(2.0 * draws.shift_x)  # (B, 1, W)
    y = y - row(2.0 * draws.shift_y)  # (B, H, 1)
    mirror = row(1.0 - 2.0 * draws.flip)
    # the picture is square in [-1, 1]; a picture that is not keeps its angles right by these two
    aspect = width / height
    grid = torch.stack(((cos * x - sin * y / aspect) * mirror, sin * x * aspect + cos * y), dim=-1)  # (B, H, W, 2)
    # outside is zero to grid_sample
    return F.grid_sample(images - GREY, grid, mode="bilinear", padding_mode="zeros", align_corners=False) + GREY


def _erase(images: torch.Tensor, draws: Draws) -> torch.Tensor:
    height, width = images.shape[2:]
    x = ((torch.arange(width) + 0.5) / width).to(images).view(1, 1, 1, width)
    y = ((torch.arange(height) + 0.5) / height).to(images).view(1, 1, height, 1)
    left, top = _column(draws.erase_left, images), _column(draws.erase_top, images)
    inside_x = (x >= left) & (x < left + _column(draws.erase_width, images))  # (B, 1, 1, W)
    inside_y = (y >= top) & (y < top + _column(draws.erase_height, images))  # (B, 1, H, 1)
    return images.masked_fill(inside_x & inside_y, GREY)
