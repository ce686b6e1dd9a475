"""Views of a picture: what a frozen backbone's head learns from, and what a prediction is the mean over."""

import math

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

from pipelines.augmentation.geometry import GREY
from pipelines.params.recipes import TtaView

ZOOM = 0.875
"""share of the side that is left of a zoomed picture: the middle 224 of 256, as networks are usually tested"""
TURN_DEGREES = 10.0


def view(images: torch.Tensor, name: TtaView) -> torch.Tensor:
    """See pictures as `name` says; `plain` gives them back as they are.

    A picture's view depends on no other picture of the batch. Like augmentation, this belongs before normalisation:
    what a turn uncovers is grey.

    Args:
        images: (B, C, H, W) float, 0 to 255.
        name: of the view; left is counter-clockwise.

    Returns:
        (B, C, H, W) float, 0 to 255.
    """
    match name:
        case "original":
            return images
        case "hflip":
            # one plane after the other: in channels_last the same takes seven times as long
            return images.contiguous().flip(-1)
        case "center_crop":
            return _sample(images, scale=ZOOM)
        case "center_crop_hflip":
            return _sample(images, scale=ZOOM, mirrored=True)
        case "turn_left":
            return _sample(images, degrees=TURN_DEGREES)
        case "turn_right":
            return _sample(images, degrees=-TURN_DEGREES)


def _sample(images: torch.Tensor, *, scale: float = 1.0, degrees: float = 0.0, mirrored: bool = False) -> torch.Tensor:
    """Look each pixel up bilinearly where it lies once the middle `scale` of the picture is stretched and turned."""
    height, width = images.shape[2:]
    x = ((2 * torch.arange(width, dtype=torch.float64) + 1) / width - 1).view(1, width)
    y = ((2 * torch.arange(height, dtype=torch.float64) + 1) / height - 1).view(height, 1)
    cos, sin = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
    # in [-1, 1] a picture is square; one that is not keeps its angles right by this
    aspect = width / height
    across = cos * x - sin / aspect * y
    grid = torch.stack((-across if mirrored else across, sin * aspect * x + cos * y), dim=-1)  # (H, W, 2)
    grid = grid.to(images.device, images.dtype).expand(len(images), height, width, 2)
    # outside is zero to grid_sample
    return F.grid_sample(images - GREY, grid, mode="bilinear", padding_mode="zeros", align_corners=False) + GREY
