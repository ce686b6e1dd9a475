"""64-bit perceptual hashes of thumbnails and of crops of them, and an exact search for hashes at most 7 bits apart.

A hash holds the signs of the 64 lowest frequencies of a cosine transform without the mean: brightness, contrast, gamma
and recompression hardly change them. Mirroring negates the odd horizontal frequencies, so the mirrored hash is one
exclusive or away. Crop and resize are a matrix on either side of the thumbnail, so the hash of a crop costs as much as
that of the whole. All sums are of whole numbers below 2**53 in float64: exact on every BLAS, thread count and CPU.

The search is multi-index hashing (Norouzi, Punjani and Fleet 2012): two hashes at most 7 bits apart differ in at most
one bit of at least one of their four 16-bit quarters. Each quarter of a query is looked up under its 17 keys (itself,
and with each bit flipped) and compared with the hashes in those buckets only.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipelines.images.decoding import THUMBNAIL_SIDE as SIDE
from pipelines.parallel.pool import num_workers

Hashes = npt.NDArray[np.uint64]
Thumbnails = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.int64]
_Weights = npt.NDArray[np.float64]

MAX_DISTANCE = 7
"""bits up to which the search is exact"""

_NUM_FREQUENCIES = 9
# 8 x 8 frequencies; the mean carries no content, (0, 8) takes its place
_FREQUENCIES = [(v, u) for v in range(8) for u in range(8) if (v, u) != (0, 0)] + [(0, 8)]
# neighbouring frequencies vary together: they go to different quarters of the hash, which the search looks up alone
_ORDER = [4 * step + quarter for quarter in range(4) for step in range(16)]
# 13 bits for a weight: 8 + 5 + 13 + 5 + 13 bits in all, far below the 53 of float64
_WEIGHT_SCALE = 2**12
# images at a time: 5 MB of products stay near the cache
_CHUNK = 256

_NUM_QUARTERS = 4
# fewer hashes than this are compared all with all
_BRUTE_FORCE_BELOW = 3000
# fewer than this are indexed under all 17 keys, so that a query looks up one: half the time,
# 816 bytes a hash in place of 48
_ALL_KEYS_BELOW = 100_000
# comparisons at a time: 2**21 keep the arrays of a step (about 50 MB) near the cache
_BLOCK = 2**21
# queries at a time: with 17 keys each, two million comparisons among a million hashes
_QUERIES = 2**13
# exclusive or with these gives a key itself, and the key with each of its bits flipped
_FLIPS = np.array([0, *(1 << bit for bit in range(16))], np.uint16)


@dataclass(frozen=True)
class ThumbnailSubset:
    """Rows of (N, 32, 32) thumbnails, which may be memory-mapped; read on access, as a copy of a million takes 1 GB."""

    every: Thumbnails
    rows: Indices

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, which: slice | Indices) -> Thumbnails:
        return self.every[self.rows[which]]


@dataclass(frozen=True)
class CropBox:
    """A part of an image, as fractions of its width and height."""

    left: float
    top: float
    right: float
    bottom: float


WHOLE = CropBox(0.0, 0.0, 1.0, 1.0)


def five_crops(amounts: tuple[float, ...]) -> tuple[CropBox, ...]:
    """The four corner crops and the centre crop that take each amount off the width and the height."""
    return tuple(
        CropBox(left, top, left + 1.0 - amount, top + 1.0 - amount)
        for amount in amounts
        for left, top in ((0.0, 0.0), (amount, 0.0), (0.0, amount), (amount, amount), (amount / 2, amount / 2))
    )


def side_crops(amount: float) -> tuple[CropBox, ...]:
    """The four crops that take the amount off one side."""
    rest = 1.0 - amount
    ends = ((amount, 0.0, 1.0, 1.0), (0.0, amount, 1.0, 1.0), (0.0, 0.0, rest, 1.0), (0.0, 0.0, 1.0, rest))
    return tuple(CropBox(*box) for box in ends)


def resample_matrix(start: float, stop: float) -> _Weights:
    """The (32, 32) matrix that stretches the part [start, stop] of 32 pixels to 32 pixels, linearly."""
    at = np.clip((start + (np.arange(SIDE) + 0.5) / SIDE * (stop - start)) * SIDE - 0.5, 0, SIDE - 1)
    low = np.minimum(at.astype(np.int64), SIDE - 2)
    matrix = np.zeros((SIDE, SIDE))
    matrix[np.arange(SIDE), low] = 1 - (at - low)
    matrix[np.arange(SIDE), low + 1] = at - low
    return matrix


def mirror_mask() -> np.uint64:
    """Exclusive or with this turns the hash of an image into that of its mirror image."""
    odd = np.arange(_NUM_FREQUENCIES) % 2 == 1
    mask: np.uint64 = _pack_bits(np.tile(odd, (1, _NUM_FREQUENCIES, 1)))[0, 0]
    return mask


def hash_crops(
    thumbnails: Thumbnails | ThumbnailSubset, boxes: Sequence[CropBox], *, rotation: int = 0
) -> list[Hashes]:
    """Hash several crops of each image in one pass.

    Boxes share their rows with others, so the transform along the columns is made once for each (top, bottom). The
    products are many small ones: for large ones BLAS wakes threads that burn as much time waiting as they save.

    Args:
        thumbnails: (N, 32, 32) uint8, grey.
        boxes: V of them.
        rotation: quarter turns of the thumbnails first, anticlockwise.

    Returns:
        V arrays (N,) uint64.
    """
    of_span: dict[tuple[float, float], list[int]] = {}
    for number, box in enumerate(boxes):
        of_span.setdefault((box.top, box.bottom), []).append(number)
    down = np.concatenate([_transform(*span) for span in of_span])  # (S * 9, 32)
    across = [
        np.concatenate([_transform(boxes[one].left, boxes[one].right) for one in inside]).T.copy()
        for inside in of_span.values()
    ]  # S of (32, 9 * its boxes)
    hashes = [np.empty(len(thumbnails), np.uint64) for _ in boxes]

    def fill(start: int) -> None:
        images = np.rot90(thumbnails[start : start + _CHUNK], rotation, axes=(1, 2)).astype(np.float64)
        along = down @ images  # (n, S * 9, 32)
        for span, (inside, weights) in enumerate(zip(of_span.values(), across, strict=True)):
            first = span * _NUM_FREQUENCIES
            positive = along[:, first : first + _NUM_FREQUENCIES] @ weights > 0  # (n, 9, 9 * its boxes)
            for number, found in zip(inside, _pack_bits(positive), strict=True):
                hashes[number][start : start + _CHUNK] = found

    with ThreadPoolExecutor(num_workers()) as pool:
        for _ in pool.map(fill, range(0, len(thumbnails), _CHUNK)):
            pass  # raises what `fill` raised
    return hashes


def _transform(start: float, stop: float) -> _Weights:
    """(9, 32) whole numbers: the lowest rows of the cosine transform of the part [start, stop] of 32 pixels."""
    frequency, position = np.arange(_NUM_FREQUENCIES)[:, None], np.arange(SIDE)[None]
    cosines = np.cos(np.pi * frequency * (2 * position + 1) / (2 * SIDE))
    rounded: _Weights = np.rint(cosines @ resample_matrix(start, stop) * _WEIGHT_SCALE)
    return rounded


def _pack_bits(positive: npt.NDArray[np.bool_]) -> Hashes:
    """The (K, n) hashes of K boxes from the signs of their frequencies, (n, 9, 9 * K)."""
    count, width = len(positive), positive.shape[2]
    rows, columns = np.array(_FREQUENCIES)[_ORDER].T
    boxes = np.arange(width // _NUM_FREQUENCIES)[:, None]
    place = rows * width + boxes * _NUM_FREQUENCIES + columns  # (K, 64)
    bits = positive.reshape(count, -1).take(place.ravel(), axis=1)
    packed: Hashes = np.packbits(bits, axis=1, bitorder="little").view("<u8").T.astype(np.uint64)
    return packed


class HashIndex:
    """N hashes, (N,) uint64, arranged so that all near a query are found."""

    def __init__(self, hashes: Hashes) -> None:
        self.hashes = hashes
        self._order: list[npt.NDArray[np.int32]] = []
        self._indexed: list[Hashes] = []
        self._starts: list[Indices] = []
        self._sizes: list[Indices] = []
        self._indexes_all_keys = len(hashes) < _ALL_KEYS_BELOW
        if len(hashes) < _BRUTE_FORCE_BELOW:
            return
        for quarter in range(_NUM_QUARTERS):
            keys = _quarter(hashes, quarter)
            if self._indexes_all_keys:
                keys = np.bitwise_xor.outer(_FLIPS, keys).ravel()
            self._order.append((np.argsort(keys, kind="stable") % len(hashes)).astype(np.int32))
            self._indexed.append(hashes[self._order[-1]])
            self._sizes.append(np.bincount(keys, minlength=2**16))
            self._starts.append(np.cumsum(self._sizes[-1]) - self._sizes[-1])

    def near(self, queries: Hashes, distance: int) -> Iterator[tuple[Indices, Indices]]:
        """Yield every pair (query, indexed hash) at most `distance` bits apart, in parts; a pair may come twice.

        Args:
            queries: (Q,) uint64.
            distance: at most MAX_DISTANCE.
        """
        if distance > MAX_DISTANCE:
            raise ValueError(f"distance {distance}: the search is exact up to {MAX_DISTANCE} bits only")
        if not self._order:
            yield from self._compare_all(queries, distance)
            return
        for quarter in range(_NUM_QUARTERS):
            yield from self._compare_buckets(queries, distance, quarter)

    def _compare_all(self, queries: Hashes, distance: int) -> Iterator[tuple[Indices, Indices]]:
        step = max(1, _BLOCK // max(1, len(self.hashes)))
        for start in range(0, len(queries), step):
            distances = np.bitwise_count(queries[start : start + step, None] ^ self.hashes[None])
            query, found = np.nonzero(distances <= distance)
            yield query + start, found

    def _compare_buckets(self, queries: Hashes, distance: int, quarter: int) -> Iterator[tuple[Indices, Indices]]:
        order, indexed = self._order[quarter], self._indexed[quarter]
        starts, bucket_sizes = self._starts[quarter], self._sizes[quarter]
        is_filled = bucket_sizes > 0
        keys = _quarter(queries, quarter)
        # queries of one key follow each other, so that a bucket is read while it is in the cache
        by_key = np.argsort(keys, kind="stable")
        for begin in range(0, len(queries), _QUERIES):
            looked_up = by_key[begin : begin + _QUERIES]
            key = keys[looked_up]
            if not self._indexes_all_keys:
                key = np.bitwise_xor.outer(_FLIPS, key).ravel()  # (17 * Q,)
            # most buckets are empty where there are few hashes
            filled = np.flatnonzero(is_filled.take(key))
            key, asking = key[filled], looked_up[filled % len(looked_up)]
            sizes, first = bucket_sizes[key], starts[key]
            for part in _parts(sizes):
                size = sizes[part]
                ends = np.cumsum(size)
                # position of each comparison's hash in the index: the first of its bucket, and on from there
                place = np.repeat((first[part] - (ends - size)).astype(np.int32), size)
                place += np.arange(len(place), dtype=np.int32)
                different = np.repeat(queries[asking[part]], size)
                different ^= indexed[place]
                hit = np.flatnonzero(np.bitwise_count(different) <= distance)
                query = asking[part][np.searchsorted(ends, hit, side="right")]
                yield query, order[place[hit]].astype(np.int64)


def _quarter(hashes: Hashes, quarter: int) -> npt.NDArray[np.uint16]:
    """16 of the 64 bits: numpy sorts these in one pass, wider numbers in many."""
    found: npt.NDArray[np.uint16] = ((hashes >> np.uint64(16 * quarter)) & np.uint64(0xFFFF)).astype(np.uint16)
    return found


def _parts(sizes: Indices) -> Iterator[slice]:
    """Slices of the queries, each with about `_BLOCK` comparisons and at least one query."""
    ends, start = np.cumsum(sizes), 0
    while start < len(sizes):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + _BLOCK, side="right")))
        yield slice(start, stop)
        start = stop
