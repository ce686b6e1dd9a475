"""The pages of train, students and evaluate: what was learnt, and what it is worth."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flows.markdown import cell, page, picture, table
from pipelines.core.errors import count
from pipelines.core.layout import Layout
from pipelines.params import Params
from pipelines.report.wording import calibration, decisions_taken, ensemble_sentence, member_rows

MAX_ROWS = 50
"""rows of a table; the files hold them all"""


def train_page(layout: Layout, params: Params, _with_picture: bool) -> str:
    """The models of train.members, each at its best step."""
    return _best_steps("Train", params.train.members, layout, params)


def students_page(layout: Layout, params: Params, _with_picture: bool) -> str:
    """The same of train.students."""
    return _best_steps("Students", params.train.students, layout, params)


def _best_steps(title: str, members: Sequence[str], layout: Layout, params: Params) -> str:
    if not members:
        return page(title, f"`train.{title.lower()}` of params.yaml names none.")
    rows: list[tuple[object, ...]] = []
    for member in members:
        for fold in params.train.folds:
            history = layout.member(params.train, member, fold) / "history.csv"
            steps = read_csv(history) if history.exists() else []
            if not steps:
                rows.append((member, fold, "not trained", "", "", "", ""))
                continue
            # the file's first column is its x axis
            axis = next(iter(steps[0]))
            best = min(steps, key=lambda step: float(step["val_loss"]))
            figures = (
                f"{float(best[key]):.3f}" for key in ("train_accuracy", "val_accuracy", "train_loss", "val_loss")
            )
            rows.append((member, fold, f"{axis.replace('_', ' ')} {best[axis]} of {len(steps)}", *figures))
    return page(
        title,
        "Each model at its best step, by validation loss. The fit to the training pictures is shown beside it: "
        "a wide gap means that the model has learnt them by heart.",
        table(
            ["member", "fold:", "best step", "train accuracy:", "val accuracy:", "train loss:", "val loss:"],
            rows,
        ),
    )


def evaluate_page(layout: Layout, _params: Params, with_picture: bool) -> str:
    """Figures, the most confused classes, the weakest ones and the members."""
    folder = layout.stage("evaluate")
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    drawn = layout.stage("report") / "confusion_matrix.png"
    image = (
        picture(drawn, "confusion matrix: actual class by row, predicted class by column")
        if with_picture and drawn.exists()
        else "The confusion matrix is drawn by the stage `report`, which did not run to its end."
    )
    intervals = [
        (key.replace("_", " "), figure(metrics[key]["value"]), f"{figure(value['low'])} to {figure(value['high'])}")
        for key in ("accuracy", "balanced_accuracy", "macro_f1", "log_loss")
        if (value := metrics.get(key)) is not None
    ]
    return page(
        "Evaluate",
        f"{count(metrics['num_images'], 'test picture')} of {count(metrics['num_classes'], 'class', 'classes')}.",
        *map(cell, decisions_taken(metrics)),
        image,
        table(["metric", "value:", f"{metrics['confidence']:.0%} interval:"], intervals),
        cell(calibration(metrics)),
        "## Most confused",
        _most_confused(folder / "confusion.csv"),
        "## By class, weakest first",
        _per_class(metrics["per_class"]),
        "## Members" if "ensemble" in metrics else "",
        _members(metrics) if "ensemble" in metrics else "",
    )


def _members(metrics: dict[str, Any]) -> str:
    rows = [
        (
            m.name,
            m.tells,
            figure(m.accuracy["value"]),
            f"{figure(m.accuracy['low'])} to {figure(m.accuracy['high'])}",
            figure(m.log_loss["value"]),
            figure(m.out_of_fold["accuracy"]),
            figure(m.weight),
        )
        for m in member_rows(metrics)
    ]
    header = ["member", "tells", "accuracy:", "interval:", "log loss:", "out of fold:", "weight:"]
    return "\n\n".join(filter(None, [cell(ensemble_sentence(metrics)), table(header, rows)]))


def confused_pairs(header: Sequence[str], counts: Sequence[Sequence[int]]) -> list[tuple[str, str, int, int]]:
    """Off-diagonal entries of a confusion matrix: actual, predicted, how many, out of how many; most first.

    Args:
        header: the K class labels.
        counts: (K, K), actual class by row, predicted class by column.
    """
    found = [
        (header[row], header[column], number, sum(counts[row]))
        for row in range(len(header))
        for column, number in enumerate(counts[row])
        if row != column and number
    ]
    return sorted(found, key=lambda pair: (-pair[2], pair[3], pair[0], pair[1]))


def _most_confused(path: Path) -> str:
    with path.open(encoding="utf-8", newline="") as file:
        header, *lines = list(csv.reader(file))
    pairs = confused_pairs(header[1:], [[int(value) for value in line[1:]] for line in lines])
    if not pairs:
        return "No test picture was taken for another class."
    rows = [(actual, predicted, f"{n} of {total}", f"{n / total:.0%}") for actual, predicted, n, total in pairs]
    return table(
        ["actual", "taken for", "pictures:", "of the class:"], rows, limit=10, more="data/evaluate/confusion.csv"
    )


def _per_class(per_class: dict[str, dict[str, Any]]) -> str:
    # a class without test pictures has no recall
    weakest = sorted(per_class.items(), key=lambda item: (item[1]["recall"] is None, item[1]["recall"] or 0.0, item[0]))
    rows = [
        (
            label,
            f"{row['num_images']:,}",
            figure(row["recall"]),
            f"{figure(row['recall_low'])} to {figure(row['recall_high'])}",
            figure(row["precision"]),
            figure(row["f1"]),
        )
        for label, row in weakest
    ]
    header = ["class", "pictures:", "recall:", "interval:", "precision:", "F1:"]
    return table(header, rows, limit=MAX_ROWS, more="data/evaluate/metrics.json")


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV table."""
    # a file name that is not UTF-8 was written byte for byte
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return [{key: value or "" for key, value in row.items()} for row in csv.DictReader(file)]


def figure(value: float | None) -> str:
    """Three digits; a dash without evidence."""
    return "–" if value is None else f"{value:.3f}"
