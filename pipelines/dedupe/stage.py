"""Find every copy, decide which picture stays, and hold back what lies under two labels."""

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.core.decisions import Decisions, read_decisions
from pipelines.core.errors import InputError
from pipelines.core.files import empty_folder, write_csv
from pipelines.core.images import Pixels, decode
from pipelines.core.params.dedupe import DedupeParams
from pipelines.core.shards import ShardReader
from pipelines.core.tables import DEDUPED, MANIFEST, read_table, write_table
from pipelines.dedupe.colour import colours, same_colours
from pipelines.dedupe.groups import Item, Verdict, judge
from pipelines.dedupe.hashes import SIDE, Thumbnails
from pipelines.dedupe.near import MIN_CONTRAST, contrast, near_pairs

_HEADER = ("image_a", "image_b", "path_a", "path_b", "label_a", "label_b", "kind", "score", "verdict")


@dataclass(frozen=True)
class DedupeArtifact:
    """What dedupe wrote and found. Pairs are counted by kind, rows of the manifest by verdict."""

    manifest: Path
    duplicates: Path
    num_images: int
    num_groups: int
    """groups of at least two rows"""
    num_exact: int
    num_pixels: int
    num_near: int
    num_alike: int
    """near pairs whose colours differ: both stay, in one group"""
    num_conflicts: int
    num_dropped: int
    """rows with a drop decision"""
    num_kept: int

    def __str__(self) -> str:
        return (
            f"{self.num_kept} of {self.num_images} pictures kept; {self.num_groups} groups of copies "
            f"({self.num_exact} exact, {self.num_pixels} equal-pixel and {self.num_near} near pairs; "
            f"{self.num_alike} pairs alike but for their colours stay, never split), "
            f"{self.num_conflicts} held for their labels, {self.num_dropped} dropped by decision"
        )


@dataclass(frozen=True)
class _Rows:
    """The columns of the manifest that decide, (N,) each; `label` is after relabel.csv."""

    image_id: list[str]
    label: list[str]
    decided: list[bool]
    dropped: list[bool]
    width: list[int]
    height: list[int]
    size: list[int]
    path: list[str]


@dataclass(frozen=True)
class _Pair:
    """Two rows that show the same picture."""

    first: int
    second: int
    kind: str
    score: float


def dedupe(params: DedupeParams, *, ingest_dir: Path, decisions_dir: Path, out_dir: Path) -> DedupeArtifact:
    """Write `manifest.parquet` (DEDUPED) and `duplicates.csv` to `out_dir`.

    duplicates.csv lists every pair that was found between different pictures; of files with equal bytes, equal
    pixels or equal thumbnails it lists the pairs with the best of them only, since n of these make n² pairs.

    Args:
        ingest_dir: manifest, thumbnails and shards.
        decisions_dir: holds drop.csv and relabel.csv.

    Raises:
        InputError: manifest and thumbnails are missing or do not belong together.
        DecisionError: a row of a decision file is wrong.
    """
    manifest = read_table(ingest_dir / "manifest.parquet", MANIFEST)
    thumbnails = _open_thumbnails(ingest_dir / "thumbnails.npy", manifest.num_rows)
    labels = manifest["label"].unique().to_pylist()
    decisions = read_decisions(decisions_dir, manifest["image_id"].to_pylist(), labels)
    rows = _rows(manifest, decisions)
    # the first row of each (image_id, label) stands for it; a dropped picture takes no part
    first_row: dict[tuple[str, str], int] = {}
    for row, key in enumerate(zip(rows.image_id, rows.label, strict=True)):
        if not rows.dropped[row]:
            first_row.setdefault(key, row)
    standing = list(first_row.values())
    nodes, pairs, edges, alike = _find(params, rows, standing, manifest, thumbnails, ingest_dir)
    items = [
        Item(rows.image_id[row], rows.label[row], rows.decided[row], rows.width[row] * rows.height[row], rows.size[row])
        for row in standing
    ]
    judged = judge(
        items,
        nodes,
        edges,
        alike=alike,
        drop_copies=params.copies == "drop",
        hold_conflicts=params.conflicts == "hold",
    )
    verdict_of = dict(zip(first_row, judged, strict=True))
    verdicts = [_row_verdict(rows, row, first_row, verdict_of) for row in range(manifest.num_rows)]
    pairs += [
        _Pair(first_row[key], row, "exact", 1.0)
        for row, key in enumerate(zip(rows.image_id, rows.label, strict=True))
        if not rows.dropped[row] and first_row[key] != row
    ]
    empty_folder(out_dir)
    write_table(_deduped(manifest, rows, verdicts, decisions), out_dir / "manifest.parquet")
    write_csv(out_dir / "duplicates.csv", _HEADER, _csv_rows(rows, pairs))
    return _artifact(out_dir, rows, pairs, verdicts)


