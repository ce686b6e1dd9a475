"""Find every copy, decide which picture stays, and hold back what lies under two labels."""

import sys
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from pipelines.core.decisions import Decision, read_decisions, told_of
from pipelines.core.errors import count
from pipelines.core.files import empty_folder, write_csv
from pipelines.core.tables import MANIFEST, read_table, write_table
from pipelines.dedupe.against import joined, read_reference
from pipelines.dedupe.find import Found, Pair, find
from pipelines.dedupe.groups import Item, Verdict, judge
from pipelines.dedupe.output import DECISIONS_HEADER, HEADER, ForeignRow, csv_rows, decision_rows, deduped
from pipelines.dedupe.reach import COPY_OF, reach
from pipelines.dedupe.rows import Rows, first_rows, open_thumbnails, pictures_of, rows_of
from pipelines.images.shards import ShardReader
from pipelines.params.dedupe import DedupeParams

# a picture of a reference set that is only a look-alike is listed, and nothing is dropped for it
_SAME = ("exact", "near", "recrop")


@dataclass(frozen=True)
class DedupeArtifact:
    """What dedupe wrote and found. Rows of the manifest are counted by verdict; duplicates.csv has the pairs."""

    manifest: Path
    duplicates: Path
    decisions: Path
    num_images: int
    num_groups: int
    """groups of at least two rows"""
    num_against: int
    """pairs with pictures of reference sets"""
    num_skipped: int
    """files of reference folders that are no pictures"""
    num_conflicts: int
    num_dropped: int
    """rows with a drop decision, or in a reference set"""
    num_kept: int
    num_decisions: int
    """rows of data/decisions"""
    num_left: int
    """of these, those that name a picture that is not there"""
    num_reached: int
    """rows that a decision on another picture reached, of which they are copies"""
    num_copies: int
    """rows left out because another picture shows the same"""
    num_together: int
    """pairs of look-alikes that both stay, in one group"""

    def __str__(self) -> str:
        parts = [
            f"{count(self.num_kept, 'picture')} kept of {count(self.num_images, 'file')}",
            f"{count(self.num_copies, 'copy', 'copies')} dropped",
            f"{count(self.num_conflicts, 'file')} held for two labels" if self.num_conflicts else "",
            f"{count(self.num_dropped, 'file')} dropped by decisions or reference sets" if self.num_dropped else "",
            f"{count(self.num_together, 'pair')} of look-alikes kept together" if self.num_together else "",
            f"{count(self.num_against, 'pair')} with reference sets" if self.num_against else "",
            f"{count(self.num_skipped, 'file')} of these no pictures" if self.num_skipped else "",
        ]
        line = ", ".join(filter(None, parts))
        if self.num_decisions:
            line += f"; {count(self.num_decisions, 'decision')}"
            line += f", {count(self.num_reached, 'copy', 'copies')} reached" if self.num_reached else ""
            line += f", {self.num_left:,} without a picture in the data set" if self.num_left else ""
        return line


