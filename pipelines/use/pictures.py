"""What PATH… of a command names: files, folders, patterns, archives, URLs, a list or a picture on standard input.

Pictures come one after the other, as they are found: nothing holds all names of a tree of any size. What cannot be read
is a picture too, whose `read` says why, by the reasons that ingest rejects files for.
"""

import asyncio
import glob
import os
import re
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self

from pipelines.core.errors import ImageError, InputError
from pipelines.ingest.file_reader import FolderReader
from pipelines.ingest.labels import printable
from pipelines.ingest.paths import is_litter
from pipelines.params.ingest import DownloadParams
from pipelines.use.model_folder import Limits

_URL = re.compile(r"https?://", re.IGNORECASE)
_ARCHIVE = re.compile(r"\.(zip|tar|tgz|tbz2?|txz|tar\.(gz|bz2|xz|zst))$", re.IGNORECASE)
_LOOK_BYTES = 4096
"""of standard input, by which a list of paths is told from a picture"""
MAX_ARCHIVE_BYTES = 100_000_000_000
"""that an archive may unpack to, as ingest.sources[].max_bytes"""


class Picture(NamedTuple):
    """One picture that was asked about."""

    path: str
    """as it was named; below a folder or archive its path, with / between"""
    read: Callable[[], bytes]
    """the whole file; raises ImageError. May be called from another thread"""


class NamedPictures:
    """The pictures that `paths` name, within its `with` block.

    Args:
        paths: files, folders, patterns (`**` too), archives, URLs, and `-` for `stdin`: a path or URL on each line, or
            the bytes of one picture.
        limits: larger files are refused unread.
        download: the rules by which URLs are fetched.
        stdin: read for `-`.

    Raises:
        InputError: a path does not exist, or names nothing. What a line of standard input names may be missing.
    """

    def __init__(
        self, paths: Sequence[str], *, limits: Limits, download: DownloadParams, stdin: BinaryIO | None = None
    ) -> None:
        self._limits, self._download, self._stdin = limits, download, stdin
        self._stack = ExitStack()
        self._fetching: _Fetching | None = None
        self._paths = [path for one in paths for path in self._expand(one)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def __iter__(self) -> Iterator[Picture]:
        for path in self._paths:
            if path == "-":
                yield from self._standard_input()
            else:
                yield from self._named(path)

    def _expand(self, path: str) -> list[str]:
        """`path`, or what it matches as a pattern that the shell left."""
        if path == "-" or _URL.match(path) or os.path.lexists(path):
            return [path]
        found = sorted(glob.glob(path, recursive=True)) if glob.has_magic(path) else []  # noqa: PTH207  (absolute too)
        if not found:
            what = "matches nothing" if glob.has_magic(path) else "does not exist"
            raise InputError(f"{path} {what}: name a picture, a folder, an archive, a pattern, a URL, or - for a list")
        return found

    def _named(self, path: str) -> Iterator[Picture]:
        if _URL.match(path):
            yield Picture(path, self._fetch(path))
        elif Path(path).is_dir():
            found = False
            for picture in self._folder(path):
                found = True
                yield picture
            if not found:
                raise InputError(f"{path} holds no file: name a folder of pictures; folders in it are entered")
        elif _ARCHIVE.search(path) and Path(path).is_file():
            yield from self._archive(Path(path))
        else:
            yield self._file(path)

    def _file(self, path: str) -> Picture:
        folder, name = os.path.split(path)
        # what a person names by hand may be a link
        reader = FolderReader(folder or ".", self._limits.max_file_bytes, True)
        return Picture(printable(path), lambda: reader(name))

    def _folder(self, root: str) -> Iterator[Picture]:
        """As ingest reads a folder: links and hidden files are refused, what systems leave behind is passed by."""
        reader = FolderReader(root, self._limits.max_file_bytes, False)
        for above, folders, names in os.walk(root):
            folders[:] = sorted(name for name in folders if not is_litter(name))
            for name in sorted((*names, *(one for one in folders if _is_refused(above, one)))):
                if is_litter(name):
                    continue
                path = os.path.join(above, name)  # noqa: PTH118  (names that are not UTF-8, 100,000 times)
                if name.startswith("."):
                    yield Picture(printable(path), _refusing("hidden", "a hidden file or folder"))
                elif os.path.islink(path):  # noqa: PTH114
                    yield Picture(printable(path), _refusing("symlink", "a symbolic link; name it to have it read"))
                else:
                    inside = os.path.relpath(path, root)
                    yield Picture(printable(path), lambda inside=inside: reader(inside))  # type: ignore[misc]
            folders[:] = [name for name in folders if not _is_refused(above, name)]

    def _archive(self, path: Path) -> Iterator[Picture]:
        """The members of a zip or tar, with or without folders, by the rules of ingest's archive source."""
        from pipelines.ingest.archive.members import FOLDER, ArchiveMember, scan_tar, scan_zip
        from pipelines.ingest.archive.reader import ArchiveReader, file_stamp, kind_of, plain_tar, write_index
        from pipelines.ingest.paths import inner_path

        where, folder = str(path), Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="miwake-")))
        with path.open("rb") as file:
            kind, plain = kind_of(file, where), path
            if kind not in ("zip", "tar"):
                plain = plain_tar(path, kind, folder=folder, max_bytes=MAX_ARCHIVE_BYTES, where=where)
            if kind == "zip":
                members = list(scan_zip(file, where))
            else:
                with plain.open("rb") as tar:
                    members = list(scan_tar(tar, where))
        found: dict[str, ArchiveMember] = {}
        refused: list[Picture] = []
        for member in members:
            if member.problem == FOLDER or any(map(is_litter, member.name.split("/"))):
                continue
            try:
                inside = inner_path(member.name)
                if member.problem:
                    raise ImageError(*member.problem)
                if member.size > self._limits.max_file_bytes:
                    raise _too_large(member.size, self._limits)
                found[inside] = member  # of members with one name the last counts
            except ImageError as error:
                refused.append(Picture(f"{where}/{printable(member.name)}", _refusing(error.reason, error.detail)))
        if not found and not refused:
            raise InputError(f"{where} holds no file: name an archive with pictures in it")
        paths = sorted(found)
        index, salt = write_index(folder, paths, [found[one] for one in paths])
        reader = ArchiveReader(str(plain), file_stamp(plain), str(index), salt, kind == "zip")
        for one in paths:
            yield Picture(f"{where}/{printable(one)}", lambda one=one: reader(one))  # type: ignore[misc]
        yield from refused

    def _standard_input(self) -> Iterator[Picture]:
        if self._stdin is None:
            raise InputError("- reads standard input, and there is none: name paths")
        start = self._stdin.read(_LOOK_BYTES)
        if not start.strip():
            raise InputError("standard input is empty: give it a path on each line, or the bytes of a picture")
        if not _is_text(start):
            data = start + self._stdin.read(self._limits.max_file_bytes + 1 - len(start))
            if len(data) > self._limits.max_file_bytes:
                raise InputError(
                    f"standard input holds more than {self._limits.max_file_bytes} bytes, which ingest.max_file_bytes "
                    "allows a picture"
                )
            yield Picture("-", lambda: data)
            return
        left = start
        while True:
            *lines, left = left.split(b"\n")
            for line in lines:
                yield from self._line(line)
            more = self._stdin.readline()
            if not more:
                break
            left += more
        yield from self._line(left)

    def _line(self, line: bytes) -> Iterator[Picture]:
        path = os.fsdecode(line.strip())
        if not path:
            return
        if not _URL.match(path) and not os.path.lexists(path):
            yield self._file(path)  # its row says that it does not exist
            return
        try:
            yield from self._named(path)
        except InputError as error:  # an empty folder or a broken archive, among other lines
            yield Picture(printable(path), _refusing("unreadable", str(error)))

    def _fetch(self, url: str) -> Callable[[], bytes]:
        if self._fetching is None:
            self._fetching = self._stack.enter_context(_Fetching(self._download, self._limits.max_file_bytes))
        return self._fetching.start(url).result


