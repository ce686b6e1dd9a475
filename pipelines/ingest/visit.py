"""The one visit to each file: read, hash, decode, sketch. Runs in worker processes."""

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipelines.core.batches import sketch_many
from pipelines.core.crops import Crop
from pipelines.core.errors import ImageError
from pipelines.core.images import THUMBNAIL_SIDE, Pixels, Sketch
from pipelines.core.params.ingest import CropParams
from pipelines.ingest.cropping import find_crop
from pipelines.ingest.listing import UNKNOWN, Origin, Reader
from pipelines.ingest.quality import Figures, sharpness

# files of one chunk beyond this wait on disk, not in memory
INLINE_BYTES = 24 << 20
# files up to this are looked at together
BATCH_BYTES = 1 << 18


@dataclass(frozen=True)
class Chunk:
    """Files of one source and one label, to be visited together.

    Args:
        number: unlike that of every other chunk of the run.
        source: index and kind of the entry of ingest.sources.
        label: of all the files.
        paths: N paths below the source.
        read: gives the bytes of one of `paths`.
        max_pixels, min_side, crop: of ingest.
        spool: the folder for bytes that do not fit in memory; None where this process does not share it with the one
            that packs, so that all come back.
        origins: N origins, where anything is known beside path and label.
    """

    number: int
    source: str
    label: str
    paths: list[str]
    read: Reader
    max_pixels: int
    min_side: int
    crop: CropParams
    spool: Path | None
    origins: list[Origin] | None = None


class Sketches(NamedTuple):
    """M sketches as columns; each holds M values (see `Sketch`)."""

    thumbnails: Pixels
    """(M, 32, 32) uint8"""
    widths: tuple[int, ...]
    heights: tuple[int, ...]
    formats: tuple[str, ...]
    modes: tuple[str, ...]
    orientations: tuple[int, ...]
    frames: tuple[int, ...]
    sharpness: Figures
    greyscale: tuple[bool, ...]
    transparent: tuple[bool, ...]


def join_sketches(sketches: Sequence[Sketch]) -> Sketches:
    """Turn rows into columns: a few long-lived objects for a chunk, not one a file."""
    if not sketches:
        none = np.zeros((0, THUMBNAIL_SIDE, THUMBNAIL_SIDE), np.uint8)
        return Sketches(none, *((),) * 6, np.zeros(0, np.float32), (), ())
    small, widths, heights, formats, modes, orientations, frames, details, grey, clear = zip(*sketches, strict=True)
    # one call for all: row by row it took a twentieth of the time of small pictures
    thumbnails = np.concatenate(small).reshape(-1, THUMBNAIL_SIDE, THUMBNAIL_SIDE)  # (M, 32, 32)
    return Sketches(
        thumbnails, widths, heights, formats, modes, orientations, frames, sharpness(details), grey, clear
    )  # fmt: skip


@dataclass(frozen=True)
class Visited:
    """What a visit found; the M accepted files in the order of `Chunk.paths`.

    Args:
        paths: M paths.
        ids: M sha256 of the files' bytes, 64 hex digits.
        sketches: the M sketches, turned into columns.
        sizes: M sizes, bytes.
        data: the M files, or the file that holds them one after the other.
        rejects: path, reason and detail of the others.
        crops: M crops.
        origins: M origins; None where the chunk has none.
    """

    paths: list[str]
    ids: list[str]
    sketches: Sketches
    sizes: list[int]
    data: list[bytes] | Path
    rejects: list[tuple[str, str, str]]
    crops: list[Crop]
    origins: list[Origin] | None


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
    crops: list[Crop] = []
    origins: list[Origin] = []
    num_held = 0
    spool = None if chunk.spool is None else chunk.spool / f"{chunk.number}.bin"
    spilled = False
    for path, origin, data, found in _looked_at(chunk):
        try:
            if isinstance(found, ImageError):
                raise found
            crops.append(find_crop(chunk.crop, data, found, origin.box, max_pixels=chunk.max_pixels))
        except ImageError as error:
            rejects.append((path, error.reason, error.detail))
            continue
        paths.append(path)
        origins.append(origin)
        ids.append(hashlib.sha256(data).hexdigest())
        sketches.append(found)
        sizes.append(len(data))
        held.append(data)
        num_held += len(data)
        if spool is not None and num_held > INLINE_BYTES:
            append_files(spool, held)
            held, num_held, spilled = [], 0, True
    kept: list[bytes] | Path = held
    if spool is not None and spilled:
        append_files(spool, held)
        kept = spool
    known = None if chunk.origins is None else origins
    return Visited(paths, ids, join_sketches(sketches), sizes, kept, rejects, crops, known)


def _looked_at(chunk: Chunk) -> Iterator[tuple[str, Origin, bytes, Sketch | ImageError]]:
    """Path, origin, bytes and sketch of each file, in order; a few small files are held at a time."""
    held: list[tuple[str, Origin, bytes, ImageError | None]] = []
    num_held = 0
    for path, origin in zip(chunk.paths, chunk.origins or itertools.repeat(UNKNOWN)):  # noqa: B905 - repeat is endless
        try:
            data, problem = chunk.read(path), None
        except ImageError as error:
            data, problem = b"", error
        held.append((path, origin, data, problem))
        num_held += len(data)
        if num_held > BATCH_BYTES:
            yield from _sketched(chunk, held)
            held, num_held = [], 0
    yield from _sketched(chunk, held)


def _sketched(
    chunk: Chunk, held: list[tuple[str, Origin, bytes, ImageError | None]]
) -> Iterator[tuple[str, Origin, bytes, Sketch | ImageError]]:
    readable = [data for _, _, data, problem in held if problem is None]
    found = iter(sketch_many(readable, max_pixels=chunk.max_pixels, min_side=chunk.min_side))
    for path, origin, data, problem in held:
        yield path, origin, data, next(found) if problem is None else problem


def append_files(spool: Path, files: list[bytes]) -> None:
    """Write `files` one after the other to the end of `spool`."""
    with spool.open("ab", buffering=0) as file:
        rest = memoryview(b"".join(files))
        while rest:  # a raw write may take only a part, and says so
            rest = rest[file.write(rest) :]
