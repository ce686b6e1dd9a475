"""A policy's changes one after the other, over as many pictures at a time as the caches hold."""

from collections.abc import Callable

import numpy as np
import torch

from pipelines.augmentation.broadcast import Rows, change_some, columns
from pipelines.augmentation.geometry import move
from pipelines.augmentation.packs import GREY
from pipelines.augmentation.photometric import (
    add_noise,
    autocontrast,
    blur,
    brighten,
    contrast,
    equalize,
    posterize,
    saturate,
    save_as_jpeg,
    scribble,
    sharpen,
    solarize,
    turn_hue,
)
from pipelines.augmentation.sampling import Op, SampledParams
from pipelines.params.augment import AugmentPolicy

CPU_NUMBERS = 2**20
"""of pictures changed together on a CPU: 4 MB, which mostly stay in its caches between two changes"""
GPU_NUMBERS = 2**26
"""on anything else: 256 MB, a bound for what the changes need beside the pictures"""

MIRRORS = frozenset({"hflip", "vflip"})

COLOUR_OPS: dict[Op, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    Op.BRIGHTNESS: brighten,
    Op.COLOR: saturate,
    Op.CONTRAST: contrast,
    Op.SHARPNESS: sharpen,
    Op.POSTERIZE: posterize,
    Op.SOLARIZE: solarize,
    Op.AUTOCONTRAST: lambda images, _: autocontrast(images),
    Op.EQUALIZE: lambda images, _: equalize(images),
}
"""of RandAugment and TrivialAugment, those that move nothing"""


def apply(images: torch.Tensor, draws: SampledParams, policy: AugmentPolicy) -> torch.Tensor:
    """Change each picture as drawn. A change that `policy` switches off is not computed: zeros give the same bits back.

    The host decides everything and never waits for the device. What happens to a picture does not depend on the others.

    Args:
        images: (B, 3, H, W) float, 0 to 255; left as they are.
        draws: for these B pictures.
        policy: which the draws are of.

    Returns:
        (B, 3, H, W) float, 0 to 255, in the memory format of `images`.
    """
    changes = policy.changes.keys()
    if not changes:
        return images
    numbers = CPU_NUMBERS if images.device.type == "cpu" else GPU_NUMBERS
    step = max(1, numbers // max(1, images[0:1].numel()))
    result = torch.empty_like(images)
    # one colour after the other in memory: all changes but mirrors are faster so
    layout = torch.preserve_format if changes <= MIRRORS else torch.contiguous_format
    for first in range(0, len(images), step):
        last = min(first + step, len(images))
        part = draws.part(first, last)
        result[first:last] = _change(move(images[first:last], part, layout=layout), part, policy)
    return result


def _change(images: torch.Tensor, draws: SampledParams, policy: AugmentPolicy) -> torch.Tensor:
    """Everything but moves; overwrites `images`."""
    if policy.brightness:
        images = brighten(images, columns(draws.brightness, images))
    if policy.contrast:
        images = contrast(images, columns(draws.contrast, images))
    if policy.saturation:
        images = saturate(images, columns(draws.saturation, images))
    if policy.hue:
        images = change_some(
            images, draws.hue != 0.0, lambda part, rows: turn_hue(part, columns(draws.hue[rows], part))
        )
    for op, value in zip(draws.auto_op.T, draws.auto_value.T, strict=True):
        images = _one_of_many(images, op, value)
    if policy.scribble:
        images = scribble(images, draws)
    return _worn(images, draws, policy)


def _one_of_many(images: torch.Tensor, op: Rows, value: np.ndarray) -> torch.Tensor:
    for kind, function in COLOUR_OPS.items():

        def change(part: torch.Tensor, rows: Rows, function: Callable[..., torch.Tensor] = function) -> torch.Tensor:
            return function(part, columns(value[rows], part))

        images = change_some(images, op == kind, change)
    return images


def _worn(images: torch.Tensor, draws: SampledParams, policy: AugmentPolicy) -> torch.Tensor:
    """Blur, noise, JPEG; and last the rectangle, which stays grey."""
    if policy.blur:
        side = min(images.shape[2:])
        largest = policy.blur.sigma * side
        images = change_some(
            images, draws.blur > 0.0, lambda part, rows: blur(part, draws.blur[rows] * side, largest=largest)
        )
    if policy.noise:
        images = add_noise(images, draws.noise, draws.noise_place)
    if policy.jpeg:
        images = change_some(images, draws.jpeg > 0, lambda part, rows: save_as_jpeg(part, draws.jpeg[rows]))
    if policy.random_erasing:
        images = _erase(images, draws)
    return images


def _erase(images: torch.Tensor, draws: SampledParams) -> torch.Tensor:
    height, width = images.shape[2:]
    x = ((torch.arange(width, device=images.device) + 0.5) / width).to(images.dtype).view(1, 1, 1, width)
    y = ((torch.arange(height, device=images.device) + 0.5) / height).to(images.dtype).view(1, 1, height, 1)
    left, top = columns(draws.erase_left, images), columns(draws.erase_top, images)
    inside_x = (x >= left) & (x < left + columns(draws.erase_width, images))  # (B, 1, 1, W)
    inside_y = (y >= top) & (y < top + columns(draws.erase_height, images))  # (B, 1, H, 1)
    return images.masked_fill_(inside_x & inside_y, GREY)