def _open_thumbnails(path: Path, num_rows: int) -> Thumbnails:
    try:
        thumbnails: Thumbnails = np.load(path, mmap_mode="r")
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist: run the stage that writes it (`dvc repro`)") from error
    except ValueError as error:
        raise InputError(f"{path} is no NumPy file ({error}): delete it and run `dvc repro`") from error
    if thumbnails.shape != (num_rows, SIDE, SIDE) or thumbnails.dtype != np.uint8:
        raise InputError(
            f"{path} holds {thumbnails.dtype} {thumbnails.shape}, but the manifest beside it has {num_rows} rows, "
            f"so it must be uint8 {(num_rows, SIDE, SIDE)}: run `dvc repro --force ingest`"
        )
    return thumbnails


def _rows(manifest: pa.Table, decisions: Decisions) -> _Rows:
    image_id: list[str] = manifest["image_id"].to_pylist()
    label: list[str] = manifest["label"].to_pylist()
    relabels = decisions.relabels
    return _Rows(
        image_id=image_id,
        label=[relabels[one][0] if one in relabels else old for one, old in zip(image_id, label, strict=True)],
        decided=[one in relabels for one in image_id],
        dropped=[one in decisions.drops for one in image_id],
        width=manifest["width"].to_pylist(),
        height=manifest["height"].to_pylist(),
        size=manifest["size"].to_pylist(),
        path=manifest["source_path"].to_pylist(),
    )


def _find(
    params: DedupeParams, rows: _Rows, standing: list[int], manifest: pa.Table, thumbnails: Thumbnails, folder: Path
) -> tuple[list[int], list[_Pair], list[tuple[int, int]], list[tuple[int, int]]]:
    """The node of each standing row, every pair among them, and the edges between nodes: of copies, of look-alikes.

    A node is a set of rows with equal bytes, equal pixels, or equal thumbnails that are not blank.
    """
    order = sorted(
        range(len(standing)),
        key=lambda item: (
            -rows.width[standing[item]] * rows.height[standing[item]],
            -rows.size[standing[item]],
            rows.image_id[standing[item]],
            rows.label[standing[item]],
        ),
    )
    seen = thumbnails[standing]
    blank = contrast(seen) < MIN_CONTRAST
    digests = _pixel_digests(rows, standing, manifest, seen, folder)
    node_of: dict[object, int] = {}
    leaders: list[int] = []
    nodes = [-1] * len(standing)
    pairs: list[_Pair] = []
    for item in order:
        row = standing[item]
        keys: list[object] = [("id", rows.image_id[row])]
        if item in digests:
            keys.append(("pixels", digests[item]))
        if params.near and not blank[item]:
            keys.append(("thumbnail", _digest(seen[item])))
        node = next((node_of[key] for key in keys if key in node_of), len(leaders))
        if node == len(leaders):
            leaders.append(item)
        else:
            leader = leaders[node]
            same_id = rows.image_id[row] == rows.image_id[standing[leader]]
            same_pixels = item in digests and digests[item] == digests.get(leader)
            kind = "exact" if same_id else "pixels" if same_pixels else "near"
            pairs.append(_Pair(standing[leader], row, kind, 1.0))
        nodes[item] = node
        for key in keys:
            node_of.setdefault(key, node)
    if not params.near:
        return nodes, pairs, [], []
    able = [node for node, leader in enumerate(leaders) if not blank[leader]]
    near = near_pairs(seen[[leaders[node] for node in able]], min_score=params.min_score, mirror=params.mirror)
    ends = sorted({int(end) for ends in (near.moving, near.fixed) for end in ends})
    row_of = [standing[leaders[node]] for node in able]
    with ShardReader(folder) as shards:
        seen_in = {end: colours(_pixels(rows, row_of[end], manifest, shards)) for end in ends}
    edges: list[tuple[int, int]] = []
    alike: list[tuple[int, int]] = []
    for pair, (moving, fixed) in enumerate(zip(near.moving.tolist(), near.fixed.tolist(), strict=True)):
        first, second = row_of[moving], row_of[fixed]
        shorter = min(rows.width[first], rows.height[first], rows.width[second], rows.height[second])
        copy = same_colours(near, pair, seen_in[moving], seen_in[fixed], shorter)
        (edges if copy else alike).append((able[moving], able[fixed]))
        pairs.append(_Pair(first, second, "near" if copy else "alike", float(near.score[pair])))
    return nodes, pairs, edges, alike


