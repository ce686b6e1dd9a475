"""Fixed views of an image: test-time augmentation, and what a linear probe learns from."""

import math

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

from pipelines.augmentation.geometry import GREY
from pipelines.params.recipes import TtaView

CROP_RATIO = 0.875
"""side of a center crop divided by the image's: 224 of 256, as in the usual ImageNet test"""
ROTATION_DEGREES = 10.0


def view(images: torch.Tensor, name: TtaView) -> torch.Tensor:
    """Return the view `name` of each image; `original` is the image itself.

    The result for an image does not depend on the rest of the batch. Apply before normalisation: what a rotation
    uncovers is filled with grey.

    Args:
        images: (B, C, H, W) float, 0 to 255.
        name: left is counter-clockwise.

    Returns:
        (B, C, H, W) float, 0 to 255.
    """
    match name:
        case "original":
            return images
        case "hflip":
            # contiguous first: flipping a channels_last tensor takes seven times as long
            return images.contiguous().flip(-1)
        case "center_crop":
            return _sample(images, scale=CROP_RATIO)
        case "center_crop_hflip":
            return _sample(images, scale=CROP_RATIO, mirrored=True)
        case "turn_left":
            return _sample(images, degrees=ROTATION_DEGREES)
        case "turn_right":
            return _sample(images, degrees=-ROTATION_DEGREES)


def _sample(images: torch.Tensor, *, scale: float = 1.0, degrees: float = 0.0, mirrored: bool = False) -> torch.Tensor:
    """Enlarge the middle `scale` of each image to its full size, rotated and mirrored, with bilinear interpolation."""
    height, width = images.shape[2:]
    x = ((2 * torch.arange(width, dtype=torch.float64) + 1) / width - 1).view(1, width)
    y = ((2 * torch.arange(height, dtype=torch.float64) + 1) / height - 1).view(height, 1)
    cos, sin = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
    # coordinates run from -1 to 1 along both sides: without the aspect a rotation would shear
    aspect = width / height
    across = cos * x - sin / aspect * y
    grid = torch.stack((-across if mirrored else across, sin * aspect * x + cos * y), dim=-1)  # (H, W, 2)
    grid = grid.to(images.device, images.dtype).expand(len(images), height, width, 2)
    # grid_sample pads with zeros: shifted by GREY, they are grey
    return F.grid_sample(images - GREY, grid, mode="bilinear", padding_mode="zeros", align_corners=False) + GREY
