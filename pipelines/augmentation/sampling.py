"""What a policy does to each picture: its changes, drawn from (seed, epoch, picture).

RandAugment (Cubuk et al. 2020) and TrivialAugment's wide space (Müller and Hutter 2021) have the same fourteen
changes, each with its own range for the strengths 0 to 30. TrivialAugment moves a picture by up to 32 pixels of 224 or
so; here that is a fraction of the side, since 32 pixels of 32 would leave nothing to see.
"""

import math
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipelines.augmentation import random as streams
from pipelines.augmentation.random import Floats, Keys, uniforms
from pipelines.params.augment import AugmentPolicy, RandAugment, TrivialAugment

Flags = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

ERASE_AREAS = (0.02, 0.2)
"""smallest and largest share of the picture that is greyed out"""
ERASE_ASPECTS = (0.5, 2.0)
"""narrowest and widest rectangle, width over height"""
CROP_ASPECTS = (3 / 4, 4 / 3)
"""narrowest and widest part that is cut out"""
LEAST_BLUR = 0.25
"""of the largest: much less is not seen"""
MAX_QUALITY = 95
"""of a JPEG: above it nothing is seen"""
MAX_STROKES = 3
NUMBERS_OF_STROKE = 14
"""the place of its window, four points in there, its width and its colour"""
MAX_STRENGTH = 30
"""of RandAugment and TrivialAugment"""


Op = IntEnum(
    "Op",
    "IDENTITY SHEAR_X SHEAR_Y TRANSLATE_X TRANSLATE_Y ROTATE BRIGHTNESS COLOR CONTRAST SHARPNESS POSTERIZE SOLARIZE "
    "AUTOCONTRAST EQUALIZE",
    start=0,
)
"""The changes of RandAugment and TrivialAugment."""
GEOMETRY = frozenset({Op.SHEAR_X, Op.SHEAR_Y, Op.TRANSLATE_X, Op.TRANSLATE_Y, Op.ROTATE})


class _Range(NamedTuple):
    """Of the change's one number: what it is at strength 0, and at 30 in each space.

    Args:
        both_ways: the difference from the start goes up or down, by a coin.
        whole: rounded to an integer.
    """

    start: float = 0.0
    rand: float = 0.0
    trivial: float = 0.0
    both_ways: bool = False
    whole: bool = False


_FACTOR = _Range(start=1.0, rand=1.9, trivial=1.99, both_ways=True)
_SHEAR = _Range(rand=0.3, trivial=0.99, both_ways=True)
_TRANSLATE = _Range(rand=150 / 331, trivial=32 / 224, both_ways=True)

RANGES: dict[Op, _Range] = {
    Op.IDENTITY: _Range(),
    Op.SHEAR_X: _SHEAR,
    Op.SHEAR_Y: _SHEAR,
    Op.TRANSLATE_X: _TRANSLATE,
    Op.TRANSLATE_Y: _TRANSLATE,
    Op.ROTATE: _Range(rand=30.0, trivial=135.0, both_ways=True),
    Op.BRIGHTNESS: _FACTOR,
    Op.COLOR: _FACTOR,
    Op.CONTRAST: _FACTOR,
    Op.SHARPNESS: _FACTOR,
    Op.POSTERIZE: _Range(start=8.0, rand=4.0, trivial=2.0, whole=True),
    Op.SOLARIZE: _Range(start=255.0, rand=0.0, trivial=0.0),
    Op.AUTOCONTRAST: _Range(),
    Op.EQUALIZE: _Range(),
}
"""shear: tangent; translate: fraction of the side; rotate: degrees; brightness, colour, contrast and sharpness: factor;
posterize: bits kept; solarize: the grey level from which on the picture is inverted"""


