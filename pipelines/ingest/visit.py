"""The one visit to each file: read, hash, decode, sketch. Runs in worker processes, or in threads."""

import hashlib
import os
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipelines.core.errors import ImageError
from pipelines.images.decoding import THUMBNAIL_SIDE, Pixels, Sketch, sketch
from pipelines.ingest.blocks import BLOCK, Content, Numbers, padded
from pipelines.ingest.file_reader import FolderReader
from pipelines.ingest.listing import Origin, Reader
from pipelines.ingest.quality import Quality, quality, sharpness
from pipelines.ingest.spool import append, spool_file, write
from pipelines.parallel.pool import works_alone

DIGEST_BYTES = 32
if TYPE_CHECKING:  # workers start in half of the time without what params are made of
    from pipelines.params.ingest import CropParams

# files of one chunk beyond this wait on disk, not in memory
INLINE_BYTES = 24 << 20
# files up to this are looked at together; of large ones a few
BATCH_BYTES = 1 << 18
_BATCH_FILES, _MOST_BATCH_BYTES = 8, 1 << 21

_SHOWN = ("width", "height", "format", "mode", "orientation", "num_frames", "greyscale", "transparent")
"""what a sketch tells"""
CROP = ("crop_left", "crop_top", "crop_right", "crop_bottom")
ROW = np.dtype(
    [
        ("size", np.int64),
        ("format", "U4"),
        ("mode", "U8"),
        ("width", np.int32),
        ("height", np.int32),
        ("orientation", np.int8),
        ("num_frames", np.int32),
        *((name, np.float32) for name in (*Quality._fields, "sharpness", "aspect", "bytes_per_pixel")),
        ("greyscale", np.bool_),
        ("transparent", np.bool_),
        *((name, np.float32) for name in CROP),
    ]
)
"""What a visit finds of a picture, by the names that the manifest has for it: a label's rows are one piece of memory,
which costs nothing to send, to join and to sort, where a Python object for each value took half of the time."""

