"""64-bit perceptual hashes from thumbnails, of the whole picture and of crops of it, without opening a file.

A hash holds the signs of the lowest 64 frequencies of a cosine transform but the mean: brightness, contrast, gamma
and recompression hardly move them. A mirrored picture has the same frequencies with the odd horizontal ones negated,
so its hash is one exclusive or away. A crop followed by a resize is a matrix on either side of the thumbnail, so the
hash of a crop costs what the hash of the picture costs.

All sums are of whole numbers below 2**53 held in float64, so every hash is exact: no BLAS, thread count or CPU
changes a bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SIDE = 32
"""width and height of a thumbnail, pixels"""

Hashes = npt.NDArray[np.uint64]
Thumbnails = npt.NDArray[np.uint8]
Weights = npt.NDArray[np.float64]

_NUM_FREQUENCIES = 9
# 8 x 8 frequencies; the mean says nothing about content, the next horizontal one takes its place
_FREQUENCIES = [(v, u) for v in range(8) for u in range(8) if (v, u) != (0, 0)] + [(0, 8)]
# 13 bits for a weight: 8 + 5 + 13 + 5 + 13 bits in all, far below the 53 that float64 holds exactly
_WEIGHT_SCALE = 2**12
# pictures at a time: 16 MB of float64, near enough to the cache
_CHUNK = 2048


@dataclass(frozen=True)
class View:
    """The part of a picture that is looked at, as fractions of its width and height."""

    left: float
    top: float
    right: float
    bottom: float


WHOLE = View(0.0, 0.0, 1.0, 1.0)


def crop_views(amounts: tuple[float, ...]) -> tuple[View, ...]:
    """The four corner crops and the centre crop that take each amount off the width and the height."""
    return tuple(
        View(left, top, left + 1.0 - amount, top + 1.0 - amount)
        for amount in amounts
        for left, top in ((0.0, 0.0), (amount, 0.0), (0.0, amount), (amount, amount), (amount / 2, amount / 2))
    )


def side_views(amount: float) -> tuple[View, ...]:
    """The four crops that take the amount off one side."""
    return (
        View(amount, 0.0, 1.0, 1.0),
        View(0.0, amount, 1.0, 1.0),
        View(0.0, 0.0, 1.0 - amount, 1.0),
        View(0.0, 0.0, 1.0, 1.0 - amount),
    )


def resample_matrix(start: float, stop: float) -> Weights:
    """The (32, 32) matrix that stretches the part [start, stop] of 32 pixels to 32 pixels, linearly."""
    at = np.clip((start + (np.arange(SIDE) + 0.5) / SIDE * (stop - start)) * SIDE - 0.5, 0, SIDE - 1)
    low = np.minimum(at.astype(np.int64), SIDE - 2)
    matrix = np.zeros((SIDE, SIDE))
    matrix[np.arange(SIDE), low] = 1 - (at - low)
    matrix[np.arange(SIDE), low + 1] = at - low
    return matrix


def _cosines() -> Weights:
    """The (9, 32) lowest rows of the cosine transform."""
    frequency, position = np.arange(_NUM_FREQUENCIES)[:, None], np.arange(SIDE)[None]
    return np.cos(np.pi * frequency * (2 * position + 1) / (2 * SIDE))


def mirror_mask() -> np.uint64:
    """Exclusive or with this turns a picture's hash into that of its mirror image."""
    odd = [u % 2 == 1 for _, u in _FREQUENCIES]
    mask: np.uint64 = _pack(np.array([odd]))[0]
    return mask


def hash_view(thumbnails: Thumbnails, view: View) -> Hashes:
    """The hash of the part `view` of each picture: (N,) uint64 of N (32, 32) thumbnails."""
    return hash_views(thumbnails, (view,))[0]


def hash_views(thumbnails: Thumbnails, views: Sequence[View]) -> list[Hashes]:
    """The hashes of several parts of each picture, in one pass over the pictures.

    Views share their rows with others, so the transform along the columns is made once for each pair of top and
    bottom, and all of it is a few large matrix products instead of many small ones: a fifth of the time.

    Args:
        thumbnails: (N, 32, 32) uint8, grey; may be memory-mapped.
        views: V parts.

    Returns:
        V arrays (N,) uint64.
    """
    cosines = _cosines()
    spans = sorted({(view.top, view.bottom) for view in views})
    down = np.concatenate([_weights(cosines, *span) for span in spans])  # (S * 9, 32)
    across = [_weights(cosines, view.left, view.right).T.copy() for view in views]  # V of (32, 9)
    rows, columns = (list(axis) for axis in zip(*_FREQUENCIES, strict=True))
    hashes = [np.empty(len(thumbnails), np.uint64) for _ in views]
    for start in range(0, len(thumbnails), _CHUNK):
        chunk = thumbnails[start : start + _CHUNK]
        # the rows of all pictures side by side: (32, n * 32)
        by_row = np.ascontiguousarray(chunk.transpose(1, 0, 2)).reshape(SIDE, -1).astype(np.float64)
        along = (down @ by_row).reshape(len(spans), _NUM_FREQUENCIES * len(chunk), SIDE)
        for view, weights, found in zip(views, across, hashes, strict=True):
            parts = along[spans.index((view.top, view.bottom))] @ weights  # (9 * n, 9)
            coefficients = parts.reshape(_NUM_FREQUENCIES, len(chunk), _NUM_FREQUENCIES)
            found[start : start + _CHUNK] = _pack((coefficients[rows, :, columns] > 0).T)
    return hashes


def _weights(cosines: Weights, start: float, stop: float) -> Weights:
    """(9, 32) whole numbers: the transform of the part [start, stop] of 32 pixels."""
    rounded: Weights = np.rint(cosines @ resample_matrix(start, stop) * _WEIGHT_SCALE)
    return rounded


def _pack(bits: npt.NDArray[np.bool_]) -> Hashes:
    """(N, 64) truth values to (N,) uint64. Neighbouring frequencies, which vary together, go to different quarters
    of the hash, since the search looks quarters up one by one."""
    order = np.arange(64).reshape(16, 4).T.ravel()
    octets = np.ascontiguousarray(np.packbits(bits[:, order], axis=1, bitorder="little"))
    packed: Hashes = octets.view("<u8")[:, 0].astype(np.uint64)
    return packed
