"""Pictures that a data set keeps as arrays: one after the other in a file of the cache, given out as PNG."""

import functools
import hashlib
import io
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from pipelines.core.errors import ImageError, InputError
from pipelines.core.files import whole_file
from pipelines.images.decoding import Pixels
from pipelines.params.sources import TorchvisionSource

_STAMP = struct.Struct("<qq")


@dataclass(frozen=True)
class StoredPixels:
    """A file with N pictures of one shape, one after the other.

    Args:
        path: the file.
        shape: (H, W) or (H, W, 3), uint8.
        changed: time (ns) and inode of the file: another file has others.
    """

    path: str
    shape: tuple[int, ...]
    changed: tuple[int, int]


@dataclass(frozen=True)
class PixelReader:
    """Gives `<part>/<number>.png`; small when pickled.

    Args:
        parts: the pictures of each part.
        max_file_bytes: of ingest.
    """

    parts: dict[str, StoredPixels]
    max_file_bytes: int

    def __call__(self, source_path: str) -> bytes:
        """The picture as PNG.

        Raises:
            ImageError: `too-large` or `unreadable`.
        """
        from PIL import Image

        part, _, name = source_path.rpartition("/")
        try:
            picture = _map_pixels(self.parts[part])[int(name.removesuffix(".png"))]
        except OSError as error:
            raise ImageError("unreadable", f"the cache: {os.strerror(error.errno or 0)}") from error
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "PNG")
        data = buffer.getvalue()
        if len(data) > self.max_file_bytes:
            raise ImageError("too-large", f"{len(data)} bytes; ingest.max_file_bytes is {self.max_file_bytes}")
        return data


@functools.lru_cache(maxsize=8)
def _map_pixels(stored: StoredPixels) -> Pixels:
    pixels: Pixels = np.memmap(stored.path, np.uint8, "r").reshape(-1, *stored.shape)  # (N, H, W) or (N, H, W, 3)
    return pixels


class Store:
    """Writes the pictures of one part to the cache, whole or not at all.

    Args:
        folder: of the cache.
        params: the entry of ingest.sources.
        part: one of its splits.
    """

    def __init__(self, folder: Path, params: TorchvisionSource, part: str) -> None:
        key = repr((params.dataset, params.root, part, sorted(params.options.items())))
        self._path = folder / f"{params.dataset}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.bin"
        self._name = f"{params.dataset} ({part})"
        self._stack = ExitStack()
        self._shape: tuple[int, ...] = ()

    def take(
        self, pictures: Iterable[tuple[Any, int | None]]
    ) -> Iterator[tuple[int, int | None, tuple[int, int, int]]]:
        """Number, class and stamp of each picture, once its pixels are stored."""
        import PIL

        encoder = PIL.__version__.encode()  # the stamp stands for the PNG, which another version may write otherwise
        for number, (picture, target) in enumerate(pictures):
            pixels = np.ascontiguousarray(picture)
            if pixels.dtype != np.uint8 or pixels.shape != (self._shape or pixels.shape):
                raise InputError(
                    f"{self._name}: picture {number} is {pixels.dtype} {pixels.shape}, not uint8 like the others of "
                    f"{self._shape}; its files are damaged, download them again"
                )
            self._shape = pixels.shape
            self._file.write(pixels.data)
            digest = hashlib.sha256(pixels.data)
            digest.update(encoder)
            yield number, target, (pixels.nbytes, *_STAMP.unpack(digest.digest()[: _STAMP.size]))

    @property
    def pixels(self) -> StoredPixels:
        """What was stored."""
        found = self._path.stat()
        return StoredPixels(str(self._path), self._shape, (found.st_mtime_ns, found.st_ino))

    def __enter__(self) -> Self:
        self._file = self._stack.enter_context(whole_file(self._path))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
