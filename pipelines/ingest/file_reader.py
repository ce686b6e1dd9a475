"""Reads files below a folder, whole, and refuses what is no file."""

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pipelines.core.errors import ImageError

_SMALL_BYTES = 1 << 14
# with O_PATH it is enough to be allowed to enter a folder, as it is on the way to a file
_FOLDER_FLAGS = os.O_DIRECTORY | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)
KINDS = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


@dataclass(frozen=True)
class FolderReader:
    """Reads files below `root`.

    Args:
        root: the folder.
        max_file_bytes: larger files are refused unread.
        follow: whether the last part of a path may be a symbolic link.
    """

    root: str
    max_file_bytes: int
    follow: bool

    def __call__(self, source_path: str) -> bytes:
        """The whole file.

        Raises:
            ImageError: `unreadable`, `not-a-file` or `too-large`.
        """
        found = self._read(f"{self.root}/{source_path}", self._flags(), None)
        if isinstance(found, ImageError):
            raise found
        return found

    def each(self, source_paths: Iterable[str]) -> Iterator[bytes | ImageError]:
        """Every whole file in turn, or why it cannot be had.

        Faster than one at a time: files that lie in one folder are looked up from there, not from the root, and after
        a large file another is expected.
        """
        flags, large = self._flags(), False
        last, within = "", None
        try:
            for path in source_paths:
                folder, _, name = path.rpartition("/")
                if folder != last:
                    if within is not None:
                        os.close(within)
                    last, within = folder, None
                elif within is None:
                    within = self._enter(folder)
                data = self._read(f"{self.root}/{path}" if within is None else name, flags, within, large=large)
                large = isinstance(data, bytes) and len(data) >= _SMALL_BYTES
                yield data
        finally:
            if within is not None:
                os.close(within)

    def _flags(self) -> int:
        # without O_NONBLOCK, opening a FIFO that took the file's place since it was listed would wait for ever
        return os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if self.follow else os.O_NOFOLLOW)

    def _enter(self, folder: str) -> int | None:
        """A descriptor of a folder; None where it cannot be had: opening its files will say why."""
        try:
            return os.open(f"{self.root}/{folder}", _FOLDER_FLAGS)
        except OSError:
            return None

    def _read(self, path: str, flags: int, within: int | None, *, large: bool = False) -> bytes | ImageError:
        try:
            descriptor = os.open(path, flags, dir_fd=within)
        except OSError as error:
            return unreadable(error)
        try:
            if large:
                return self._whole(descriptor)
            # a regular file gives less than it is asked for at its end alone, and nothing but a file can be read at a
            # place: a short answer that is not empty needs no further question
            data = os.pread(descriptor, _SMALL_BYTES, 0)
            return data if 0 < len(data) < min(_SMALL_BYTES, self.max_file_bytes) else self._whole(descriptor)
        except OSError as error:
            return self._refusal(os.fstat(descriptor)) or unreadable(error)
        finally:
            os.close(descriptor)

    def _whole(self, descriptor: int) -> bytes | ImageError:
        found = os.fstat(descriptor)
        refusal = self._refusal(found)
        if refusal is not None:
            return refusal
        data = os.read(descriptor, found.st_size)
        while len(data) < found.st_size:  # Linux reads at most 2 GiB at once; network file systems less
            more = os.read(descriptor, found.st_size - len(data))
            if not more:
                return ImageError("unreadable", f"ends after {len(data)} of {found.st_size} bytes")
            data += more
        return data

    def _refusal(self, found: os.stat_result) -> ImageError | None:
        if not stat.S_ISREG(found.st_mode):
            return ImageError("not-a-file", KINDS.get(stat.S_IFMT(found.st_mode), "no regular file"))
        if found.st_size > self.max_file_bytes:
            return ImageError("too-large", f"{found.st_size} bytes; ingest.max_file_bytes is {self.max_file_bytes}")
        return None


def unreadable(error: OSError) -> ImageError:
    return ImageError("unreadable", os.strerror(error.errno) if error.errno else str(error))
