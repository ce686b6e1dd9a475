"""What must stay together: duplicate groups, joined where a person, a site or the like links them.

The unit of every split is the *unit*: the pictures that hang together through duplicate groups and through equal
values of `split.group_by`. Units are numbered in the order of their names, a unit's name is its smallest group id.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.core.disjoint_sets import DisjointSets
from pipelines.core.errors import InputError
from pipelines.core.tables import DEDUPED, read_schema, read_table
from pipelines.split.links import column_for, current_factors, linking_values

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Pictures:
    """The N pictures that take part, sorted by (label, image_id), and the U units that hold them.

    Args:
        table: N rows of image_id, label and factors.
        labels: the K class labels, sorted.
        label_of: (N,) index into labels.
        image_of: (N,) number of the image; two rows of one image (under two labels) share it.
        group_of: (N,) number of the duplicate group.
        unit_of: (N,) index into units.
        units: U names: the smallest group id of each unit, sorted.
        keys: per member of a unit, what `hash` hashes: the value of group_by, or the image_id where there is none.
        unit_of_key: index into units of each of `keys`.
        may_repeat: whether an (image_id, label) may stand twice, on two sides of a given split.
    """

    table: pa.Table
    labels: list[str]
    label_of: Ints
    image_of: Ints
    group_of: Ints
    unit_of: Ints
    units: list[str]
    keys: list[str]
    unit_of_key: Ints
    may_repeat: bool = False


@dataclass(frozen=True)
class Linked:
    """The M files of the groups that keep a picture, and the U units in which they hang together.

    Args:
        files: M rows of the manifest, those of verdict drop apart.
        unit_of: (M,) index into units.
        groups: G ids of duplicate groups, sorted.
        unit_of_group: (G,) index into units.
        units, keys, unit_of_key: as in Pictures.
    """

    files: pa.Table
    unit_of: Ints
    groups: list[str]
    unit_of_group: Ints
    units: list[str]
    keys: list[str]
    unit_of_key: Ints

    def pictures(self, rows: pa.Table, *, may_repeat: bool = False) -> Pictures:
        """Pictures that are to be divided: `rows` of image_id, label, group and factors, by (label, image_id)."""
        labels, label_of = label_numbers(rows["label"])
        # a hash table: a search in sorted texts takes five times as long as all the rest
        found = pc.index_in(rows["group"], pa.array(self.groups, pa.string()))
        group_of = found.to_numpy().astype(np.int64)
        return Pictures(
            table=rows.select(["image_id", "label", "factors"]),
            labels=labels,
            label_of=label_of,
            image_of=image_numbers(rows["image_id"]),
            group_of=group_of,
            unit_of=self.unit_of_group[group_of],
            units=self.units,
            keys=self.keys,
            unit_of_key=self.unit_of_key,
            may_repeat=may_repeat,
        )


def read_pictures(manifest: Path, group_by: str | None, *, unlabelled: str | None = None) -> Pictures:
    """Read dedupe's manifest and find what must stay together.

    Rows of verdict `drop` take no part at all. Copies do not take part either, but they link: where the copy of a
    picture of one person is a picture of another, both persons stay on one side.

    Args:
        unlabelled: the label of pictures without one, which take no part either.

    Raises:
        InputError: no picture is kept, or `group_by` is nothing that the manifest has.
    """
    table = read_files(manifest, group_by, unlabelled=unlabelled)
    return link(table, group_by).pictures(kept_rows(table))


def read_files(
    manifest: Path, group_by: str | None, *, unlabelled: str | None = None, more: tuple[str, ...] = ()
) -> pa.Table:
    """The columns of dedupe's manifest that a split needs, and `more` of them; with group_by also `linked_by`.

    Args:
        unlabelled: files of this label are left out.

    Raises:
        InputError: no picture is kept, or `group_by` is nothing that the manifest has.
    """
    columns = ["image_id", "label", "group", "verdict", "original_label", "factors", *more]
    source = ""
    if group_by is not None:
        # read_table's check of the file comes first: a missing file is not a missing column
        read_table(manifest, DEDUPED, columns=["verdict"])
        source = column_for(group_by, read_schema(manifest).names)
    table = read_table(manifest, DEDUPED, columns=columns + [source] * (source not in ["", *columns]))
    if unlabelled is not None:
        table = table.filter(pc.not_equal(table["label"], unlabelled))
    if not pc.any(pc.equal(table["verdict"], "keep")).as_py():
        what = "no picture" if unlabelled is None else f"no picture but those of split.unlabelled, {unlabelled!r},"
        raise InputError(
            f"{manifest} keeps {what} ({table.num_rows} rows, none of verdict keep): there is nothing to split; "
            "look at data/ingest/rejected.csv, data/dedupe/duplicates.csv and data/decisions/drop.csv"
        )
    if group_by is not None:
        table = table.append_column("linked_by", linking_values(table[source], group_by, source))
    return table.set_column(table.schema.get_field_index("factors"), "factors", current_factors(table))


def kept_rows(table: pa.Table) -> pa.Table:
    """Rows of verdict keep, one per (image_id, label), sorted by (label, image_id)."""
    kept = table.filter(pc.equal(table["verdict"], "keep")).select(["image_id", "label", "group", "factors"])
    # of equal files of two sources, one of which knows factors, the one that does
    kept = kept.sort_by([("label", "ascending"), ("image_id", "ascending"), ("factors", "descending")])
    return without_repeats(kept, "image_id", "label")


def without_repeats(rows: pa.Table, *keys: str) -> pa.Table:
    """The first of each run of sorted rows that agree in all `keys`."""
    if rows.num_rows < 2:
        return rows
    before, after = rows.slice(0, rows.num_rows - 1), rows.slice(1)
    new = np.zeros(rows.num_rows, dtype=bool)
    new[0] = True
    for key in keys:
        new[1:] |= pc.not_equal(before[key], after[key]).to_numpy(zero_copy_only=False)
    return rows.filter(pa.array(new))


def link(table: pa.Table, group_by: str | None, *, pairs: pa.Table | None = None) -> Linked:
    """Find what hangs together among the rows of `read_files`.

    Args:
        pairs: of copies, to join the groups of; dedupe's groups are joined by pairs of pictures that it kept alone.
    """
    keeping = pc.unique(table.filter(pc.equal(table["verdict"], "keep"))["group"])
    files = table.filter(pc.and_(pc.not_equal(table["verdict"], "drop"), pc.is_in(table["group"], keeping)))
    groups, group_of_file = _codes(files["group"])
    values = None if group_by is None else _value_codes(files["linked_by"])
    edges = _edges(files, group_of_file, values, pairs)
    roots, unit_of_group = np.unique(_joined(edges, len(groups)), return_inverse=True)
    unit_of = unit_of_group[group_of_file]
    keys, unit_of_key = _keys(files, values, unit_of)
    return Linked(files, unit_of, groups, unit_of_group, [groups[root] for root in roots], keys, unit_of_key)


def seeded_hashes(seed: int, names: list[str]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Two independent numbers in [0, 2^64) for each name, (len(names),) each, from seed and name alone."""
    start = hashlib.sha256(f"{seed}:".encode())
    digests = bytearray()
    for name in names:
        digest = start.copy()
        digest.update(name.encode())
        digests += digest.digest()[:16]
    pairs = np.frombuffer(bytes(digests), dtype="<u8").reshape(-1, 2)  # (len(names), 2)
    return pairs[:, 0], pairs[:, 1]


