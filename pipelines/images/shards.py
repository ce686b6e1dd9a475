"""Shards: uncompressed tars of original files, `<label>/<image_id>.<ext>`, each image one seek away.

They depend on content alone. Names of more than 100 bytes and all that is not ASCII stand in pax records as UTF-8,
which every tar reads.
"""

import os
import tarfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from pipelines.core.errors import InputError
from pipelines.core.files import whole_file


class ShardReader:
    """Reads the bytes of single images out of the shards of one folder; keeps the shards open.

    Args:
        folder: where the manifest and its shards lie (data/ingest).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: dict[str, int] = {}

    def read(self, shard: str, offset: int, size: int) -> bytes:
        """The `size` bytes at `offset` of `shard`: one original file.

        Raises:
            InputError: the shard is missing or shorter than the manifest says.
        """
        if shard not in self._open:
            path = self.folder / shard
            try:
                self._open[shard] = os.open(path, os.O_RDONLY)
            except FileNotFoundError as error:
                raise InputError(f"{path} is missing: run `dvc checkout`, or `dvc repro`") from error
        data = os.pread(self._open[shard], size, offset)
        if len(data) != size:
            raise InputError(f"{self.folder / shard} ends inside an image: run `dvc checkout --force`")
        return data

    def close(self) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


EXTENSIONS = {
    "JPEG": "jpg",
    "PNG": "png",
    "GIF": "gif",
    "BMP": "bmp",
    "WEBP": "webp",
    "TIFF": "tif",
    "AVIF": "avif",
    "HEIF": "heic",
    "PPM": "ppm",
}
_END_BYTES = 2 * tarfile.BLOCKSIZE
"""of a tar: two blocks of zeros"""


def shard_number(name: str) -> int:
    """7 of images-00007.tar; -1 of any other name."""
    digits = name.removeprefix("images-").removesuffix(".tar")
    return int(digits) if digits.isdecimal() and digits.isascii() and name == f"images-{digits}.tar" else -1


class ShardWriter:
    """Appends files to `images-00000.tar`, `images-00001.tar`, … of one folder; each appears once it is whole.

    Args:
        folder: where the shards go.
        shard_bytes: a shard is closed when it would grow past this; one larger file gets a shard of its own.
        number: of the first shard.
    """

    def __init__(self, folder: Path, shard_bytes: int, *, number: int = 0) -> None:
        self.folder = folder
        self.shard_bytes = shard_bytes
        self._number = number
        self._stack = ExitStack()
        self._file: BinaryIO | None = None
        self._name = ""
        self._position = 0

    def add(self, name: str, data: bytes | memoryview) -> tuple[str, int]:
        """Append one file.

        Args:
            name: of the member, with its label clean (see `pipelines.ingest.labels`).
            data: its bytes.

        Returns:
            The name of its shard, and the offset of its first byte there.
        """
        info = tarfile.TarInfo(name)
        info.size = len(data)
        header = info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")
        padding = bytes(-len(data) % tarfile.BLOCKSIZE)
        num_bytes = len(header) + len(data) + len(padding)
        if self._position and self._position + num_bytes + _END_BYTES > self.shard_bytes:
            self._end_shard()
        if self._file is None:
            self._name = f"images-{self._number:05d}.tar"
            self._file = self._stack.enter_context(whole_file(self.folder / self._name))
            self._number += 1
            self._position = 0
        for part in (header, data, padding):
            self._file.write(part)
        offset = self._position + len(header)
        self._position += num_bytes
        return self._name, offset

    def _end_shard(self) -> None:
        if self._file is not None:
            self._file.write(bytes(_END_BYTES))
            self._stack.close()
            self._file = None
            self._position = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._end_shard()
        else:
            self._stack.__exit__(kind, error, trace)
