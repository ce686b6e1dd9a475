"""Summarise the data: images of each class and subset, sources, sizes, quality, duplicates, rejects, planted flaws."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.core.errors import count
from pipelines.report.inputs import CsvRow, Inputs
from pipelines.report.wording import listed

SUBSETS = ("train", "val", "test")
VERDICTS = {
    "keep": ("picture kept", "pictures kept"),
    "copy": ("copy dropped", "copies dropped"),
    "conflict": ("file held for two labels", "files held for two labels"),
    "drop": ("file dropped by a decision or a reference set", "files dropped by decisions or reference sets"),
}
"""of dedupe: one file, several"""
NUM_EXAMPLES = 3
"""rejected files named for each reason"""
QUALITY_LIMITS = {"min_sharpness": 100.0, "min_brightness": 10.0, "max_brightness": 250.0}
"""where validate's rule is off, whose limit counts otherwise. Of sharpness (variance of the Laplacian, see
pipelines.ingest.quality): none of 360 photographs of clothing, guitars and instruments lies below; 85 % of them do
after a Gaussian blur of 1/128 of their shorter side, all after 1/64. Of the mean grey level"""
KINDS = {
    "exact": "of equal bytes",
    "pixels": "of equal pixels",
    "near": "nearly equal",
    "recrop": "one photograph cut differently",
    "embedding": "alike to a network",
    "similar": "alike but for detail or colour",
}
"""of pairs in duplicates.csv"""
PLANTED = {
    "exact_copy": "dedupe",
    "near_copy": "dedupe",
    "label_conflict": "dedupe",
    "broken_file": "ingest",
    "foreign_file": "ingest",
    "wrong_label": "evaluate, as suspects",
}
"""flaws of the sample source, and the stage that should find them"""
_IN = " in "
"""dedupe's kinds of pairs with a reference set: "near in last month\""""


@dataclass(frozen=True)
class ClassCount:
    """Packed images of a class, by subset."""

    label: str
    subsets: dict[str, int]

    @property
    def total(self) -> int:
        return sum(self.subsets.values())


def class_counts(inputs: Inputs) -> list[ClassCount]:
    """In the order of the classes."""
    counted = Counter(zip(inputs.index["class_index"].to_pylist(), inputs.index["subset"].to_pylist(), strict=True))
    return [ClassCount(label, {s: counted[k, s] for s in SUBSETS}) for k, label in enumerate(inputs.classes)]


@dataclass(frozen=True)
class DataCard:
    """Figures of the manifest.

    Args:
        num_files: rows of the manifest.
        num_pictures: packed images.
        verdicts, sources, formats: counts by name, the most frequent first.
        sides: smallest, median and largest shorter side, pixels.
    """

    num_files: int
    num_pictures: int
    verdicts: dict[str, int]
    sources: dict[str, int]
    formats: dict[str, int]
    sides: tuple[int, int, int]


def data_card(inputs: Inputs) -> DataCard:
    table = inputs.manifest
    short = np.minimum(table["width"].to_numpy(), table["height"].to_numpy())
    verdicts, sources, formats = (
        dict(sorted(_counted(table[name]).items(), key=lambda item: (-item[1], item[0])))
        for name in ("verdict", "source", "format")
    )
    sides = (int(short.min()), int(np.median(short)), int(short.max())) if len(short) else (0, 0, 0)
    return DataCard(table.num_rows, inputs.index.num_rows, verdicts, sources, formats, sides)


def _counted(column: pa.ChunkedArray) -> Counter[str]:
    return Counter({row["values"]: row["counts"] for row in pc.value_counts(column).to_pylist()})


@dataclass(frozen=True)
class QualityFlaw:
    """A property that some of the kept images share, such as blur.

    A class whose images alone are grey or blurred can be told by that, not by what it shows.

    Args:
        meaning: what follows from it.
        count, fraction: of the images used.
        label: the class with the most of them, `in_label` of its `of_label` images.
    """

    name: str
    meaning: str
    count: int
    fraction: float
    label: str
    in_label: int
    of_label: int