def _is_refused(above: str, folder: str) -> bool:
    return folder.startswith(".") or os.path.islink(os.path.join(above, folder))  # noqa: PTH114, PTH118


def _is_text(start: bytes) -> bool:
    if b"\0" in start:
        return False
    try:
        start.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start >= len(start) - 3 and len(start) == _LOOK_BYTES  # a letter cut in two
    return True


def _refusing(reason: str, detail: str) -> Callable[[], bytes]:
    def refuse() -> bytes:
        raise ImageError(reason, detail)

    return refuse


def _too_large(size: int, limits: Limits) -> ImageError:
    return ImageError("too-large", f"{size} bytes; ingest.max_file_bytes is {limits.max_file_bytes}")


class _Fetching:
    """Fetches URLs in a thread of its own, as ingest does; what came is deleted at the end.

    Args:
        params: of ingest.download.
        max_file_bytes: of a picture.
    """

    def __init__(self, params: DownloadParams, max_file_bytes: int) -> None:
        from pipelines.ingest.fetch.fetcher import Fetcher

        self._max_file_bytes = max_file_bytes
        self._folder = tempfile.TemporaryDirectory(prefix="miwake-")
        self._objects = Path(self._folder.name)
        self._fetcher = Fetcher(params, max_file_bytes=max_file_bytes, objects=self._objects)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._fetcher.__aenter__(), self._loop).result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._folder.cleanup()

    async def _end(self) -> None:
        open_ = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in open_:
            task.cancel()
        await asyncio.gather(*open_, return_exceptions=True)
        await self._fetcher.__aexit__(None, None, None)
        await self._loop.shutdown_default_executor()

    def start(self, url: str) -> "Future[bytes]":
        """Begin with `url`; the result is the picture, or raises ImageError."""
        return asyncio.run_coroutine_threadsafe(self._fetch(url), self._loop)

    async def _fetch(self, url: str) -> bytes:
        from pipelines.ingest.fetch.records import FetchRequest
        from pipelines.ingest.fetch.store import read_object

        record = await self._fetcher.fetch(FetchRequest(url, ""))
        if not record.ok:
            raise ImageError(record.outcome, record.detail)
        return read_object(self._objects, record.image_id, max_file_bytes=self._max_file_bytes)
