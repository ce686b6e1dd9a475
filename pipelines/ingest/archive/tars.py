"""The members of a tar."""

import io
import tarfile
from collections.abc import Iterator
from typing import BinaryIO

from pipelines.core.errors import InputError
from pipelines.ingest.archive.members import FOLDER, STORED, Member

_BLOCK = 512
# names and pax records are a few KiB at most; a longer "header" would only fill memory
_MAX_HEADER_BYTES = 1 << 20
_UNLIKE = {
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


def scan_tar(file: BinaryIO, where: str) -> Iterator[Member]:
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
            yield Member(f"byte {position}", position, 0, 0, STORED, -1, ("no-end", detail))
        start = _next_tar(file, position)
        if start is not None and not is_tar(_block(file, start)):
            yield Member(f"byte {start}", start, 0, 0, STORED, -1, ("trailing-data", "the tar ends before these bytes"))
            return


def _of_tar(info: tarfile.TarInfo) -> Member:
    if info.isdir():
        return Member(info.name, info.offset_data, 0, 0, STORED, -1, FOLDER)
    problem = _UNLIKE.get(info.type)
    if problem is None and info.issparse():
        problem = ("sparse-file", "a sparse file, whose holes are not stored; pack it without --sparse")
    elif problem is None and not info.isreg():
        problem = ("not-a-file", f"an entry of type {info.type!r}")
    return Member(info.name, info.offset_data, info.size, info.size, STORED, -1, problem)


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
