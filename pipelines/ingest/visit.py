"""The one visit to each file: read, hash, decode, sketch. Runs in worker processes."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipelines.core.errors import ImageError
from pipelines.core.images import THUMBNAIL_SIDE, Pixels, Sketch, sketch
from pipelines.ingest.listing import Reader

# files of one chunk beyond this wait on disk, not in memory
INLINE_BYTES = 8 << 20


@dataclass(frozen=True)
class Chunk:
    """Files of one source and one label, to be visited together.

    Args:
        number: unlike that of every other chunk of the run.
        source: index and kind of the entry of ingest.sources.
        label: of all the files.
        paths: N paths below the source.
        read: gives the bytes of one of `paths`.
        max_pixels, min_side: of ingest.
        spool: the folder for bytes that do not fit in memory.
    """

    number: int
    source: str
    label: str
    paths: list[str]
    read: Reader
    max_pixels: int
    min_side: int
    spool: Path


@dataclass(frozen=True)
class Visited:
    """What a visit found; the M accepted files in the order of `Chunk.paths`.

    Args:
        paths: M paths.
        ids: M sha256 of the files' bytes, 64 hex digits.
        sketches: M sketches, without their thumbnails.
        thumbnails: (M, 32, 32) uint8.
        sizes: M sizes, bytes.
        data: the M files, or the file that holds them one after the other.
        rejects: path, reason and detail of the others.
    """

    paths: list[str]
    ids: list[str]
    sketches: list[tuple[int, int, str, str, int, int]]
    thumbnails: Pixels
    sizes: list[int]
    data: list[bytes] | Path
    rejects: list[tuple[str, str, str]]


def visit(chunk: Chunk) -> Visited:
    """Visit every file of `chunk` once.

    Raises:
        OSError: the spool cannot be written. What is wrong with a file itself is a reject.
    """
    paths: list[str] = []
    ids: list[str] = []
    sketches: list[Sketch] = []
    sizes: list[int] = []
    held: list[bytes] = []
    rejects: list[tuple[str, str, str]] = []
    num_held, spool = 0, chunk.spool / f"{chunk.number}.bin"
    spilled = False
    for path in chunk.paths:
        try:
            data = chunk.read(path)
            found = sketch(data, max_pixels=chunk.max_pixels, min_side=chunk.min_side)
        except ImageError as error:
            rejects.append((path, error.reason, error.detail))
            continue
        paths.append(path)
        ids.append(hashlib.sha256(data).hexdigest())
        sketches.append(found)
        sizes.append(len(data))
        held.append(data)
        num_held += len(data)
        if num_held > INLINE_BYTES:
            append_files(spool, held)
            held, num_held, spilled = [], 0, True
    if spilled:
        append_files(spool, held)
    thumbnails = np.zeros((len(paths), THUMBNAIL_SIDE, THUMBNAIL_SIDE), np.uint8)
    for row, found in enumerate(sketches):
        thumbnails[row] = found.thumbnail
    return Visited(
        paths, ids, [found[1:] for found in sketches], thumbnails, sizes, spool if spilled else held, rejects
    )


def append_files(spool: Path, files: list[bytes]) -> None:
    """Write `files` one after the other to the end of `spool`."""
    with spool.open("ab", buffering=0) as file:
        rest = memoryview(b"".join(files))
        while rest:  # a raw write may take only a part, and says so
            rest = rest[file.write(rest) :]


def grey_figures(thumbnails: Pixels) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Brightness and contrast of (N, 32, 32) thumbnails: (N,) mean and (N,) standard deviation, grey levels.

    Sums are of whole numbers, so that no processor rounds them its own way.
    """
    grey = thumbnails.reshape(len(thumbnails), -1)  # (N, 1024)
    total = grey.sum(axis=1, dtype=np.int64)  # (N,)
    squares = np.einsum("np,np->n", grey, grey, dtype=np.int64, casting="safe")  # (N,)
    num_pixels = grey.shape[1]
    mean = total / num_pixels
    deviation = np.sqrt((squares * num_pixels - total * total).astype(np.float64)) / num_pixels
    return mean.astype(np.float32), deviation.astype(np.float32)
