"""Reads members by random access: an index on disk that every worker maps, and one open archive a process.

A compressed tar becomes a plain one in the cache first: only then can a member be read without all before it.
"""

import bz2
import errno
import functools
import gzip
import hashlib
import itertools
import lzma
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from pipelines.core.errors import ImageError, InputError
from pipelines.core.files import code_digest, whole_file
from pipelines.core.progress import progress
from pipelines.ingest.archive.members import BZIP2, DEFLATE, LZMA, STORED, ArchiveMember, is_tar

Index = npt.NDArray[np.int64]
Stamp = tuple[int, int, int]

_LOCAL_HEADER = struct.Struct("<4s22xHH")
_LZMA_HEADER = struct.Struct("<2xHBI")


@dataclass(frozen=True)
class ArchiveReader:
    """Reads members; small when pickled, whatever the archive holds.

    Args:
        archive: the zip, or the uncompressed tar.
        stamp: of that file: see `file_stamp`.
        index: what `write_index` wrote.
        salt: what `write_index` returned.
        is_zip: else a tar.
    """

    archive: str
    stamp: Stamp
    index: str
    salt: int
    is_zip: bool

    def __call__(self, source_path: str) -> bytes:
        """The whole member.

        Raises:
            ImageError: `unreadable`, `bad-crc`, `wrong-size` or `broken-compression`.
        """
        index = _map_index(self.index)
        column = int(np.searchsorted(index[0], _key(source_path, self.salt)))
        offset, packed, size, method, crc = index[1:, column].tolist()
        try:
            archive = _open_archive(self.archive, self.stamp)
            if not self.is_zip:
                return archive.read(offset, size)
            signature, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(archive.read(offset, _LOCAL_HEADER.size))
            if signature != b"PK\x03\x04":
                raise ImageError("unreadable", f"no member starts at byte {offset} of the zip; it is damaged")
            data = archive.read(offset + _LOCAL_HEADER.size + name_bytes + extra_bytes, packed)
        except OSError as error:
            raise ImageError("unreadable", os.strerror(error.errno) if error.errno else str(error)) from error
        unpacked = _unpack_member(data, method, size)
        if len(unpacked) != size:
            how = "more" if len(unpacked) > size else f"{len(unpacked)}"
            raise ImageError("wrong-size", f"unpacks to {how} bytes, where the archive says {size}")
        if zlib.crc32(unpacked) != crc:
            raise ImageError("bad-crc", "its bytes are not those that were packed; the archive is damaged")
        return unpacked