def dedupe(
    params: DedupeParams,
    *,
    root: Path,
    cache: Path,
    ingest_dir: Path,
    decisions_dir: Path,
    out_dir: Path,
    unlabelled: str | None = None,
) -> DedupeArtifact:
    """Write `manifest.parquet` (DEDUPED), `duplicates.csv` and `decisions.csv` to `out_dir`.

    duplicates.csv lists every pair that was found between different pictures; of files with equal bytes, equal
    pixels or equal thumbnails it lists the pairs with the best of them only, since n of these make n² pairs. Pairs of a
    picture that a decision dropped are not in it, nor those that a decision calls different. decisions.csv says what
    became of every decision (`pipelines.core.decisions.Decision`); those about pictures that are not there are told on
    stderr.

    Args:
        root: where the paths of reference sets start: the folder of params.yaml.
        cache: for features; deleting it changes no result.
        ingest_dir: manifest, thumbnails and shards.
        decisions_dir: holds drop.csv, relabel.csv, keep.csv, and crop.csv, which is only checked here.
        unlabelled: split.unlabelled, the label of pictures that have none.

    Raises:
        InputError: manifest and thumbnails are missing or do not belong together, or a reference set is not there.
        DecisionError: a row of a decision file is wrong.
    """
    manifest = read_table(ingest_dir / "manifest.parquet", MANIFEST)
    thumbnails = open_thumbnails(ingest_dir / "thumbnails.npy", manifest.num_rows)
    labels = manifest["label"].unique().to_pylist()
    decisions = read_decisions(decisions_dir, manifest["image_id"].to_pylist(), labels)
    rows = rows_of(manifest, decisions)
    standing = list(first_rows(rows, dropped=True).values())
    with ExitStack() as stack:
        shards = stack.enter_context(ShardReader(ingest_dir))
        references = [read_reference(one, root=root, stack=stack) for one in params.reference_sets]
        foreign, place = joined(references)
        pictures = pictures_of(manifest, thumbnails, shards)
        found = find(params, rows, standing, pictures, foreign)
        if params.embeddings is not None:
            from pipelines.dedupe.embeddings import add_embedding_pairs

            add_embedding_pairs(params.embeddings, rows, standing, pictures, found, cache=cache / "dedupe")
    rows, found = reach(rows, standing, found, copies=params.duplicates, recuts=params.recrops, unlabelled=unlabelled)
    first_row = first_rows(rows)
    standing = list(first_row.values())
    foreign_rows = []
    for pair in (pair for pair in found.foreign if not rows.dropped[pair.row]):
        number, inside = place[pair.picture]
        one = references[number]
        drops = one.params.found == "drop" and pair.kind in _SAME
        foreign_rows.append(
            ForeignRow(
                replace(pair, row=first_row[rows.image_id[pair.row], rows.label[pair.row]]),
                one.params.name,
                foreign.image_id[pair.picture],
                one.path[inside],
                one.label[inside],
                drops,
            )
        )
    gone = _in_reference_sets(foreign_rows, standing, found)
    verdict_of = _verdicts(params, rows, standing, found, gone, unlabelled)
    verdicts = [_row_verdict(rows, row, first_row, verdict_of) for row in range(manifest.num_rows)]
    known = {frozenset((pair.first, pair.second)) for pair in found.pairs}
    pairs = found.pairs + [
        Pair(first_row[key], row, "exact", 1.0)
        for row, key in enumerate(zip(rows.image_id, rows.label, strict=True))
        if key in first_row and first_row[key] != row and frozenset((first_row[key], row)) not in known
    ]
    empty_folder(out_dir)
    reasons = {standing[item]: reason for item, reason in gone.items()}
    write_table(deduped(manifest, rows, verdicts, reasons), out_dir / "manifest.parquet")
    write_csv(
        out_dir / "duplicates.csv", HEADER, csv_rows(rows, pairs, foreign_rows, verdicts, params.recrops, unlabelled)
    )
    taken = decision_rows(decisions, rows)
    write_csv(out_dir / "decisions.csv", DECISIONS_HEADER, taken)
    for told in told_of(taken):
        print(f"dedupe: warning: {told}", file=sys.stderr)
    num_skipped = sum(one.num_skipped for one in references)
    return _artifact(out_dir, rows, pairs, verdicts, taken, num_against=len(foreign_rows), num_skipped=num_skipped)


def _in_reference_sets(foreign: list[ForeignRow], standing: list[int], found: Found) -> dict[int, str]:
    """The items that a reference set holds, and copies of these, each with the reason for dropping it."""
    item_of = {row: item for item, row in enumerate(standing)}
    reason_of: dict[int, str] = {}
    for one in sorted(foreign, key=lambda one: (-one.pair.score, one.name, one.path)):
        if one.drops:
            reason_of.setdefault(found.nodes[item_of[one.pair.row]], f"in {one.name}: {one.path}")
    direct = dict(reason_of)
    for kind in ("near", "recrop"):
        for first, second in found.edges.get(kind, ()):
            for node, other in ((first, second), (second, first)):
                if node in direct:
                    reason_of.setdefault(other, direct[node])
    return {item: reason_of[node] for item, node in enumerate(found.nodes) if node in reason_of}


