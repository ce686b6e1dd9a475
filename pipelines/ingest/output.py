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
import numpy.typing as npt
import pyarrow as pa

from pipelines.core.crops import Crop
from pipelines.core.files import whole_file
from pipelines.core.images import THUMBNAIL_SIDE
from pipelines.core.tables import MANIFEST, TableWriter
from pipelines.ingest.base import Base, Label, Places
from pipelines.ingest.labels import printable
from pipelines.ingest.listing import UNKNOWN, Origin
from pipelines.ingest.packing import EXTENSIONS, ShardWriter, shard_number
from pipelines.ingest.quality import Quality, quality
from pipelines.ingest.snapshots import link
from pipelines.ingest.visit import Chunk, Visited, append_files

# files of one label beyond this wait on disk, not in memory
HELD_BYTES = 32 << 20
# thumbnails that are worked on at a time: what their figures take stays in the processor's cache
_BLOCK_ROWS = 1024
_NPY_HEADER_BYTES = 128
SPOOL = "spool.partial"


class Output:
    """Everything that ingest writes but rejects; nothing appears unless `finish` was reached.

    Args:
        folder: where it goes; its folder SPOOL, which exists, holds what does not fit in memory.
        shard_bytes: of ingest.
        base: what is taken over from an earlier run.
    """

    def __init__(self, folder: Path, shard_bytes: int, base: Base | None = None) -> None:
        self.folder = folder
        self._spool = folder / SPOOL
        self.num_classes = 0
        self.shards: set[str] = set()
        self._base = base
        self._stack = ExitStack()
        number = 1 + max(map(shard_number, base.finished.shards), default=-1) if base else 0
        self._shards = self._stack.enter_context(ShardWriter(folder, shard_bytes, number=number))
        self._thumbnails = self._stack.enter_context(whole_file(folder / "thumbnails.npy"))
        self._thumbnails.write(bytes(_NPY_HEADER_BYTES))  # the number of rows is known last
        manifest = self._stack.enter_context(whole_file(folder / "manifest.parquet"))
        self._manifest = self._stack.enter_context(TableWriter(manifest, MANIFEST))
        self._waiting: list[tuple[Chunk, Visited]] = []
        self._num_held = 0
        # one label is written while the next is visited: disk and processor work at the same time
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ingest-output")
        self._writing: Future[None] | None = None

    def add(self, chunk: Chunk, visited: Visited) -> None:
        """Take what was found in a chunk; chunks come in order of label."""
        if self._waiting and self._waiting[0][0].label != chunk.label:
            self._write_behind()
        if isinstance(visited.data, list):
            size = sum(visited.sizes)
            if self._num_held + size > HELD_BYTES:
                spool = self._spool / f"{chunk.number}.bin"
                append_files(spool, visited.data)
                visited = Visited(**{**vars(visited), "data": spool})
            else:
                self._num_held += size
        self._waiting.append((chunk, visited))

    def finish(self) -> None:
        """Write what is left, and what was only known now; link the base's shards that still hold a row."""
        if self._waiting:
            self._write_behind()
        self._write_behind()  # with no label waiting: what is taken over after the last one visited
        self._wait()
        header = io.BytesIO()
        shape = (self._manifest.num_rows, THUMBNAIL_SIDE, THUMBNAIL_SIDE)
        np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
        if len(header.getvalue()) != _NPY_HEADER_BYTES:
            raise RuntimeError(f"numpy writes a header of {len(header.getvalue())} bytes, not {_NPY_HEADER_BYTES}")
        self._thumbnails.seek(0)
        self._thumbnails.write(header.getvalue())
        if self._base is not None:
            for name in self._base.finished.shards:
                if name in self.shards:
                    link(self._base.finished.folder / name, self.folder / name)

    def _write_behind(self) -> None:
        """Hand the waiting label to the writer, once it is done with the one before: two are held at most."""
        self._wait()
        waiting, self._waiting, self._num_held = self._waiting, [], 0
        # what is taken over lies between the labels that were visited; after the last one comes all the rest
        below = waiting[0][0].label if waiting else None
        self._writing = self._writer.submit(self._write_up_to, below, waiting)

    def _wait(self) -> None:
        """Let the writer end what it has; its error, if any, is raised here."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def _write_up_to(self, below: str | None, waiting: list[tuple[Chunk, Visited]]) -> None:
        if self._base is not None:
            for label in self._base.labels(below=below):
                self._write_label(label, [])
        if below is not None:
            spools = [visited.data for _, visited in waiting if isinstance(visited.data, Path)]
            self._write_label(below, waiting)
            for spool in spools:
                spool.unlink()

    def _write_label(self, label: str, waiting: list[tuple[Chunk, Visited]]) -> None:
        """Sort the rows of one label, pack each content once, and forget them."""
        rows = _Rows(waiting)
        old = None if self._base is None else self._base.label(label)
        batch = pa.RecordBatch.from_pylist([], MANIFEST)
        order: Places = np.zeros(0, np.int64)
        if rows.ids:
            keys = sorted(zip(rows.ids, rows.sources, rows.paths, range(len(rows.ids)), strict=True))
            order = np.array([row for _, _, _, row in keys])
            first = dict(reversed([(image_id, row) for image_id, _, _, row in keys]))
            batch = rows.batch(label, self._pack(label, rows, first, old)).take(pa.array(order))
        if old is not None and len(old.taken):
            self._merge(rows, order, batch, old)
        elif rows.ids:
            for start in range(0, len(order), _BLOCK_ROWS):
                self._thumbnails.write(rows.thumbnails[order[start : start + _BLOCK_ROWS]].data)
            self._end_label(batch)

    def _pack(self, label: str, rows: "_Rows", first: dict[str, int], old: Label | None) -> dict[str, tuple[str, int]]:
        """Pack what the base does not hold. `first`: each id's first row; returns each id's shard and offset."""
        places = {} if old is None else old.places(list(first))
        ids = sorted(first.keys() - places.keys())
        packed = [first[image_id] for image_id in ids]
        extensions = [EXTENSIONS[rows.formats[row]] for row in packed]
        sizes = [rows.sizes[row] for row in packed]
        shards, offsets = self._shards.pack(label, ids, extensions, sizes, map(rows.fetch, packed))
        places |= zip(ids, zip(shards, offsets, strict=True), strict=True)
        return places

    def _merge(self, rows: "_Rows", order: Places, batch: pa.RecordBatch, old: Label) -> None:
        """Write the rows of one label that are new (`batch`, in `order`) among those taken over from the base."""
        import pyarrow.compute as pc  # see Label.places

        assert self._base is not None
        both = pa.concat_tables([self._base.taken_rows(old), pa.Table.from_batches([batch])])
        by = [(name, "ascending") for name in ("image_id", "source", "source_path")]
        merged = pc.sort_indices(both, by).to_numpy().astype(np.int64)
        for start in range(0, len(merged), _BLOCK_ROWS):
            block = merged[start : start + _BLOCK_ROWS]
            fresh = block >= len(old.taken)
            thumbnails = np.empty((len(block), THUMBNAIL_SIDE, THUMBNAIL_SIDE), np.uint8)
            thumbnails[fresh] = rows.thumbnails[order[block[fresh] - len(old.taken)]]
            thumbnails[~fresh] = self._base.thumbnails(old.start + old.taken[block[~fresh]])
            self._thumbnails.write(thumbnails.data)
        self._end_label(both.take(pa.array(merged)).combine_chunks().to_batches()[0])

    def _end_label(self, batch: pa.RecordBatch) -> None:
        self._manifest.write(batch)
        self.shards |= set(batch["shard"].unique().to_pylist())
        self.num_classes += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.shutdown()  # waits: files must not be closed below its hands
        # an error must reach the files, or half of one would take its name
        self._stack.__exit__(kind, error, trace)
        if error is None:
            self._spool.rmdir()


class _Rows:
    """The N files of one label, column by column, in the order in which they were visited; empties `waiting`."""

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
        self.thumbnails = np.empty((len(self.ids), THUMBNAIL_SIDE, THUMBNAIL_SIDE), np.uint8)  # (N, 32, 32)
        self._data: list[bytes | tuple[Path, int]] = []
        start = 0
        waiting.reverse()
        while waiting:  # the last use of each: its memory goes before the next is copied
            _, visited = waiting.pop()
            self.thumbnails[start : start + len(visited.ids)] = visited.sketches.thumbnails
            start += len(visited.ids)
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
            **self._figures(),
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

    def _figures(self) -> dict[str, npt.NDArray[np.float32]]:
        starts = range(0, len(self.ids), _BLOCK_ROWS)
        parts = [quality(self.thumbnails[start : start + _BLOCK_ROWS]) for start in starts]
        return {name: np.concatenate([getattr(part, name) for part in parts]) for name in Quality._fields}

    def _provenance(self) -> dict[str, pa.Array]:
        names = [name for name in Origin._fields if name != "box"]
        if self.origins is None:
            return {name: pa.repeat("", len(self.ids)) for name in names}
        return {name: pa.array([getattr(origin, name) for origin in self.origins], pa.string()) for name in names}