def quality_flaws(inputs: Inputs) -> list[QualityFlaw]:
    """Those that occur, in a fixed order."""
    table = inputs.manifest.filter(pc.equal(inputs.manifest["verdict"], "keep"))
    whole = pc.and_(
        pc.and_(pc.equal(table["crop_left"], 0.0), pc.equal(table["crop_top"], 0.0)),
        pc.and_(pc.equal(table["crop_right"], 1.0), pc.equal(table["crop_bottom"], 1.0)),
    )
    rules = {rule["rule"]: rule["limit"] for rule in inputs.expectations["rules"]}
    blurred, dark, bright = (float(rules.get(rule, limit)) for rule, limit in QUALITY_LIMITS.items())
    kinds = [
        ("Blurred", f"sharpness below {blurred:g}", pc.less(table["sharpness"], blurred)),
        ("Dark", f"mean grey level below {dark:g}", pc.less(table["brightness"], dark)),
        ("Bright", f"mean grey level above {bright:g}", pc.greater(table["brightness"], bright)),
        ("Greyscale", "no colour to learn from", table["greyscale"]),
        ("Transparent", "laid on white", table["transparent"]),
        ("Animated", "the first frame is used", pc.greater(table["num_frames"], 1)),
        ("Cropped", "a part of the picture is used", pc.invert(whole)),
    ]
    sizes = _counted(table["label"])
    found = []
    for name, meaning, mask in kinds:
        counts = _counted(table["label"].filter(pc.fill_null(mask, False)))
        if counts:
            label, most = min(counts.items(), key=lambda item: (-item[1], item[0]))
            total = counts.total()
            found.append(QualityFlaw(name, meaning, total, total / table.num_rows, label, most, sizes[label]))
    return found


@dataclass(frozen=True)
class RejectReason:
    """Files rejected for one reason, and the first few of them."""

    reason: str
    count: int
    examples: list[CsvRow]


def reject_reasons(inputs: Inputs) -> list[RejectReason]:
    """The most frequent first."""
    counted = Counter(row["reason"] for row in inputs.rejects)
    return [
        RejectReason(reason, n, [row for row in inputs.rejects if row["reason"] == reason][:NUM_EXAMPLES])
        for reason, n in sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    ]


@dataclass(frozen=True)
class ReferenceOverlap:
    """How many images are in a reference set too, and how many of these were left out for it."""

    name: str
    num_found: int
    num_dropped: int

    def __str__(self) -> str:
        rest = "it stays" if self.num_found == 1 else "they stay"
        if self.num_dropped:
            rest = f"{count(self.num_dropped, 'was', 'were')} left out"
        return f"{count(self.num_found, 'picture is', 'pictures are')} in {self.name} too; {rest}."


@dataclass(frozen=True)
class Duplicates:
    """Pairs of duplicates.csv by what became of them; pairs of which a decision dropped one are left out.

    Args:
        conflicts: one image under two labels.
        copies: pairs that show the same.
        kept: pairs of look-alikes of which both stay, in one group.
        num_apart: pairs of look-alikes in two groups, since a chain of such pairs would be one group otherwise.
        copies_by_kind, kept_by_kind: "3 of equal bytes and 1 nearly equal".
        references: one for each reference set that shares an image, by name.
    """

    conflicts: list[CsvRow]
    copies: list[CsvRow]
    kept: list[CsvRow]
    num_apart: int
    copies_by_kind: str
    kept_by_kind: str
    references: list[ReferenceOverlap]


