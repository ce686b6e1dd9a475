"""The one visit to each file: read, hash, decode, sketch. Runs in worker processes, or in threads."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipelines.core.batches import Sketched, sketch_many
from pipelines.core.errors import ImageError
from pipelines.core.images import THUMBNAIL_SIDE, Pixels, Sketch
from pipelines.core.params.ingest import CropParams
from pipelines.ingest.cropping import asks_for_crop, find_crop
from pipelines.ingest.listing import Origin, Reader
from pipelines.ingest.quality import Quality, quality, sharpness

# files of one chunk beyond this wait on disk, not in memory
INLINE_BYTES = 24 << 20
# files up to this are looked at together
BATCH_BYTES = 1 << 18

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


@dataclass(frozen=True)
class Visited:
    """What a visit found; the M accepted files in the order of `Chunk.paths`.

    Args:
        places: (M,) int64, places in `Chunk.paths`, ascending.
        digests: the M sha256 of the files' bytes, 32 bytes each.
        rows: (M,) of `ROW`.
        thumbnails: (M, 32, 32) uint8.
        data: the M files one after the other, or the file that holds them so.
        rejects: place, reason and detail of the others.
    """

    places: npt.NDArray[np.int64]
    digests: bytes
    rows: Rows
    thumbnails: Pixels
    data: bytes | Path
    rejects: list[tuple[int, str, str]]


def visit(chunk: Chunk) -> Visited:
    """Visit every file of `chunk` once.

    Raises:
        OSError: the spool cannot be written. What is wrong with a file itself is a reject.
    """
    rows = np.zeros(len(chunk.paths), ROW)
    thumbnails = np.empty((len(chunk.paths), THUMBNAIL_SIDE, THUMBNAIL_SIDE), np.uint8)
    rejects: dict[int, ImageError] = {}
    digests: list[bytes] = []
    held: list[bytes] = []
    num_held = 0
    spool = None if chunk.spool is None else chunk.spool / f"{chunk.number}.bin"
    spilled = False
    for places, files in _read(chunk, rejects):
        _look_at(chunk, places, files, rows, thumbnails, rejects)
        if rejects:
            files = [data for place, data in zip(places, files, strict=True) if place not in rejects]
        digests += [hashlib.sha256(data).digest() for data in files]
        held += files
        num_held += sum(map(len, files))
        if spool is not None and num_held > INLINE_BYTES:
            append_files(spool, held)
            held, num_held, spilled = [], 0, True
    accepted = np.arange(len(chunk.paths))
    if rejects:
        accepted = np.delete(accepted, list(rejects))
        rows, thumbnails = rows[accepted], thumbnails[accepted]
    _fill_figures(rows, thumbnails)
    kept: bytes | Path = b"".join(held)
    if spool is not None and spilled:
        append_files(spool, held)
        kept = spool
    words = [(place, error.reason, error.detail) for place, error in sorted(rejects.items())]
    return Visited(accepted, b"".join(digests), rows, thumbnails, kept, words)


def _read(chunk: Chunk, rejects: dict[int, ImageError]) -> Iterator[tuple[list[int], list[bytes]]]:
    """Places and bytes of a few small files, or one large one, at a time; those that cannot be read go to `rejects`."""
    read = chunk.read
    places: list[int] = []
    files: list[bytes] = []
    num_bytes = 0
    for place, path in enumerate(chunk.paths):
        try:
            data = read(path)
        except ImageError as error:
            rejects[place] = error
            continue
        places.append(place)
        files.append(data)
        num_bytes += len(data)
        if num_bytes > BATCH_BYTES:
            yield places, files
            places, files, num_bytes = [], [], 0
    if files:
        yield places, files


def _look_at(
    chunk: Chunk, places: list[int], files: list[bytes], rows: Rows, thumbnails: Pixels, rejects: dict[int, ImageError]
) -> None:
    """Fill in what `files` show at their `places`."""
    found = sketch_many(files, max_pixels=chunk.max_pixels, min_side=chunk.min_side)
    where = np.array(places)
    for group in found.alike:
        at = where[group.rows]
        thumbnails[at] = group.thumbnails
        header = group.header
        _fill(rows, at, *group.size, "JPEG", header.mode, header.orientation, 1, False)
        rows["greyscale"][at] = group.greyscale
        rows["sharpness"][at] = sharpness(group.details)
    for row, one in found.alone.items():
        place = places[row]
        if isinstance(one, ImageError):
            rejects[place] = one
            continue
        thumbnails[place] = one.thumbnail
        _fill(
            rows, place, one.width, one.height, one.format, one.mode, one.orientation, one.num_frames, one.transparent
        )
        rows["greyscale"][place] = one.greyscale
        rows["sharpness"][place] = sharpness([one.detail])[0]
    rows["size"][where] = [len(data) for data in files]
    _fill_crops(chunk, places, files, found, rows, rejects)


def _fill(
    rows: Rows, at: npt.NDArray[np.int64] | int, width: int, height: int, format_: str, mode: str, orientation: int,
    num_frames: int, transparent: bool,
) -> None:  # fmt: skip
    rows["width"][at] = width
    rows["height"][at] = height
    rows["format"][at] = format_
    rows["mode"][at] = mode
    rows["orientation"][at] = orientation
    rows["num_frames"][at] = num_frames
    rows["transparent"][at] = transparent


def _fill_crops(
    chunk: Chunk, places: list[int], files: list[bytes], found: Sketched, rows: Rows, rejects: dict[int, ImageError]
) -> None:
    rows["crop_right"][places] = rows["crop_bottom"][places] = 1.0
    boxes = {} if chunk.origins is None else {place: chunk.origins[place].box for place in places}
    if not asks_for_crop(chunk.crop) and not any(boxes.values()):
        return
    for place, data, sketch in zip(places, files, found.one_by_one(), strict=True):
        if isinstance(sketch, Sketch):
            try:
                crop = find_crop(chunk.crop, data, sketch, boxes.get(place), max_pixels=chunk.max_pixels)
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


def append_files(spool: Path, files: list[bytes]) -> None:
    """Write `files` one after the other to the end of `spool`."""
    with spool.open("ab", buffering=0) as file:
        rest = memoryview(b"".join(files))
        while rest:  # a raw write may take only a part, and says so
            rest = rest[file.write(rest) :]
