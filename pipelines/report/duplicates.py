"""What duplicates.csv says, in words: pairs by what became of them, and by why they are one."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipelines.core.errors import count
from pipelines.report.inputs import Inputs, Row
from pipelines.report.wording import listed

MEANINGS = {
    "exact": "of equal bytes",
    "pixels": "of equal pixels",
    "near": "nearly equal",
    "recrop": "one photograph cut differently",
    "embedding": "alike to a network",
    "similar": "alike but for detail or colour",
}
_IN = " in "
"""dedupe's kinds of pairs with a reference set: "near in last month\""""


@dataclass(frozen=True)
class Reference:
    """What a reference set of dedupe.reference_sets shares with these pictures.

    Args:
        name: of the set.
        num_found: pictures that are in it too.
        num_dropped: of these, how many were left out for it.
    """

    name: str
    num_found: int
    num_dropped: int


@dataclass(frozen=True)
class Duplicates:
    """Pairs of duplicates.csv.

    Args:
        conflicts: one picture under two labels.
        copies: pairs that show the same.
        kept: pairs of look-alikes of which both stay, in one group.
        num_apart: pairs that look alike, in two groups, since a chain of such pairs would be one group otherwise.
        copies_by_kind, kept_by_kind: "3 of equal bytes and 1 nearly equal".
        references: one for each reference set that shares a picture, by name.
    """

    conflicts: list[Row]
    copies: list[Row]
    kept: list[Row]
    num_apart: int
    copies_by_kind: str
    kept_by_kind: str
    references: list[Reference]


def find_duplicates(rows: Sequence[Row], group_of: Mapping[str, str]) -> Duplicates:
    """Sort the rows of duplicates.csv; pairs of which a decision dropped one are left out.

    Args:
        group_of: by image_id the group of each picture that stays.
    """
    own = [row for row in rows if _IN not in row["kind"]]
    copies = [row for row in own if row["verdict"] == "copy"]
    # of two look-alikes one may be gone as a copy of a third picture
    groups = [(row, group_of.get(row["image_a"], ""), group_of.get(row["image_b"], "")) for row in own]
    kept = [row for row, a, b in groups if row["verdict"] == "keep" and a and a == b]
    return Duplicates(
        conflicts=[row for row in own if row["verdict"] == "conflict"],
        copies=copies,
        kept=kept,
        num_apart=sum(row["verdict"] == "apart" for row in own),
        copies_by_kind=_by_kind(copies),
        kept_by_kind=_by_kind(kept),
        references=_references([row for row in rows if _IN in row["kind"]]),
    )


def num_in_conflict(inputs: Inputs) -> int:
    """Pictures under two labels: however many files, labels and copies one has, it is one group."""
    disputed = {
        row[side] for row in inputs.duplicates if row["verdict"] == "conflict" for side in ("image_a", "image_b")
    }
    columns = (inputs.manifest[name].to_pylist() for name in ("image_id", "group"))
    return len({group for image_id, group in zip(*columns, strict=True) if image_id in disputed})


def _by_kind(rows: Sequence[Row]) -> str:
    counted = Counter(row["kind"] for row in rows)
    return listed([f"{counted[kind]:,} {meaning}" for kind, meaning in MEANINGS.items() if counted[kind]])


def _references(rows: Sequence[Row]) -> list[Reference]:
    found: dict[str, set[str]] = {}
    dropped: dict[str, set[str]] = {}
    for row in rows:
        name = row["kind"].split(_IN, 1)[1]
        found.setdefault(name, set()).add(row["image_a"])
        if row["verdict"] == "drop":
            dropped.setdefault(name, set()).add(row["image_a"])
    return [Reference(name, len(found[name]), len(dropped.get(name, ()))) for name in sorted(found)]


def said(reference: Reference) -> str:
    """ "12 pictures are in last month too; 12 were left out." """
    is_one = reference.num_found == 1
    rest = "it stays" if is_one else "they stay"
    if reference.num_dropped:
        rest = f"{count(reference.num_dropped, 'was', 'were')} left out"
    return f"{count(reference.num_found, 'picture is', 'pictures are')} in {reference.name} too; {rest}."
