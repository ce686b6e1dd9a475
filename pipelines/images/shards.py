"""Shards: uncompressed tars of original files, `<label>/<image_id>.<ext>`, each image one seek away."""

import os
from pathlib import Path
from types import TracebackType
from typing import Self

from pipelines.core.errors import InputError


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
