"""The rows of one label, column by column, on their way into the manifest."""

import errno
import os
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.core.images import THUMBNAIL_SIDE
from pipelines.core.tables import MANIFEST
from pipelines.ingest.base import Places
from pipelines.ingest.labels import printable
from pipelines.ingest.listing import UNKNOWN, Origin
from pipelines.ingest.visit import ROW, Chunk, Visited

Strings = npt.NDArray[np.str_] | npt.NDArray[np.object_]

_DIGEST_BYTES = 32
_PROVENANCE = [name for name in Origin._fields if name != "box"]


class LabelRows:
    """The N rows of one label, in the order of the manifest: by image_id, source and source_path.

    Args:
        waiting: what was visited of the label, in any order; emptied.

    Attributes:
        ids: (N, 64) uint8, the image ids in ASCII.
        first: (N,) bool, whether a row is the first of its content.
        figures: (N,) of `pipelines.ingest.visit.ROW`.
        order: (N,) int64, where each row's thumbnail lies in `thumbnails`.
        thumbnails: (N, 32, 32) uint8, in the order of visiting.
    """

    def __init__(self, waiting: list[tuple[Chunk, Visited]]) -> None:
        counts = [len(visited.places) for _, visited in waiting]
        sources = [chunk.source for chunk, _ in waiting]
        paths = [printable(chunk.paths[place]) for chunk, visited in waiting for place in visited.places.tolist()]
        self._origins = _origins(waiting)
        digests = np.frombuffer(b"".join(visited.digests for _, visited in waiting), np.uint8)
        digests = digests.reshape(-1, _DIGEST_BYTES)  # (N, 32)
        self.order = _sort(digests, np.repeat(sources, counts), paths)
        self._sources = np.repeat(sources, counts)[self.order]
        self._paths = [paths[row] for row in self.order.tolist()]
        digests = digests[self.order]
        self.first = np.ones(len(digests), np.bool_)
        self.first[1:] = (digests[1:] != digests[:-1]).any(axis=1)
        self.ids = np.frombuffer(digests.tobytes().hex().encode("ascii"), np.uint8).reshape(-1, 2 * _DIGEST_BYTES)
        figures = np.concatenate([np.zeros(0, ROW), *(visited.rows for _, visited in waiting)])
        self.figures = figures[self.order]
        self.thumbnails = np.empty((len(digests), THUMBNAIL_SIDE, THUMBNAIL_SIDE), np.uint8)
        self._data: list[memoryview | Path] = []
        self._starts, self._chunks = _starts(figures["size"], counts)
        start = 0
        waiting.reverse()
        while waiting:  # the last use of each: its memory goes before the next is copied
            _, visited = waiting.pop()
            self.thumbnails[start : start + len(visited.places)] = visited.thumbnails
            start += len(visited.places)
            self._data.append(memoryview(visited.data) if isinstance(visited.data, bytes) else visited.data)

    def __len__(self) -> int:
        return len(self.order)

    def contents(self, rows: Places) -> Iterator[bytes | memoryview]:
        """The bytes of the files at `rows`, one after the other."""
        visited = self.order[rows]
        places = zip(
            self._chunks[visited].tolist(),
            self._starts[visited].tolist(),
            self.figures["size"][rows].tolist(),
            strict=True,
        )
        for chunk, start, size in places:
            data = self._data[chunk]
            yield data[start : start + size] if isinstance(data, memoryview) else _read_part(data, start, size)

    def batch(self, label: str, shards: Strings, offsets: Places) -> pa.RecordBatch:
        """The N rows of the manifest.

        Args:
            label: of all.
            shards: (N,) the shard of each.
            offsets: (N,) the offset of each in its shard.
        """
        num_rows = len(self)
        columns = {
            "image_id": _fixed_width(self.ids),
            "label": pa.repeat(label, num_rows),
            "shard": _strings(shards),
            "offset": offsets,
            "source": _strings(self._sources),
            "source_path": self._paths,
            **{name: self.figures[name] for name in ROW.names or () if name not in ("format", "mode")},
            **{name: _strings(self.figures[name]) for name in ("format", "mode")},
            **self._provenance(),
        }
        return pa.RecordBatch.from_arrays([pa.array(columns[f.name], f.type) for f in MANIFEST], schema=MANIFEST)

    def _provenance(self) -> dict[str, pa.Array]:
        if self._origins is None:
            return {name: pa.repeat("", len(self)) for name in _PROVENANCE}
        origins = [self._origins[row] for row in self.order.tolist()]
        return {name: pa.array([getattr(origin, name) for origin in origins], pa.string()) for name in _PROVENANCE}


def _origins(waiting: Iterable[tuple[Chunk, Visited]]) -> list[Origin] | None:
    """The origins of all rows; None where no chunk has any."""
    if all(chunk.origins is None for chunk, _ in waiting):
        return None
    found: list[Origin] = []
    for chunk, visited in waiting:
        own = chunk.origins
        found += [UNKNOWN if own is None else own[place] for place in visited.places.tolist()]
    return found


def _sort(digests: npt.NDArray[np.uint8], sources: Strings, paths: list[str]) -> Places:
    """The order of N rows by digest (N, 32), source and path."""
    heads = np.ascontiguousarray(digests[:, :8]).view(">u8")[:, 0].astype(np.uint64)  # compared as the digests are
    order = np.argsort(heads, kind="stable")
    heads = heads[order]
    same = np.flatnonzero(heads[1:] == heads[:-1])
    if len(same):  # copies: few, or none
        edges = np.flatnonzero(np.diff(same, prepend=-2) > 1)
        for first, last in zip(same[edges], same[[*(edges[1:] - 1), -1]], strict=True):
            run = slice(first, last + 2)
            order[run] = sorted(order[run].tolist(), key=lambda row: (digests[row].tobytes(), sources[row], paths[row]))
    return order


def _starts(sizes: npt.NDArray[np.int64], counts: list[int]) -> tuple[Places, Places]:
    """Of files of `sizes` (N,), in chunks of so many: where each starts in its chunk, and the chunk's number."""
    chunks = np.repeat(np.arange(len(counts)), counts)
    starts = np.cumsum(sizes) - sizes
    edges = [0, *np.cumsum(counts).tolist()]
    for first, stop in pairwise(edges):
        if stop > first:
            starts[first:stop] -= starts[first]
    return starts, chunks


def _read_part(spool: Path, start: int, size: int) -> bytes:
    with spool.open("rb", buffering=0) as file:
        data = os.pread(file.fileno(), size, start)
    if len(data) != size:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(spool))
    return data


def _fixed_width(characters: npt.NDArray[np.uint8]) -> pa.Array:
    """Strings of W ASCII characters each, (N, W)."""
    num_rows, width = characters.shape
    offsets = np.arange(0, (num_rows + 1) * width, width, dtype=np.int32)
    return pa.StringArray.from_buffers(num_rows, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(characters)))


def _strings(values: Strings) -> pa.Array:
    """N strings, of which few differ."""
    if len(values) and (values == values[0]).all():
        return pa.repeat(str(values[0]), len(values))
    return pa.array(values.tolist(), pa.string())
