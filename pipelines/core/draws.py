"""The random numbers of augmentation: a draw for each picture that depends on (seed, epoch, picture) alone.

Counter-based: a number is a hash of what it is for, so batch size, order, device and number of workers change
nothing, and nothing has to be saved to resume. The hash is the finaliser of SplitMix64 (Steele, Lea and Flood,
"Fast splittable pseudorandom number generators", 2014), chained over the parts of the key.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipelines.core.params.augment import AugmentPolicy

Keys = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]

# one stream of numbers for each use: a new change takes a new number, and the old ones draw as before
FLIP, ROTATION, SHIFT_X, SHIFT_Y, ZOOM, BRIGHTNESS, CONTRAST, SATURATION = range(8)
ERASE, ERASE_AREA, ERASE_ASPECT, ERASE_X, ERASE_Y = range(8, 13)
ORDER = 100

ERASE_AREAS = (0.02, 0.2)
"""smallest and largest share of the picture that is greyed out"""
ERASE_ASPECTS = (0.5, 2.0)
"""narrowest and widest rectangle, width over height"""


@dataclass(frozen=True)
class Draws:
    """What happens to B pictures; every array is (B,).

    Args:
        flip: bool, mirrored or not.
        angle: degrees, counter-clockwise.
        shift_x, shift_y: fraction of the side, to the right and down.
        zoom: factor of size; 1 leaves it.
        brightness, contrast, saturation: factors; 1 leaves them.
        erase_left, erase_top, erase_width, erase_height: the greyed rectangle, fractions of the side; no width: none.
    """

    flip: npt.NDArray[np.bool_]
    angle: Floats
    shift_x: Floats
    shift_y: Floats
    zoom: Floats
    brightness: Floats
    contrast: Floats
    saturation: Floats
    erase_left: Floats
    erase_top: Floats
    erase_width: Floats
    erase_height: Floats


def picture_keys(image_ids: npt.NDArray[np.str_]) -> Keys:
    """(N,) uint64: the first 64 bits of each picture's sha256."""
    return np.array([int(image_id[:16], 16) for image_id in image_ids.tolist()], np.uint64)


def uniform(seed: int, epoch: int, pictures: Keys, stream: int) -> Floats:
    """(B,) float64, uniform in [0, 1): one number a picture."""
    state = _mix(np.uint64(seed))
    for part in (np.uint64(epoch), pictures, np.uint64(stream)):
        state = _mix(state ^ _mix(part))
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


def draw(policy: AugmentPolicy, *, seed: int, epoch: int, pictures: Keys) -> Draws:
    """Draw what `policy` does to each of `pictures` in `epoch`."""

    def chance(probability: float, stream: int) -> npt.NDArray[np.bool_]:
        return uniform(seed, epoch, pictures, stream) < probability

    def either_way(largest: float, stream: int) -> Floats:
        return largest * (2.0 * uniform(seed, epoch, pictures, stream) - 1.0)

    def between(low: float, high: float, stream: int) -> Floats:
        return low + (high - low) * uniform(seed, epoch, pictures, stream)

    area = between(*ERASE_AREAS, ERASE_AREA)
    # as often twice as wide as half as wide: uniform in the logarithm
    aspect = np.exp(between(math.log(ERASE_ASPECTS[0]), math.log(ERASE_ASPECTS[1]), ERASE_ASPECT))
    width, height = np.sqrt(area * aspect), np.sqrt(area / aspect)
    erased = chance(policy.erase, ERASE)
    return Draws(
        flip=chance(policy.flip, FLIP),
        angle=either_way(policy.rotation, ROTATION),
        shift_x=either_way(policy.shift, SHIFT_X),
        shift_y=either_way(policy.shift, SHIFT_Y),
        # as often larger as smaller
        zoom=np.exp(either_way(float(np.log1p(policy.zoom)), ZOOM)),
        brightness=1.0 + either_way(policy.brightness, BRIGHTNESS),
        contrast=1.0 + either_way(policy.contrast, CONTRAST),
        saturation=1.0 + either_way(policy.saturation, SATURATION),
        erase_left=uniform(seed, epoch, pictures, ERASE_X) * (1.0 - width),
        erase_top=uniform(seed, epoch, pictures, ERASE_Y) * (1.0 - height),
        erase_width=np.where(erased, width, 0.0),
        erase_height=np.where(erased, height, 0.0),
    )


def _mix(value: npt.NDArray[np.uint64] | np.uint64) -> Keys:
    """One step of SplitMix64: every bit of the result depends on every bit of `value`."""
    mixed = np.atleast_1d(np.asarray(value, np.uint64))  # arrays wrap around silently, as meant; scalars warn
    mixed = mixed + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
