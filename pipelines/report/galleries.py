"""The pictures of the page: confused pairs with typical examples, duplicates, conflicts and suspects."""

import csv
import io
from dataclasses import dataclass

import numpy as np

from pipelines.core.tables import short_id
from pipelines.params.report import ReportParams
from pipelines.report.confusion import Pair
from pipelines.report.inputs import Inputs, Row
from pipelines.report.pictures import Pictures, Thumbnail


@dataclass(frozen=True)
class Shown:
    """A test picture with what the model thought.

    Args:
        picture: None where it cannot be shown.
        chances: (label, probability) of the classes that matter here, the most probable first.
        path: where it came from.
    """

    picture: Thumbnail | None
    chances: list[tuple[str, float]]
    path: str


@dataclass(frozen=True)
class Direction:
    """The pictures of `actual` that were taken for `predicted`, beside typical ones of `actual`."""

    actual: str
    predicted: str
    mistakes: int
    num_actual: int
    anchor: str
    typical: list[Shown]
    mistaken: list[Shown]


def pair_anchors(pairs: list[Pair]) -> dict[tuple[int, int], str]:
    """By (actual, predicted) class, the anchor of the pictures shown for it."""
    found = {}
    for i, pair in enumerate(pairs, 1):
        found[pair.first, pair.second] = f"pair-{i}-a"
        found[pair.second, pair.first] = f"pair-{i}-b"
    return found


def pair_galleries(
    inputs: Inputs, pairs: list[Pair], params: ReportParams, pictures: Pictures
) -> list[tuple[Direction, Direction]]:
    """Both ways of each pair. Mistakes: the most confident first. Typical: right, and the most confident."""
    paths = _paths(inputs)
    predicted = inputs.probabilities.argmax(axis=1)
    anchors = pair_anchors(pairs)
    chosen: dict[tuple[int, int], tuple[list[int], list[int]]] = {}
    for a, b in anchors:
        typical = _surest(inputs, np.flatnonzero((inputs.actual == a) & (predicted == a)), a)
        mistaken = _surest(inputs, np.flatnonzero((inputs.actual == a) & (predicted == b)), b)
        chosen[a, b] = (typical[: max(params.pictures_per_pair, 1)], mistaken[: params.pictures_per_pair])
    thumbnails = pictures.packed(inputs.image_ids[i] for both in chosen.values() for part in both for i in part)

    def shown(i: int, classes: tuple[int, int]) -> Shown:
        chances = [(inputs.classes[k], float(inputs.probabilities[i, k])) for k in classes]
        image_id = inputs.image_ids[i]
        return Shown(thumbnails.get(image_id), sorted(chances, key=lambda c: -c[1]), paths.get(image_id, ""))

    def direction(a: int, b: int) -> Direction:
        typical, mistaken = chosen[a, b]
        return Direction(
            actual=inputs.classes[a],
            predicted=inputs.classes[b],
            mistakes=int(inputs.counts[a, b]),
            num_actual=int(inputs.counts[a].sum()),
            anchor=anchors[a, b],
            typical=[shown(i, (a, b)) for i in typical],
            mistaken=[shown(i, (a, b)) for i in mistaken],
        )

    return [(direction(p.first, p.second), direction(p.second, p.first)) for p in pairs]


def _surest(inputs: Inputs, rows: np.ndarray[tuple[int], np.dtype[np.intp]], class_index: int) -> list[int]:
    """The rows, the most probable for a class first; of equals by image_id."""
    chance = inputs.probabilities[:, class_index]
    return sorted(rows.tolist(), key=lambda i: (-float(chance[i]), inputs.image_ids[i]))


@dataclass(frozen=True)
class Twins:
    """Two files that show the same picture, or nearly.

    Args:
        lines: ready for relabel.csv, one for each way to settle a conflict.
        different: ready for keep.csv, if they are two pictures; "" for equal bytes or pixels.
    """

    row: Row
    first: Thumbnail | None
    second: Thumbnail | None
    lines: list[tuple[str, str]]
    different: str


def twins(rows: list[Row], limit: int, pictures: Pictures) -> list[Twins]:
    """The first `limit` pairs of duplicates.csv, the least alike of near ones first: these are worth a look."""
    order = {"embedding": 0, "similar": 1, "recrop": 2, "near": 3, "pixels": 4, "exact": 5}
    rows = sorted(rows, key=lambda r: (order.get(r["kind"], 6), float(r["score"] or 1), r["image_a"], r["image_b"]))
    rows = rows[:limit]
    thumbnails = pictures.originals(row[side] for row in rows for side in ("image_a", "image_b"))
    return [
        Twins(
            row,
            thumbnails.get(row["image_a"]),
            thumbnails.get(row["image_b"]),
            [
                (row["label_a"], decision(row["image_b"], row["label_a"], f"was {row['label_b']}", row["path_b"])),
                (row["label_b"], decision(row["image_a"], row["label_b"], f"was {row['label_a']}", row["path_a"])),
            ]
            if row["verdict"] == "conflict"
            else [],
            decision(row["image_a"], short_id(row["image_b"]), "different pictures", row["path_a"])
            if row["kind"] not in ("exact", "pixels")
            else "",
        )
        for row in rows
    ]


@dataclass(frozen=True)
class SuspectShown:
    """A row of suspects.csv with its picture and the lines that would settle it."""

    row: Row
    picture: Thumbnail | None
    relabel: str
    keep: str
    drop: str


def suspect_gallery(rows: list[Row], limit: int, pictures: Pictures) -> list[SuspectShown]:
    """The first `limit` suspects, in the file's order: the most suspicious first."""
    rows = rows[:limit]
    thumbnails = pictures.packed(row["image_id"] for row in rows)
    return [
        SuspectShown(
            row,
            thumbnails.get(row["image_id"]),
            relabel=decision(row["image_id"], row["suggested"], f"was {row['label']}", row["source_path"]),
            keep=decision(row["image_id"], "", "label is right", row["source_path"]),
            drop=decision(row["image_id"], f"neither {row['label']} nor {row['suggested']}", row["source_path"]),
        )
        for row in rows
    ]


def decision(image_id: str, *values: str) -> str:
    """A line of a decisions file: the short id names the picture, the column `file` at the end tells people which."""
    return csv_line(short_id(image_id), *values)


def csv_line(*values: str) -> str:
    """One line of a decisions file, quoted where needed."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="").writerow(values)
    return buffer.getvalue()


def _paths(inputs: Inputs) -> dict[str, str]:
    """By image_id, the first path of each test picture."""
    wanted = set(inputs.image_ids)
    pairs = zip(inputs.manifest["image_id"].to_pylist(), inputs.manifest["source_path"].to_pylist(), strict=True)
    found: dict[str, str] = {}
    for image_id, path in pairs:
        if image_id in wanted and (image_id not in found or path < found[image_id]):
            found[image_id] = path
    return found
