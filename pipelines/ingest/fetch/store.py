"""The store of what was fetched: a file for each content, named by its sha256, whole or absent."""

import errno
import hashlib
import itertools
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from pipelines.core.errors import ImageError, InputError

_LEFT_OVER_SECONDS = 3600.0
_numbers = itertools.count()


@contextmanager
def cache_errors(path: Path) -> Iterator[None]:
    """Say of a disk's trouble where it is and what to do.

    Raises:
        InputError: instead of any OSError or error of SQLite.
    """
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        reason = os.strerror(error.errno or 0) if isinstance(error, OSError) else str(error)
        remedy = "make it writable"
        if getattr(error, "errno", 0) in (errno.ENOSPC, errno.EDQUOT) or "full" in reason:
            remedy = "free some space"
        elif isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
            remedy = "delete that file"
        raise InputError(
            f"{path}: {reason}; downloads are kept there. Change this ({remedy}) and run again: what was fetched so "
            "far is not fetched again"
        ) from error


def open_store(objects: Path) -> None:
    """Make the folder, and clear it of what killed runs left half-written.

    Raises:
        InputError: it cannot be written.
    """
    with cache_errors(objects):
        objects.mkdir(parents=True, exist_ok=True)
        for left_over in objects.glob("*.partial"):
            with suppress(FileNotFoundError):  # another run's, just finished
                if time.time() - left_over.stat().st_mtime > _LEFT_OVER_SECONDS:
                    left_over.unlink()


def object_path(objects: Path, image_id: str) -> Path:
    """The file of the content with this sha256."""
    return objects / image_id[:2] / image_id


def has_object(objects: Path, image_id: str, size: int) -> bool:
    """Whether the content is there, as far as its size tells; `read_object` checks every byte."""
    try:
        return object_path(objects, image_id).stat().st_size == size
    except OSError:
        return False


def keep_content(objects: Path, file: IO[bytes]) -> tuple[str, int]:
    """Put a body into the store; content that is there already, or empty, is not written.

    Returns:
        Its sha256 and its size in bytes.

    Raises:
        InputError: the disk is full or cannot be written.
    """
    file.seek(0)
    image_id = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # IO lacks readinto
    size = file.tell()
    if size and not has_object(objects, image_id, size):
        path = object_path(objects, image_id)
        partial = objects / f"{os.getpid()}-{next(_numbers)}.partial"
        file.seek(0)
        with cache_errors(objects):
            try:
                path.parent.mkdir(exist_ok=True)
                # no fsync: after a power cut the reader finds a wrong digest, not a wrong picture
                with partial.open("wb") as out:
                    shutil.copyfileobj(file, out)
                partial.replace(path)
            except OSError:
                partial.unlink(missing_ok=True)
                raise
    return image_id, size


def read_object(objects: Path, image_id: str, *, max_file_bytes: int) -> bytes:
    """The content with this sha256.

    Raises:
        ImageError: `unreadable`: it is no longer in the cache, or damaged; `too-large`.
    """
    path = object_path(objects, image_id)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > max_file_bytes:
                raise ImageError("too-large", f"{size} bytes; ingest.max_file_bytes is {max_file_bytes}")
            data = file.read()
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise ImageError("unreadable", f"what was fetched is gone from the cache ({reason})") from error
    if hashlib.sha256(data).hexdigest() != image_id:
        path.unlink(missing_ok=True)
        raise ImageError("unreadable", "what was fetched lay damaged in the cache; run again to fetch it anew")
    return data
