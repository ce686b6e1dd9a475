"""Charts of what evaluate measured, each empty where it did not: its sections are then left out."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from pipelines.report.charts import Dot, Line, chart, scatter
from pipelines.report.galleries import ThumbnailUri
from pipelines.report.inputs import Inputs
from pipelines.report.language import Say

MAP_PICTURES, MAP_PICTURE_SIZE = 200, 40
"""pictures that the map shows, and their longer side in pixels: about 0.2 MB of page"""
AXIS_NAMES = {
    "inverse_strength": "C, the inverse of regularisation (larger fits closer)",
    "epoch": "Epoch",
}
Rows = list[dict[str, Any]]


def training_charts(inputs: Inputs, say: Say) -> list[tuple[str, Markup, Markup]]:
    """Per member its name, and charts of loss and accuracy with a line a fold."""
    found = []
    for member in dict.fromkeys(member for member, _ in inputs.histories):
        runs = [history for (name, _), history in inputs.histories.items() if name == member and history]
        if not runs:
            continue
        x = next(iter(runs[0]))
        panels = [
            chart(
                [
                    Line(side, list(zip(run[x], run[f"{side}_{what}"], strict=True)))
                    for side in ("train", "val")
                    for run in runs
                ],
                title=f"{what} of {member} against {x}, training and validation",
                x_name=say(AXIS_NAMES[x]) if x in AXIS_NAMES else x,
                y_name=say(what.capitalize()),
                x_is_log=x == "inverse_strength",
                in_percent=what == "accuracy",
            )
            for what in ("loss", "accuracy")
        ]
        found.append((member, panels[0], panels[1]))
    return found


def reliability_chart(inputs: Inputs, say: Say) -> Markup:
    """Accuracy of each bin of confidence, over the band in which a calibrated model's would lie."""
    rows = _known((inputs.metrics.get("calibration") or {}).get("bins"), "confidence", "accuracy", "low", "high")
    lines = [Line("guide", [(0.0, 0.0), (1.0, 1.0)]), Line("val", [(r["confidence"], r["accuracy"]) for r in rows])]
    if not rows:
        return Markup("")
    return chart(
        lines,
        title="accuracy against confidence, over the band of a calibrated model",
        x_name=say("Confidence"),
        y_name=say("Right"),
        band=[(r["confidence"], r["low"], r["high"]) for r in rows],
        x_ticks=(0, 0.2, 0.4, 0.6, 0.8, 1),
        in_percent=True,
    )


def coverage_chart(inputs: Inputs, say: Say) -> Markup:
    """Accuracy of the answers against the share of pictures answered, the most certain first."""
    rows = _known((inputs.metrics.get("coverage") or {}).get("curve"), "coverage", "accuracy", "low", "high")
    return chart(
        [Line("val", [(r["coverage"], r["accuracy"]) for r in rows])],
        title="accuracy against the share of pictures that are answered",
        x_name=say("Share answered"),
        y_name=say("Accuracy"),
        band=[(r["coverage"], r["low"], r["high"]) for r in rows],
        x_ticks=[tick / 5 for tick in range(6) if rows and rows[-1]["coverage"] <= tick / 5],
        in_percent=True,
    )


def learning_chart(inputs: Inputs, say: Say) -> Markup:
    """Accuracy against the number of training pictures, measured and forecast."""
    known = inputs.metrics.get("learning_curve") or {}
    measured, forecast = (
        _known(known.get(key), "num_images", "accuracy", "low", "high") for key in ("points", "forecast")
    )
    if not measured:
        return Markup("")
    ahead = [row for row in forecast if row["num_images"] > measured[-1]["num_images"]]
    return chart(
        [
            Line("val", [(r["num_images"], r["accuracy"]) for r in measured]),
            Line("forecast", [(r["num_images"], r["accuracy"]) for r in [measured[-1], *ahead]] if ahead else []),
        ],
        title="accuracy against the number of pictures learnt from; the forecast is dashed",
        x_name=say("Pictures learnt from"),
        y_name=say("Accuracy"),
        band=[(r["num_images"], r["low"], r["high"]) for r in [*measured, *ahead]],
        x_is_log=True,
        in_percent=True,
    )


def robustness_charts(inputs: Inputs, say: Say) -> list[tuple[str, Markup, dict[str, Any]]]:
    """Per disturbance its name, accuracy against strength, and the row of the strongest."""
    known = inputs.metrics.get("robustness") or {}
    before = known.get("baseline") or {"value": None}
    start = before["value"]
    found = []
    for kind, given in (known.get("kinds") or {}).items():
        rows = _known(given, "strength", "accuracy", "low", "high")
        if not rows or start is None:
            continue
        drawn = chart(
            [
                Line("guide", [(0, start), (rows[-1]["strength"], start)]),
                Line("val", [(0, start), *((r["strength"], r["accuracy"]) for r in rows)]),
            ],
            title=f"accuracy against the strength of {kind}",
            x_name=say("Strength"),
            y_name=say("Accuracy"),
            band=[(0, before["low"], before["high"]), *((r["strength"], r["low"], r["high"]) for r in rows)],
            in_percent=True,
        )
        found.append((kind.replace("_", " "), drawn, rows[-1]))
    return sorted(found, key=lambda one: (one[2]["accuracy"], one[0]))


def pictures_on_map(inputs: Inputs) -> list[str]:
    """Those that the map shows where they are pointed at: mistakes first, then by id, which is a hash."""
    rows = sorted(inputs.embedding, key=lambda row: (row["is_mistake"] != "1", row["image_id"]))
    return [row["image_id"] for row in rows[:MAP_PICTURES]]


def embedding_chart(inputs: Inputs, anchors: dict[str, str], pictures: Mapping[str, ThumbnailUri]) -> Markup:
    """The map of embedding.csv.

    Args:
        anchors: leads from the image_id of a mistake to its place on the page.
        pictures: by image_id, for where a dot is pointed at.
    """
    dots = [
        Dot(
            float(row["x"]),
            float(row["y"]),
            row["label"],
            anchors.get(row["image_id"], ""),
            row["is_mistake"] == "1",
            pictures[row["image_id"]].uri if row["image_id"] in pictures else "",
        )
        for row in inputs.embedding
    ]
    return scatter(dots, title=f"{len(dots):,} pictures: those that the network finds alike lie close together")


def _known(rows: Rows | None, *keys: str) -> Rows:
    """The rows in which none of these keys is null."""
    return [row for row in rows or [] if all(row.get(key) is not None for key in keys)]