def find_duplicates(rows: Sequence[CsvRow], group_of: Mapping[str, str]) -> Duplicates:
    """Sort the rows of duplicates.csv; `group_of` gives the group of each kept image_id."""
    own = [row for row in rows if _IN not in row["kind"]]
    copies = [row for row in own if row["verdict"] == "copy"]
    # of two look-alikes one may be gone as a copy of a third image
    groups = [(row, group_of.get(row["image_a"], ""), group_of.get(row["image_b"], "")) for row in own]
    kept = [row for row, a, b in groups if row["verdict"] == "keep" and a and a == b]
    found: dict[str, set[str]] = {}
    dropped: dict[str, set[str]] = {}
    for row in (row for row in rows if _IN in row["kind"]):
        name = row["kind"].split(_IN, 1)[1]
        found.setdefault(name, set()).add(row["image_a"])
        if row["verdict"] == "drop":
            dropped.setdefault(name, set()).add(row["image_a"])
    return Duplicates(
        conflicts=[row for row in own if row["verdict"] == "conflict"],
        copies=copies,
        kept=kept,
        num_apart=sum(row["verdict"] == "apart" for row in own),
        copies_by_kind=_by_kind(copies),
        kept_by_kind=_by_kind(kept),
        references=[
            ReferenceOverlap(name, len(ids), len(dropped.get(name, ()))) for name, ids in sorted(found.items())
        ],
    )


def num_in_conflict(inputs: Inputs) -> int:
    """Images under two labels, counted by group: however many files, labels and copies one has."""
    conflicts = [row for row in inputs.duplicates if row["verdict"] == "conflict"]
    disputed = {row[side] for row in conflicts for side in ("image_a", "image_b")}
    columns = (inputs.manifest[name].to_pylist() for name in ("image_id", "group"))
    return len({group for image_id, group in zip(*columns, strict=True) if image_id in disputed})


def _by_kind(rows: Sequence[CsvRow]) -> str:
    counted = Counter(row["kind"] for row in rows)
    return listed([f"{counted[kind]:,} {meaning}" for kind, meaning in KINDS.items() if counted[kind]])


@dataclass(frozen=True)
class PlantedFlawCount:
    """One kind of planted flaw, the stage to find it, and how many there are, could be found, and were found."""

    flaw: str
    where: str
    planted: int
    reachable: int
    found: int


def planted_flaws(inputs: Inputs) -> list[PlantedFlawCount]:
    """Count which flaws of truth.csv were found; empty without that file.

    A copy is found when it shares a duplicate group with its original, a conflict when it was also judged one, a broken
    or foreign file when it was rejected, a wrong label when the image is a suspect.
    """
    if inputs.truth is None:
        return []
    columns = ("source", "source_path", "group", "verdict", "image_id")
    rows = zip(*(inputs.manifest[name].to_pylist() for name in columns), strict=True)
    known = {path: tuple(rest) for source, path, *rest in rows if source.endswith("-sample")}
    rejected = {row["source_path"] for row in inputs.rejects}
    suspects = {row["image_id"] for row in inputs.suspects}
    subsets = dict(zip(inputs.index["image_id"].to_pylist(), inputs.index["subset"].to_pylist(), strict=True))
    searched = suspect_subsets(inputs)
    tallies: dict[str, list[int]] = {}
    for row in inputs.truth:
        flaw, path = row["flaw"], row["source_path"]
        group, verdict, image_id = known.get(path, ("", "", ""))
        reachable = flaw != "wrong_label" or subsets.get(image_id) in searched
        if flaw in ("exact_copy", "near_copy", "label_conflict"):
            hit = bool(group) and group == known.get(row["original_path"], ("",))[0]
            hit = hit and (flaw != "label_conflict" or verdict == "conflict")
        elif flaw == "wrong_label":
            hit = reachable and image_id in suspects
        else:
            hit = path in rejected
        tally = tallies.setdefault(flaw, [0, 0, 0])
        for i, one in enumerate((True, reachable, hit)):
            tally[i] += one
    return [PlantedFlawCount(flaw, where, *tallies[flaw]) for flaw, where in PLANTED.items() if flaw in tallies]


def suspect_subsets(inputs: Inputs) -> tuple[str, ...]:
    """The subsets in which suspects were looked for."""
    known = inputs.metrics.get("suspects", {})
    held_out = sum(subset != "train" for subset in inputs.index["subset"].to_pylist())
    return SUBSETS if known.get("num_pictures", 0) > held_out else ("val", "test")
