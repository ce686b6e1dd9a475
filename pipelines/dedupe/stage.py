"""Find copies, decide which image is kept, and hold back images under two labels."""

import sys
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from pipelines.core.decisions import Decision, read_decisions, told_of
from pipelines.core.errors import count
from pipelines.core.files import empty_folder, write_csv
from pipelines.core.tables import MANIFEST, read_table, write_table
from pipelines.dedupe.find_pairs import DuplicatePair, FoundPairs, find_pairs
from pipelines.dedupe.groups import ImageVerdict, LabelledImage, assign_verdicts
from pipelines.dedupe.inputs import (
    ManifestRows,
    apply_decisions,
    join_reference_sets,
    manifest_images,
    open_thumbnails,
    read_reference_set,
)
from pipelines.dedupe.output import (
    DECISIONS_HEADER,
    HEADER,
    ReferenceMatch,
    decision_rows,
    duplicate_rows,
    manifest_table,
)
from pipelines.dedupe.propagation import COPY_OF, propagate_decisions
from pipelines.images.shards import ShardReader
from pipelines.params.dedupe import DedupeParams

# kinds for which an image in a reference set is dropped; a mere look-alike is listed only
_SAME = ("exact", "near", "recrop")


@dataclass(frozen=True)
class DedupeArtifact:
    """What dedupe wrote and found.

    Args:
        num_images: rows of the manifest; num_kept, num_copies (left out for a better copy), num_conflicts and
            num_dropped (by a decision or for a reference set) count them by verdict.
        num_groups: of at least two rows.
        num_against: pairs with images of reference sets.
        num_skipped: files of reference folders that are no images.
        num_decisions: rows of data/decisions; num_left of these name an image that is not there.
        num_reached: rows that a decision on a copy of theirs reached.
        num_together: pairs of look-alikes of which both are kept, in one group.
    """

    manifest: Path
    duplicates: Path
    decisions: Path
    num_images: int
    num_kept: int
    num_copies: int
    num_conflicts: int
    num_dropped: int
    num_groups: int
    num_against: int
    num_skipped: int
    num_decisions: int
    num_left: int
    num_reached: int
    num_together: int

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

    duplicates.csv lists every pair found between different images; of files with equal bytes, pixels or thumbnails only
    the pairs with the best of them, since n of these make n² pairs. Left out are pairs of an image that a decision
    dropped, and those that a decision calls different. decisions.csv says what became of every decision
    (`pipelines.core.decisions.Decision`); stderr is told of those about images that are not there.

    Args:
        root: start of the paths of reference sets: the folder of params.yaml.
        cache: for features; deleting it changes no result.
        ingest_dir: manifest, thumbnails and shards.
        decisions_dir: holds drop.csv, relabel.csv, keep.csv, and crop.csv, which is only checked here.
        unlabelled: split.unlabelled, the label of images that have none.

    Raises:
        InputError: manifest and thumbnails are missing or do not belong together, or a reference set is not there.
        DecisionError: a row of a decision file is wrong.
    """
    manifest = read_table(ingest_dir / "manifest.parquet", MANIFEST)
    thumbnails = open_thumbnails(ingest_dir / "thumbnails.npy", manifest.num_rows)
    labels = manifest["label"].unique().to_pylist()
    decisions = read_decisions(decisions_dir, manifest["image_id"].to_pylist(), labels)
    rows = apply_decisions(manifest, decisions)
    standing = list(rows.first_rows(dropped=True).values())
    with ExitStack() as stack:
        shards = stack.enter_context(ShardReader(ingest_dir))
        references = [read_reference_set(one, root=root, stack=stack) for one in params.reference_sets]
        foreign, place = join_reference_sets(references)
        images = manifest_images(manifest, thumbnails, shards)
        found = find_pairs(params, rows, standing, images, foreign)
        if params.embeddings is not None:
            from pipelines.dedupe.embeddings import add_embedding_pairs

            add_embedding_pairs(params.embeddings, rows, standing, images, found, cache=cache / "dedupe")
    rows, found = propagate_decisions(params, rows, standing, found, unlabelled=unlabelled)
    first_row = rows.first_rows()
    standing = list(first_row.values())
    matches = []
    for pair in (pair for pair in found.foreign if not rows.dropped[pair.row]):
        number, inside = place[pair.image]
        one = references[number]
        pair = replace(pair, row=first_row[rows.image_id[pair.row], rows.label[pair.row]])
        drops = one.params.found == "drop" and pair.kind in _SAME
        image_id = foreign.image_id[pair.image]
        matches.append(ReferenceMatch(pair, one.params.name, image_id, one.path[inside], one.label[inside], drops))
    dropped = _dropped_for_references(matches, standing, found)
    verdicts = _verdicts(params, rows, first_row, found, dropped, unlabelled)
    known = {frozenset((pair.first, pair.second)) for pair in found.pairs}
    pairs = found.pairs + [
        DuplicatePair(first_row[key], row, "exact", 1.0)
        for row, key in enumerate(zip(rows.image_id, rows.label, strict=True))
        if key in first_row and first_row[key] != row and frozenset((first_row[key], row)) not in known
    ]
    empty_folder(out_dir)
    reasons = {standing[item]: reason for item, reason in dropped.items()}
    write_table(manifest_table(manifest, rows, verdicts, reasons), out_dir / "manifest.parquet")
    duplicates = duplicate_rows(rows, pairs, matches, verdicts, params.recrops, unlabelled)
    write_csv(out_dir / "duplicates.csv", HEADER, duplicates)
    taken = decision_rows(decisions, rows)
    write_csv(out_dir / "decisions.csv", DECISIONS_HEADER, taken)
    for told in told_of(taken):
        print(f"dedupe: warning: {told}", file=sys.stderr)
    num_skipped = sum(one.num_skipped for one in references)
    return _artifact(out_dir, rows, pairs, verdicts, taken, num_against=len(matches), num_skipped=num_skipped)


def _dropped_for_references(matches: list[ReferenceMatch], standing: list[int], found: FoundPairs) -> dict[int, str]:
    """The items that a reference set holds, and copies of these, each with the reason for dropping it."""
    item_of = {row: item for item, row in enumerate(standing)}
    direct: dict[int, str] = {}
    for one in sorted(matches, key=lambda one: (-one.pair.score, one.name, one.path)):
        if one.drops:
            direct.setdefault(found.nodes[item_of[one.pair.row]], f"in {one.name}: {one.path}")
    reason_of = dict(direct)
    for kind in ("near", "recrop"):
        for first, second in found.edges.get(kind, ()):
            for node, other in ((first, second), (second, first)):
                if node in direct:
                    reason_of.setdefault(other, direct[node])
    return {item: reason_of[node] for item, node in enumerate(found.nodes) if node in reason_of}


def _verdicts(
    params: DedupeParams,
    rows: ManifestRows,
    first_row: dict[tuple[str, str], int],
    found: FoundPairs,
    dropped: dict[int, str],
    unlabelled: str | None,
) -> list[ImageVerdict]:
    """The verdict of every row.

    Args:
        first_row: the row of each item, by (image_id, label).
        dropped: items that go for a reference set.
    """
    keys = list(first_row)
    left = [item for item in range(len(keys)) if item not in dropped]
    node_of = {node: number for number, node in enumerate(sorted({found.nodes[item] for item in left}))}
    edges = {
        kind: [(node_of[one], node_of[other]) for one, other in pairs if one in node_of and other in node_of]
        for kind, pairs in found.edges.items()
    }
    near, recrop = edges.get("near", []), edges.get("recrop", [])
    images = [
        LabelledImage(*key, rows.decided[row], rows.area[row], rows.size[row], has_label=key[1] != unlabelled)
        for key, row in ((keys[item], first_row[keys[item]]) for item in left)
    ]
    assigned = assign_verdicts(
        images,
        [node_of[found.nodes[item]] for item in left],
        near + recrop if params.recrops == "drop" else near,
        recrops=() if params.recrops == "drop" else recrop,
        similar=edges.get("similar", []) + edges.get("embedding", []),
        drop_copies=params.duplicates == "drop",
        hold_conflicts=params.label_conflicts == "hold",
    )
    verdict_of = {keys[item]: verdict for item, verdict in zip(left, assigned, strict=True)}
    verdicts = []
    for row, key in enumerate(zip(rows.image_id, rows.label, strict=True)):
        # a decision drops the row, or else a reference set does
        is_dropped = rows.dropped[row] or key not in verdict_of
        verdict = ImageVerdict(key[0], "drop", key[0]) if is_dropped else verdict_of[key]
        is_repeated = verdict.verdict == "keep" and first_row[key] != row
        verdicts.append(verdict._replace(verdict="copy") if is_repeated else verdict)
    return verdicts


def _artifact(
    out_dir: Path,
    rows: ManifestRows,
    pairs: list[DuplicatePair],
    verdicts: list[ImageVerdict],
    taken: list[Decision],
    *,
    num_against: int,
    num_skipped: int,
) -> DedupeArtifact:
    sizes = Counter(one.group for one in verdicts if one.verdict != "drop")
    number = Counter(one.verdict for one in verdicts)
    look_alikes = [
        (verdicts[pair.first], verdicts[pair.second])
        for pair in pairs
        if pair.kind in ("recrop", "similar", "embedding")
    ]
    return DedupeArtifact(
        manifest=out_dir / "manifest.parquet",
        duplicates=out_dir / "duplicates.csv",
        decisions=out_dir / "decisions.csv",
        num_images=len(rows.image_id),
        num_kept=number["keep"],
        num_copies=number["copy"],
        num_conflicts=number["conflict"],
        num_dropped=number["drop"],
        num_groups=sum(size > 1 for size in sizes.values()),
        num_against=num_against,
        num_skipped=num_skipped,
        num_decisions=len(taken),
        num_left=sum(one.status == "left" for one in taken),
        num_reached=sum(COPY_OF in note for note in rows.note),
        num_together=sum(a.verdict == b.verdict == "keep" and a.group == b.group for a, b in look_alikes),
    )
