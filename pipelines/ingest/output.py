"""Writes shards, thumbnails and manifest, sorted, one label at a time."""

import io
import mmap
import tempfile
from collections.abc import Sequence
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
from pipelines.images.shards import EXTENSIONS, ShardWriter, shard_number
from pipelines.ingest.incremental import Places, PreviousLabel, PreviousRun
from pipelines.ingest.inspection import ROW, Chunk, Inspected
from pipelines.ingest.labels import printable
from pipelines.ingest.listing import UNKNOWN, Origin
from pipelines.ingest.snapshots import link

# thumbnails that are gathered at a time
_BLOCK_ROWS = 1024
_THUMBNAIL_BYTES = THUMBNAIL_SIDE**2
_NPY_HEADER_BYTES = 128
_PROVENANCE = [name for name in Origin._fields if name != "box"]


class LabelRows:
    """The N rows of one label, in the order of the manifest: by image_id, source and source_path.

    Args:
        inspected: the chunks of the label, in any order, with what was found in each.

    Attributes:
        digests: N sha256.
        figures: (N,) of `pipelines.ingest.inspection.ROW`.
    """

    def __init__(self, inspected: Sequence[tuple[Chunk, Inspected]]) -> None:
        figures = np.concatenate([np.zeros(0, ROW), *(found.rows for _, found in inspected)])
        self._contents = [_mapped(found.content) for _, found in inspected if isinstance(found.content, Path)]
        rows: list[tuple[bytes, str, str, int, int, int, Origin]] = []
        for number, (chunk, found) in enumerate(inspected):
            ends = np.cumsum(found.rows["size"])
            starts = (ends - found.rows["size"]).tolist()
            thumbnails = int(ends[-1]) if len(ends) else 0
            for row, place in enumerate(found.places.tolist()):
                origin = UNKNOWN if chunk.origins is None else chunk.origins[place]
                rows.append(
                    (found.digests[row], chunk.source, printable(chunk.paths[place]), number, starts[row],
                     thumbnails + row * _THUMBNAIL_BYTES, origin)
                )  # fmt: skip
        order = sorted(range(len(rows)), key=lambda row: rows[row][:3])
        self._rows = [rows[row] for row in order]
        self.digests = [row[0] for row in self._rows]
        self.figures = figures[order]

    def __len__(self) -> int:
        return len(self._rows)

    def file(self, row: int) -> memoryview:
        """The bytes of one file."""
        _, _, _, content, start, _, _ = self._rows[row]
        return self._contents[content][start : start + int(self.figures["size"][row])]

    def thumbnail(self, row: int) -> memoryview:
        """The bytes of one thumbnail."""
        _, _, _, content, _, start, _ = self._rows[row]
        return self._contents[content][start : start + _THUMBNAIL_BYTES]

    def table(self, label: str, shards: list[str], offsets: list[int]) -> pa.Table:
        """The N rows of the manifest.

        Args:
            label: of all.
            shards: N names of shards.
            offsets: N offsets there.
        """
        columns = {
            "image_id": [digest.hex() for digest in self.digests],
            "label": pa.repeat(label, len(self)),
            "shard": shards,
            "offset": offsets,
            "source": [row[1] for row in self._rows],
            "source_path": [row[2] for row in self._rows],
            **{name: self.figures[name] for name in ROW.names or ()},
            **{name: [getattr(row[-1], name) for row in self._rows] for name in _PROVENANCE},
        }
        return pa.table({field.name: pa.array(columns[field.name], field.type) for field in MANIFEST}, schema=MANIFEST)


def _mapped(path: Path) -> memoryview:
    """The bytes of a file, mapped: only what is copied from it is in memory."""
    if not path.stat().st_size:
        return memoryview(b"")
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


