"""Directories of TIFF and EXIF: which way up a picture stands, and TIFFs that Pillow cannot show as they are meant.

A parser of its own, since the ones in libraries read every tag: 65,535 tags that each claim the whole file cost hours.
Nothing is copied here, and each entry is looked at once. Refused are TIFFs whose first picture is a preview (raw files
of cameras), and those of a kind without an agreed look on a screen.
"""

import math
import struct
from collections.abc import Collection, Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from pipelines.core.errors import ImageError

_ORIENTATION = 0x0112
_SHORT = 3
_MAX_ENTRIES = 0xFFFF  # which a BigTIFF might exceed
# bytes of one value of TIFF's types 1 to 18; 0: no such type
_TYPE_BYTES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8)
# types of whole numbers
_WHOLE = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}


class TiffDirectory(NamedTuple):
    """One image file directory of TIFF or EXIF."""

    values: dict[int, int]
    """tag: its value if that is a whole number of 16 or 32 bits, else where its values lie"""
    num_bytes: int
    """what all values claim to take"""
    next: int
    """where the next directory lies; 0: there is none"""


def read_orientation(exif: bytes) -> int:
    """The orientation that EXIF gives, 1 to 8.

    Args:
        exif: a TIFF header and what follows, with or without "Exif" before it. What cannot be read gives 1.
    """
    if exif.startswith(b"Exif\x00"):
        exif = exif[6:]
    first = first_directory(exif)
    found = None if first is None else read_directory(exif, first)
    value = 1 if found is None else found.values.get(_ORIENTATION, 1)
    return value if 1 <= value <= 8 else 1


def first_directory(tiff: bytes) -> int | None:
    """Where the first directory of a TIFF or BigTIFF lies; None: it is neither."""
    layout = _layout(tiff)
    if layout is None or len(tiff) < 16:
        return None
    return int(struct.unpack_from(layout.order + layout.offset, tiff, 8 if layout.offset == "Q" else 4)[0])


