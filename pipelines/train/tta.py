"""Fixed views of an image: test-time augmentation, and what a linear probe learns from."""

import numpy as np
import torch

from pipelines.augmentation.geometry import rotation, warp
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
            return _warped(images, scale=CROP_RATIO)
        case "center_crop_hflip":
            return _warped(images, scale=CROP_RATIO, mirrored=True)
        case "turn_left":
            return _warped(images, degrees=ROTATION_DEGREES)
        case "turn_right":
            return _warped(images, degrees=-ROTATION_DEGREES)


def _warped(images: torch.Tensor, *, scale: float = 1.0, degrees: float = 0.0, mirrored: bool = False) -> torch.Tensor:
    """Enlarge the middle `scale` of each image to its full size, rotated and mirrored."""
    matrix = rotation(np.array([degrees]), np.array([1.0 / scale]))
    if mirrored:
        matrix[:, 0] = -matrix[:, 0]
    return warp(images, matrix)
