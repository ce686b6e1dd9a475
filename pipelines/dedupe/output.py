"""Write dedupe's tables: the manifest with verdicts, every pair in duplicates.csv, every decision in decisions.csv."""

import csv
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from pipelines.core.decisions import Decision, Decisions
from pipelines.core.tables import DEDUPED, MANIFEST
from pipelines.dedupe.find_pairs import DuplicatePair, ReferencePair
from pipelines.dedupe.groups import ImageVerdict
from pipelines.dedupe.inputs import ManifestRows

HEADER = ("image_a", "image_b", "path_a", "path_b", "label_a", "label_b", "kind", "score", "verdict", "transform")
DECISIONS_HEADER = Decision._fields

# both images of such pairs are kept: in one group, but where a chain of them would grow too wide
_LOOK_ALIKES = ("similar", "embedding")
# kinds that show that two classes were made of one set of photographs, and how many pairs do; equal files under two
# labels are conflicts instead
_CHANGED, _MANY = ("near", "recrop", "similar"), 3


@dataclass(frozen=True)
class ReferenceMatch:
    """A pair with an image of a reference set: the set's name, that image's id, path and label, and whether ours is
    dropped for it."""

    pair: ReferencePair
    name: str
    image_id: str
    path: str
    label: str
    drops: bool


def manifest_table(
    manifest: pa.Table, rows: ManifestRows, verdicts: Sequence[ImageVerdict], in_reference_sets: Mapping[int, str]
) -> pa.Table:
    """The table DEDUPED.

    Args:
        verdicts: one a row.
        in_reference_sets: reasons by row dropped for a reference set.
    """
    reason_of = {rows.image_id[row]: f"drop: {reason}" for row, reason in in_reference_sets.items()}
    columns = {name: manifest[name] for name in MANIFEST.names} | {
        "original_label": manifest["label"],
        "label": rows.label,
        "group": [one.group for one in verdicts],
        "verdict": [one.verdict for one in verdicts],
        "best_id": [one.best_id for one in verdicts],
        "decision": [
            reason_of[rows.image_id[row]] if one.verdict == "drop" and not rows.dropped[row] else rows.note[row]
            for row, one in enumerate(verdicts)
        ],
    }
    return pa.table({name: columns[name] for name in DEDUPED.names}, schema=DEDUPED)


def duplicate_rows(
    rows: ManifestRows,
    pairs: Iterable[DuplicatePair],
    matches: Iterable[ReferenceMatch],
    verdicts: Sequence[ImageVerdict],
    recrops: str,
    unlabelled: str | None = None,
) -> list[tuple[str, ...]]:
    """The rows of duplicates.csv, sorted. image_a <= image_b, unless b is in a reference set.

    Args:
        recrops: drop or keep, of the params.
        unlabelled: the label of images that have none; it conflicts with no other.
    """
    stay = _LOOK_ALIKES if recrops == "drop" else (*_LOOK_ALIKES, "recrop")
    found: list[tuple[str, ...]] = []
    for pair in pairs:
        one, two = sorted(
            (pair.first, pair.second), key=lambda row: (rows.image_id[row], rows.path[row], rows.label[row])
        )
        labels = (rows.label[one], rows.label[two])
        agree = labels[0] == labels[1] or unlabelled in labels
        if "drop" in (verdicts[one].verdict, verdicts[two].verdict):
            verdict = "drop"
        elif pair.kind in _LOOK_ALIKES and _apart(verdicts[one], verdicts[two]):
            verdict = "apart"
        elif pair.kind in _LOOK_ALIKES or (pair.kind in stay and agree):
            verdict = "keep"
        else:
            verdict = "copy" if agree else "conflict"
        ends = (rows.image_id[one], rows.image_id[two], rows.path[one], rows.path[two])
        found.append((*ends, *labels, pair.kind, f"{pair.score:.4f}", verdict, pair.transform))
    for match in matches:
        row = match.pair.row
        ends = (rows.image_id[row], match.image_id, rows.path[row], match.path)
        kind, verdict = f"{match.pair.kind} in {match.name}", "drop" if match.drops else "keep"
        found.append((*ends, rows.label[row], match.label, kind, f"{match.pair.score:.4f}", verdict, ""))
    return sorted(found)


def decision_rows(decisions: Decisions, rows: ManifestRows) -> list[Decision]:
    """The rows of decisions.csv, in the order of the files; each with a path of its image if there is one."""
    wanted = {one.image_id for one in decisions.taken}
    at = {one: row for row, one in reversed([*enumerate(rows.image_id)]) if one in wanted} if wanted else {}
    found = []
    for one in decisions.taken:
        row = at.get(one.image_id)
        if row is not None and one.decision == "keep" and one.status == "applied" and not rows.decided[row]:
            one = one._replace(status="two labels")
        found.append(one if row is None else one._replace(path=rows.path[row]))
    return found


def _apart(first: ImageVerdict, second: ImageVerdict) -> bool:
    """Whether both images are kept, in two groups."""
    return first.verdict == second.verdict == "keep" and first.group != second.group


def shared_photographs(duplicates: Path, num_images: Mapping[str, int]) -> list[str]:
    """A warning for every two classes that seem to be photographs of one set, cut or changed differently.

    Mirrored and rotated pairs do not count: classes such as left and right are mirror images of each other, of which
    validate warns.

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