def unit_label_counts(pictures: Pictures, rows: npt.NDArray[np.bool_] | None = None) -> tuple[Ints, Ints, Ints]:
    """How many pictures of which class each unit holds: (unit, label, count), (P,) each, sorted by unit, then label.

    Args:
        rows: (N,) the pictures that count; all when None.
    """
    num_labels = len(pictures.labels)
    numbers = pictures.unit_of * num_labels + pictures.label_of
    pair, count = np.unique(numbers if rows is None else numbers[rows], return_counts=True)
    return pair // num_labels, pair % num_labels, count.astype(np.int64)


def label_numbers(column: pa.ChunkedArray) -> tuple[list[str], Ints]:
    """The distinct labels, sorted, and for each row the index of its label."""
    return _codes(column)


def image_numbers(column: pa.ChunkedArray) -> Ints:
    """(N,) a number for each image, in the order of their ids."""
    return _codes(column)[1]


def _codes(column: pa.ChunkedArray) -> tuple[list[str], Ints]:
    """The distinct values, sorted, and for each row the index of its value."""
    encoded = column.combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    values = encoded.dictionary
    order = pc.sort_indices(values).to_numpy()
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return values.take(pa.array(order)).to_pylist(), rank[encoded.indices.to_numpy(zero_copy_only=False)]


def _value_codes(column: pa.ChunkedArray) -> Ints:
    """For each file the number of the value that links it, -1 where it has none."""
    values, codes = _codes(column)
    return codes - 1 if values and values[0] == "" else codes


def _edges(files: pa.Table, group_of_file: Ints, values: Ints | None, pairs: pa.Table | None) -> Ints:
    """(E, 2) groups that must not be parted: of files with equal values, and of pairs of files."""
    found = [np.zeros((0, 2), dtype=np.int64)]
    if values is not None:
        linked = np.flatnonzero(values >= 0)
        # the first file of each value stands for all of them
        _, first, number = np.unique(values[linked], return_index=True, return_inverse=True)
        found.append(np.stack([group_of_file[linked], group_of_file[linked[first[number]]]], axis=1))
    if pairs is not None:
        ends = [pc.index_in(pairs[name], files["image_id"].combine_chunks()) for name in ("image_a", "image_b")]
        known = pc.and_(*(pc.is_valid(end) for end in ends)).to_numpy(zero_copy_only=False)
        at = [pc.fill_null(end, 0).to_numpy()[known] for end in ends]
        found.append(np.stack([group_of_file[end] for end in at], axis=1))
    edges = np.concatenate(found)
    return np.unique(edges[edges[:, 0] != edges[:, 1]], axis=0)


def _joined(edges: Ints, num_groups: int) -> Ints:
    """For each group the smallest group that hangs together with it, (num_groups,); edges as of `_edges`."""
    sets = DisjointSets(num_groups)
    for one, other in edges.tolist():
        sets.union(one, other)
    return np.array([sets.find(group) for group in range(num_groups)], dtype=np.int64)


def _keys(files: pa.Table, values: Ints | None, units: Ints) -> tuple[list[str], Ints]:
    """The names that method `hash` hashes and the unit of each: a person who gains pictures stays one name."""
    names = files["image_id"]
    if values is not None:
        # the prefix keeps a value apart from an image_id that spells the same
        named = pc.binary_join_element_wise("value", files["linked_by"], "=")
        names = pc.if_else(pa.array(values >= 0), named, names)
    keys, codes = _codes(pa.chunked_array(names) if isinstance(names, pa.Array) else names)
    unit_of_key = np.empty(len(keys), dtype=np.int64)
    unit_of_key[codes] = units
    return keys, unit_of_key
