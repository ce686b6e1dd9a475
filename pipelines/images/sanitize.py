"""Cuts PNG, GIF and TIFF files down to their first frame before Pillow sees them, and counts their frames.

Pillow inflates comments, joins blocks again and again, and reads what each of 65,535 tags claims, so a small hostile
file could cost hours. Here the work is bounded by counting blocks, chunks and claimed bytes.
"""

import itertools
import re
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from pipelines.core.errors import ImageError
from pipelines.images.tiff import TiffDirectory, first_directory, read_directory, read_orientation, refuse_previews

# more frames or pages are not counted
MAX_FRAMES = 10_000
_MAX_CHUNKS = 100_000
_MAX_BLOCKS = 1_000_000
_MAX_EXIFS = 16
# what the pixels depend on; Pillow would refuse a picture for a broken comment, as no browser does
_PNG_KEPT = (b"tRNS", b"gAMA", b"sRGB", b"iCCP")
_PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT")
_PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
_GIF_BLOCK = re.compile(rb"[!,;]")
_ORIENTATION = 0x0112
# Exif, GPS and interoperability: directories that Pillow reads with the first
_TIFF_BELOW = (34665, 34853, 40965)


class FirstFrame(NamedTuple):
    """A file cut down to its first picture."""

    data: bytes
    orientation: int
    """of EXIF, 1 to 8"""
    num_frames: int


def first_frame_of_png(data: bytes) -> FirstFrame:
    """Without comments and animation; the first frame of an APNG is what a plain PNG reader sees.

    Raises:
        ImageError: `broken`: the checksum of a critical chunk, which Pillow does not look at in the pixels' own, is
            wrong, or there are too many chunks. A file that ends early is left to Pillow.
    """
    kept = [data[:8]]
    orientation, num_frames, animated, before, cut = 1, 0, False, True, False
    for kind, start, end in _png_chunks(data):
        if end > len(data) and kind not in _PNG_PIXELS:
            break  # the end of the file is missing, but nothing of the picture
        sound = end <= len(data) and zlib.crc32(memoryview(data)[start + 4 : end - 4]) == _number(data, end - 4)
        if kind == b"IEND":
            break
        if kind[:1].isupper() or end > len(data):
            if not sound and end <= len(data):
                name = kind.decode("ascii", "backslashreplace")
                raise ImageError("broken", f"the checksum of its {name} chunk is wrong")
            kept.append(data[start:end])
            if kind == b"IDAT" and before:
                before = False
                num_frames += not num_frames  # a picture before the first frame's header is not part of the animation
        elif kind == b"eXIf" and sound:
            orientation = read_orientation(data[start + 8 : end - 4])
        elif kind == b"acTL" and before:
            animated = True
        elif kind == b"fcTL":
            num_frames += 1
        elif kind in _PNG_KEPT and sound:
            kept.append(data[start:end])
        cut = end > len(data)
    if not cut:
        kept.append(_PNG_END)
    return FirstFrame(b"".join(kept), orientation, min(num_frames, MAX_FRAMES) if animated else 1)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of each chunk; the end may lie beyond that of the file."""
    position = 8
    for _ in range(_MAX_CHUNKS):
        if position + 8 > len(data):
            return
        end = position + 12 + _number(data, position)
        yield data[position + 4 : position + 8], position, end
        position = end
    raise ImageError("broken", f"more than {_MAX_CHUNKS} chunks: made to exhaust the decoder")


def _number(data: bytes, position: int) -> int:
    return int.from_bytes(data[position : position + 4], "big")


def first_frame_of_gif(data: bytes) -> FirstFrame:
    """Keep the screen, and the first picture with its control block.

    Raises:
        ImageError: `broken`: too many blocks before the first picture.
    """
    start = 13 + _table_bytes(data[10:11])
    screen, control, first = data[:start], b"", b""
    num_frames = 0
    budget = [_MAX_BLOCKS]
    position = start
    while num_frames < MAX_FRAMES and (block := _GIF_BLOCK.search(data, position)) and block[0] != b";":
        position = block.start()
        if block[0] == b",":
            end = _skip(data, position + 11 + _table_bytes(data[position + 9 : position + 10]), budget)
            # a first picture that ends early is given as it is, for Pillow to judge
            first = first or control + data[position : end or len(data)]
            num_frames += 1
        else:
            end = _skip(data, position + 2, budget)
            if data[position + 1 : position + 2] == b"\xf9" and end is not None and not first:
                control = data[position:end]
        if end is None:
            break
        position = end
    if not first and not budget[0]:
        raise ImageError("broken", f"more than {_MAX_BLOCKS} blocks: made to exhaust the decoder")
    return FirstFrame(screen + first + b";", 1, max(1, num_frames))


def _table_bytes(flags: bytes) -> int:
    return 3 << (flags[0] % 8 + 1) if flags and flags[0] & 0x80 else 0


def _skip(data: bytes, position: int, budget: list[int]) -> int | None:
    """The end of the sub-blocks from `position` on; None if the file or the budget ends first."""
    while position < len(data) and budget[0] > 0:
        budget[0] -= 1
        size = data[position]
        position += size + 1
        if not size:
            return position
    return None


def first_frame_of_tiff(data: bytes) -> FirstFrame:
    """Count the pages and check the first directory; the bytes stay as they are.

    Raises:
        ImageError: `truncated` or `broken`: there is no first directory, or its tags claim more bytes than the
            file has; `camera-raw` or `unsupported-format`: its first picture is a preview.
    """
    found = first_directory(data)
    page = None if found is None else read_directory(data, found)
    if found is None or page is None:
        at_end = found is not None and found > len(data) - 8
        raise ImageError("truncated" if at_end else "broken", "its first directory cannot be read")
    for directory in (page, *(_below(data, page))):
        if directory.num_bytes > len(data):
            raise ImageError("broken", f"its tags claim {directory.num_bytes} bytes of {len(data)}")
    refuse_previews(data)
    seen = {found}
    following = page.next
    while following and following not in seen and len(seen) < MAX_FRAMES:
        more = read_directory(data, following, next_only=True)
        if more is None:
            break
        seen.add(following)
        following = more.next
    orientation = page.values.get(_ORIENTATION, 1)
    return FirstFrame(data, orientation if 1 <= orientation <= 8 else 1, len(seen))


def check_boxes(data: bytes) -> None:
    """Check the EXIF of an AVIF or HEIC file, wherever it is, since Pillow reads each of its tags on opening.

    Raises:
        ImageError: `broken`: its tags claim many times the bytes that the file has.
    """
    for place in itertools.islice(re.finditer(rb"II\*\0|MM\0\*", data), _MAX_EXIFS):
        exif = data[place.start() :]
        found = first_directory(exif)
        page = None if found is None else read_directory(exif, found)
        # the four bytes may also occur in pixel data, where they are unlikely to begin a directory
        if page is not None and page.num_bytes > 16 * len(data) and len(page.values) > 16:
            raise ImageError("broken", f"the tags of its EXIF claim {page.num_bytes} bytes of {len(data)}")


def _below(data: bytes, page: TiffDirectory) -> Iterator[TiffDirectory]:
    for tag in _TIFF_BELOW:
        directory = read_directory(data, page.values.get(tag, 0))
        if directory is not None:
            yield directory
