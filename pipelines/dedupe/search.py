"""All pairs of 64-bit hashes that differ in at most seven bits: exact, in plain numpy.

Multi-index hashing (Norouzi, Punjani and Fleet 2012): two hashes that differ in at most 7 bits differ in at most one
bit of at least one of their four 16-bit quarters. So each quarter of a query is looked up with its 17 keys (itself,
and each bit turned), and only what lies in those buckets is compared. Where there are not too many, hashes are indexed
under their 17 keys instead, so that a query looks up one. A few thousand hashes are compared all with all.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from pipelines.dedupe.hashes import Hashes

MAX_DISTANCE = 7

Indices = npt.NDArray[np.int64]

_NUM_QUARTERS = 4
_BRUTE_FORCE_BELOW = 3000
# with 17 keys for each hash the index takes 816 bytes a hash rather than 48, and a search half the time
_ALL_KEYS_BELOW = 100_000
# comparisons made at once: 2**21 keep the arrays of a step (about 50 MB) near the cache
_BLOCK = 2**21
# queries looked up at once: with 17 keys each, two million comparisons among a million hashes
_QUERIES = 2**13
# a key itself, and with each of its bits turned
_TURNED = np.array([0, *(1 << bit for bit in range(16))], np.uint16)


class HashIndex:
    """A set of N hashes, arranged for looking up all that are near others.

    Args:
        hashes: (N,) uint64.
    """

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
                keys = np.bitwise_xor.outer(_TURNED, keys).ravel()
            self._order.append((np.argsort(keys, kind="stable") % len(hashes)).astype(np.int32))
            self._indexed.append(hashes[self._order[-1]])
            self._sizes.append(np.bincount(keys, minlength=2**16))
            self._starts.append(np.cumsum(self._sizes[-1]) - self._sizes[-1])

    def near(self, queries: Hashes, distance: int) -> Iterator[tuple[Indices, Indices]]:
        """Every pair (query, indexed hash) that differs in at most `distance` bits, in parts; a pair may come twice.

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
        # queries of one key follow each other, so that each bucket is read while it is in the cache
        by_key = np.argsort(keys, kind="stable")
        for begin in range(0, len(queries), _QUERIES):
            looked_up = by_key[begin : begin + _QUERIES]
            key = keys[looked_up]
            if not self._indexes_all_keys:
                key = np.bitwise_xor.outer(_TURNED, key).ravel()  # (17 * Q,)
            # most buckets are empty where there are few hashes
            filled = np.flatnonzero(is_filled.take(key))
            key, asking = key[filled], looked_up[filled % len(looked_up)]
            sizes, first = bucket_sizes[key], starts[key]
            for part in _parts(sizes):
                size = sizes[part]
                ends = np.cumsum(size)
                # where each comparison's hash lies in the index: its bucket's first, and on from there
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
    """Slices of the queries such that each makes about `_BLOCK` comparisons, and at least one query."""
    ends = np.cumsum(sizes)
    start = 0
    while start < len(sizes):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + _BLOCK, side="right")))
        yield slice(start, stop)
        start = stop
