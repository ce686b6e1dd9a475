"""Files as they are held between their visit and their shard: blocks of 512 bytes, the unit of a tar.

A file fills its last block with zeros, as it will in the tar. Sorting and packing thousands of small files is then
copying rows of an array, and a piece of a shard can be written by any process that reaches the blocks.
"""

import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

BLOCK = 512
# runs of so many blocks are copied one by one
_LONG_RUN = 32
_PADDING = [bytes(-size % BLOCK) for size in range(BLOCK)]

Blocks = npt.NDArray[np.uint8]
"""(B, 512)"""
Content = Blocks | Path
"""blocks, or the file that begins with them"""
Numbers = npt.NDArray[np.int64]
Place = Numbers | slice
"""of some blocks"""


@dataclass(frozen=True)
class Runs:
    """N runs of blocks, such as the bytes of N files.

    Args:
        contents: where they lie.
        which: (N,) places in `contents`.
        starts: (N,) the first block of each there.
        lengths: (N,) blocks of each.
    """

    contents: Sequence[Content]
    which: Numbers
    starts: Numbers
    lengths: Numbers

    def __len__(self) -> int:
        return len(self.which)

    def take(self, rows: Numbers | slice) -> "Runs":
        """Those at `rows`, with as much of `contents` as they need."""
        needed, which = np.unique(self.which[rows], return_inverse=True)
        contents = [self.contents[place] for place in needed.tolist()]
        return Runs(contents, which, self.starts[rows], self.lengths[rows])


def num_blocks(sizes: Numbers) -> Numbers:
    """The blocks that files of so many bytes fill."""
    return -(-sizes // BLOCK)


def padded(files: Sequence[bytes]) -> list[bytes]:
    """What makes whole blocks of `files`, one after the other, once it is joined."""
    parts = [b""] * (2 * len(files))
    parts[::2] = files
    parts[1::2] = [_PADDING[len(data) % BLOCK] for data in files]
    return parts


def copy_runs(runs: Runs, out: Blocks, targets: Numbers) -> None:
    """Copy each of N runs to its target (N,), a block of `out`."""
    order = np.argsort(runs.which, kind="stable")
    lengths, starts, targets = runs.lengths[order], runs.starts[order], targets[order]
    edges = np.searchsorted(runs.which[order], np.arange(len(runs.contents) + 1)).tolist()
    by_run = int(lengths.sum()) >= _LONG_RUN * len(lengths)
    for content, first, stop in zip(runs.contents, edges[:-1], edges[1:], strict=True):
        if stop > first:
            pairs = (_slices if by_run else _blocks)(starts[first:stop], targets[first:stop], lengths[first:stop])
            _copy(content, out, pairs)


def _slices(starts: Numbers, targets: Numbers, lengths: Numbers) -> list[tuple[slice, slice]]:
    """For each run where it lies, and where it goes: a third of the time of block after block, where runs are long."""
    rows = zip(starts.tolist(), targets.tolist(), lengths.tolist(), strict=True)
    return [(slice(start, start + length), slice(target, target + length)) for start, target, length in rows]


def _blocks(starts: Numbers, targets: Numbers, lengths: Numbers) -> list[tuple[Numbers, Numbers]]:
    """Where all blocks lie, and where they go."""
    ends = np.cumsum(lengths)
    within = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)  # the number of each block in its run
    return [(np.repeat(starts, lengths) + within, np.repeat(targets, lengths) + within)]


def _copy(content: Content, out: Blocks, pairs: Sequence[tuple[Place, Place]]) -> None:
    if not isinstance(content, Path):
        for source, target in pairs:
            out[target] = content[source]
        return
    with content.open("rb", buffering=0) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
        length = len(whole) // BLOCK * BLOCK  # what follows the blocks may end anywhere
        for source, target in pairs:
            # no name for the view: the map cannot be closed while one is there
            out[target] = np.frombuffer(whole, np.uint8, length).reshape(-1, BLOCK)[source]


def read_runs(runs: Runs) -> Blocks:
    """N runs, one after the other."""
    ends = np.cumsum(runs.lengths)
    out = np.empty((int(ends[-1]) if len(runs) else 0, BLOCK), np.uint8)
    copy_runs(runs, out, ends - runs.lengths)
    return out


def write_runs(what: tuple[Path, int, Runs]) -> None:
    """Write runs one after the other at a place of a file that is there."""
    path, position, runs = what
    write_at(path, position, read_runs(runs))


def write_at(path: Path, position: int, data: Blocks) -> None:
    """Write `data` at `position` of a file that is there, all of it, and let it go to the disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        rest, place = data.data.cast("B"), position
        while rest:  # a write may take only a part, and says so
            written = os.pwrite(descriptor, rest, place)
            rest, place = rest[written:], place + written
    finally:
        os.close(descriptor)