def file_stamp(path: Path) -> Stamp:
    """Size, time of change (ns) and inode: a file with another stamp is another file."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ino


def write_index(folder: Path, paths: Sequence[str], members: Sequence[ArchiveMember]) -> tuple[Path, int]:
    """Write where each of N paths lies, (6, N) int64: key, offset, packed, size, method, crc, sorted by key.

    Returns:
        The file, named by its content, and the salt of the keys, chosen so that no two paths share one.
    """
    for salt in itertools.count():
        keys = np.array([_key(own, salt) for own in paths], np.int64)
        if len(np.unique(keys)) == len(keys):
            break
    rows = [(member.offset, member.packed, member.size, member.method, member.crc) for member in members]
    index = np.concatenate([keys[None], np.array(rows, np.int64).reshape(-1, 5).T])  # (6, N)
    index = np.ascontiguousarray(index[:, np.argsort(keys)])
    path = folder / f"{hashlib.sha256(index.data).hexdigest()[:32]}.index.npy"
    if not path.is_file():
        with whole_file(path) as file:
            np.save(file, index)
    return path, salt


def _key(path: str, salt: int) -> int:
    digest = hashlib.blake2b(path.encode("utf-8", "surrogateescape"), digest_size=8, salt=salt.to_bytes(8, "little"))
    return int.from_bytes(digest.digest(), "little", signed=True)


class _Archive:
    """An open archive, closed once nobody refers to it."""

    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self, offset: int, size: int) -> bytes:
        data = os.pread(self.descriptor, size, offset)
        while len(data) < size:  # Linux reads at most 2 GiB at once; network file systems less
            more = os.pread(self.descriptor, size - len(data), offset + len(data))
            if not more:
                raise ImageError("unreadable", f"ends after {len(data)} of {size} bytes; the archive is cut short")
            data += more
        return data

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


@functools.lru_cache(maxsize=8)
def _open_archive(path: str, stamp: Stamp) -> _Archive:
    archive = _Archive(path)
    found = os.fstat(archive.descriptor)
    if (found.st_size, found.st_mtime_ns, found.st_ino) != stamp:
        raise InputError(f"{path} was changed while it was read; run again, once nothing writes it")
    return archive


@functools.lru_cache(maxsize=8)
def _map_index(path: str) -> Index:
    index: Index = np.load(path, mmap_mode="r")
    return index


def _unpack_member(data: bytes, method: int, size: int) -> bytes:
    """The unpacked bytes: all of them, or one more than `size` where there are more than that."""
    try:
        match method:
            case _ if method == STORED:
                return data
            case _ if method == DEFLATE:
                return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size + 1)
            case _ if method == BZIP2:
                return bz2.BZ2Decompressor().decompress(data, size + 1)
            case _ if method == LZMA:
                return _unpack_lzma(data, size)
    except (zlib.error, OSError, lzma.LZMAError, EOFError, ValueError, struct.error) as error:
        raise ImageError("broken-compression", f"it cannot be unpacked ({error}); the archive is damaged") from error
    raise ImageError("unsupported-compression", f"zip's method {method}")


def _unpack_lzma(data: bytes, size: int) -> bytes:
    num_bytes, packed_settings, dictionary = _LZMA_HEADER.unpack_from(data)
    if num_bytes != 5:
        raise ValueError(f"{num_bytes} bytes of settings where LZMA has 5")
    settings = {
        "id": lzma.FILTER_LZMA1,
        "lc": packed_settings % 9,
        "lp": packed_settings // 9 % 5,
        "pb": packed_settings // 45,
        # a dictionary beyond the file's own size is memory that nothing uses
        "dict_size": min(dictionary, max(size, 1 << 12)),
    }
    unpacker = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[settings])
    return unpacker.decompress(data[_LZMA_HEADER.size :], size + 1)


_CHUNK = 1 << 20
_BLOCK = 512
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def _open_zstd(file: BinaryIO) -> Iterator[IO[bytes]]:
    import pyarrow as pa

    with pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd") as stream:
        yield stream


# how each compression starts, and what opens it; any of these takes an open file
_COMPRESSIONS: dict[bytes, tuple[str, Callable[[BinaryIO], Any]]] = {
    b"\x1f\x8b": ("gzip", gzip.open),
    b"BZh": ("bzip2", bz2.open),
    b"\xfd7zXZ\0": ("xz", lzma.open),
    b"\x28\xb5\x2f\xfd": ("zstd", _open_zstd),
}
_FOREIGN = {b"7z\xbc\xaf\x27\x1c": "a 7z archive", b"Rar!\x1a\x07": "a RAR archive"}


def kind_of(file: BinaryIO, where: str) -> str:
    """`zip`, `tar`, or the compression of a tar, by content.

    Raises:
        InputError: it is none of these.
    """
    start = file.read(_BLOCK)
    if not start:
        raise InputError(f"{where} is empty; get the archive again")
    for signature, (name, _) in _COMPRESSIONS.items():
        if start.startswith(signature):
            return name
    if is_tar(start):
        return "tar"
    # a zip may follow a program that unpacks it; one without its end is still a zip
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")) or zipfile.is_zipfile(file):
        return "zip"
    foreign = next((name for signature, name in _FOREIGN.items() if start.startswith(signature)), "no archive")
    raise InputError(
        f"{where} is {foreign}; name a zip or a tar (plain, or with gzip, bzip2, xz or zstd), or unpack it and use "
        "kind: folder"
    )


def plain_tar(path: Path, compression: str, *, folder: Path, max_bytes: int, where: str) -> Path:
    """The plain tar that `path` unpacks to; made once, whole or not at all.

    Args:
        path: the compressed tar.
        compression: by `kind_of`.
        folder: of the cache; a tar of an earlier state of `path` goes.
        max_bytes: larger ones are refused, counted while unpacking.
        where: names the archive in messages.

    Raises:
        InputError: it is broken, cut short, no tar or too large, or the disk is full.
    """
    stamp = file_stamp(path)
    name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:16]
    target = folder / f"{name}-{'-'.join(f'{part:x}' for part in stamp)}-{code_digest('ingest')[:8]}.tar"
    if target.is_file():
        return target
    with unpacking_to(folder, where):
        for old in folder.glob(f"{name}-*.tar"):
            old.unlink()
        _unpack_tar(path, compression, target, max_bytes=max_bytes, where=where)
    return target


@contextmanager
def unpacking_to(folder: Path, where: str) -> Iterator[None]:
    """Make `folder`; what goes wrong with it is an InputError that names it and the source (`where`)."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if error.errno is None:
            raise
        what = os.strerror(error.errno)
        raise InputError(
            f"{where} cannot be unpacked to {folder} ({what}); "
            + ("free some space there and run again" if error.errno in _NO_SPACE else "change its permissions")
        ) from error


def _unpack_tar(path: Path, compression: str, target: Path, *, max_bytes: int, where: str) -> None:
    _, open_stream = next(found for found in _COMPRESSIONS.values() if found[0] == compression)
    with (
        path.open("rb") as file,
        whole_file(target) as out,
        progress("ingest: unpacking", path.stat().st_size >> 20, unit="MiB") as advance,
    ):
        written = said = 0
        for chunk in _chunks(file, open_stream, where):
            if not written and not is_tar(chunk[:_BLOCK]):
                raise InputError(f"{where} is {compression}, but what it holds is no tar; name a packed tar or a zip")
            written += len(chunk)
            if written > max_bytes:
                raise InputError(
                    f"{where} unpacks to more than max_bytes: {max_bytes} (with the headers of the tar); raise it if "
                    "the archive is what you think it is"
                )
            out.write(chunk)
            done = file.tell() >> 20
            advance(done - said)
            said = done


def _chunks(file: BinaryIO, open_stream: Callable[[BinaryIO], Any], where: str) -> Iterator[bytes]:
    """What the stream unpacks to, in pieces of at most 1 MiB."""
    try:
        with open_stream(file) as stream:
            while chunk := stream.read(_CHUNK):
                yield chunk
    except (EOFError, zlib.error, lzma.LZMAError) as error:
        raise _broken(where, error) from error
    except OSError as error:
        # gzip, bzip2 and arrow report broken data so; an error of the disk has a number
        if error.errno is not None:
            raise
        raise _broken(where, error) from error


def _broken(where: str, error: Exception) -> InputError:
    return InputError(f"{where} cannot be unpacked ({error}): it was cut short or changed on its way; get it again")
