"""One picture of any shape to one square of a pack: cropped, resized once with antialiasing, made square."""

from typing import Literal

import numpy as np
from PIL import Image

from pipelines.core.crops import Crop
from pipelines.core.images import Pixels

Fit = Literal["letterbox", "crop", "stretch"]

GREY = 128
"""of the borders of a letterbox"""


def to_square(pixels: Pixels, *, crop: Crop, fit: Fit, image_size: int) -> Pixels:
    """The part `crop` of a picture as a square.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        crop: the part that counts.
        fit: letterbox keeps all of it and its shape, between grey borders; crop keeps its shape and loses what
            stands out on the longer side; stretch keeps all of it and loses its shape.
        image_size: S, pixels.

    Returns:
        (S, S, 3) uint8.
    """
    height, width = pixels.shape[:2]
    left, right = _whole_pixels(crop.left, crop.right, width)
    top, bottom = _whole_pixels(crop.top, crop.bottom, height)
    if fit == "crop":
        left, top, right, bottom = _middle_square(left, top, right, bottom)
    size = (image_size, image_size)
    if fit == "letterbox":
        size = _inside(right - left, bottom - top, image_size)
    # cut first: Pillow's resize with a box lets pixels from beyond it bleed in
    image = Image.fromarray(np.ascontiguousarray(pixels[top:bottom, left:right]))
    if image.size != size:
        image = image.resize(size, Image.Resampling.BICUBIC)
    small = np.asarray(image)
    if size == (image_size, image_size):
        return small
    square = np.full((image_size, image_size, 3), GREY, np.uint8)
    x, y = (image_size - size[0]) // 2, (image_size - size[1]) // 2
    square[y : y + size[1], x : x + size[0]] = small
    return square


def _whole_pixels(low: float, high: float, side: int) -> tuple[int, int]:
    """The range as pixels, at least one."""
    first = min(round(low * side), side - 1)
    return first, max(round(high * side), first + 1)


def _middle_square(left: int, top: int, right: int, bottom: int) -> tuple[int, int, int, int]:
    side = min(right - left, bottom - top)
    x, y = (left + right - side) // 2, (top + bottom - side) // 2
    return (x, y, x + side, y + side)


def _inside(width: int, height: int, image_size: int) -> tuple[int, int]:
    """The largest size of the same shape inside the square; at least one pixel."""
    scale = image_size / max(width, height)
    return (max(1, round(width * scale)), max(1, round(height * scale)))