def _verdicts(
    params: DedupeParams,
    rows: Rows,
    standing: list[int],
    found: Found,
    gone: dict[int, str],
    unlabelled: str | None,
) -> dict[tuple[str, str], Verdict]:
    """The verdict of each (image_id, label) that stands."""
    left = [item for item in range(len(standing)) if item not in gone]
    node_of = {node: number for number, node in enumerate(sorted({found.nodes[item] for item in left}))}
    edges = {
        kind: [(node_of[one], node_of[other]) for one, other in pairs if one in node_of and other in node_of]
        for kind, pairs in found.edges.items()
    }
    near, recut = edges.get("near", []), edges.get("recrop", [])
    items = [
        Item(
            rows.image_id[row],
            rows.label[row],
            rows.decided[row],
            rows.area[row],
            rows.size[row],
            has_label=rows.label[row] != unlabelled,
        )
        for row in (standing[item] for item in left)
    ]
    judged = judge(
        items,
        [node_of[found.nodes[item]] for item in left],
        near + recut if params.recrops == "drop" else near,
        recuts=() if params.recrops == "drop" else recut,
        alike=edges.get("similar", []) + edges.get("embedding", []),
        drop_copies=params.duplicates == "drop",
        hold_conflicts=params.label_conflicts == "hold",
    )
    verdicts = {(item.image_id, item.label): verdict for item, verdict in zip(items, judged, strict=True)}
    for item in gone:
        key = (rows.image_id[standing[item]], rows.label[standing[item]])
        verdicts[key] = Verdict(group=key[0], verdict="drop", best_id=key[0])
    return verdicts


def _row_verdict(
    rows: Rows, row: int, first_row: dict[tuple[str, str], int], verdict_of: dict[tuple[str, str], Verdict]
) -> Verdict:
    if rows.dropped[row]:
        return Verdict(group=rows.image_id[row], verdict="drop", best_id=rows.image_id[row])
    key = (rows.image_id[row], rows.label[row])
    judged = verdict_of[key]
    if first_row[key] != row and judged.verdict == "keep":
        return Verdict(judged.group, "copy", judged.best_id)
    return judged


def _together(first: Verdict, second: Verdict) -> bool:
    """Whether both pictures stay, in one group."""
    return first.verdict == second.verdict == "keep" and first.group == second.group


def _artifact(
    out_dir: Path,
    rows: Rows,
    pairs: list[Pair],
    verdicts: list[Verdict],
    taken: list[Decision],
    *,
    num_against: int,
    num_skipped: int,
) -> DedupeArtifact:
    sizes = Counter(verdict.group for verdict in verdicts if verdict.verdict != "drop")
    found = Counter(verdict.verdict for verdict in verdicts)
    return DedupeArtifact(
        manifest=out_dir / "manifest.parquet",
        duplicates=out_dir / "duplicates.csv",
        decisions=out_dir / "decisions.csv",
        num_images=len(rows.image_id),
        num_groups=sum(size > 1 for size in sizes.values()),
        num_against=num_against,
        num_skipped=num_skipped,
        num_conflicts=found["conflict"],
        num_dropped=found["drop"],
        num_kept=found["keep"],
        num_decisions=len(taken),
        num_left=sum(one.status == "left" for one in taken),
        num_reached=sum(COPY_OF in note for note in rows.note),
        num_copies=found["copy"],
        num_together=sum(
            pair.kind in ("recrop", "similar", "embedding") and _together(verdicts[pair.first], verdicts[pair.second])
            for pair in pairs
        ),
    )
