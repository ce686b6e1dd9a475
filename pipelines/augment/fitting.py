"""One picture of any shape to one square of a pack: cropped, resized with antialiasing, made square."""

import math
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from pipelines.augmentation.packs import GREY
from pipelines.core.decisions import Crop
from pipelines.images.decoding import Pixels, ReducedImage

Fit = Literal["letterbox", "center_crop", "squash"]

SPARE = 2.0
"""how many times larger than its place in the pack a picture is decoded at least, where it is larger than that: then
what the decoder leaves out, the resize would too. On photographs of 400 px the pixels of the pack move by 0.3 of 255
on average (1.3 at 1.0, 0.15 at 3.0), in half to a third of the time"""


class Placement(NamedTuple):
    """Which part of a picture becomes which part of a square."""

    box: tuple[int, int, int, int]
    """left, top, right, bottom: pixels of the whole picture at its own size"""
    size: tuple[int, int]
    """width and height that the part takes of the square, pixels"""


def place(width: int, height: int, *, crop: Crop, fit: Fit, image_size: int) -> Placement:
    """Where a picture of `width` x `height` goes.

    Args:
        crop: the part that counts.
        fit: letterbox keeps all of it and its shape, between grey borders; center_crop keeps its shape and loses what
            stands out on the longer side; squash keeps all of it and loses its shape.
        image_size: S, pixels.
    """
    left, right = _whole_pixels(crop.left, crop.right, width)
    top, bottom = _whole_pixels(crop.top, crop.bottom, height)
    if fit == "center_crop":
        left, top, right, bottom = _middle_square(left, top, right, bottom)
    size = (image_size, image_size)
    if fit == "letterbox":
        size = _inside(right - left, bottom - top, image_size)
    return Placement((left, top, right, bottom), size)


def least_size(width: int, height: int, placement: Placement) -> tuple[float, float]:
    """Width and height at which the whole picture may be decoded, so that its part is `SPARE` times its place."""
    left, top, right, bottom = placement.box
    return (SPARE * placement.size[0] * width / (right - left), SPARE * placement.size[1] * height / (bottom - top))


def to_square(picture: ReducedImage, *, width: int, height: int, placement: Placement, image_size: int) -> Pixels:
    """The part of a picture that `placement` names, as a square.

    Args:
        picture: decoded at its own size or a smaller one.
        width, height: its own size, pixels.
        image_size: S, pixels.

    Returns:
        (S, S, 3) uint8.
    """
    across, down = picture.width / width, picture.height / height
    left, top, right, bottom = placement.box
    box = (left * across, top * down, right * across, bottom * down)
    first_x, first_y, last_x, last_y = int(box[0]), int(box[1]), math.ceil(box[2]), math.ceil(box[3])
    # cut first: Pillow's resize with a box lets pixels from beyond it bleed in
    image = Image.fromarray(np.ascontiguousarray(picture.pixels[first_y:last_y, first_x:last_x]))
    size = placement.size
    inside = (
        box[0] - first_x,
        box[1] - first_y,
        min(box[2] - first_x, image.width),
        min(box[3] - first_y, image.height),
    )
    if image.size != size:
        image = image.resize(size, Image.Resampling.BICUBIC, box=inside)
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