def _pixels(rows: _Rows, row: int, manifest: pa.Table, shards: ShardReader) -> Pixels:
    place = manifest.slice(row, 1).select(["shard", "offset", "size"]).to_pylist()[0]
    # ingest decoded it within the limits of its params: no second limit is needed
    return decode(shards.read(**place), max_pixels=rows.width[row] * rows.height[row]).pixels


def _digest(thumbnail: Thumbnails) -> bytes:
    # 16 bytes instead of 1,024: a million thumbnails are keys of a dictionary
    return hashlib.blake2b(thumbnail.tobytes(), digest_size=16).digest()


def _pixel_digests(
    rows: _Rows, standing: list[int], manifest: pa.Table, thumbnails: Thumbnails, folder: Path
) -> dict[int, bytes]:
    """A digest of the decoded pixels of each standing item that shares size and thumbnail with another file."""
    alike: dict[tuple[int, int, bytes], list[int]] = defaultdict(list)
    for item, row in enumerate(standing):
        alike[rows.width[row], rows.height[row], _digest(thumbnails[item])].append(item)
    suspects = [
        item
        for inside in alike.values()
        if len({rows.image_id[standing[item]] for item in inside}) > 1
        for item in inside
    ]
    found: dict[int, bytes] = {}
    with ShardReader(folder) as shards:
        for item in suspects:
            pixels = _pixels(rows, standing[item], manifest, shards)
            shape: npt.NDArray[np.int64] = np.array(pixels.shape)
            found[item] = hashlib.sha256(shape.tobytes() + pixels.tobytes()).digest()
    return found


def _row_verdict(
    rows: _Rows, row: int, first_row: dict[tuple[str, str], int], verdict_of: dict[tuple[str, str], Verdict]
) -> Verdict:
    if rows.dropped[row]:
        return Verdict(group=rows.image_id[row], verdict="drop", best_id=rows.image_id[row])
    key = (rows.image_id[row], rows.label[row])
    judged = verdict_of[key]
    if first_row[key] != row and judged.verdict == "keep":
        return Verdict(judged.group, "copy", judged.best_id)
    return judged


def _deduped(manifest: pa.Table, rows: _Rows, verdicts: list[Verdict], decisions: Decisions) -> pa.Table:
    notes = [
        f"drop: {decisions.drops[one]}"
        if one in decisions.drops
        else f"relabel: {decisions.relabels[one][1]}"
        if one in decisions.relabels
        else ""
        for one in rows.image_id
    ]
    columns = {name: manifest[name] for name in MANIFEST.names} | {
        "original_label": manifest["label"],
        "label": rows.label,
        "group": [verdict.group for verdict in verdicts],
        "verdict": [verdict.verdict for verdict in verdicts],
        "best_id": [verdict.best_id for verdict in verdicts],
        "decision": notes,
    }
    return pa.table({name: columns[name] for name in DEDUPED.names}, schema=DEDUPED)


def _csv_rows(rows: _Rows, pairs: list[_Pair]) -> list[tuple[object, ...]]:
    """The rows of duplicates.csv, sorted; image_a <= image_b."""
    found: list[tuple[object, ...]] = []
    for pair in pairs:
        ends = sorted((pair.first, pair.second), key=lambda row: (rows.image_id[row], rows.path[row], rows.label[row]))
        first, second = ends
        verdict = "copy" if rows.label[first] == rows.label[second] else "conflict"
        if pair.kind == "alike":
            verdict = "keep"
        found.append(
            (
                rows.image_id[first],
                rows.image_id[second],
                rows.path[first],
                rows.path[second],
                rows.label[first],
                rows.label[second],
                pair.kind,
                f"{pair.score:.4f}",
                verdict,
            )
        )
    return sorted(found, key=lambda row: tuple(str(value) for value in row))


def _artifact(out_dir: Path, rows: _Rows, pairs: list[_Pair], verdicts: list[Verdict]) -> DedupeArtifact:
    sizes: dict[str, int] = defaultdict(int)
    for verdict in verdicts:
        sizes[verdict.group] += verdict.verdict != "drop"
    kinds = [pair.kind for pair in pairs]
    found = [verdict.verdict for verdict in verdicts]
    return DedupeArtifact(
        manifest=out_dir / "manifest.parquet",
        duplicates=out_dir / "duplicates.csv",
        num_images=len(rows.image_id),
        num_groups=sum(size > 1 for size in sizes.values()),
        num_exact=kinds.count("exact"),
        num_pixels=kinds.count("pixels"),
        num_near=kinds.count("near"),
        num_alike=kinds.count("alike"),
        num_conflicts=found.count("conflict"),
        num_dropped=found.count("drop"),
        num_kept=found.count("keep"),
    )
