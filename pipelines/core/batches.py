"""Many pictures sketched at once: the same sketches as one at a time, small ones in a third of the time.

Setting the decoder up for a JPEG of 32 pixels takes longer than decoding it. Files that share their header (one program
wrote them, at one size) therefore become one tall JPEG: their data one after the other, with the restart markers that
the standard has for this between them. Each picture decodes to the same bits as alone. If the decoder finds any fault,
each file is looked at alone.

Other files go through each step together: what comes after decoding is Python's, which takes two thirds of the time
where it ran a moment ago.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import simplejpeg

from pipelines.core.errors import ImageError
from pipelines.core.images import THUMBNAIL_SIDE, Sketch, plain_jpeg, sketch, sketch_of_grey
from pipelines.core.jpegs import (
    COLOUR_LEVELS,
    Header,
    Pixels,
    count_coloured,
    decode_scaled,
    jpeg_has_colour,
    read_shared_header,
)

# larger files gain nothing
SMALL_BYTES = 1 << 14
_MAX_SIDE = 128
_MIN_FILES = 4
_MAX_TALL = 65_000
# files whose pixels are held at a time
_STEP_FILES = 8
_RESTARTS = [bytes((0xFF, 0xD0 + number)) for number in range(8)]


@dataclass(frozen=True)
class Alike:
    """The sketches of N files that share their header, as columns (see `Sketch`).

    Args:
        rows: N places among the files.
        header: of all of them.
        thumbnails: (N, 32, 32) uint8.
        details: (N, H, W) uint8.
        greyscale: N.
    """

    rows: list[int]
    header: Header
    thumbnails: Pixels
    details: Pixels
    greyscale: list[bool]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, upright."""
        width, height = self.header.width, self.header.height
        return (width, height) if self.header.orientation < 5 else (height, width)

    def sketches(self) -> Iterator[tuple[int, Sketch]]:
        """Place and sketch of each."""
        stored = (*self.size, "JPEG", self.header.mode, self.header.orientation, 1)
        columns = zip(self.rows, self.thumbnails, self.details, self.greyscale, strict=True)
        for row, thumbnail, detail, grey in columns:
            yield row, Sketch(thumbnail, *stored, detail, grey, False)


@dataclass(frozen=True)
class Sketched:
    """What `sketch` returns or raises for each of some files.

    Args:
        alike: groups of files that were looked at together.
        alone: by place, what was found of every other file.
    """

    alike: list[Alike]
    alone: dict[int, Sketch | ImageError]

    def one_by_one(self) -> list[Sketch | ImageError]:
        """What was found of each file, in order."""
        found = dict(self.alone)
        for group in self.alike:
            found |= group.sketches()
        return [found[row] for row in sorted(found)]


def sketch_many(files: Sequence[bytes], *, max_pixels: int, min_side: int) -> Sketched:
    """What `sketch` returns or raises for each of `files`."""
    shared: dict[bytes, list[int]] = {}
    headers: dict[bytes, Header] = {}
    rest: list[int] = []
    head, own = b"\0", rest
    for row, data in enumerate(files):
        if not data.startswith(head):  # else its header is that of the file before
            found = read_shared_header(data) if len(data) < SMALL_BYTES else None
            # a header cut short could begin others that are longer
            if found is None or not found[1].end + 4 <= len(found[0]) < len(data):
                rest.append(row)
                continue
            head = found[0]
            own = shared.setdefault(head, [])
            headers[head] = found[1]
        elif len(data) >= SMALL_BYTES:
            rest.append(row)
            continue
        own.append(row)
    alike = []
    for head, rows in shared.items():
        header = headers[head]
        if len(rows) < _MIN_FILES or not _fits(header, max_pixels=max_pixels, min_side=min_side):
            rest += rows
            continue
        step = _MAX_TALL // (-(-header.height // 16) * 16)
        for start in range(0, len(rows), step):
            some = rows[start : start + step]
            group = _sketch_alike([files[row] for row in some], some, head, header)
            if group is None:
                rest += some
            else:
                alike.append(group)
    alone: dict[int, Sketch | ImageError] = {}
    for start in range(0, len(rest), _STEP_FILES):
        rows = rest[start : start + _STEP_FILES]
        sketches = _sketch_few([files[row] for row in rows], max_pixels=max_pixels, min_side=min_side)
        alone |= zip(rows, sketches, strict=True)
    return Sketched(alike, alone)


def _sketch_few(files: Sequence[bytes], *, max_pixels: int, min_side: int) -> list[Sketch | ImageError]:
    """What `sketch` returns or raises for each of `files`, step by step for all of them."""
    greys = [_decode_grey(data, max_pixels=max_pixels, min_side=min_side) for data in files]
    colours = [grey and _has_colour(data, grey[0]) for data, grey in zip(files, greys, strict=True)]
    return [
        _sketch_one(data, max_pixels=max_pixels, min_side=min_side)
        if grey is None or coloured is None
        else sketch_of_grey(grey[1], grey[0], coloured=coloured)
        for data, grey, coloured in zip(files, greys, colours, strict=True)
    ]


