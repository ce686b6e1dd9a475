"""What lies across a given split: groups whose files the source puts into two subsets."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.core.errors import InputError, count
from pipelines.core.files import write_csv
from pipelines.split.units import Linked, label_numbers

HEADER = ("group", "given_subset", "subset", "verdict", "image_id", "label", "source", "source_path")
NUM_EXAMPLES = 10
"""groups that audit.json shows whole; leaks.csv has all"""
NAMED = 10


@dataclass(frozen=True)
class Leaks:
    """Groups (duplicates, joined by group_by) with files in two given subsets or more.

    Args:
        files: their files, a row each, with HEADER's columns but `subset`; sorted by group, subset and path.
    """

    files: list[dict[str, str]]

    @property
    def num_groups(self) -> int:
        return len({file["group"] for file in self.files})

    @property
    def summary(self) -> dict[str, Any]:
        """What audit.json says of them."""
        groups: dict[str, list[dict[str, str]]] = {}
        for file in self.files:
            groups.setdefault(file["group"], []).append(file)
        across = Counter(" and ".join(sorted({f["given_subset"] for f in g} - {""})) for g in groups.values())
        labels = Counter(label for g in groups.values() for label in {f["label"] for f in g})
        return {
            "num_groups": len(groups),
            "num_files": len(self.files),
            "across": dict(sorted(across.items())),
            "classes": dict(sorted(labels.items(), key=lambda item: (-item[1], item[0]))),
            "examples": list(groups.values())[:NUM_EXAMPLES],
        }


def find_leaks(table: pa.Table, linked: Linked) -> Leaks:
    """Every group across subsets, copies and pictures held for their labels among them; files of verdict drop apart.

    Args:
        table: of `read_files`, with given_subset, source and source_path.
    """
    table = table.filter(pc.not_equal(table["verdict"], "drop"))
    # groups that keep no picture are units of their own
    at = pc.index_in(table["group"], pa.array(linked.groups, pa.string()))
    unit = pa.array(linked.units, pa.string()).take(pa.array(linked.unit_of_group)).take(at.combine_chunks())
    table = table.set_column(table.schema.get_field_index("group"), "group", pc.coalesce(unit, table["group"]))
    given = table.filter(pc.not_equal(table["given_subset"], ""))
    if given.num_rows == 0:
        return Leaks([])
    groups, number = label_numbers(given["group"])
    _, side = label_numbers(given["given_subset"])
    low, high = np.full(len(groups), 3), np.full(len(groups), -1)
    np.minimum.at(low, number, side)
    np.maximum.at(high, number, side)
    astray = [groups[k] for k in np.flatnonzero(low < high)]
    found = table.filter(pc.is_in(table["group"], pa.array(astray, pa.string())))
    keys = ("group", "given_subset", "source_path", "image_id", "label", "source", "verdict")
    return Leaks(sorted(found.select(list(keys)).to_pylist(), key=lambda file: tuple(file[key] for key in keys)))


def write_leaks(leaks: Leaks, subsets_of: dict[str, set[str]], path: Path) -> None:
    """leaks.csv: every file of every leak, and the subset that it ended in; "" where it takes no part.

    Args:
        subsets_of: by image_id.
    """
    rows = [{**file, "subset": " and ".join(sorted(subsets_of.get(file["image_id"], ())))} for file in leaks.files]
    write_csv(path, HEADER, ([row[name] for name in HEADER] for row in rows))


def refuse_leaks(leaks: Leaks) -> NoReturn:
    """Stop, and name what leaks.

    Raises:
        InputError: always.
    """
    found = leaks.summary
    across = ", ".join(f"{many} of {what}" for what, many in found["across"].items())
    classes = [f"{label!r} ({many})" for label, many in found["classes"].items()]
    shown = classes[:NAMED] + ([f"and {len(classes) - NAMED} more"] if len(classes) > NAMED else [])
    first = ", ".join(f"{file['source_path']} ({file['given_subset'] or 'no subset'})" for file in found["examples"][0])
    groups = count(found["num_groups"], "group lies", "groups lie")
    raise InputError(
        f"{groups} across the given split: {across}; classes {', '.join(shown)}.\n"
        f"The first: {first}\n"
        "What helps: set split.leaks: keep_test (copies leave training), keep_train (copies leave the test set) or "
        "keep (the leak stays, and the report says so); or drop one side in data/decisions/drop.csv"
    )
