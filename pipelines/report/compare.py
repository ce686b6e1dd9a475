"""The page of two runs: their metrics, both matrices and the difference, and the pictures that changed sides."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from pipelines.core.errors import InputError
from pipelines.core.layout import Layout
from pipelines.core.tables import DEDUPED, PACK_INDEX, read_table
from pipelines.report.confusion import NUMBERS_UP_TO, Counts, MatrixCell, matrix_cells, order_classes, shade
from pipelines.report.galleries import ThumbnailMaker, ThumbnailUri
from pipelines.report.language import sayer
from pipelines.report.page import render_page
from pipelines.report.wording import change_sentence

NO_FRACTIONS = {"num_images", "num_classes", "num_suspects", "log_loss"}
"""of metrics.json"""
MAX_SHOWN, MAX_LISTED = 100, 1000
"""pictures that changed sides: with a thumbnail, and in words"""
ID_DIGITS = 16
"""of image_id in compared.csv"""


@dataclass(frozen=True)
class ComparedRun:
    """What git holds of a run.

    Args:
        name: as a person calls it, such as a revision.
        metrics: metrics.json.
        answers: by the first digits of the image_id, (actual, predicted) class.
    """

    name: str
    metrics: Mapping[str, Any]
    answers: Mapping[str, tuple[str, str]]


def read_run(name: str, metrics: str, compared: str) -> ComparedRun:
    """A run from the texts of its metrics.json and compared.csv."""
    rows = csv.DictReader(compared.splitlines(keepends=True))
    return ComparedRun(name, json.loads(metrics), {row["image_id"]: (row["actual"], row["predicted"]) for row in rows})


def changed_sides(before: ComparedRun, after: ComparedRun) -> list[str]:
    """The pictures that one run told right and the other wrong; what a picture is, the later run says."""
    both = ((i, *answer, before.answers[i][1]) for i, answer in after.answers.items() if i in before.answers)
    return [image_id for image_id, actual, now, was in both if (was == actual) != (now == actual)]


@dataclass(frozen=True)
class KnownPictures:
    """What data/ still has of pictures, each by the first digits of its image_id."""

    thumbnails: Mapping[str, ThumbnailUri] = field(default_factory=dict)
    paths: Mapping[str, str] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)


def known_pictures(changed: Iterable[str], *, layout: Layout, size: int, max_pixels: int) -> KnownPictures:
    """Thumbnails and paths of the first `changed` pictures, and the duplicate groups of all; none without data/."""
    if not layout.manifest.exists() or not layout.pack_index.exists():
        return KnownPictures()
    manifest, index = read_table(layout.manifest, DEDUPED), read_table(layout.pack_index, PACK_INDEX)
    columns = (manifest[name].to_pylist() for name in ("image_id", "source_path", "group"))
    rows = list(zip(*columns, strict=True))
    whole = {image_id[:ID_DIGITS]: image_id for image_id, _, _ in rows}
    maker = ThumbnailMaker(
        manifest, index, layout.stage("ingest"), layout.stage("augment"), size=size, max_pixels=max_pixels
    )
    shown = [whole[short] for short in changed if short in whole][:MAX_SHOWN]
    return KnownPictures(
        {image_id[:ID_DIGITS]: one for image_id, one in maker.packed(shown).items()},
        {image_id[:ID_DIGITS]: path for image_id, path, _ in reversed(rows)},
        {image_id[:ID_DIGITS]: group for image_id, _, group in rows},
    )


@dataclass(frozen=True)
class _Figure:
    """A row of the table of metrics; None where one run lacks it."""

    name: str
    before: float | None
    after: float | None
    is_fraction: bool

    @property
    def difference(self) -> float | None:
        return None if self.before is None or self.after is None else self.after - self.before


@dataclass(frozen=True)
class _ChangedPicture:
    image_id: str
    actual: str
    now: str
    before: str
    picture: ThumbnailUri | None
    path: str


def compare_page(
    before: ComparedRun,
    after: ComparedRun,
    *,
    change: Mapping[str, Any] | None,
    known: KnownPictures,
    language: Literal["en", "ja"] = "en",
) -> str:
    """Render the page.

    Args:
        change: what evaluate's `change` says of the pictures that both runs have; None leaves the verdict out.
        known: what can be shown of the pictures that changed sides.

    Raises:
        InputError: the runs share no test picture.
    """
    shared = [image_id for image_id in after.answers if image_id in before.answers]
    if not shared:
        raise InputError(f"{before.name} and {after.name} share no test picture: there is nothing to compare")
    rows = {image_id: (*after.answers[image_id], before.answers[image_id][1]) for image_id in shared}
    classes = sorted({name for row in rows.values() for name in row})
    new, old = (_counts(classes, [(row[0], row[side]) for row in rows.values()]) for side in (1, 2))
    order = order_classes(old + new)
    changed = [
        _ChangedPicture(image_id, *rows[image_id], known.thumbnails.get(image_id), known.paths.get(image_id, ""))
        for image_id in changed_sides(before, after)
    ]
    return render_page(
        {
            "_": sayer(language),
            "language": language,
            "title": f"{before.name} and {after.name}",
            "before": before,
            "after": after,
            "num_shared": len(shared),
            "sentence": change_sentence(change, since=f"From {before.name} to {after.name}"),
            "figures": _figures(before.metrics, after.metrics),
            "names": [classes[k] for k in order],
            "totals": [int(old[k].sum()) for k in order],
            "matrices": [(run.name, matrix_cells(counts, order, {})) for run, counts in ((before, old), (after, new))],
            "difference": _difference(new - old, order),
            "is_large": len(classes) <= NUMBERS_UP_TO,
            "sides": [
                ("Gained", [one for one in changed if one.now == one.actual]),
                ("Lost", [one for one in changed if one.now != one.actual]),
            ],
            "max_listed": MAX_LISTED,
        },
        "compare.html.j2",
    )


def _counts(classes: Sequence[str], answers: Sequence[tuple[str, str]]) -> Counts:
    place = {name: k for k, name in enumerate(classes)}
    counts = np.zeros((len(classes), len(classes)), np.int64)
    for actual, predicted in answers:
        counts[place[actual], place[predicted]] += 1
    return counts


def _difference(counts: Counts, order: Sequence[int]) -> list[list[MatrixCell | None]]:
    """Signed cells; blue where the change is for the better: more on the diagonal, fewer beside it."""
    largest = max(int(np.abs(counts).max()), 1)
    return [
        [
            MatrixCell(n, 0.0, shade(abs(n) / largest), right=(n > 0) == (a == b), target="")
            if (n := int(counts[a, b]))
            else None
            for b in order
        ]
        for a in order
    ]


def _figures(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[_Figure]:
    found = []
    for name in dict.fromkeys([*before, *after]):
        old, new = (_number(metrics.get(name)) for metrics in (before, after))
        if old is not None or new is not None:
            found.append(_Figure(name.replace("_", " "), old, new, is_fraction=name not in NO_FRACTIONS))
    return found


def _number(value: object) -> float | None:
    """Of a figure of metrics.json, with or without its interval."""
    value = value.get("value") if isinstance(value, Mapping) else value
    return float(value) if isinstance(value, int | float) else None
