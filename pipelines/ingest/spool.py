"""The spool: files for what waits until its label is complete, or does not fit in memory.

A file that nobody needs any more is written over by the next, since memory that the kernel takes for a file anew costs
several times what writing to it does: on a virtual machine that hands its free memory back, ten times.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

# beyond this, joining costs less than what the kernel takes for each
_FEW_PARTS = 16
_FREE = "free"


def make_spool(folder: Path) -> Path:
    """Make the folder of a spool, which does not exist."""
    (folder / _FREE).mkdir(parents=True)
    return folder


def spool_file(spool: Path, number: int) -> Path:
    """The file of the chunk with this number."""
    return spool / f"{number}.bin"


def write(path: Path, parts: Sequence[bytes | memoryview]) -> None:
    """Write a file of the spool, of `parts` one after the other."""
    _take_free(path)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        os.ftruncate(descriptor, _write_all(descriptor, parts))
    finally:
        os.close(descriptor)


def append(path: Path, parts: Sequence[bytes | memoryview]) -> None:
    """Write `parts` one after the other to the end of `path`."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    try:
        _write_all(descriptor, parts)
    finally:
        os.close(descriptor)


def release(path: Path) -> None:
    """Let a file be written over."""
    path.rename(path.parent / _FREE / path.name)


def remove_spool(spool: Path) -> None:
    """Remove a spool of which nothing is needed."""
    shutil.rmtree(spool)


def _take_free(path: Path) -> None:
    """Let `path` be one of the files that nobody needs, if there is any; other processes take some too."""
    free = path.parent / _FREE
    for name in os.listdir(free):  # noqa: PTH208 - only names are wanted
        try:
            (free / name).rename(path)
        except FileNotFoundError:
            continue
        return


def _write_all(descriptor: int, parts: Sequence[bytes | memoryview]) -> int:
    if len(parts) > _FEW_PARTS:
        parts = [b"".join(parts)]
    rest = [memoryview(part).cast("B") for part in parts if memoryview(part).nbytes]
    num_bytes = sum(map(len, rest))
    while rest:  # a write may take only a part, and says so
        written = os.writev(descriptor, rest)
        while rest and written >= len(rest[0]):
            written -= len(rest.pop(0))
        if rest:
            rest[0] = rest[0][written:]
    return num_bytes
