"""The part of a picture that counts."""

from typing import NamedTuple


class Crop(NamedTuple):
    """The part of a picture that is kept; fractions of its width and height, upright, from the top left."""

    left: float
    top: float
    right: float
    bottom: float


WHOLE = Crop(0.0, 0.0, 1.0, 1.0)
