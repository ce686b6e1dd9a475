"""The members of a zip or tar, from headers alone; nothing that they say is believed by whoever reads the bytes."""

import io
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from pipelines.core.errors import InputError

STORED, DEFLATE, BZIP2, LZMA = 0, 8, 12, 14
METHODS = {STORED, DEFLATE, BZIP2, LZMA}


FOLDER = ("empty-folder", "the class folder holds no file")


class ArchiveMember(NamedTuple):
    """One entry; a folder's `problem` is FOLDER."""

    name: str
    """as stored, decoded; a tar's bytes that are not UTF-8 are surrogates, as in file names"""
    offset: int
    """of the local header (zip) or of the first byte (tar) in the archive"""
    packed: int
    """bytes in the archive"""
    size: int
    """bytes once unpacked, as the header says"""
    method: int
    """compression, by zip's numbers"""
    crc: int
    """of the unpacked bytes; -1 where the format has none"""
    problem: tuple[str, str] | None
    """reason and detail of what cannot be read"""


_BLOCK = 512
# names and pax records are a few KiB at most; a longer "header" would only fill memory
_MAX_HEADER_BYTES = 1 << 20
_UNLIKE_IN_TAR = {
    tarfile.SYMTYPE: ("symlink", "a symbolic link"),
    tarfile.LNKTYPE: ("hard-link", "a hard link to another member"),
    tarfile.FIFOTYPE: ("not-a-file", "a FIFO"),
    tarfile.CHRTYPE: ("not-a-file", "a device"),
    tarfile.BLKTYPE: ("not-a-file", "a device"),
}


def is_tar(start: bytes) -> bool:
    """Whether a file that starts with these 512 bytes is a tar; one without any member counts."""
    if len(start) == _BLOCK and not start.strip(b"\0"):
        return True
    try:
        tarfile.TarInfo.frombuf(start, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def scan_tar(file: BinaryIO, where: str) -> Iterator[ArchiveMember]:
    """The members of an uncompressed tar (ustar, GNU, pax, v7), in their order; folders are left out.

    Tars that were put one after the other are read as one. What follows the last one is a member with a problem.

    Raises:
        InputError: it is broken or cut short.
    """
    end = file.seek(0, io.SEEK_END)
    start: int | None = 0
    while start is not None:
        file.seek(start)
        position = start
        try:
            with tarfile.open(fileobj=_Headers(file), mode="r:", encoding="utf-8", errors="surrogateescape") as tar:  # type: ignore[call-overload]
                while (info := tar.next()) is not None:
                    if not position <= info.offset < tar.offset or info.size < 0:
                        raise _broken(where, "a header that leads backwards", info.offset)
                    position = tar.offset
                    if info.offset_data + (info.size if info.isreg() and not info.issparse() else 0) > end:
                        raise _cut_short(where, info.offset)
                    tar.members = []  # it would keep every header: 1 KB a file
                    yield _of_tar(info)
                position = tar.offset
        except (tarfile.TarError, ValueError, RecursionError, OverflowError) as error:
            if position >= end:
                raise _cut_short(where, position) from error
            raise _broken(where, str(error), position) from error
        mark = _block(file, position)
        if mark.strip(b"\0"):
            raise _cut_short(where, position) if len(mark) < _BLOCK else _broken(where, "no header", position)
        if not mark:
            detail = "the tar has no end mark: it may have been cut short between two files, and what followed is lost"
            yield ArchiveMember(f"byte {position}", position, 0, 0, STORED, -1, ("no-end", detail))
        start = _next_tar(file, position)
        if start is not None and not is_tar(_block(file, start)):
            yield ArchiveMember(
                f"byte {start}", start, 0, 0, STORED, -1, ("trailing-data", "the tar ends before these bytes")
            )
            return


def _of_tar(info: tarfile.TarInfo) -> ArchiveMember:
    if info.isdir():
        return ArchiveMember(info.name, info.offset_data, 0, 0, STORED, -1, FOLDER)
    problem = _UNLIKE_IN_TAR.get(info.type)
    if problem is None and info.issparse():
        problem = ("sparse-file", "a sparse file, whose holes are not stored; pack it without --sparse")
    elif problem is None and not info.isreg():
        problem = ("not-a-file", f"an entry of type {info.type!r}")
    return ArchiveMember(info.name, info.offset_data, info.size, info.size, STORED, -1, problem)


def _broken(where: str, what: str, offset: int) -> InputError:
    return InputError(
        f"{where} is a broken tar ({what} at about byte {offset}): it was changed on its way; get it again"
    )


def _cut_short(where: str, offset: int) -> InputError:
    return InputError(
        f"{where} is cut short: the member at byte {offset} reaches beyond its end, and nobody knows how many follow; "
        "get the whole archive"
    )


def _next_tar(file: BinaryIO, position: int) -> int | None:
    """Where the next block that is not all zeros starts; None at the end."""
    file.seek(position)
    while chunk := file.read(1 << 20):
        rest = chunk.lstrip(b"\0")
        if rest:
            return position + (len(chunk) - len(rest)) // _BLOCK * _BLOCK
        position += len(chunk)
    return None


def _block(file: BinaryIO, position: int) -> bytes:
    file.seek(position)
    return file.read(_BLOCK)


class _Headers:
    """A tar to tarfile, which reads nothing but headers here: it refuses what is no header's length."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.seek = file.seek
        self.tell = file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header says that it has {size} bytes")
        return self.file.read(size)


_ENCRYPTED, _PATCHED, _UTF8 = 0x1, 0x20, 0x800
_UNICODE_PATH = 0x7075  # extra field of Info-ZIP: the name in UTF-8
_LOCAL_HEADER_BYTES = 30
_UNLIKE_IN_ZIP = {
    stat.S_IFLNK: ("symlink", "a symbolic link"),
    stat.S_IFIFO: ("not-a-file", "a FIFO"),
    stat.S_IFSOCK: ("not-a-file", "a socket"),
    stat.S_IFCHR: ("not-a-file", "a device"),
    stat.S_IFBLK: ("not-a-file", "a device"),
}


def scan_zip(file: BinaryIO, where: str) -> Iterator[ArchiveMember]:
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
            yield ArchiveMember(_zip_name(entry), entry.header_offset, 0, 0, STORED, -1, FOLDER)
            continue
        problem = ("overlapping", "its bytes are those of another member too") if place in overlapping else None
        yield ArchiveMember(
            _zip_name(entry), entry.header_offset, entry.compress_size, entry.file_size, entry.compress_type,
            entry.CRC, _zip_problem(entry, mode) or problem,
        )  # fmt: skip


def _zip_problem(entry: zipfile.ZipInfo, mode: int) -> tuple[str, str] | None:
    if stat.S_IFMT(mode) in _UNLIKE_IN_ZIP:
        return _UNLIKE_IN_ZIP[stat.S_IFMT(mode)]
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
