"""What directories of EXIF and TIFF are read for: which way up a picture stands, and what a TIFF holds.

A parser of its own, since the ones in libraries read every tag: 65,535 tags that each claim the whole file cost hours.
Nothing is copied here, and each entry is looked at once.
"""

import struct
from collections.abc import Collection
from typing import NamedTuple

_ORIENTATION = 0x0112
_SHORT = 3
_MAX_ENTRIES = 0xFFFF  # which a BigTIFF might exceed
# bytes of one value of TIFF's types 1 to 18; 0: no such type
_TYPE_BYTES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8)
# types of whole numbers
_WHOLE = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}


class Directory(NamedTuple):
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


def read_directory(tiff: bytes, offset: int, *, next_only: bool = False) -> Directory | None:
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
    return Directory(values, num_bytes, following)


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


class _Layout(NamedTuple):
    order: str
    entry_bytes: int
    entries: str
    """format of the number of entries"""
    offset: str
    """format of offsets and lengths"""


def _layout(tiff: bytes) -> _Layout | None:
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 8:
        return None
    version = struct.unpack_from(order + "H", tiff, 2)[0]
    return {42: _Layout(order, 12, "H", "I"), 43: _Layout(order, 20, "Q", "Q")}.get(version)
