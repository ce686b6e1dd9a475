"""RandAugment (Cubuk et al. 2020) and TrivialAugment's wide space (Müller and Hutter 2021): which change, how strong.

Both have the same fourteen changes, each with its own range for the strengths 0 to 30. TrivialAugment moves a picture
by up to 32 pixels of 224 or so; here that is a fraction of the side, since 32 pixels of 32 would leave nothing to see.
"""

from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipelines.augmentation.random import AUTO, Floats, Keys, uniforms
from pipelines.params.augment import RandAugment, TrivialAugment

MAX_STRENGTH = 30

Ops = npt.NDArray[np.int64]


class Op(IntEnum):
    IDENTITY = 0
    SHEAR_X = 1
    SHEAR_Y = 2
    TRANSLATE_X = 3
    TRANSLATE_Y = 4
    ROTATE = 5
    BRIGHTNESS = 6
    COLOR = 7
    CONTRAST = 8
    SHARPNESS = 9
    POSTERIZE = 10
    SOLARIZE = 11
    AUTOCONTRAST = 12
    EQUALIZE = 13


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
) -> tuple[Ops, Floats]:
    """Draw the changes of each of `pictures`, in order.

    Returns:
        (B, R) int64 codes of `Op`, and (B, R) the number that each takes (`RANGES`).
    """
    num_rounds = 0 if auto is None else 1 if isinstance(auto, TrivialAugment) else auto.num_ops
    if auto is None or not num_rounds:
        return np.zeros((len(pictures), 0), np.int64), np.zeros((len(pictures), 0))
    numbers = uniforms(seed, epoch, pictures, range(AUTO, AUTO + 3 * num_rounds))
    which, strength, side = numbers.reshape(num_rounds, 3, -1).transpose(1, 2, 0)  # each (B, R)
    ops = (which * len(Op)).astype(np.int64)
    if isinstance(auto, RandAugment):
        strength = np.full_like(strength, auto.magnitude)
        ends = np.array([RANGES[op].rand for op in Op])
    else:
        strength = np.floor(strength * (MAX_STRENGTH + 1))
        ends = np.array([RANGES[op].trivial for op in Op])
    starts = np.array([RANGES[op].start for op in Op])
    both_ways = np.array([RANGES[op].both_ways for op in Op])
    whole = np.array([RANGES[op].whole for op in Op])
    change = (ends - starts)[ops] * strength / MAX_STRENGTH
    change = np.where(both_ways[ops] & (side < 0.5), -change, change)
    # half to even, as both papers' code rounds the number of bits that go
    change = np.where(whole[ops], np.round(change), change)
    return ops, starts[ops] + change
