"""A cache of features on disk, keyed by content: the one that dedupe and train share.

One folder a backbone and its arithmetic; in it immutable segments, each the keys (n, 32) uint8 (sha256 of a picture)
and the features (n, D) float16 that one run had to compute. Features are rounded to float16 whether this run computed
them or not, so deleting the cache, or part of it, changes no result. Segments are memory-mapped: of features that
outgrow the memory, only what is asked for is read.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from pipelines.core.files import whole_file

SEGMENT = 4096
"""pictures after which features are written: what a killed run loses at most"""

Features = npt.NDArray[np.float16]
Positions = npt.NDArray[np.int64]
Compute = Callable[[Positions], Iterable[Features]]
"""(M,) positions of pictures to their features, batch by batch, in that order"""


def cache_folder(root: Path, name: str, settings: Mapping[str, object]) -> Path:
    """The folder of one kind of features.

    Args:
        settings: all but the picture that its features depend on.
    """
    text = json.dumps(settings, sort_keys=True)
    return root / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def processor_name(device: torch.device) -> str:
    """What torch may use of the CPU, or which GPU it is: other instructions give other last digits."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return torch.backends.cpu.get_cpu_capability()


@dataclass(frozen=True)
class CachedFeatures:
    """Features of N pictures, on disk.

    Args:
        segments: (n, D) float16 each, memory-mapped.
        segment: (N,) which one holds a picture's features.
        line: (N,) and in which line.
        num_features: D.
    """

    segments: list[Features]
    segment: Positions
    line: Positions
    num_features: int

    def read(self, pictures: Positions) -> Features:
        """(n, D) of n of the N pictures, a copy in memory."""
        found = np.empty((len(pictures), self.num_features), np.float16)
        segment, line = self.segment[pictures], self.line[pictures]
        for i in np.unique(segment):
            here = np.flatnonzero(segment == i)
            found[here] = self.segments[i][line[here]]
        return found


def cached_features(
    folder: Path, digests: Sequence[bytes], *, num_features: int, compute: Compute, advance: Callable[[int], None]
) -> CachedFeatures:
    """The features of N pictures: found in the cache, or computed and added to it.

    Args:
        folder: of `cache_folder`.
        digests: N keys of 32 bytes; equal pictures are one entry.
        num_features: D.
        compute: gives features of the pictures that are not cached.
        advance: is told of pictures that are ready.
    """
    segments = _read_segments(folder, num_features)
    wanted: dict[bytes, list[int]] = {}
    for i, digest in enumerate(digests):
        wanted.setdefault(digest, []).append(i)
    segment, line = np.zeros(len(digests), np.int64), np.zeros(len(digests), np.int64)

    def place(number: int) -> None:
        for j, digest in enumerate(segments[number][0]):
            if (here := wanted.pop(digest, None)) is not None:
                segment[here], line[here] = number, j

    for number in range(len(segments)):
        place(number)
    advance(len(digests) - sum(map(len, wanted.values())))
    missing = sorted(wanted)
    for start in range(0, len(missing), SEGMENT):
        part = missing[start : start + SEGMENT]
        computed, done = np.empty((len(part), num_features), np.float16), 0
        for batch in compute(np.array([wanted[digest][0] for digest in part], np.int64)):
            computed[done : done + len(batch)] = batch
            advance(sum(len(wanted[digest]) for digest in part[done : done + len(batch)]))
            done += len(batch)
        segments.append((part, _write_segment(folder, part, computed)))
        place(len(segments) - 1)
    return CachedFeatures([features for _, features in segments], segment, line, num_features)


def _read_segments(folder: Path, num_features: int) -> list[tuple[list[bytes], Features]]:
    """What the cache holds; a segment that cannot be read is left out, and computed anew."""
    found = []
    for path in sorted(folder.glob("*.keys")) if folder.is_dir() else []:
        try:
            raw = path.read_bytes()
            stored = np.load(path.with_suffix(".npy"), mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            continue
        if stored.dtype == np.float16 and stored.shape == (len(raw) // 32, num_features):
            found.append(([raw[i : i + 32] for i in range(0, len(raw), 32)], stored))
    return found


def _write_segment(folder: Path, keys: list[bytes], features: Features) -> Features:
    """The features, memory-mapped."""
    raw = b"".join(keys)
    name = hashlib.sha256(raw).hexdigest()[:32]
    with whole_file(folder / f"{name}.npy") as file:
        np.lib.format.write_array(file, features, version=(1, 0))
    # keys last: where they are, the features are whole
    with whole_file(folder / f"{name}.keys") as file:
        file.write(raw)
    stored: Features = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
    return stored
