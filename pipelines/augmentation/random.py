"""Uniform numbers by counting, and which is for what.

A number is a hash of what it is for, so batch size, order, device and number of workers change nothing, and nothing
has to be saved to resume. The hash is the finaliser of SplitMix64 (Steele, Lea and Flood, "Fast splittable
pseudorandom number generators", 2014), chained over the parts of the key.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]

# one stream of numbers for each use: a new change takes new numbers, and the old ones draw as before
FLIP, ROTATION, SHIFT_X, SHIFT_Y, ZOOM, BRIGHTNESS, CONTRAST, SATURATION = range(8)
ERASE, ERASE_AREA, ERASE_ASPECT, ERASE_X, ERASE_Y = range(8, 13)
FLIP_VERTICAL, SHEAR_X, SHEAR_Y = range(13, 16)
CORNERS = 16  # and the seven after it
CROP_AREA, CROP_ASPECT, CROP_X, CROP_Y = range(24, 28)
HUE, BLUR, BLUR_SIGMA, NOISE, NOISE_PLACE, JPEG, JPEG_QUALITY, SCRIBBLE, NUM_STROKES = range(28, 37)
NUM_STREAMS = 37
AUTO = 40  # and the 23 after it: three for each of at most eight changes
ORDER = 100
STROKES = 200  # and the 41 after it: 14 for each of at most three strokes


def picture_keys(image_ids: npt.NDArray[np.str_]) -> Keys:
    """(N,) uint64: the first 64 bits of each picture's sha256."""
    return np.array([int(image_id[:16], 16) for image_id in image_ids.tolist()], np.uint64)


def uniform(seed: int, epoch: int, pictures: Keys, stream: int) -> Floats:
    """(B,) float64, uniform in [0, 1): one number a picture."""
    return np.asarray(uniforms(seed, epoch, pictures, [stream])[0])


def uniforms(seed: int, epoch: int, pictures: Keys, streams: Sequence[int]) -> Floats:
    """(len(streams), B) float64, uniform in [0, 1): of each stream one number a picture."""
    state = _mix(np.uint64(seed))
    for part in (np.uint64(epoch), pictures):
        state = _mix(state ^ _mix(part))
    state = _mix(state ^ _mix(np.array(streams, np.uint64))[:, None])  # (len(streams), B)
    return np.asarray((state >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def _mix(value: npt.NDArray[np.uint64] | np.uint64) -> Keys:
    """One step of SplitMix64: every bit of the result depends on every bit of `value`."""
    mixed = np.atleast_1d(np.asarray(value, np.uint64))  # arrays wrap around silently, as meant; scalars warn
    mixed = mixed + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