def _decode_grey(data: bytes, *, max_pixels: int, min_side: int) -> tuple[Header, Pixels] | None:
    """The header and grey pixels (H, W) of a plain JPEG without a profile; None for files that `sketch` must judge."""
    try:
        header = plain_jpeg(data, max_pixels=max_pixels)
        if header is None or header.profile is not None or min(header.width, header.height) < min_side:
            return None
        return header, decode_scaled(data, header, "GRAY")[:, :, 0]
    except (ImageError, ValueError):
        return None


def _has_colour(data: bytes, header: Header) -> bool | None:
    try:
        return jpeg_has_colour(data, header)
    except ValueError:
        return None


def _sketch_one(data: bytes, *, max_pixels: int, min_side: int) -> Sketch | ImageError:
    try:
        return sketch(data, max_pixels=max_pixels, min_side=min_side)
    except ImageError as error:
        return error


def _fits(header: Header, *, max_pixels: int, min_side: int) -> bool:
    """Whether files of `header` can be joined, and nothing speaks against any of them."""
    return (
        header.baseline
        and header.profile is None
        and header.block_rows is not None
        and max(header.width, header.height) <= _MAX_SIDE
        and min(header.width, header.height) >= min_side
        and header.width * header.height <= max_pixels
    )


def _sketch_alike(files: list[bytes], rows: list[int], head: bytes, header: Header) -> Alike | None:
    """The sketches of N files that begin with `head`; None if the decoder finds fault with one of them."""
    assert header.block_rows is not None
    taken = -(-header.height // header.block_rows) * header.block_rows  # rows that each takes of the tall one
    tall = _join(files, head, header, taken)
    if tall is None:
        return None
    try:
        grey = simplejpeg.decode_jpeg(tall, "GRAY")[:, :, 0]  # (N taken, W)
        small = None
        if header.mode != "L":
            small = simplejpeg.decode_jpeg(tall, "RGB", min_height=1, min_width=1)  # (N taken/8, W/8, 3)
    except ValueError:
        return None
    greys = grey.reshape(len(files), taken, header.width)[:, : header.height]  # (N, H, W)
    greyscale = [True] * len(files)
    if small is not None:
        blocks = small.reshape(len(files), taken // 8, *small.shape[1:])[:, : -(-header.height // 8)]
        shown = zip(_coloured(blocks), files, strict=True)
        # what shows no colour at 1/8 may have some in its details
        greyscale = [not (some or count_coloured(decode_scaled(data, header, "RGB"))) for some, data in shown]
    if header.orientation == 1 and (header.height, header.width) == (THUMBNAIL_SIDE, THUMBNAIL_SIDE):
        return Alike(rows, header, greys, greys, greyscale)
    sketches = [sketch_of_grey(one, header, coloured=False) for one in greys]
    thumbnails, details = (
        np.stack(column) for column in zip(*((one.thumbnail, one.detail) for one in sketches), strict=True)
    )
    return Alike(rows, header, thumbnails, details, greyscale)


def _join(files: list[bytes], head: bytes, header: Header, rows: int) -> bytes | None:
    """One JPEG of `rows` rows a file; None: a file is no single scan up to its end marker."""
    per_picture = rows // (header.block_rows or 1) * -(-header.width // header.block_columns)
    at = header.size_at
    start = len(head)
    ends = [data.find(b"\xff\xd9", start) for data in files]
    if min(ends) < 0:
        return None
    parts = [b""] * (2 * len(files))
    parts[::2] = [data[start:end] for data, end in zip(files, ends, strict=True)]
    parts[1::2] = [_RESTARTS[place % 8] for place in range(len(files))]
    parts[-1] = b"\xff\xd9"
    scans = b"".join(parts)
    # beside the markers between them, a scan of its own has 0xFF as data alone, which a 0 follows
    if scans.count(b"\xff") != scans.count(b"\xff\x00") + len(files):
        return None
    sized = head[:at] + (rows * len(files)).to_bytes(2, "big") + head[at + 2 : header.end]
    return b"".join((sized, b"\xff\xdd\x00\x04", per_picture.to_bytes(2, "big"), head[header.end :], scans))


def _coloured(blocks: Pixels) -> list[bool]:
    """Which of N small pictures (N, H, W, 3) show a colour."""
    red, green, blue = blocks[..., 0], blocks[..., 1], blocks[..., 2]
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    most = spread.max(axis=(1, 2))  # (N,)
    return [bool(value > COLOUR_LEVELS) for value in most.tolist()]