def read_directory(tiff: bytes, offset: int, *, next_only: bool = False) -> TiffDirectory | None:
    """The directory at `offset`, as far as the file holds it; None: there is none.

    Args:
        tiff: the file.
        offset: bytes.
        next_only: leave its values unread.
    """
    layout = _layout(tiff)
    if layout is None or not 8 <= offset <= len(tiff) - 8:
        return None
    order, size, count_format, offset_format = layout
    count = struct.unpack_from(order + count_format, tiff, offset)[0]
    if count > _MAX_ENTRIES:
        return None
    start = offset + struct.calcsize(order + count_format)
    whole = 0 if next_only else min(count, (len(tiff) - start) // size)
    values: dict[int, int] = {}
    num_bytes = 0
    entries = struct.iter_unpack(f"{order}HH{offset_format}{offset_format}", tiff[start : start + size * whole])
    for index, (tag, kind, length, value) in enumerate(entries):
        num_bytes += length * (_TYPE_BYTES[kind] if kind < len(_TYPE_BYTES) else 0)
        if kind == _SHORT and length == 1:
            value_at = start + size * (index + 1) - struct.calcsize(order + offset_format)
            value = struct.unpack_from(order + "H", tiff, value_at)[0]
        values.setdefault(tag, value)
    end = start + size * count
    following = 0
    if end + struct.calcsize(order + offset_format) <= len(tiff):
        following = struct.unpack_from(order + offset_format, tiff, end)[0]
    return TiffDirectory(values, num_bytes, following)


def read_values(tiff: bytes, offset: int, tags: Collection[int], *, most: int = 64) -> dict[int, tuple[int, ...]]:
    """The whole numbers under some tags of the directory at `offset`, the first `most` of each; {} where there is none.

    Tags whose numbers the file does not hold are left out.
    """
    layout = _layout(tiff)
    if layout is None or not 8 <= offset <= len(tiff) - 8:
        return {}
    order, size, count_format, offset_format = layout
    start = offset + struct.calcsize(order + count_format)
    count = min(struct.unpack_from(order + count_format, tiff, offset)[0], _MAX_ENTRIES, (len(tiff) - start) // size)
    room = struct.calcsize(order + offset_format)
    found: dict[int, tuple[int, ...]] = {}
    for at in range(start, start + size * count, size):
        tag, kind, length = struct.unpack_from(f"{order}HH{offset_format}", tiff, at)
        if tag not in tags or tag in found or kind not in _WHOLE:
            continue
        where = at + 4 + room
        if length * _TYPE_BYTES[kind] > room:
            where = struct.unpack_from(order + offset_format, tiff, where)[0]
        length = min(length, most)
        if where + length * _TYPE_BYTES[kind] <= len(tiff):
            found[tag] = struct.unpack_from(f"{order}{length}{_WHOLE[kind]}", tiff, where)
    return found


class _TiffLayout(NamedTuple):
    order: str
    entry_bytes: int
    entries: str
    """format of the number of entries"""
    offset: str
    """format of offsets and lengths"""


def _layout(tiff: bytes) -> _TiffLayout | None:
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 8:
        return None
    version = struct.unpack_from(order + "H", tiff, 2)[0]
    return {42: _TiffLayout(order, 12, "H", "I"), 43: _TiffLayout(order, 20, "Q", "Q")}.get(version)


_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_STRIPS, _SAMPLES, _STRIP_BYTES, _PLANAR = 273, 277, 279, 284
_TILE_WIDTH, _TILES, _TILE_BYTES, _SUBDIRECTORIES, _FORMAT, _DNG = 322, 324, 325, 330, 339, 50706
_LAYOUT = frozenset((
    _SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _PLANAR, _TILE_WIDTH, _SUBDIRECTORIES,
    _FORMAT, _DNG,
))  # fmt: skip
_PIECES = frozenset((_STRIPS, _STRIP_BYTES, _TILES, _TILE_BYTES))
# colour filter array and linear raw; compressions of Nikon, Sony, Samsung, Pentax and Kodak
_RAW_PHOTOMETRIC, _RAW_COMPRESSION = (32803, 34892), (34713, 32767, 32770, 65535, 65000)
# those that every libtiff of Pillow's wheels unpacks
_COMPRESSIONS = (1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946, 34925, 50000)
# CR2 of Canon; IIQ of Phase One
_RAW_MAGIC = {b"CR\x02\x00", b"IIII", b"MMMM"}
_MAX_PAGES, _MAX_PIECES = 8, 1 << 20
_PHOTOMETRICS = {
    0: "grey", 1: "grey", 2: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr", 8: "Lab", 9: "Lab", 10: "Lab", 32844: "LogL",
    32845: "LogLuv",
}  # fmt: skip
Values = dict[int, tuple[int, ...]]


def refuse_previews(data: bytes) -> None:
    """Refuse a TIFF whose first picture is not the photograph.

    Raises:
        ImageError: `camera-raw`, or `unsupported-format`: the first of several pictures says that it is a preview.
    """
    first = first_directory(data) or 0
    values = read_values(data, first, _LAYOUT)
    others = list(_others(data, first, values))
    if data[8:12] in _RAW_MAGIC or _DNG in values or any(map(_is_raw, [values, *others])):
        raise ImageError("camera-raw", "a camera's raw file; export it as JPEG or TIFF")
    if _one(values, _SUBFILE) & 1 and others:
        size = f"{_one(values, _WIDTH)} x {_one(values, _HEIGHT)} pixels"
        detail = f"its first picture, {size}, is a preview of another; save that one alone as TIFF or JPEG"
        raise ImageError("unsupported-format", detail)


def unsupported_tiff(data: bytes, is_opened: bool) -> ImageError | None:
    """Why a TIFF that Pillow cannot read is sound all the same; None: it is damaged, or this cannot be told.

    Args:
        is_opened: whether Pillow took its header: then only its compression can be foreign.
    """
    first = first_directory(data) or 0
    values = read_values(data, first, _LAYOUT)
    pieces = _pieces(data, first)
    bits, samples = max(values.get(_BITS, (1,)), default=0), max(_one(values, _SAMPLES, 1), len(values.get(_BITS, ())))
    if not (_one(values, _WIDTH) and _one(values, _HEIGHT) and 0 < bits <= 64 and 0 < samples <= 0x1000 and pieces):
        return None
    if any(offset + length > len(data) for offset, length in pieces):
        return None
    if is_opened and _one(values, _COMPRESSION, 1) in _COMPRESSIONS:
        return None
    if data[:4] == b"MM\x00+":
        return ImageError("unsupported-format", "a BigTIFF whose numbers are big-endian; save it as TIFF or PNG")
    kind = {2: " signed", 3: " floating-point"}.get(_one(values, _FORMAT), "")
    what = f"{samples}{kind} band{'' if samples == 1 else 's'} of {bits} bits"
    if kind or bits not in (1, 2, 4, 8, 16):
        why = ", which have no agreed range" if kind or bits > 16 else ""
        return ImageError("unsupported-depth", f"{what}{why}; save 8 or 16 bits")
    if samples > 4:
        return ImageError("unsupported-format", f"{what}; save three of them as RGB, or one as grey")
    colours = _PHOTOMETRICS.get(_one(values, _PHOTOMETRIC), f"photometric {_one(values, _PHOTOMETRIC)}")
    how = f"{what} ({colours}, compression {_one(values, _COMPRESSION, 1)})"
    return ImageError("unsupported-format", f"a TIFF of {how}; save it as RGB or grey of 8 or 16 bits")


def is_inverted(data: bytes) -> bool:
    """Whether 0 is white, which Pillow knows of samples up to 8 bits alone."""
    return _one(read_values(data, first_directory(data) or 0, _LAYOUT), _PHOTOMETRIC, 1) == 0


def from_planes(data: bytes) -> Image.Image | None:
    """Samples of 16 bits that lie in planes as they are, of which Pillow would take the first one for the whole: RGB,
    rounded down to 8 bits as Pillow does for samples side by side. None: it is no such file.

    Raises:
        ImageError: `unsupported-format`: other colours, or in tiles; `truncated`.
    """
    first = first_directory(data) or 0
    values = read_values(data, first, _LAYOUT)
    samples = _one(values, _SAMPLES, 1)
    is_plain = _one(values, _COMPRESSION, 1) == 1 and _one(values, _PLANAR, 1) == 2
    if not is_plain or samples == 1 or _one(values, _BITS) != 16:
        return None
    if samples != 3 or _one(values, _PHOTOMETRIC) != 2 or _TILE_WIDTH in values:
        detail = f"{samples} bands of 16 bits in planes, one after the other; save them side by side (interleaved)"
        raise ImageError("unsupported-format", detail)
    shape = (samples, _one(values, _HEIGHT), _one(values, _WIDTH))
    whole = b"".join(data[offset : offset + length] for offset, length in _pieces(data, first))
    num_bytes = 2 * math.prod(shape)
    if len(whole) < num_bytes:
        raise ImageError("truncated", f"{num_bytes - len(whole)} bytes of its pixels are missing")
    planes = np.frombuffer(whole, "<u2" if data[:2] == b"II" else ">u2", math.prod(shape)).reshape(shape)
    return Image.fromarray(np.ascontiguousarray((planes >> 8).astype(np.uint8).transpose(1, 2, 0)))  # (H, W, 3)


def _one(values: Values, tag: int, default: int = 0) -> int:
    return next(iter(values.get(tag, ())), default)


def _is_raw(values: Values) -> bool:
    return _one(values, _PHOTOMETRIC) in _RAW_PHOTOMETRIC or _one(values, _COMPRESSION) in _RAW_COMPRESSION


def _others(data: bytes, first: int, values: Values) -> Iterator[Values]:
    """The directories below the first one and those that follow it, a few of them."""
    seen = {first}
    page = read_directory(data, first, next_only=True)
    while page is not None and page.next and page.next not in seen and len(seen) <= _MAX_PAGES:
        seen.add(page.next)
        found = read_values(data, page.next, _LAYOUT)
        if found:
            yield found
        page = read_directory(data, page.next, next_only=True)
    for below in values.get(_SUBDIRECTORIES, ())[:_MAX_PAGES]:
        found = read_values(data, below, _LAYOUT)
        if found:
            yield found


def _pieces(data: bytes, first: int) -> list[tuple[int, int]]:
    """Offset and length of every strip or tile."""
    values = read_values(data, first, _PIECES, most=_MAX_PIECES)
    for offsets, lengths in ((_TILES, _TILE_BYTES), (_STRIPS, _STRIP_BYTES)):
        if len(values.get(offsets, ())) == len(values.get(lengths, ())) > 0:
            return list(zip(values[offsets], values[lengths], strict=True))
    return []
