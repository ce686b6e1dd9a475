"""The rows of one label, column by column, on their way into the manifest."""

from collections.abc import Iterable, Sequence
from itertools import islice
from operator import le

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.core.tables import MANIFEST, numbers
from pipelines.images.decoding import THUMBNAIL_SIDE
from pipelines.ingest.base import Places
from pipelines.ingest.blocks import BLOCK, Runs, num_blocks
from pipelines.ingest.labels import printable
from pipelines.ingest.listing import UNKNOWN, Origin
from pipelines.ingest.visit import DIGEST_BYTES, ROW, Chunk, Visited

Strings = npt.NDArray[np.str_] | npt.NDArray[np.object_]

_PROVENANCE = [name for name in Origin._fields if name != "box"]


class LabelRows:
    """The N rows of one label, in the order of the manifest: by image_id, source and source_path.

    Args:
        waiting: what was visited of the label, in any order.

    Attributes:
        digests: (N, 32) uint8, sha256.
        first: (N,) bool, whether a row is the first of its content.
        figures: (N,) of `pipelines.ingest.visit.ROW`.
        files: the N files' bytes.
        thumbnails: the N thumbnails, two blocks each.
    """

    def __init__(self, waiting: Sequence[tuple[Chunk, Visited]]) -> None:
        counts = [len(visited.places) for _, visited in waiting]
        paths = [path for chunk, visited in waiting for path in _paths(chunk, visited)]
        sources = [chunk.source for chunk, _ in waiting]
        chunks = np.repeat(np.arange(len(waiting)), counts)
        digests = np.concatenate([np.zeros((0, DIGEST_BYTES), np.uint8), *(visited.digests for _, visited in waiting)])
        self._order = order = _sort(digests, chunks, sources, paths)
        self._origins = _origins(waiting)
        self._sources = _of_few(sources, chunks[order])
        self._paths = [paths[row] for row in order.tolist()]
        self.digests = digests[order]
        self.first = np.ones(len(digests), np.bool_)
        self.first[1:] = (self.digests[1:] != self.digests[:-1]).any(axis=1)
        figures = np.concatenate([np.zeros(0, ROW), *(visited.rows for _, visited in waiting)])
        self.figures = figures[order]
        contents = [visited.content for _, visited in waiting]
        lengths = num_blocks(figures["size"])
        starts, ends = _starts(lengths, counts)
        self.files = Runs(contents, chunks[order], starts[order], lengths[order])
        each = THUMBNAIL_SIDE**2 // BLOCK
        places = np.concatenate([np.arange(count) for count in counts]) if counts else chunks
        thumbnails = np.repeat(ends, counts) + each * places  # they follow a chunk's files
        self.thumbnails = Runs(contents, chunks[order], thumbnails[order], np.full(len(order), each))

    def __len__(self) -> int:
        return len(self._order)

    def batch(self, label: str, shards: Strings, offsets: Places) -> pa.RecordBatch:
        """The N rows of the manifest.

        Args:
            label: of all.
            shards: (N,) the shard of each.
            offsets: (N,) the offset of each in its shard.
        """
        num_rows = len(self)
        characters = np.frombuffer(self.digests.tobytes().hex().encode("ascii"), np.uint8).reshape(num_rows, -1)
        columns = {
            "image_id": _fixed_width(characters),
            "label": pa.repeat(label, num_rows),
            "shard": _strings(shards),
            "offset": numbers(offsets),
            "source": self._sources,
            "source_path": self._paths,
            **{name: numbers(self.figures[name]) for name in ROW.names or () if name not in ("format", "mode")},
            **{name: _strings(self.figures[name]) for name in ("format", "mode")},
            **self._provenance(),
        }
        return pa.RecordBatch.from_arrays([pa.array(columns[f.name], f.type) for f in MANIFEST], schema=MANIFEST)

    def _provenance(self) -> dict[str, pa.Array]:
        if self._origins is None:
            return {name: pa.repeat("", len(self)) for name in _PROVENANCE}
        origins = [self._origins[row] for row in self._order.tolist()]
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


def _paths(chunk: Chunk, visited: Visited) -> list[str]:
    places = visited.places
    paths = chunk.paths if len(places) == len(chunk.paths) else [chunk.paths[place] for place in places.tolist()]
    return paths if "".join(paths).isascii() else list(map(printable, paths))


def _sort(digests: npt.NDArray[np.uint8], chunks: Places, sources: list[str], paths: list[str]) -> Places:
    """The order of N rows by digest (N, 32), source and path; `sources` has that of each of `chunks` (N,)."""
    heads = np.ascontiguousarray(digests[:, :8]).view(">u8")[:, 0].astype(np.uint64)  # compared as the digests are
    order = np.argsort(heads, kind="stable")
    heads = heads[order]
    same = np.flatnonzero(heads[1:] == heads[:-1])
    if not len(same):
        return order
    sorted_already = sources == sorted(sources) and all(map(le, paths, islice(paths, 1, None)))
    if sorted_already and (digests[order[same]] == digests[order[same + 1]]).all():
        return order  # copies, which a stable sort left as they came
    edges = np.flatnonzero(np.diff(same, prepend=-2) > 1)
    for first, last in zip(same[edges], same[[*(edges[1:] - 1), -1]], strict=True):
        run = slice(first, last + 2)
        order[run] = sorted(
            order[run].tolist(), key=lambda row: (digests[row].tobytes(), sources[chunks[row]], paths[row])
        )
    return order


def _starts(lengths: Places, counts: list[int]) -> tuple[Places, Places]:
    """Of files of so many blocks (N,), in C chunks of so many: where each starts in its chunk, and where each chunk
    ends (C,)."""
    ends = np.concatenate([[0], np.cumsum(lengths)])
    edges = ends[np.cumsum([0, *counts])]  # (C + 1,)
    return ends[:-1] - np.repeat(edges[:-1], counts), np.diff(edges)


def _fixed_width(characters: npt.NDArray[np.uint8]) -> pa.Array:
    """Strings of W ASCII characters each, (N, W)."""
    num_rows, width = characters.shape
    offsets = np.arange(0, (num_rows + 1) * width, width, dtype=np.int32)
    return pa.StringArray.from_buffers(num_rows, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(characters)))


def _of_few(names: list[str], codes: Places) -> pa.Array:
    """The N strings at `codes` (N,) of a few names."""
    if len(set(names)) == 1:
        return pa.repeat(names[0], len(codes))
    return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(names, pa.string())).cast(pa.string())


def _strings(values: Strings) -> pa.Array:
    """N strings, of which few differ."""
    if len(values) and (values == values[0]).all():
        return pa.repeat(str(values[0]), len(values))
    return pa.array(values.tolist(), pa.string())