def sample_auto_augment(
    auto: RandAugment | TrivialAugment | None, *, seed: int, epoch: int, pictures: Keys
) -> tuple[Ints, Floats]:
    """Draw the changes of each of `pictures`, in order.

    Returns:
        (B, R) int64 codes of `Op`, and (B, R) the number that each takes (`RANGES`).
    """
    num_rounds = 0 if auto is None else 1 if isinstance(auto, TrivialAugment) else auto.num_ops
    if auto is None or not num_rounds:
        return np.zeros((len(pictures), 0), np.int64), np.zeros((len(pictures), 0))
    start, rand, trivial, both_ways, whole = (np.array(column) for column in zip(*map(RANGES.get, Op), strict=True))
    numbers = uniforms(seed, epoch, pictures, range(streams.AUTO, streams.AUTO + 3 * num_rounds))
    which, strength, side = numbers.reshape(num_rounds, 3, -1).transpose(1, 2, 0)  # each (B, R)
    ops = (which * len(Op)).astype(np.int64)
    if isinstance(auto, RandAugment):
        strength, end = np.full_like(strength, auto.magnitude), rand
    else:
        strength, end = np.floor(strength * (MAX_STRENGTH + 1)), trivial
    change = (end - start)[ops] * strength / MAX_STRENGTH
    change = np.where(both_ways[ops] & (side < 0.5), -change, change)
    # half to even, as both papers' code rounds the number of bits that go
    change = np.where(whole[ops], np.round(change), change)
    return ops, start[ops] + change


@dataclass(frozen=True)
class SampledParams:
    """What happens to B pictures; every array is (B,) but for those that say otherwise.

    Args:
        hflip, vflip: bool, mirrored or not.
        angle: degrees, counter-clockwise.
        shift_x, shift_y: fraction of the side, to the right and down.
        zoom: factor of size; 1 leaves it.
        shear_x, shear_y: degrees; rows slide to the left below the middle, columns up right of it.
        corners: (B, 8), how far the corners (top left, top right, bottom right, bottom left; x then y of each) move
            to the middle, as a fraction of the way there.
        crop_left, crop_top, crop_width, crop_height: the part that is cut out, fractions of the side.
        erase_left, erase_top, erase_width, erase_height: the greyed rectangle, fractions of the side; no width: none.
        brightness, contrast, saturation: factors; 1 leaves them.
        hue: share of the colour circle, from red towards green.
        blur: standard deviation, fraction of the side; 0: none.
        noise: standard deviation, grey levels.
        noise_place: in [0, 1), where in the table of noise.
        jpeg: int64, quality; 0: none.
        num_strokes: int64.
        strokes: (B, 3, 14) in [0, 1), what a stroke looks like (`photometric.scribble`); (B, 0, 14) where nothing
            scribbles.
        auto_op, auto_value: (B, R) int64 and float64, the R changes of RandAugment or TrivialAugment in order
            (`RANGES`).
    """

    hflip: Flags
    vflip: Flags
    angle: Floats
    shift_x: Floats
    shift_y: Floats
    zoom: Floats
    shear_x: Floats
    shear_y: Floats
    corners: Floats
    crop_left: Floats
    crop_top: Floats
    crop_width: Floats
    crop_height: Floats
    erase_left: Floats
    erase_top: Floats
    erase_width: Floats
    erase_height: Floats
    brightness: Floats
    contrast: Floats
    saturation: Floats
    hue: Floats
    blur: Floats
    noise: Floats
    noise_place: Floats
    jpeg: Ints
    num_strokes: Ints
    strokes: Floats
    auto_op: Ints
    auto_value: Floats

    def __len__(self) -> int:
        return len(self.hflip)

    def part(self, first: int, last: int) -> "SampledParams":
        """Of the pictures first, first + 1, ..., last - 1."""
        return replace(self, **{field.name: getattr(self, field.name)[first:last] for field in fields(self)})


