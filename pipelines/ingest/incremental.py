"""Finds what a run can take over from an earlier one: rows, thumbnails and packed bytes of unchanged files.

A file is taken over if the earlier run met it under the same entry of ingest.sources, path and label, with the same
stamp. Its bytes are not read again; nor are those of a file that was rejected then. Listings and manifest are joined
whole columns at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.core.tables import MANIFEST, ROW_GROUP
from pipelines.images.decoding import Pixels
from pipelines.ingest.listing import STAMP, UNKNOWN_STAMP
from pipelines.ingest.snapshots import FinishedRun, SourceState

Places = npt.NDArray[np.int64]


class DamagedRunError(Exception):
    """The earlier run cannot be read after all; the run starts anew without it."""


@dataclass(frozen=True)
class TakenOver:
    """One listing compared with the earlier run.

    Args:
        todo: places in the listing that must be read, ascending.
        rows: rows of the earlier run's manifest that are taken over.
        refused: place in the listing → reason and detail, of rejects that are taken over.
    """

    todo: Places
    rows: Places
    refused: dict[int, tuple[str, str]]


@dataclass(frozen=True)
class PreviousLabel:
    """The rows of one label that the earlier run has.

    Args:
        rows: all of them, (B, …) in the order of its manifest.
        start: the first one's place there.
        taken: which are taken over, places among the B.
    """

    rows: pa.Table
    start: int
    taken: Places

    def places(self, ids: Sequence[str]) -> dict[str, tuple[str, int]]:
        """Shard and offset of those of `ids` that the earlier run packed under this label, still listed or not."""
        import pyarrow.compute as pc  # takes 0.06 s, which most runs can do without

        found = pc.index_in(pa.array(ids, pa.string()), value_set=self.rows["image_id"].combine_chunks())
        known = found.drop_null()
        where = zip(
            self.rows["shard"].take(known).to_pylist(), self.rows["offset"].take(known).to_pylist(), strict=True
        )
        names = [image_id for image_id, row in zip(ids, found.is_valid().to_pylist(), strict=True) if row]
        return dict(zip(names, where, strict=True))


@dataclass
class PreviousRun:
    """Gives what is taken over, label by label in ascending order, without holding more than a few.

    Args:
        finished: the earlier run.
        matches: one for each listing, in order.
        names: name of a source there → name now.
    """

    finished: FinishedRun
    matches: list[TakenOver]
    names: dict[str, str]
    _ranges: dict[str, tuple[int, int]]
    _taken: npt.NDArray[np.bool_]
    _groups: dict[int, pa.Table] = field(default_factory=dict)

    def labels(self, *, below: str | None) -> list[str]:
        """Labels not yet asked for, of which rows are taken over, ascending; only those before `below`."""
        return [
            label
            for label, (start, stop) in self._ranges.items()
            if (below is None or label < below) and self._taken[start:stop].any()
        ]

    def label(self, label: str) -> PreviousLabel | None:
        """The earlier run's rows of `label`, once."""
        found = self._ranges.pop(label, None)
        if found is None:
            return None
        start, stop = found
        return PreviousLabel(self._read(start, stop), start, np.flatnonzero(self._taken[start:stop]))

    def taken_rows(self, label: PreviousLabel) -> pa.Table:
        """Its rows that are taken over, as rows of the new manifest."""
        rows = label.rows.take(pa.array(label.taken))
        if any(old != new for old, new in self.names.items()):
            sources = [self.names[name] for name in rows["source"].to_pylist()]
            rows = rows.set_column(MANIFEST.get_field_index("source"), "source", pa.array(sources, pa.string()))
        return rows.select(MANIFEST.names).cast(MANIFEST)

    def thumbnails(self, rows: Places) -> Pixels:
        """(B, 32, 32): those of rows of its manifest; mapped for this call alone, so that memory does not grow."""
        thumbnails = np.load(self.finished.folder / "thumbnails.npy", mmap_mode="r")
        found: Pixels = np.asarray(thumbnails[rows])
        return found

    def _read(self, start: int, stop: int) -> pa.Table:
        first, last = start // ROW_GROUP, max(start, stop - 1) // ROW_GROUP
        self._groups = {group: rows for group, rows in self._groups.items() if group >= first}
        try:
            with pq.ParquetFile(self.finished.folder / "manifest.parquet") as file:
                for group in range(first, last + 1):
                    if group not in self._groups:
                        self._groups[group] = file.read_row_group(group, columns=MANIFEST.names)
        except (OSError, pa.ArrowException) as error:
            raise DamagedRunError(str(error)) from error
        whole = pa.concat_tables([self._groups[group] for group in range(first, last + 1)])
        return whole.slice(start - first * ROW_GROUP, stop - start)


_PART_ROWS = 1 << 17


def match_previous(finished: FinishedRun, tables: Sequence[pa.Table], sources: Sequence[SourceState]) -> PreviousRun:
    """Compare what is listed now with what the earlier run met.

    Args:
        finished: the earlier run.
        tables: `listing_table` of each source.
        sources: name and key of each source.

    Raises:
        DamagedRunError: the earlier run's manifest cannot be read, or names bytes that its shards do not have.
    """
    manifest = _read_keys(finished)
    starts = np.cumsum([0, *(source.num_files for source in finished.state.sources)])
    unused = list(range(len(finished.state.sources)))
    taken = np.zeros(manifest.num_rows, bool)
    matches, names = [], {}
    for table, source in zip(tables, sources, strict=True):
        old = next((index for index in unused if finished.state.sources[index].key == source.key), None)
        if old is None:
            everything = np.arange(table.num_rows)
            matches.append(TakenOver(everything, np.zeros(0, np.int64), {}))
            continue
        unused.remove(old)
        names[finished.state.sources[old].name] = source.name
        listed = finished.listing.slice(starts[old], starts[old + 1] - starts[old])
        matches.append(_match(table, listed, manifest, finished.state.sources[old].name))
        taken[matches[-1].rows] = True
    ranges = _label_ranges(manifest)
    del manifest
    return PreviousRun(finished, matches, names, ranges, taken)


