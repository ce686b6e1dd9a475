"""A compressed tar becomes a plain one in the cache, once: only then can a member be read without all before it."""

import bz2
import errno
import gzip
import hashlib
import lzma
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO

from pipelines.core.errors import InputError
from pipelines.core.files import code_digest, whole_file
from pipelines.core.progress import progress
from pipelines.ingest.archive.reading import file_stamp
from pipelines.ingest.archive.tars import is_tar

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
        _unpack(path, compression, target, max_bytes=max_bytes, where=where)
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


def _unpack(path: Path, compression: str, target: Path, *, max_bytes: int, where: str) -> None:
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
