"""Brings what was visited into its final order, one label at a time: shards, thumbnails, rows of the manifest."""

import io
import os
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa

from pipelines.core.files import whole_file
from pipelines.core.images import THUMBNAIL_SIDE
from pipelines.core.tables import MANIFEST, write_table
from pipelines.ingest.labels import printable
from pipelines.ingest.listing import Reject
from pipelines.ingest.packing import EXTENSIONS, ShardWriter
from pipelines.ingest.visit import Chunk, Visited, append_files, grey_figures

# files of one label beyond this wait on disk, not in memory
HELD_BYTES = 64 << 20
_NPY_HEADER_BYTES = 128


class Output:
    """Everything that ingest writes but rejects; nothing appears unless `finish` was reached.

    Args:
        folder: where it goes; its spool.partial holds what does not fit in memory.
        shard_bytes: of ingest.
    """

    def __init__(self, folder: Path, shard_bytes: int) -> None:
        self.folder = folder
        self.num_classes = 0
        self._stack = ExitStack()
        self._shards = self._stack.enter_context(ShardWriter(folder, shard_bytes))
        self._thumbnails = self._stack.enter_context(whole_file(folder / "thumbnails.npy"))
        self._thumbnails.write(bytes(_NPY_HEADER_BYTES))  # the number of rows is known last
        self._batches: list[pa.RecordBatch] = []
        self._waiting: list[tuple[Chunk, Visited]] = []
        self._num_held = 0

    @property
    def num_shards(self) -> int:
        return self._shards.num_shards

    def add(self, chunk: Chunk, visited: Visited) -> None:
        """Take what was found in a chunk; chunks come in order of label."""
        if self._waiting and self._waiting[0][0].label != chunk.label:
            self._write_label()
        if isinstance(visited.data, list):
            size = sum(visited.sizes)
            if self._num_held + size > HELD_BYTES:
                spool = chunk.spool / f"{chunk.number}.bin"
                append_files(spool, visited.data)
                visited = Visited(**{**vars(visited), "data": spool})
            else:
                self._num_held += size
        self._waiting.append((chunk, visited))

    @staticmethod
    def rejects(chunk: Chunk, visited: Visited) -> list[Reject]:
        """The rejects of a chunk, as rows of rejected.csv."""
        return [
            Reject(chunk.source, printable(path), chunk.label, reason, detail)
            for path, reason, detail in visited.rejects
        ]

    def finish(self) -> None:
        """Write the last label, the manifest and what was only known now."""
        self._write_label()
        table = pa.Table.from_batches(self._batches, MANIFEST).combine_chunks()
        header = io.BytesIO()
        shape = (table.num_rows, THUMBNAIL_SIDE, THUMBNAIL_SIDE)
        np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
        if len(header.getvalue()) != _NPY_HEADER_BYTES:
            raise RuntimeError(f"numpy writes a header of {len(header.getvalue())} bytes, not {_NPY_HEADER_BYTES}")
        self._thumbnails.seek(0)
        self._thumbnails.write(header.getvalue())
        write_table(table, self.folder / "manifest.parquet")

    def _write_label(self) -> None:
        """Sort the rows of the waiting label, pack each content once, and forget them."""
        waiting, self._waiting, self._num_held = self._waiting, [], 0
        rows = _Rows(waiting)
        if rows.ids:
            label = waiting[0][0].label
            order = sorted(range(len(rows.ids)), key=lambda i: (rows.ids[i], rows.sources[i], rows.paths[i]))
            first = [i for at, i in enumerate(order) if not at or rows.ids[order[at - 1]] != rows.ids[i]]
            ids = [rows.ids[i] for i in first]
            places = self._shards.pack(
                label,
                ids,
                [EXTENSIONS[rows.sketches[i][2]] for i in first],
                [rows.sizes[i] for i in first],
                lambda at: rows.fetch(first[at]),
            )
            place_of = dict(zip(ids, zip(*places, strict=True), strict=True))
            self._batches.append(rows.batch(label, order, place_of))
            self._thumbnails.write(rows.thumbnails[order].tobytes())
            self.num_classes += 1
        for _, visited in waiting:
            if isinstance(visited.data, Path):
                visited.data.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
        if error is None:
            (self.folder / "spool.partial").rmdir()


class _Rows:
    """The N files of one label, side by side, in the order in which they were visited."""

    def __init__(self, waiting: list[tuple[Chunk, Visited]]) -> None:
        self.ids = [image_id for _, visited in waiting for image_id in visited.ids]
        self.sources = [chunk.source for chunk, visited in waiting for _ in visited.ids]
        self.paths = [printable(path) for _, visited in waiting for path in visited.paths]
        self.sizes = [size for _, visited in waiting for size in visited.sizes]
        self.sketches = [row for _, visited in waiting for row in visited.sketches]
        self.thumbnails = (
            np.concatenate([visited.thumbnails for _, visited in waiting])
            if waiting
            else np.zeros((0, THUMBNAIL_SIDE, THUMBNAIL_SIDE), np.uint8)
        )
        self._data: list[bytes | tuple[Path, int]] = []
        for _, visited in waiting:
            if isinstance(visited.data, list):
                self._data += visited.data
            else:
                ends = np.cumsum(visited.sizes).tolist()
                self._data += [(visited.data, end - size) for end, size in zip(ends, visited.sizes, strict=True)]

    def fetch(self, row: int) -> bytes:
        """The bytes of one file."""
        found = self._data[row]
        if isinstance(found, bytes):
            return found
        path, offset = found
        descriptor = os.open(path, os.O_RDONLY)
        try:
            return os.pread(descriptor, self.sizes[row], offset)
        finally:
            os.close(descriptor)

    def batch(self, label: str, order: list[int], place_of: dict[str, tuple[str, int]]) -> pa.RecordBatch:
        """The rows of the manifest, in `order`."""
        ids = [self.ids[i] for i in order]
        places = [place_of[image_id] for image_id in ids]
        widths, heights, formats, modes, orientations, frames = zip(*(self.sketches[i] for i in order), strict=True)
        brightness, contrast = grey_figures(self.thumbnails)
        columns = {
            "image_id": ids,
            "label": [label] * len(order),
            "shard": [shard for shard, _ in places],
            "offset": [offset for _, offset in places],
            "size": [self.sizes[i] for i in order],
            "format": formats,
            "mode": modes,
            "width": widths,
            "height": heights,
            "orientation": orientations,
            "num_frames": frames,
            "brightness": brightness[order],
            "contrast": contrast[order],
            "source": [self.sources[i] for i in order],
            "source_path": [self.paths[i] for i in order],
        }
        return pa.RecordBatch.from_arrays([pa.array(columns[f.name], f.type) for f in MANIFEST], schema=MANIFEST)