def _match(table: pa.Table, listed: pa.Table, manifest: pa.Table, source: str) -> TakenOver:
    own = keys(table["path"], table["label"])
    there = index_in(own, keys(listed["path"], listed["label"]))  # (N,) place in `listed`, -1 for new files
    old = np.maximum(there, 0)
    known = there >= 0
    same = known & (numbers_of(table, "size") != UNKNOWN_STAMP)
    if known.any():
        for name in STAMP:
            same &= numbers_of(table, name) == numbers_of(listed, name)[old]
    rows = np.flatnonzero(pc.equal(manifest["source"], source).to_numpy())
    row_keys = manifest["key"] if len(rows) == manifest.num_rows else manifest["key"].take(pa.array(rows))
    row = index_in(own, row_keys)
    if not _all_print_as_they_are(listed["path"]):
        # a row whose key is another's too cannot be told apart: its file is read
        counts = pc.value_counts(row_keys)
        row[index_in(own, counts.field("values").filter(pc.greater(counts.field("counts"), 1))) >= 0] = -1
    refused = np.zeros(len(same), bool)
    words = {}
    if known.any():
        refused = same & pc.not_equal(listed["reason"], "").to_numpy()[old]
        reasons, details = (listed[name].take(pa.array(old[refused])).to_pylist() for name in ("reason", "detail"))
        words = dict(zip(np.flatnonzero(refused).tolist(), zip(reasons, details, strict=True), strict=True))
    accepted = same & ~refused & (row >= 0)
    return TakenOver(
        todo=np.flatnonzero(~(accepted | refused)),
        rows=rows[row[accepted]],
        refused=words,
    )


def _read_keys(finished: FinishedRun) -> pa.Table:
    """Source, label and key of each row of the earlier manifest; checks that its bytes are within its shard."""
    columns = ["source", "source_path", "label", "shard", "offset", "size"]
    parts = []
    try:
        with pq.ParquetFile(
            finished.folder / "manifest.parquet", read_dictionary=["source", "label", "shard"]
        ) as manifest:
            for group in range(manifest.num_row_groups):
                table = manifest.read_row_group(group, columns=columns)
                if (numbers_of(table, "offset") + numbers_of(table, "size") > _room(table, finished)).any():
                    raise DamagedRunError("its manifest names bytes that its shards do not have")
                key = keys(table["source_path"], table["label"])
                parts.append(pa.table({"source": table["source"], "label": table["label"], "key": key}))
    except (OSError, pa.ArrowException) as error:
        raise DamagedRunError(str(error)) from error
    return pa.concat_tables(parts)


def _room(table: pa.Table, finished: FinishedRun) -> Places:
    """The length of each row's shard; 0 where it is not there."""
    if not table.num_rows:
        return np.zeros(0, np.int64)
    shards = table["shard"].unify_dictionaries().combine_chunks()
    lengths = [finished.state.files.get(name, (0, 0))[0] for name in shards.dictionary.to_pylist()]
    room: Places = np.array(lengths, np.int64)[shards.indices.to_numpy()]
    return room


def _label_ranges(manifest: pa.Table) -> dict[str, tuple[int, int]]:
    labels = manifest["label"].unify_dictionaries().combine_chunks()
    codes = labels.indices.to_numpy()
    starts = np.flatnonzero(np.diff(codes, prepend=-1)).tolist()
    names = [labels.dictionary[codes[start]].as_py() for start in starts]
    if names != sorted(set(names)):
        raise DamagedRunError("its manifest is not sorted by label")
    return dict(zip(names, pairwise([*starts, len(codes)]), strict=True))


def keys(paths: pa.Array, labels: pa.Array) -> pa.Array:
    """One value for each (path, label)."""
    # no cast leads from a dictionary to bytes in one step
    parts = (paths.cast(pa.large_binary()), labels.cast(pa.large_string()).cast(pa.large_binary()))
    return pc.binary_join_element_wise(*parts, pa.scalar(b"\0", pa.large_binary()))


def index_in(values: pa.ChunkedArray, among: pa.ChunkedArray) -> Places:
    """Where each of `values` is first found in `among`, -1 for nowhere; in parts, each of which makes a hash table."""
    found = np.full(len(values), -1, np.int64)
    for start in range(0, len(among), _PART_ROWS):
        part = pc.index_in(values, value_set=_one(among.slice(start, _PART_ROWS))).fill_null(-1)
        places = _one(part).to_numpy()
        new = (places >= 0) & (found < 0)
        found[new] = start + places[new]
    return found


def _all_print_as_they_are(paths: pa.ChunkedArray) -> bool:
    """Whether all are UTF-8: two that are not may stand in the manifest under one name."""
    try:
        paths.cast(pa.large_string())
    except pa.ArrowInvalid:
        return False
    return True


def numbers_of(table: pa.Table, name: str) -> Places:
    found: Places = _one(table[name]).to_numpy()
    return found


def _one(values: pa.Array) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