class Output:
    """Everything that ingest writes but rejects; nothing appears unless `finish` was reached.

    Args:
        folder: where it goes.
        shard_bytes: of ingest.
        previous: what is taken over from an earlier run.

    Attributes:
        spool: a folder for the bytes of files until their label is complete; removed at the end.
        num_classes: labels written.
    """

    def __init__(self, folder: Path, shard_bytes: int, previous: PreviousRun | None = None) -> None:
        self.folder = folder
        self.num_classes = 0
        self._used_shards: set[str] = set()
        self._previous = previous
        self._stack = ExitStack()
        self.spool = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="spool-", dir=folder)))
        number = 1 + max(map(shard_number, previous.finished.shards), default=-1) if previous else 0
        self._shards = self._stack.enter_context(ShardWriter(folder, shard_bytes, number=number))
        self._thumbnails = self._stack.enter_context(whole_file(folder / "thumbnails.npy"))
        self._thumbnails.seek(_NPY_HEADER_BYTES)  # written last, when the number of rows is known
        manifest = self._stack.enter_context(whole_file(folder / "manifest.parquet"))
        self._manifest = self._stack.enter_context(TableWriter(manifest, MANIFEST))
        self._waiting: list[tuple[Chunk, Inspected]] = []

    def add(self, chunk: Chunk, found: Inspected) -> None:
        """Take what was found in a chunk; chunks come in order of label."""
        if self._waiting and self._waiting[0][0].label != chunk.label:
            self._write_waiting()
        if isinstance(found.content, bytes):
            path = self.spool / f"{chunk.number}.bin"
            path.write_bytes(found.content)
            found = replace(found, content=path)
        self._waiting.append((chunk, found))

    def finish(self) -> None:
        """Write what is left, and what was only known now; link the earlier run's shards that still hold a row."""
        if self._waiting:
            self._write_waiting()
        self._write_taken(below=None)
        header = io.BytesIO()
        shape = (self._manifest.num_rows, THUMBNAIL_SIDE, THUMBNAIL_SIDE)
        np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
        if len(header.getvalue()) != _NPY_HEADER_BYTES:
            raise RuntimeError(f"numpy writes a header of {len(header.getvalue())} bytes, not {_NPY_HEADER_BYTES}")
        self._thumbnails.seek(0)
        self._thumbnails.write(header.getvalue())
        if self._previous is not None:
            for name in self._previous.finished.shards:
                if name in self._used_shards:
                    link(self._previous.finished.folder / name, self.folder / name)

    def _write_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        label = waiting[0][0].label
        self._write_taken(below=label)
        self._write_label(label, waiting)
        for chunk, _ in waiting:
            (self.spool / f"{chunk.number}.bin").unlink()

    def _write_taken(self, *, below: str | None) -> None:
        """Write the labels before `below` of which nothing was inspected but rows are taken over."""
        if self._previous is not None:
            for label in self._previous.labels(below=below):
                self._write_label(label, [])

    def _write_label(self, label: str, inspected: Sequence[tuple[Chunk, Inspected]]) -> None:
        """Sort the rows of one label, pack each content once, and forget them."""
        rows = LabelRows(inspected)
        old = None if self._previous is None else self._previous.label(label)
        table = rows.table(label, *self._pack(label, rows, old))
        order = np.arange(len(rows))
        if self._previous is not None and old is not None and len(old.taken):
            import pyarrow.compute as pc  # takes 0.06 s, which most runs can do without

            table = pa.concat_tables([table, self._previous.taken_rows(old)])
            by = [(name, "ascending") for name in ("image_id", "source", "source_path")]
            order = pc.sort_indices(table, by).to_numpy().astype(np.int64)
            table = table.take(pa.array(order))
        if not table.num_rows:
            return
        if self._previous is not None:
            self._used_shards |= set(table["shard"].unique().to_pylist())
        for start in range(0, len(order), _BLOCK_ROWS):
            self._write_thumbnails(rows, old, order[start : start + _BLOCK_ROWS])
        self._manifest.write(table.combine_chunks().to_batches()[0])
        self.num_classes += 1

    def _pack(self, label: str, rows: LabelRows, old: PreviousLabel | None) -> tuple[list[str], list[int]]:
        """Pack what the earlier run does not hold; the shard of each row, and its offset there."""
        held = {} if old is None or not len(rows) else old.places([digest.hex() for digest in rows.digests])
        shards, offsets = [], []
        for row, digest in enumerate(rows.digests):
            if row == 0 or digest != rows.digests[row - 1]:
                image_id, extension = digest.hex(), EXTENSIONS[str(rows.figures["format"][row])]
                known = held.get(image_id)
                shard, offset = known or self._shards.add(f"{label}/{image_id}.{extension}", rows.file(row))
            shards.append(shard)
            offsets.append(offset)
        return shards, offsets

    def _write_thumbnails(self, rows: LabelRows, old: PreviousLabel | None, block: Places) -> None:
        """Write those of some rows: of `rows`, and beyond them of the ones that are taken over."""
        thumbnails = np.empty((len(block), _THUMBNAIL_BYTES), np.uint8)
        fresh = block < len(rows)
        for place in np.flatnonzero(fresh).tolist():
            thumbnails[place] = np.frombuffer(rows.thumbnail(int(block[place])), np.uint8)
        if self._previous is not None and old is not None and not fresh.all():
            taken = self._previous.thumbnails(old.start + old.taken[block[~fresh] - len(rows)])
            thumbnails[~fresh] = taken.reshape(-1, _THUMBNAIL_BYTES)
        self._thumbnails.write(thumbnails.data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # an error must reach the files, or half of one would take its name
        self._stack.__exit__(kind, error, trace)
