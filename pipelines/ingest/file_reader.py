"""Reads files below a folder, whole, and refuses what is no file."""

import os
import stat
from dataclasses import dataclass

from pipelines.core.errors import ImageError

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
        # without O_NONBLOCK, opening a FIFO that took the file's place since it was listed would wait for ever
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if self.follow else os.O_NOFOLLOW)
        try:
            descriptor = os.open(f"{self.root}/{source_path}", flags)
            try:
                return self._read(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise unreadable(error) from error

    def _read(self, descriptor: int) -> bytes:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ImageError("not-a-file", KINDS.get(stat.S_IFMT(found.st_mode), "no regular file"))
        if found.st_size > self.max_file_bytes:
            raise ImageError("too-large", f"{found.st_size} bytes; ingest.max_file_bytes is {self.max_file_bytes}")
        data = os.read(descriptor, found.st_size)
        while len(data) < found.st_size:  # Linux reads at most 2 GiB at once; network file systems less
            more = os.read(descriptor, found.st_size - len(data))
            if not more:
                raise ImageError("unreadable", f"ends after {len(data)} of {found.st_size} bytes")
            data += more
        return data


def unreadable(error: OSError) -> ImageError:
    return ImageError("unreadable", os.strerror(error.errno) if error.errno else str(error))
