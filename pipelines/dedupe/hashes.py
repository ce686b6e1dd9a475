"""64-bit perceptual hashes from thumbnails, of the whole picture and of crops of it, without opening a file.

A hash holds the signs of the lowest 64 frequencies of a cosine transform but the mean: brightness, contrast, gamma
and recompression hardly move them. A mirrored picture has the same frequencies with the odd horizontal ones negated,
so its hash is one exclusive or away. A crop followed by a resize is a matrix on either side of the thumbnail, so the
hash of a crop costs what the hash of the picture costs.

All sums are of whole numbers below 2**53 held in float64, so every hash is exact: no BLAS, thread count or CPU
changes a bit.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipelines.parallel.pool import num_workers

SIDE = 32
"""width and height of a thumbnail, pixels"""

Hashes = npt.NDArray[np.uint64]
Thumbnails = npt.NDArray[np.uint8]
Weights = npt.NDArray[np.float64]

Indices = npt.NDArray[np.int64]

_NUM_FREQUENCIES = 9
# 8 x 8 frequencies; the mean says nothing about content, the next horizontal one takes its place
_FREQUENCIES = [(v, u) for v in range(8) for u in range(8) if (v, u) != (0, 0)] + [(0, 8)]
# neighbouring frequencies, which vary together, go to different quarters of the hash, which the search looks up alone
_ORDER = [4 * step + quarter for quarter in range(4) for step in range(16)]
# 13 bits for a weight: 8 + 5 + 13 + 5 + 13 bits in all, far below the 53 that float64 holds exactly
_WEIGHT_SCALE = 2**12
# pictures at a time: 5 MB of products stay near the cache
_CHUNK = 256


@dataclass(frozen=True)
class Chosen:
    """Some of many thumbnails, read when they are asked for: a copy of a million would take 1 GB.

    Args:
        every: (N, 32, 32) uint8; may be memory-mapped.
        rows: (M,) of them.
    """

    every: Thumbnails
    rows: Indices

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, which: slice | Indices) -> Thumbnails:
        return self.every[self.rows[which]]


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
    odd = np.arange(_NUM_FREQUENCIES) % 2 == 1
    mask: np.uint64 = _pack_all(np.tile(odd, (1, _NUM_FREQUENCIES, 1)))[0, 0]
    return mask


def hash_view(thumbnails: Thumbnails | Chosen, view: View, *, turns: int = 0) -> Hashes:
    """The hash of the part `view` of each picture: (N,) uint64 of N (32, 32) thumbnails."""
    return hash_views(thumbnails, (view,), turns=turns)[0]


def hash_views(thumbnails: Thumbnails | Chosen, views: Sequence[View], *, turns: int = 0) -> list[Hashes]:
    """The hashes of several parts of each picture, in one pass over the pictures.

    Views share their rows with others, so the transform along the columns is made once for each pair of top and
    bottom. The products are many small ones: for large ones BLAS wakes its threads, which then burn as much time
    waiting as they save.

    Args:
        thumbnails: (N, 32, 32) uint8, grey; may be memory-mapped.
        views: V parts.
        turns: quarter turns, anticlockwise, before that.

    Returns:
        V arrays (N,) uint64.
    """
    cosines = _cosines()
    of_span: dict[tuple[float, float], list[int]] = {}
    for number, view in enumerate(views):
        of_span.setdefault((view.top, view.bottom), []).append(number)
    down = np.concatenate([_weights(cosines, *span) for span in of_span])  # (S * 9, 32)
    across = [
        np.concatenate([_weights(cosines, views[one].left, views[one].right) for one in inside]).T.copy()
        for inside in of_span.values()
    ]  # S of (32, 9 * its views)
    hashes = [np.empty(len(thumbnails), np.uint64) for _ in views]

    def fill(start: int) -> None:
        pictures = np.rot90(thumbnails[start : start + _CHUNK], turns, axes=(1, 2)).astype(np.float64)
        along = down @ pictures  # (n, S * 9, 32)
        for span, (inside, weights) in enumerate(zip(of_span.values(), across, strict=True)):
            first = span * _NUM_FREQUENCIES
            positive = along[:, first : first + _NUM_FREQUENCIES] @ weights > 0  # (n, 9, 9 * its views)
            for number, found in zip(inside, _pack_all(positive), strict=True):
                hashes[number][start : start + _CHUNK] = found

    with ThreadPoolExecutor(num_workers()) as pool:
        for _ in pool.map(fill, range(0, len(thumbnails), _CHUNK)):
            pass  # an error of `fill` is raised here
    return hashes


def _weights(cosines: Weights, start: float, stop: float) -> Weights:
    """(9, 32) whole numbers: the transform of the part [start, stop] of 32 pixels."""
    rounded: Weights = np.rint(cosines @ resample_matrix(start, stop) * _WEIGHT_SCALE)
    return rounded


def _pack_all(positive: npt.NDArray[np.bool_]) -> Hashes:
    """The (K, n) hashes of K views from the signs of their frequencies, (n, 9, 9 * K)."""
    count, width = len(positive), positive.shape[2]
    rows, columns = np.array(_FREQUENCIES)[_ORDER].T
    views = np.arange(width // _NUM_FREQUENCIES)[:, None]
    place = rows * width + views * _NUM_FREQUENCIES + columns  # (K, 64)
    bits = positive.reshape(count, -1).take(place.ravel(), axis=1)
    octets = np.packbits(bits, axis=1, bitorder="little")
    packed: Hashes = octets.view("<u8").T.astype(np.uint64)
    return packed