def sample_params(policy: AugmentPolicy, *, seed: int, epoch: int, pictures: Keys) -> SampledParams:
    """Draw what `policy` does to each of `pictures` in `epoch`."""
    number = uniforms(seed, epoch, pictures, range(streams.NUM_STREAMS))  # (NUM_STREAMS, B)

    def either_way(largest: float, stream: int) -> Floats:
        return np.asarray(largest * (2.0 * number[stream] - 1.0))

    erase_width, erase_height = _rectangle(
        _between(ERASE_AREAS, number[streams.ERASE_AREA]), ERASE_ASPECTS, number[streams.ERASE_ASPECT]
    )
    erased = number[streams.ERASE] < policy.random_erasing
    crop_width, crop_height = _crop(policy.random_resized_crop, number[streams.CROP_AREA], number[streams.CROP_ASPECT])
    blur, jpeg = np.zeros(len(pictures)), np.zeros(len(pictures), np.int64)
    if policy.blur:
        sigma = _between((LEAST_BLUR * policy.blur.sigma, policy.blur.sigma), number[streams.BLUR_SIGMA])
        blur = np.where(number[streams.BLUR] < policy.blur.probability, sigma, 0.0)
    if policy.jpeg:
        lowest = policy.jpeg.quality
        quality = lowest + np.floor((MAX_QUALITY + 1 - lowest) * number[streams.JPEG_QUALITY]).astype(np.int64)
        jpeg = np.where(number[streams.JPEG] < policy.jpeg.probability, quality, 0)
    num_strokes = 1 + np.floor(MAX_STROKES * number[streams.NUM_STROKES]).astype(np.int64)
    most = MAX_STROKES if policy.scribble else 0
    strokes = uniforms(seed, epoch, pictures, range(streams.STROKES, streams.STROKES + most * NUMBERS_OF_STROKE))
    auto_op, auto_value = sample_auto_augment(policy.auto_augment, seed=seed, epoch=epoch, pictures=pictures)
    return SampledParams(
        hflip=number[streams.FLIP] < policy.hflip,
        vflip=number[streams.FLIP_VERTICAL] < policy.vflip,
        angle=either_way(policy.degrees, streams.ROTATION),
        shift_x=either_way(policy.translate, streams.SHIFT_X),
        shift_y=either_way(policy.translate, streams.SHIFT_Y),
        # as often larger as smaller
        zoom=np.exp(either_way(float(np.log1p(policy.scale)), streams.ZOOM)),
        shear_x=either_way(policy.shear, streams.SHEAR_X),
        shear_y=either_way(policy.shear, streams.SHEAR_Y),
        corners=policy.perspective * number[streams.CORNERS : streams.CORNERS + 8].T,
        crop_left=number[streams.CROP_X] * (1.0 - crop_width),
        crop_top=number[streams.CROP_Y] * (1.0 - crop_height),
        crop_width=crop_width,
        crop_height=crop_height,
        erase_left=number[streams.ERASE_X] * (1.0 - erase_width),
        erase_top=number[streams.ERASE_Y] * (1.0 - erase_height),
        erase_width=np.where(erased, erase_width, 0.0),
        erase_height=np.where(erased, erase_height, 0.0),
        brightness=1.0 + either_way(policy.brightness, streams.BRIGHTNESS),
        contrast=1.0 + either_way(policy.contrast, streams.CONTRAST),
        saturation=1.0 + either_way(policy.saturation, streams.SATURATION),
        hue=either_way(policy.hue, streams.HUE),
        blur=blur,
        noise=policy.noise * number[streams.NOISE],
        noise_place=number[streams.NOISE_PLACE],
        jpeg=jpeg,
        num_strokes=np.where(number[streams.SCRIBBLE] < policy.scribble, num_strokes, 0),
        strokes=strokes.T.reshape(len(pictures), most, NUMBERS_OF_STROKE),
        auto_op=auto_op,
        auto_value=auto_value,
    )


def _between(ends: tuple[float, float], number: Floats) -> Floats:
    return ends[0] + (ends[1] - ends[0]) * number


def _rectangle(area: Floats, aspects: tuple[float, float], number: Floats) -> tuple[Floats, Floats]:
    """Width and height; as often twice as wide as half as wide: uniform in the logarithm."""
    aspect = np.exp(_between((math.log(aspects[0]), math.log(aspects[1])), number))
    return np.sqrt(area * aspect), np.sqrt(area / aspect)


def _crop(smallest: float, area: Floats, aspect: Floats) -> tuple[Floats, Floats]:
    """Width and height of the part that is cut out; a side that would be longer than the picture's is as long."""
    if smallest == 1.0:
        return np.ones_like(area), np.ones_like(area)
    width, height = _rectangle(_between((smallest, 1.0), area), CROP_ASPECTS, aspect)
    return np.minimum(width, 1.0), np.minimum(height, 1.0)
