"""The store of what was fetched: a file for each content, named by its sha256, whole or not there."""

import errno
import hashlib
import itertools
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipelines.core.errors import InputError

# bodies up to this wait in memory, so that most are written by one call
_HELD_BYTES = 1 << 20
_LEFT_OVER_SECONDS = 3600.0
_numbers = itertools.count()


def object_path(objects: Path, image_id: str) -> Path:
    """Where the content with this sha256 lies."""
    return objects / image_id[:2] / image_id


def has_object(objects: Path, image_id: str, size: int) -> bool:
    """Whether the content is there, as far as its size tells; `ObjectReader` checks every byte."""
    try:
        return object_path(objects, image_id).stat().st_size == size
    except OSError:
        return False


@contextmanager
def cache_errors(folder: Path) -> Iterator[None]:
    """Say of a disk's trouble where it is and what to do.

    Raises:
        InputError: instead of any OSError.
    """
    try:
        yield
    except OSError as error:
        remedy = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "make it writable"
        raise InputError(
            f"{folder}: {os.strerror(error.errno or 0)}; downloads are kept there. Change this ({remedy}) and run "
            "again: what was fetched so far is not fetched again"
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


class Body:
    """One body on its way into the store; memory holds little of it, however large it is.

    Args:
        objects: the store's folder.
    """

    def __init__(self, objects: Path) -> None:
        self._objects = objects
        self._partial = objects / f"{os.getpid()}-{next(_numbers)}.partial"
        self._digest = hashlib.sha256()
        self._held: list[bytes] = []
        self._num_held = 0
        self._spilled = False
        self.size = 0

    def write(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            InputError: the disk is full or cannot be written.
        """
        self._digest.update(data)
        self._held.append(data)
        self._num_held += len(data)
        self.size += len(data)
        if self._num_held > _HELD_BYTES:
            self._spill()

    def finish(self) -> str:
        """Give it its name, the sha256; content that is there already is not written again.

        Raises:
            InputError: the disk is full or cannot be written.
        """
        image_id = self._digest.hexdigest()
        path = object_path(self._objects, image_id)
        if has_object(self._objects, image_id, self.size):
            self.drop()
            return image_id
        # no fsync: after a power cut the reader finds a wrong digest, not a wrong picture
        self._spill()
        with cache_errors(self._objects):
            path.parent.mkdir(exist_ok=True)
            self._partial.replace(path)
        return image_id

    def drop(self) -> None:
        """Forget it."""
        self._held.clear()
        if self._spilled:
            self._partial.unlink(missing_ok=True)

    def _spill(self) -> None:
        self._spilled = True
        try:
            with cache_errors(self._objects), self._partial.open("ab") as file:
                file.writelines(self._held)
        except InputError:
            self.drop()
            raise
        self._held.clear()
        self._num_held = 0
