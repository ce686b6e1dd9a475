"""The members of a zip."""

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from pipelines.core.errors import InputError
from pipelines.ingest.archive.members import FOLDER, METHODS, STORED, Member

_ENCRYPTED, _PATCHED, _UTF8 = 0x1, 0x20, 0x800
_UNICODE_PATH = 0x7075  # extra field of Info-ZIP: the name in UTF-8
_LOCAL_HEADER_BYTES = 30
_UNLIKE = {
    stat.S_IFLNK: ("symlink", "a symbolic link"),
    stat.S_IFIFO: ("not-a-file", "a FIFO"),
    stat.S_IFSOCK: ("not-a-file", "a socket"),
    stat.S_IFCHR: ("not-a-file", "a device"),
    stat.S_IFBLK: ("not-a-file", "a device"),
}


def scan_zip(file: BinaryIO, where: str) -> Iterator[Member]:
    """The members of a zip (zip64 too), in the order of its directory; folders too.

    Raises:
        InputError: it is broken or cut short.
    """
    try:
        entries = zipfile.ZipFile(file).infolist()
    except (zipfile.BadZipFile, ValueError, OSError, struct.error, RuntimeError, OverflowError) as error:
        raise InputError(
            f"{where} is a broken zip ({error}): its directory, which stands at the end, is missing or damaged. "
            "It was cut short or changed on its way; get it again"
        ) from error
    overlapping = _overlapping(entries)
    for place, entry in enumerate(entries):
        mode = entry.external_attr >> 16
        if entry.is_dir() or stat.S_IFMT(mode) == stat.S_IFDIR:
            yield Member(_zip_name(entry), entry.header_offset, 0, 0, STORED, -1, FOLDER)
            continue
        problem = ("overlapping", "its bytes are those of another member too") if place in overlapping else None
        yield Member(
            _zip_name(entry), entry.header_offset, entry.compress_size, entry.file_size, entry.compress_type,
            entry.CRC, _zip_problem(entry, mode) or problem,
        )  # fmt: skip


def _zip_problem(entry: zipfile.ZipInfo, mode: int) -> tuple[str, str] | None:
    if stat.S_IFMT(mode) in _UNLIKE:
        return _UNLIKE[stat.S_IFMT(mode)]
    if entry.flag_bits & _ENCRYPTED:
        return "encrypted", "it needs a password; unpack the archive yourself and name the folder"
    if entry.compress_type not in METHODS or entry.flag_bits & _PATCHED:
        return (
            "unsupported-compression",
            f"zip's method {entry.compress_type}; pack it stored, or with deflate, bzip2 or lzma",
        )
    # nothing packs worse than this; more would only be read for nothing
    if entry.compress_size > 2 * entry.file_size + 4096 or (
        entry.compress_type == STORED and entry.compress_size != entry.file_size
    ):
        return "wrong-size", f"{entry.compress_size} bytes in the archive cannot be {entry.file_size} unpacked"
    return None


def _overlapping(entries: list[zipfile.ZipInfo]) -> set[int]:
    """Places of the entries whose bytes reach into the next: one stream sold many times is a bomb."""
    found = set()
    last, end = -1, -1  # the entry that reaches furthest, and to where
    for place in sorted(range(len(entries)), key=lambda place: entries[place].header_offset):
        start = entries[place].header_offset
        if start < end:
            found |= {last, place}
        if start + _LOCAL_HEADER_BYTES + entries[place].compress_size > end:
            last, end = place, start + _LOCAL_HEADER_BYTES + entries[place].compress_size
    return found


def _zip_name(entry: zipfile.ZipInfo) -> str:
    """The name, whoever packed it: flagged UTF-8, Info-ZIP's extra field, unflagged UTF-8 (macOS), else cp437 (DOS)."""
    name = entry.orig_filename
    if entry.flag_bits & _UTF8 or name.isascii():
        return name
    raw = name.encode("cp437")
    extra = entry.extra
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<HH", extra)
        field, extra = extra[4 : 4 + length], extra[4 + length :]
        # version 1, the CRC of the name it stands for, the name
        if kind == _UNICODE_PATH and field[:5] == b"\x01" + struct.pack("<I", zlib.crc32(raw)):
            raw = field[5:]
            break
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return name
