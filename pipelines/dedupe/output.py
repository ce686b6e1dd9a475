"""What dedupe writes: the manifest with verdicts, every pair in duplicates.csv, every decision in decisions.csv."""

import csv
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from pipelines.core.decisions import Decision, Decisions
from pipelines.core.tables import DEDUPED, MANIFEST
from pipelines.dedupe.find import ForeignPair, Pair
from pipelines.dedupe.groups import Verdict
from pipelines.dedupe.rows import Rows

HEADER = ("image_a", "image_b", "path_a", "path_b", "label_a", "label_b", "kind", "score", "verdict", "transform")
DECISIONS_HEADER = Decision._fields

# both pictures of such pairs stay: in one group, but where a chain of them would grow too wide
_LOOK_ALIKES = ("similar", "embedding")
# pairs that say that two classes were made of one set of photographs, and how many say so: equal files under two
# labels are conflicts, not another cut
_CHANGED, _MANY = ("near", "recrop", "similar"), 3


@dataclass(frozen=True)
class ForeignRow:
    """A pair with a picture of a reference set, and what to say of that picture."""

    pair: ForeignPair
    name: str
    """of the set"""
    image_id: str
    path: str
    label: str
    drops: bool
    """our picture goes"""


def deduped(
    manifest: pa.Table,
    rows: Rows,
    verdicts: Sequence[Verdict],
    in_reference_sets: Mapping[int, str],
) -> pa.Table:
    """The table DEDUPED.

    Args:
        verdicts: one a row.
        in_reference_sets: rows that go for this, with the reason.
    """
    reason_of = {rows.image_id[row]: reason for row, reason in in_reference_sets.items()}

    def note(row: int) -> str:
        in_reference_set = verdicts[row].verdict == "drop" and not rows.dropped[row]
        return f"drop: {reason_of[rows.image_id[row]]}" if in_reference_set else rows.note[row]

    columns = {name: manifest[name] for name in MANIFEST.names} | {
        "original_label": manifest["label"],
        "label": rows.label,
        "group": [verdict.group for verdict in verdicts],
        "verdict": [verdict.verdict for verdict in verdicts],
        "best_id": [verdict.best_id for verdict in verdicts],
        "decision": [note(row) for row in range(len(verdicts))],
    }
    return pa.table({name: columns[name] for name in DEDUPED.names}, schema=DEDUPED)


def csv_rows(
    rows: Rows,
    pairs: Iterable[Pair],
    foreign: Iterable[ForeignRow],
    verdicts: Sequence[Verdict],
    recuts: str,
    unlabelled: str | None = None,
) -> list[tuple[str, ...]]:
    """The rows of duplicates.csv, sorted. image_a <= image_b, but where b is of a reference set.

    Args:
        recuts: drop or keep, of the params.
        unlabelled: the label of pictures that have none; it is at odds with no other.
    """
    stay = _LOOK_ALIKES if recuts == "drop" else (*_LOOK_ALIKES, "recrop")
    found: list[tuple[str, ...]] = []
    for pair in pairs:
        first, second = sorted(
            (pair.first, pair.second), key=lambda row: (rows.image_id[row], rows.path[row], rows.label[row])
        )
        ends = (rows.image_id[first], rows.image_id[second], rows.path[first], rows.path[second])
        labels = (rows.label[first], rows.label[second])
        agree = labels[0] == labels[1] or unlabelled in labels
        if "drop" in (verdicts[first].verdict, verdicts[second].verdict):
            verdict = "drop"
        elif pair.kind in _LOOK_ALIKES and _apart(verdicts[first], verdicts[second]):
            verdict = "apart"
        elif pair.kind in _LOOK_ALIKES or (pair.kind in stay and agree):
            verdict = "keep"
        else:
            verdict = "copy" if agree else "conflict"
        found.append((*ends, *labels, pair.kind, f"{pair.score:.4f}", verdict, pair.transform))
    for one in foreign:
        row = one.pair.row
        ends = (rows.image_id[row], one.image_id, rows.path[row], one.path)
        kind, verdict = f"{one.pair.kind} in {one.name}", "drop" if one.drops else "keep"
        found.append((*ends, rows.label[row], one.label, kind, f"{one.pair.score:.4f}", verdict, ""))
    return sorted(found)


def decision_rows(decisions: Decisions, rows: Rows) -> list[Decision]:
    """The rows of decisions.csv, as the files have them; each with a path of its picture where there is one."""
    wanted = {one.image_id for one in decisions.taken}
    at = {one: row for row, one in reversed([*enumerate(rows.image_id)]) if one in wanted} if wanted else {}
    found = []
    for one in decisions.taken:
        row = at.get(one.image_id)
        if row is not None and one.decision == "keep" and one.status == "applied" and not rows.decided[row]:
            one = one._replace(status="two labels")
        found.append(one if row is None else one._replace(path=rows.path[row]))
    return found


def _apart(first: Verdict, second: Verdict) -> bool:
    """Whether both pictures stay, but in two groups."""
    return first.verdict == second.verdict == "keep" and first.group != second.group


def shared_photographs(duplicates: Path, num_images: Mapping[str, int]) -> list[str]:
    """A warning for every two classes that seem to be photographs of one set, cut or changed differently.

    Mirrored and turned pairs are not counted: classes such as left and right are mirror images of each other, and what
    helps there is another thing (`pipelines.validate.held`).

    Args:
        duplicates: duplicates.csv.
        num_images: of each label.
    """
    kinds: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    with duplicates.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            is_changed = row["kind"] in _CHANGED and row["transform"] in ("none", "")
            if row["label_a"] != row["label_b"] and is_changed and row["verdict"] != "drop":
                one, other = sorted((row["label_a"], row["label_b"]))
                kinds[one, other][row["kind"]] += 1
    return [
        f"the classes {one!r} and {other!r} share photographs: {found.total()} pairs ({found['near']} near, "
        f"{found['recrop']} cut differently, {found['similar']} alike) among the {num_images[one]:,} and "
        f"{num_images[other]:,} files. There are probably more: copies cut by more than 12 % of a side are not found. "
        "If both came from one collection, make them one class, or look further with dedupe.embeddings: "
        "{min_cosine: 0.9, num_threads: 2}"
        for (one, other), found in sorted(kinds.items())
        if found.total() >= _MANY and found["near"] + found["recrop"] > 0
    ]
