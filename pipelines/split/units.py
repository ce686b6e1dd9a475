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
import pyarrow.parquet as pq

from pipelines.core.errors import InputError
from pipelines.core.tables import DEDUPED, read_table

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Pictures:
    """The N pictures that take part, sorted by (label, image_id), and the U units that hold them.

    Args:
        table: N rows of image_id and label.
        labels: the K class labels, sorted.
        label_of: (N,) index into labels.
        image_of: (N,) number of the image; two rows of one image (under two labels) share it.
        group_of: (N,) number of the duplicate group.
        unit_of: (N,) index into units.
        units: U names: the smallest group id of each unit, sorted.
        keys: per member of a unit, what `stable` hashes: the value of group_by, or the image_id where there is none.
        unit_of_key: index into units of each of `keys`.
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


def read_pictures(manifest: Path, group_by: str | None) -> Pictures:
    """Read dedupe's manifest and find what must stay together.

    Rows of verdict `drop` take no part at all. Copies do not take part either, but they link: where the copy of a
    picture of one person is a picture of another, both persons stay on one side.

    Raises:
        InputError: no picture is kept, or `group_by` is no column of the manifest.
    """
    columns = ["image_id", "label", "group", "verdict"]
    if group_by is not None:
        # read_table's check of the file comes first: a missing file is not a missing column
        read_table(manifest, DEDUPED, columns=["verdict"])
        names = pq.read_schema(manifest).names
        if group_by not in names:
            raise InputError(
                f"split.group_by is {group_by!r}, which is no column of {manifest}: "
                f"name one of {', '.join(names)}, or null for duplicate groups alone"
            )
        columns += [group_by] if group_by not in columns else []
    table = read_table(manifest, DEDUPED, columns=columns)
    kept = _kept(table)
    if kept.num_rows == 0:
        raise InputError(
            f"{manifest} keeps no picture ({table.num_rows} rows, none of verdict keep): there is nothing to split; "
            "look at data/ingest/rejected.csv, data/dedupe/duplicates.csv and data/decisions/drop.csv"
        )
    members = table.filter(
        pc.and_(pc.not_equal(table["verdict"], "drop"), pc.is_in(table["group"], pc.unique(kept["group"])))
    )
    groups, group_of_member = _codes(members["group"])
    values = _group_values(members, group_by)
    first = _joined(group_of_member, values, len(groups))
    roots, unit_of_group = np.unique(first, return_inverse=True)
    keys, unit_of_key = _keys(members, values, group_by, unit_of_group[group_of_member])
    labels, label_of = _codes(kept["label"])
    group_of = np.searchsorted(np.array(groups, dtype=object), kept["group"].to_numpy(zero_copy_only=False))
    return Pictures(
        table=kept.select(["image_id", "label"]),
        labels=labels,
        label_of=label_of,
        image_of=_codes(kept["image_id"])[1],
        group_of=group_of,
        unit_of=unit_of_group[group_of],
        units=[groups[root] for root in roots],
        keys=keys,
        unit_of_key=unit_of_key,
    )


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


def _kept(table: pa.Table) -> pa.Table:
    """Rows of verdict keep, one per (image_id, label), sorted by (label, image_id)."""
    kept = table.filter(pc.equal(table["verdict"], "keep")).select(["image_id", "label", "group"])
    kept = kept.sort_by([("label", "ascending"), ("image_id", "ascending")])
    if kept.num_rows < 2:
        return kept
    before, after = kept.slice(0, kept.num_rows - 1), kept.slice(1)
    new = pc.or_(
        pc.not_equal(before["image_id"], after["image_id"]), pc.not_equal(before["label"], after["label"])
    ).to_numpy(zero_copy_only=False)
    return kept.filter(pa.array(np.concatenate([[True], new])))


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


def _group_values(members: pa.Table, group_by: str | None) -> Ints | None:
    """For each member the number of its group_by value, -1 where it has none (null or ""); None without group_by."""
    if group_by is None:
        return None
    column = pc.fill_null(pc.cast(members[group_by], pa.string()), "")
    values, codes = _codes(column)
    if values and values[0] == "":
        codes = codes - 1
    return codes


def _joined(groups: Ints, values: Ints | None, num_groups: int) -> Ints:
    """For each group the smallest group that hangs together with it through equal values, (num_groups,)."""
    parent = list(range(num_groups))
    if values is None:
        return np.arange(num_groups)

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    seen: dict[int, int] = {}
    for group, value in zip(groups.tolist(), values.tolist(), strict=True):
        if value < 0:
            continue
        here, there = root(group), root(seen.setdefault(value, group))
        if here != there:
            parent[max(here, there)] = min(here, there)
    return np.array([root(node) for node in range(num_groups)], dtype=np.int64)


def _keys(members: pa.Table, values: Ints | None, group_by: str | None, units: Ints) -> tuple[list[str], Ints]:
    """The names that `stable` hashes and the unit of each: a person who gains pictures stays one name."""
    names = members["image_id"]
    if values is not None and group_by is not None:
        # the prefix keeps a value apart from an image_id that spells the same
        named = pc.binary_join_element_wise("value", pc.cast(members[group_by], pa.string()), "=")
        names = pc.if_else(pa.array(values >= 0), named, names)
    keys, codes = _codes(pa.chunked_array(names) if isinstance(names, pa.Array) else names)
    unit_of_key = np.empty(len(keys), dtype=np.int64)
    unit_of_key[codes] = units
    return keys, unit_of_key
