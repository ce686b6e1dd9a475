"""Brings what was visited into its final order, one label at a time: shards, thumbnails, rows of the manifest."""

import io
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa

from pipelines.core.files import whole_file
from pipelines.core.tables import MANIFEST, TableWriter
from pipelines.images.decoding import THUMBNAIL_SIDE
from pipelines.ingest.base import Base, Label, Places
from pipelines.ingest.blocks import BLOCK, Content, read_runs, write_at, write_runs
from pipelines.ingest.packing import EXTENSIONS, ShardWriter, shard_number
from pipelines.ingest.rows import LabelRows, Strings
from pipelines.ingest.snapshots import link
from pipelines.ingest.spool import release, remove_spool, spool_file, write
from pipelines.ingest.visit import Chunk, Stored, Visited
from pipelines.parallel.pool import Side

# files of one label beyond this wait on disk, not in memory
HELD_BYTES = 24 << 20
# thumbnails that are merged at a time
_BLOCK_ROWS = 1024
_NPY_HEADER_BYTES = 128
# thumbnails that are written at once, by one process
_PIECE_ROWS = 4096
# labels whose pieces may still be in work while the next is sorted
_LABELS_IN_PIECES = 1
SPOOL = "spool.partial"


class Output:
    """Everything that ingest writes but rejects; nothing appears unless `finish` was reached.

    Args:
        folder: where it goes; its folder SPOOL, which exists, holds what does not fit in memory.
        shard_bytes: of ingest.
        base: what is taken over from an earlier run.
        side: who writes the pieces of shards and thumbnails.
    """

    def __init__(self, folder: Path, shard_bytes: int, base: Base | None = None, side: Side | None = None) -> None:
        self.folder = folder
        self._side = side or Side()
        self._spool = folder / SPOOL
        self.num_classes = 0
        self.shards: set[str] = set()
        self._base = base
        self._stack = ExitStack()
        number = 1 + max(map(shard_number, base.finished.shards), default=-1) if base else 0
        self._shards = self._stack.enter_context(ShardWriter(folder, shard_bytes, number=number, side=self._side))
        self._thumbnails = self._stack.enter_context(whole_file(folder / "thumbnails.npy"))
        self._num_thumbnail_bytes = _NPY_HEADER_BYTES  # written last, when the number of rows is known
        manifest = self._stack.enter_context(whole_file(folder / "manifest.parquet"))
        self._manifest = self._stack.enter_context(TableWriter(manifest, MANIFEST))
        self._waiting: list[tuple[Chunk, Visited]] = []
        self._num_held = 0
        self._in_pieces: deque[tuple[list[Future[None]], list[Content]]] = deque()
        # one label is written while the next is visited: disk and processor work at the same time
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ingest-output")
        self._writing: Future[None] | None = None

    def add(self, chunk: Chunk, found: Visited | Stored) -> None:
        """Take what was found in a chunk; chunks come in order of label."""
        if self._waiting and self._waiting[0][0].label != chunk.label:
            self._write_behind()
        visited = found.load() if isinstance(found, Stored) else found
        content = visited.content
        if not isinstance(content, Path):
            if self._side.has_processes or self._num_held + content.nbytes > HELD_BYTES:
                spool = spool_file(self._spool, chunk.number)
                write(spool, [content.data])
                visited = replace(visited, content=spool)
            else:
                self._num_held += content.nbytes
        self._waiting.append((chunk, visited))

    def hand_over(self) -> None:
        """Let the last label be written; `finish` waits for it."""
        if self._waiting:
            self._write_behind()

    def finish(self) -> None:
        """Write what is left, and what was only known now; link the base's shards that still hold a row."""
        self.hand_over()
        self._write_behind()  # with no label waiting: what is taken over after the last one visited
        self._wait()
        header = io.BytesIO()
        shape = (self._manifest.num_rows, THUMBNAIL_SIDE, THUMBNAIL_SIDE)
        np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
        if len(header.getvalue()) != _NPY_HEADER_BYTES:
            raise RuntimeError(f"numpy writes a header of {len(header.getvalue())} bytes, not {_NPY_HEADER_BYTES}")
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
            self._write_label(below, waiting)
        self._clear(most=_LABELS_IN_PIECES if below is not None else 0)

    def _clear(self, *, most: int) -> None:
        """Let labels be done whose pieces others write, but for the last few; then their bytes can go."""
        while self._in_pieces:
            pieces, contents = self._in_pieces[0]
            if len(self._in_pieces) <= most and not all(piece.done() for piece in pieces):
                break
            for piece in pieces:
                piece.result()
            self._in_pieces.popleft()
            for content in contents:
                if isinstance(content, Path):
                    release(content)

    def _write_label(self, label: str, waiting: Sequence[tuple[Chunk, Visited]]) -> None:
        """Sort the rows of one label, pack each content once, and forget them."""
        rows = LabelRows(waiting)
        old = None if self._base is None else self._base.label(label)
        batch = pa.RecordBatch.from_pylist([], MANIFEST)
        shards: Strings = np.empty(0, np.object_)
        pieces: list[Future[None]] = []
        if len(rows):
            shards, offsets, pieces = self._pack(label, rows, old)
            batch = rows.batch(label, shards, offsets)
        if old is not None and len(old.taken):
            self._merge(rows, batch, old)
        elif len(rows):
            pieces += self._write_thumbnails(rows)
            self._end_label(batch, set(shards.tolist()))
        self._in_pieces.append((pieces, [visited.content for _, visited in waiting]))

    def _write_thumbnails(self, rows: LabelRows) -> list[Future[None]]:
        pieces = []
        for start in range(0, len(rows), _PIECE_ROWS):
            part = rows.thumbnails.take(slice(start, start + _PIECE_ROWS))
            what = (Path(self._thumbnails.name), self._num_thumbnail_bytes, part)
            pieces.append(self._side.share(write_runs, what))
            self._num_thumbnail_bytes += int(part.lengths.sum()) * BLOCK
        return pieces

    def _pack(self, label: str, rows: LabelRows, old: Label | None) -> tuple[Strings, Places, list[Future[None]]]:
        """Pack what the base does not hold; the shard of each row, its offset there, and what is still being done."""
        first = np.flatnonzero(rows.first)  # the row of each content, (M,)
        held = {}
        if old is not None:
            names = [digest.tobytes().hex() for digest in rows.digests[first]]
            held = old.places(names)
        fresh = np.array([name not in held for name in names]) if held else np.ones(len(first), np.bool_)
        packed = first[fresh]
        figures = rows.figures[packed]
        extensions = [EXTENSIONS[name] for name in figures["format"].tolist()]
        shards, offsets = np.empty(len(first), np.object_), np.empty(len(first), np.int64)
        shards[fresh], offsets[fresh], pieces = self._shards.pack(
            label, rows.digests[packed], extensions, figures["size"], rows.files.take(packed)
        )
        for place in np.flatnonzero(~fresh).tolist():
            shards[place], offsets[place] = held[names[place]]
        content = np.cumsum(rows.first) - 1  # (N,)
        return shards[content], offsets[content], pieces

    def _merge(self, rows: LabelRows, batch: pa.RecordBatch, old: Label) -> None:
        """Write the rows of one label that are new (`batch`) among those taken over from the base."""
        import pyarrow.compute as pc  # see Label.places

        assert self._base is not None
        both = pa.concat_tables([self._base.taken_rows(old), pa.Table.from_batches([batch])])
        by = [(name, "ascending") for name in ("image_id", "source", "source_path")]
        merged = pc.sort_indices(both, by).to_numpy().astype(np.int64)
        for start in range(0, len(merged), _BLOCK_ROWS):
            block = merged[start : start + _BLOCK_ROWS]
            fresh = block >= len(old.taken)
            thumbnails = np.empty((len(block), THUMBNAIL_SIDE, THUMBNAIL_SIDE), np.uint8)
            thumbnails[fresh] = read_runs(rows.thumbnails.take(block[fresh] - len(old.taken))).reshape(
                -1, THUMBNAIL_SIDE, THUMBNAIL_SIDE
            )
            thumbnails[~fresh] = self._base.thumbnails(old.start + old.taken[block[~fresh]])
            write_at(Path(self._thumbnails.name), self._num_thumbnail_bytes, thumbnails)
            self._num_thumbnail_bytes += thumbnails.nbytes
        whole = both.take(pa.array(merged)).combine_chunks().to_batches()[0]
        self._end_label(whole, set(whole["shard"].unique().to_pylist()))

    def _end_label(self, batch: pa.RecordBatch, shards: set[str]) -> None:
        self._manifest.write(batch)
        self.shards |= shards
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
            remove_spool(self._spool)
