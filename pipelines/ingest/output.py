"""Brings what was visited into its final order, one label at a time: shards, thumbnails, rows of the manifest."""

import errno
import io
import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa

from pipelines.core.crops import Crop
from pipelines.core.files import whole_file
from pipelines.core.images import THUMBNAIL_SIDE
from pipelines.core.tables import MANIFEST, write_table
from pipelines.ingest.labels import printable
from pipelines.ingest.listing import UNKNOWN, Origin, Reject
from pipelines.ingest.packing import EXTENSIONS, ShardWriter
from pipelines.ingest.quality import quality
from pipelines.ingest.visit import Chunk, Visited, append_files

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
        # one label is written while the next is visited: disk and processor work at the same time
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ingest-output")
        self._writing: Future[None] | None = None

    @property
    def num_shards(self) -> int:
        return self._shards.num_shards

    def add(self, chunk: Chunk, visited: Visited) -> None:
        """Take what was found in a chunk; chunks come in order of label."""
        if self._waiting and self._waiting[0][0].label != chunk.label:
            self._write_behind()
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
        self._write_behind()
        self._wait()
        table = pa.Table.from_batches(self._batches, MANIFEST).combine_chunks()
        header = io.BytesIO()
        shape = (table.num_rows, THUMBNAIL_SIDE, THUMBNAIL_SIDE)
        np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
        if len(header.getvalue()) != _NPY_HEADER_BYTES:
            raise RuntimeError(f"numpy writes a header of {len(header.getvalue())} bytes, not {_NPY_HEADER_BYTES}")
        self._thumbnails.seek(0)
        self._thumbnails.write(header.getvalue())
        write_table(table, self.folder / "manifest.parquet")

    def _write_behind(self) -> None:
        """Hand the waiting label to the writer, once it is done with the one before: two are held at most."""
        self._wait()
        waiting, self._waiting, self._num_held = self._waiting, [], 0
        self._writing = self._writer.submit(self._write_label, waiting)

    def _wait(self) -> None:
        """Let the writer end what it has; its error, if any, is raised here."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def _write_label(self, waiting: list[tuple[Chunk, Visited]]) -> None:
        """Sort the rows of one label, pack each content once, and forget them."""
        rows = _Rows(waiting)
        if rows.ids:
            label = waiting[0][0].label
            keys = sorted(zip(rows.ids, rows.sources, rows.paths, range(len(rows.ids)), strict=True))
            order = [row for _, _, _, row in keys]
            ids = sorted(set(rows.ids))
            first = dict(reversed([(image_id, row) for image_id, _, _, row in keys]))
            packed = [first[image_id] for image_id in ids]
            shards, offsets = self._shards.pack(
                label,
                ids,
                [EXTENSIONS[rows.formats[row]] for row in packed],
                [rows.sizes[row] for row in packed],
                map(rows.fetch, packed),
            )
            places = dict(zip(ids, zip(shards, offsets, strict=True), strict=True))
            self._batches.append(rows.batch(label, places).take(pa.array(order)))
            self._thumbnails.write(rows.thumbnails[order].data)
            self.num_classes += 1
        for _, visited in waiting:
            if isinstance(visited.data, Path):
                visited.data.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.shutdown()  # waits: files must not be closed below its hands
        self._stack.__exit__(kind, error, trace)
        if error is None:
            (self.folder / "spool.partial").rmdir()


class _Rows:
    """The N files of one label, column by column, in the order in which they were visited."""

    def __init__(self, waiting: list[tuple[Chunk, Visited]]) -> None:
        self.ids = [image_id for _, visited in waiting for image_id in visited.ids]
        self.sources = [chunk.source for chunk, visited in waiting for _ in visited.ids]
        self.paths = [printable(path) for _, visited in waiting for path in visited.paths]
        self.sizes = [size for _, visited in waiting for size in visited.sizes]
        self.widths = [width for _, visited in waiting for width in visited.sketches.widths]
        self.heights = [height for _, visited in waiting for height in visited.sketches.heights]
        self.formats = [name for _, visited in waiting for name in visited.sketches.formats]
        self.modes = [mode for _, visited in waiting for mode in visited.sketches.modes]
        self.orientations = [turn for _, visited in waiting for turn in visited.sketches.orientations]
        self.frames = [number for _, visited in waiting for number in visited.sketches.frames]
        self.sharpness = [value for _, visited in waiting for value in visited.sketches.sharpness]
        self.greyscale = [value for _, visited in waiting for value in visited.sketches.greyscale]
        self.transparent = [value for _, visited in waiting for value in visited.sketches.transparent]
        self.crops = np.array([crop for _, visited in waiting for crop in visited.crops], np.float32).reshape(-1, 4)
        self.origins: list[Origin] | None = None
        if any(visited.origins is not None for _, visited in waiting):
            self.origins = [
                origin for _, visited in waiting for origin in visited.origins or [UNKNOWN] * len(visited.paths)
            ]
        self.thumbnails = np.concatenate(
            [np.zeros((0, THUMBNAIL_SIDE, THUMBNAIL_SIDE), np.uint8)]
            + [visited.sketches.thumbnails for _, visited in waiting]
        )  # (N, 32, 32)
        self._data: list[bytes | tuple[Path, int]] = []
        for _, visited in waiting:
            if isinstance(visited.data, list):
                self._data += visited.data
            else:
                starts = np.cumsum([0, *visited.sizes[:-1]]).tolist()
                self._data += [(visited.data, start) for start in starts]

    def fetch(self, row: int) -> bytes:
        """The bytes of one file."""
        found = self._data[row]
        if isinstance(found, bytes):
            return found
        path, offset = found
        with path.open("rb", buffering=0) as spool:
            data = os.pread(spool.fileno(), self.sizes[row], offset)
        if len(data) != self.sizes[row]:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return data

    def batch(self, label: str, places: dict[str, tuple[str, int]]) -> pa.RecordBatch:
        """The N rows of the manifest, in the order of visiting."""
        figures = quality(self.thumbnails)
        found = [places[image_id] for image_id in self.ids]
        sizes, widths, heights = np.array(self.sizes), np.array(self.widths, np.int32), np.array(self.heights, np.int32)
        columns = {
            "image_id": self.ids,
            "label": pa.repeat(label, len(self.ids)),
            "shard": [shard for shard, _ in found],
            "offset": np.array([offset for _, offset in found]),
            "size": sizes,
            "format": self.formats,
            "mode": self.modes,
            "width": widths,
            "height": heights,
            "orientation": np.array(self.orientations, np.int8),
            "num_frames": np.array(self.frames, np.int32),
            **figures._asdict(),
            "sharpness": self.sharpness,
            "aspect": (np.maximum(widths, heights) / np.minimum(widths, heights)).astype(np.float32),
            "bytes_per_pixel": (sizes / (widths.astype(np.int64) * heights)).astype(np.float32),
            "greyscale": self.greyscale,
            "transparent": self.transparent,
            **{f"crop_{side}": self.crops[:, column] for column, side in enumerate(Crop._fields)},
            "source": self.sources,
            "source_path": self.paths,
            **self._provenance(),
        }
        return pa.RecordBatch.from_arrays([pa.array(columns[f.name], f.type) for f in MANIFEST], schema=MANIFEST)

    def _provenance(self) -> dict[str, pa.Array]:
        names = [name for name in Origin._fields if name != "box"]
        if self.origins is None:
            return {name: pa.repeat("", len(self.ids)) for name in names}
        return {name: pa.array([getattr(origin, name) for origin in self.origins], pa.string()) for name in names}
