"""Inspect each file once: read, hash, decode, summarize. Runs in worker processes, in threads, or on a Dask cluster."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import numpy.typing as npt

from pipelines.core.errors import ImageError
from pipelines.images.decoding import THUMBNAIL_SIDE, ImageSummary, Pixels, summarize
from pipelines.ingest.listing import Origin, Reader
from pipelines.ingest.quality import Quality, quality, sharpness

if TYPE_CHECKING:  # workers start in half of the time without what params are made of
    from pipelines.params.ingest import CropParams

DIGEST_BYTES = 32
CROP = ("crop_left", "crop_top", "crop_right", "crop_bottom")
_SUMMARY = ("width", "height", "format", "mode", "orientation", "num_frames", "greyscale", "transparent")
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
"""What inspection finds of one image, by the names of the manifest: an array of these is cheap to send and to sort."""

FigureRows = npt.NDArray[np.void]


@dataclass(frozen=True)
class Chunk:
    """Files of one source and one label, to be inspected together.

    Args:
        number: unique in the run.
        source: index and kind of the entry of ingest.sources.
        label: of all the files.
        paths: N paths below the source.
        read: gives the bytes of one of `paths`.
        max_pixels, min_side: of ingest.
        crop: of ingest; None where it leaves images without a box of their own whole.
        spool: the folder for the files' bytes until their label is complete; None where the worker does not share it.
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
    origins: list[Origin] | None = None


@dataclass(frozen=True)
class Inspected:
    """What was found in a chunk; the M accepted files in the order of `Chunk.paths`.

    Args:
        places: (M,) int64, places in `Chunk.paths`, ascending.
        digests: M sha256 of the files' bytes, 32 bytes each.
        rows: (M,) of `ROW`.
        content: the M files' bytes one after the other, then their thumbnails, (M, 32, 32) uint8: a file of the spool,
            or the bytes themselves where there is none.
        rejects: place, reason and detail of the others.
    """

    places: npt.NDArray[np.int64]
    digests: list[bytes]
    rows: FigureRows
    content: Path | bytes
    rejects: list[tuple[int, str, str]]


def inspect_chunk(chunk: Chunk) -> Inspected:
    """Inspect every file of `chunk`.

    Raises:
        OSError: the spool cannot be written. What is wrong with a file itself is a reject.
    """
    if chunk.spool is None:
        memory = io.BytesIO()
        places, digests, rows, rejects = _inspect(chunk, memory)
        return Inspected(places, digests, rows, memory.getvalue(), rejects)
    path = chunk.spool / f"{chunk.number}.bin"
    with path.open("wb") as file:
        places, digests, rows, rejects = _inspect(chunk, file)
    return Inspected(places, digests, rows, path, rejects)


def _inspect(
    chunk: Chunk, out: BinaryIO
) -> tuple[npt.NDArray[np.int64], list[bytes], FigureRows, list[tuple[int, str, str]]]:
    """Write `Inspected.content` to `out`; the rest of `Inspected`."""
    rows = np.zeros(len(chunk.paths), ROW)
    thumbnails = np.empty((len(chunk.paths), THUMBNAIL_SIDE, THUMBNAIL_SIDE), np.uint8)
    places: list[int] = []
    digests: list[bytes] = []
    rejects: list[tuple[int, str, str]] = []
    for place, path in enumerate(chunk.paths):
        try:
            data = chunk.read(path)
            summary = summarize(data, max_pixels=chunk.max_pixels, min_side=chunk.min_side)
            crop = _crop(chunk, place, data, summary)
        except ImageError as error:
            rejects.append((place, error.reason, error.detail))
            continue
        row = rows[len(places)]
        row["size"] = len(data)
        for name in _SUMMARY:
            row[name] = getattr(summary, name)
        row["sharpness"] = sharpness(summary.downscaled)
        for name, value in zip(CROP, crop, strict=True):
            row[name] = value
        thumbnails[len(places)] = summary.thumbnail
        places.append(place)
        digests.append(hashlib.sha256(data).digest())
        out.write(data)
    rows, thumbnails = rows[: len(places)], thumbnails[: len(places)]
    out.write(thumbnails.data)
    _fill_figures(rows, thumbnails)
    return np.array(places, np.int64), digests, rows, rejects


def _crop(chunk: Chunk, place: int, data: bytes, summary: ImageSummary) -> Sequence[float]:
    """Left, top, right and bottom of the part that counts, as fractions."""
    box = None if chunk.origins is None else chunk.origins[place].box
    if chunk.crop is None and box is None:
        return 0.0, 0.0, 1.0, 1.0
    from pipelines.ingest.cropping import find_crop

    return find_crop(chunk.crop, data, summary, box, max_pixels=chunk.max_pixels)


def _fill_figures(rows: FigureRows, thumbnails: Pixels) -> None:
    """Fill in what follows from the rest, for all rows at once."""
    for name, values in quality(thumbnails)._asdict().items():
        rows[name] = values
    width, height = rows["width"], rows["height"]
    rows["aspect"] = np.maximum(width, height) / np.minimum(width, height)
    rows["bytes_per_pixel"] = rows["size"] / (width.astype(np.int64) * height)