Rows = npt.NDArray[np.void]


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
        crop: likewise; None where it leaves pictures without a box of their own whole.
        spool: the folder for bytes that do not fit in memory; None where this process does not share it with the one
            that packs, so that all come back.
        home: the process that packs.
        read_ahead: whether the next files may be read while the last ones are looked at; visits in threads, which do
            not keep each other waiting, need none.
        origins: N origins, where anything is known beside path and label.
    """

    number: int
    source: str
    label: str
    paths: list[str]
    read: Reader
    max_pixels: int
    min_side: int
    crop: "CropParams | None"
    spool: Path | None
    home: int
    read_ahead: bool
    origins: list[Origin] | None = None


@dataclass(frozen=True)
class Visited:
    """What a visit found; the M accepted files in the order of `Chunk.paths`.

    Args:
        places: (M,) int64, places in `Chunk.paths`, ascending.
        digests: (M, 32) uint8, the sha256 of the files' bytes.
        rows: (M,) of `ROW`.
        content: the blocks of the M files, one after the other, and then those of their thumbnails.
        rejects: place, reason and detail of the others.
    """

    places: Numbers
    digests: Pixels
    rows: Rows
    content: Content
    rejects: list[tuple[int, str, str]]

    @property
    def num_rows(self) -> int:
        return len(self.places)


@dataclass(frozen=True)
class Stored:
    """What a visit found, in a file: the blocks of `Visited`, then places, digests and rows."""

    path: Path
    num_rows: int
    rejects: list[tuple[int, str, str]]

    def load(self) -> Visited:
        """All but the blocks."""
        length = self.num_rows * (8 + DIGEST_BYTES + ROW.itemsize)
        with self.path.open("rb", buffering=0) as file:
            file.seek(-length, os.SEEK_END)
            places = np.fromfile(file, np.int64, self.num_rows)
            digests = np.fromfile(file, np.uint8, self.num_rows * DIGEST_BYTES)
            rows = np.fromfile(file, ROW, self.num_rows)
        return Visited(places, digests.reshape(-1, DIGEST_BYTES), rows, self.path, self.rejects)


def visit(chunk: Chunk) -> Visited | Stored:
    """Visit every file of `chunk` once; what was found stays on disk where it was found by another process.

    Raises:
        OSError: the spool cannot be written. What is wrong with a file itself is a reject.
    """
    found = _visit(chunk)
    if chunk.spool is None or chunk.home == os.getpid():
        return found
    # sending costs more than writing and reading, and the packing process does not need most of it
    path = spool_file(chunk.spool, chunk.number)
    parts = [found.places.data, found.digests.data, found.rows.view(np.uint8).data]
    if isinstance(found.content, np.ndarray):
        write(path, [found.content.data, *parts])
    else:
        append(path, parts)
    return Stored(path, len(found.places), found.rejects)


def _visit(chunk: Chunk) -> Visited:
    rows = np.zeros(len(chunk.paths), ROW)
    thumbnails = np.empty((len(chunk.paths), THUMBNAIL_SIDE, THUMBNAIL_SIDE), np.uint8)
    rejects: dict[int, ImageError] = {}
    digests: list[bytes] = []
    held: list[bytes | memoryview] = []
    num_held = 0
    spool = None if chunk.spool is None else spool_file(chunk.spool, chunk.number)
    spilled = False
    ahead = chunk.read_ahead and works_alone()
    for places, files in (_read_ahead if ahead else _read)(chunk, rejects):
        _look_at(chunk, places, files, rows, thumbnails, rejects)
        if rejects:
            files = [data for place, data in zip(places, files, strict=True) if place not in rejects]
        digests += [hashlib.sha256(data).digest() for data in files]
        held += padded(files)
        num_held += sum(map(len, files))
        if spool is not None and num_held > INLINE_BYTES:
            (append if spilled else write)(spool, held)
            held, num_held, spilled = [], 0, True
    accepted = np.arange(len(chunk.paths))
    if rejects:
        accepted = np.delete(accepted, list(rejects))
        rows, thumbnails = rows[accepted], thumbnails[accepted]
    _fill_figures(rows, thumbnails)
    held.append(thumbnails.data)
    content: Content
    if spool is not None and spilled:
        append(spool, held)
        content = spool
    else:
        content = np.frombuffer(b"".join(held), np.uint8).reshape(-1, BLOCK)
    words = [(place, error.reason, error.detail) for place, error in sorted(rejects.items())]
    found = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, DIGEST_BYTES)
    return Visited(accepted, found, rows, content, words)


def _read_ahead(chunk: Chunk, rejects: dict[int, ImageError]) -> Iterator[tuple[list[int], list[bytes]]]:
    """What `_read` gives, each part read while the one before is looked at, so that neither disk nor processor waits.

    Even where all lies in memory, reading small files is a quarter of a visit; a second core has that to do meanwhile.
    Where each core has a process of its own, handing the files over costs a fourteenth and gains nothing, even if they
    come from a disk.
    """
    batches = _read(chunk, rejects)
    reader = _reader()
    coming = reader.submit(next, batches, None)
    try:
        while (batch := coming.result()) is not None:
            coming = reader.submit(next, batches, None)
            yield batch
    finally:
        wait([coming])
        batches.close()


@lru_cache(maxsize=1)
def _reader() -> ThreadPoolExecutor:
    """The thread that reads ahead; one for all visits of this process."""
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="read-ahead")


def _read(chunk: Chunk, rejects: dict[int, ImageError]) -> Generator[tuple[list[int], list[bytes]]]:
    """Places and bytes of some files at a time, many small or few large ones; what cannot be read goes to `rejects`."""
    places: list[int] = []
    files: list[bytes] = []
    num_bytes = 0
    each = chunk.read.each if isinstance(chunk.read, FolderReader) else partial(_one_by_one, chunk.read)
    for place, data in enumerate(each(chunk.paths)):
        if isinstance(data, ImageError):
            rejects[place] = data
            continue
        places.append(place)
        files.append(data)
        num_bytes += len(data)
        if num_bytes > BATCH_BYTES and (len(files) >= _BATCH_FILES or num_bytes > _MOST_BATCH_BYTES):
            yield places, files
            places, files, num_bytes = [], [], 0
    if files:
        yield places, files


def _one_by_one(read: Reader, paths: Sequence[str]) -> Iterator[bytes | ImageError]:
    for path in paths:
        try:
            yield read(path)
        except ImageError as error:
            yield error


def _look_at(
    chunk: Chunk, places: list[int], files: list[bytes], rows: Rows, thumbnails: Pixels, rejects: dict[int, ImageError]
) -> None:
    """Fill in what `files` show at their `places`."""
    seen: dict[int, Sketch] = {}
    for place, data in zip(places, files, strict=True):
        try:
            seen[place] = sketch(data, max_pixels=chunk.max_pixels, min_side=chunk.min_side)
        except ImageError as error:
            rejects[place] = error
    if seen:
        some = list(seen)
        thumbnails[some] = [one.thumbnail for one in seen.values()]
        for name in _SHOWN:
            rows[name][some] = [getattr(one, name) for one in seen.values()]
        rows["sharpness"][some] = sharpness([one.detail for one in seen.values()])
    rows["size"][places] = [len(data) for data in files]
    rows["crop_right"][places] = rows["crop_bottom"][places] = 1.0
    _fill_crops(chunk, dict(zip(places, files, strict=True)), seen, rows, rejects)


def _fill_crops(
    chunk: Chunk, files: dict[int, bytes], seen: dict[int, Sketch], rows: Rows, rejects: dict[int, ImageError]
) -> None:
    boxes = {} if chunk.origins is None else {place: chunk.origins[place].box for place in seen}
    if chunk.crop is None and not any(boxes.values()):
        return
    from pipelines.ingest.cropping import find_crop

    for place, one in seen.items():
        try:
            crop = find_crop(chunk.crop, files[place], one, boxes.get(place), max_pixels=chunk.max_pixels)
        except ImageError as error:
            rejects[place] = error
            continue
        for name, value in zip(CROP, crop, strict=True):
            rows[name][place] = value


def _fill_figures(rows: Rows, thumbnails: Pixels) -> None:
    """What follows from the rest, for all rows at once."""
    for name, values in quality(thumbnails)._asdict().items():
        rows[name] = values
    width, height = rows["width"], rows["height"]
    rows["aspect"] = np.maximum(width, height) / np.minimum(width, height)
    rows["bytes_per_pixel"] = rows["size"] / (width.astype(np.int64) * height)
