"""What the pictures are: how many of each class and subset, from where, how large, and what was refused."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from pipelines.report.inputs import Inputs, Row

SUBSETS = ("train", "val", "test")
VERDICTS = {
    "keep": ("picture kept", "pictures kept"),
    "copy": ("copy dropped", "copies dropped"),
    "conflict": ("file held for two labels", "files held for two labels"),
    "drop": ("file dropped by a decision or a reference set", "files dropped by decisions or reference sets"),
}
"""what became of a file: one, several"""
NUM_EXAMPLES = 3
"""rejected files named for each reason"""


@dataclass(frozen=True)
class ClassCount:
    label: str
    subsets: dict[str, int]

    @property
    def total(self) -> int:
        return sum(self.subsets.values())


def class_counts(inputs: Inputs) -> list[ClassCount]:
    """Packed pictures by class and subset, in the order of the classes."""
    counted = Counter(zip(inputs.index["class_index"].to_pylist(), inputs.index["subset"].to_pylist(), strict=True))
    return [ClassCount(label, {s: counted[k, s] for s in SUBSETS}) for k, label in enumerate(inputs.classes)]


@dataclass(frozen=True)
class DataCard:
    """Figures of the manifest.

    Args:
        num_files: rows of the manifest.
        num_pictures: pictures that take part.
        verdicts, sources, formats: counts by name, the most frequent first.
        sides: smallest, median and largest shorter side, pixels.
        longest: the largest longer side, pixels.
    """

    num_files: int
    num_pictures: int
    verdicts: dict[str, int]
    sources: dict[str, int]
    formats: dict[str, int]
    sides: tuple[int, int, int]
    longest: int


def data_card(inputs: Inputs) -> DataCard:
    table = inputs.manifest
    width, height = table["width"].to_numpy(), table["height"].to_numpy()
    short = np.minimum(width, height)
    return DataCard(
        num_files=table.num_rows,
        num_pictures=inputs.index.num_rows,
        verdicts=_counted(table["verdict"]),
        sources=_counted(table["source"]),
        formats=_counted(table["format"]),
        sides=(int(short.min()), int(np.median(short)), int(short.max())) if len(short) else (0, 0, 0),
        longest=int(np.maximum(width, height).max()) if len(short) else 0,
    )


def _counted(column: Any) -> dict[str, int]:
    found = {row["values"]: row["counts"] for row in pc.value_counts(column).to_pylist()}
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


@dataclass(frozen=True)
class Refused:
    """Files refused for one reason, and the first few of them."""

    reason: str
    count: int
    examples: list[Row]


def refused(inputs: Inputs) -> list[Refused]:
    """Rejects by reason, the most frequent first."""
    counted = Counter(row["reason"] for row in inputs.rejects)
    return [
        Refused(reason, n, [row for row in inputs.rejects if row["reason"] == reason][:NUM_EXAMPLES])
        for reason, n in sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    ]


@dataclass(frozen=True)
class Planted:
    """One kind of planted flaw: how many there are, how many could have been found, how many were."""

    flaw: str
    where: str
    planted: int
    reachable: int
    found: int


def planted(inputs: Inputs) -> list[Planted]:
    """How many of the flaws in truth.csv the pipeline found; empty for pictures that nobody planted.

    A copy counts as found when it shares a duplicate group with its original, a conflict when it was also judged
    one, a broken or foreign file when it was refused, a wrong label when the picture is a suspect.
    """
    if inputs.truth is None:
        return []
    columns = ("source", "source_path", "group", "verdict", "image_id")
    rows = zip(*(inputs.manifest[name].to_pylist() for name in columns), strict=True)
    known = {
        path: (group, verdict, image_id)
        for source, path, group, verdict, image_id in rows
        if source.endswith("-sample")
    }
    refused_paths = {row["source_path"] for row in inputs.rejects}
    suspects = {row["image_id"] for row in inputs.suspects}
    subsets = dict(zip(inputs.index["image_id"].to_pylist(), inputs.index["subset"].to_pylist(), strict=True))
    looked_at = suspects_of(inputs)
    tallies: dict[str, list[int]] = {}
    for row in inputs.truth:
        flaw, path = row["flaw"], row["source_path"]
        mine, other = known.get(path), known.get(row["original_path"])
        reachable, hit = True, False
        if flaw in ("exact_copy", "near_copy", "label_conflict"):
            hit = mine is not None and other is not None and mine[0] == other[0]
            hit = hit and (flaw != "label_conflict" or (mine is not None and mine[1] == "conflict"))
        elif flaw == "wrong_label":
            reachable = mine is not None and subsets.get(mine[2]) in looked_at
            hit = reachable and mine is not None and mine[2] in suspects
        else:
            hit = path in refused_paths
        tally = tallies.setdefault(flaw, [0, 0, 0])
        for i, one in enumerate((True, reachable, hit)):
            tally[i] += one
    return [Planted(flaw, WHERE[flaw], *tallies[flaw]) for flaw in WHERE if flaw in tallies]


def suspects_of(inputs: Inputs) -> tuple[str, ...]:
    """The subsets among which suspects were looked for."""
    known = inputs.metrics.get("suspects", {})
    held_out = sum(subset != "train" for subset in inputs.index["subset"].to_pylist())
    return SUBSETS if known.get("num_pictures", 0) > held_out else ("val", "test")


WHERE = {
    "exact_copy": "dedupe",
    "near_copy": "dedupe",
    "label_conflict": "dedupe",
    "broken_file": "ingest",
    "foreign_file": "ingest",
    "wrong_label": "evaluate, as suspects",
}
