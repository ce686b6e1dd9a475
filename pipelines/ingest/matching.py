"""Finds what a run can take over from an earlier one: joins of two listings and a manifest, whole columns at a time."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.ingest.base import Base, DamagedBaseError, Match, Places
from pipelines.ingest.listing import STAMP, UNKNOWN_STAMP
from pipelines.ingest.snapshots import Finished, SourceState

_PART_ROWS = 1 << 17


def match_base(finished: Finished, tables: Sequence[pa.Table], sources: Sequence[SourceState]) -> Base:
    """Compare what is listed now with what the base met.

    Args:
        finished: the base.
        tables: `listing_table` of each source.
        sources: name and key of each source.

    Raises:
        DamagedBaseError: the base's manifest cannot be read, or names bytes that its shards do not have.
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
            matches.append(Match(everything, np.zeros(0, np.int64), {}))
            continue
        unused.remove(old)
        names[finished.state.sources[old].name] = source.name
        listed = finished.listing.slice(starts[old], starts[old + 1] - starts[old])
        matches.append(_match(table, listed, manifest, finished.state.sources[old].name))
        taken[matches[-1].rows] = True
    ranges = _label_ranges(manifest)
    del manifest
    return Base(finished, matches, names, ranges, taken)


def _match(table: pa.Table, listed: pa.Table, manifest: pa.Table, source: str) -> Match:
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
    return Match(
        todo=np.flatnonzero(~(accepted | refused)),
        rows=rows[row[accepted]],
        refused=words,
    )


def _read_keys(finished: Finished) -> pa.Table:
    """Of each row of the base's manifest its source, label and key, read in parts; its bytes are within its shard."""
    columns = ["source", "source_path", "label", "shard", "offset", "size"]
    parts = []
    try:
        with pq.ParquetFile(
            finished.folder / "manifest.parquet", read_dictionary=["source", "label", "shard"]
        ) as manifest:
            for group in range(manifest.num_row_groups):
                table = manifest.read_row_group(group, columns=columns)
                if (numbers_of(table, "offset") + numbers_of(table, "size") > _room(table, finished)).any():
                    raise DamagedBaseError("its manifest names bytes that its shards do not have")
                key = keys(table["source_path"], table["label"])
                parts.append(pa.table({"source": table["source"], "label": table["label"], "key": key}))
    except (OSError, pa.ArrowException) as error:
        raise DamagedBaseError(str(error)) from error
    return pa.concat_tables(parts)


def _room(table: pa.Table, finished: Finished) -> Places:
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
        raise DamagedBaseError("its manifest is not sorted by label")
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
