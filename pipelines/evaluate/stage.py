"""Evaluate: read what was predicted, write what it is worth."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.core.files import empty_folder, write_csv, write_json
from pipelines.core.params.evaluate import EvaluateParams
from pipelines.core.tables import DEDUPED, PREDICTIONS, read_table, write_table
from pipelines.evaluate.intervals import bootstrap_figures, group_numbers, percentile_interval, wilson_interval
from pipelines.evaluate.leaks import leak_premium
from pipelines.evaluate.members import Packed, Predictions, average, read_index, read_member, require_same_pictures
from pipelines.evaluate.metrics import FIGURES, Scored, confusion_counts, f1, precision, recall, score, tally
from pipelines.evaluate.suspects import HEADER, find_suspects

DIGITS = 6
"""of every fraction written as text: finer ones differ between machines and clutter `git diff`"""


@dataclass(frozen=True)
class EvaluateArtifact:
    """What evaluate wrote: metrics.json, predictions.parquet, predictions.csv, confusion.csv, suspects.csv."""

    folder: Path
    num_images: int
    num_right: int
    accuracy_low: float
    accuracy_high: float
    num_suspects: int

    def __str__(self) -> str:
        return (
            f"{self.num_right:,} of {self.num_images:,} test pictures right, "
            f"{100 * self.num_right / self.num_images:.1f} % "
            f"({100 * self.accuracy_low:.1f} to {100 * self.accuracy_high:.1f}); {self.num_suspects:,} suspects"
        )


def evaluate(
    params: EvaluateParams,
    *,
    members: Sequence[str],
    folds: Sequence[int],
    train_dir: Path,
    index: Path,
    manifest: Path | None,
    out_dir: Path,
) -> EvaluateArtifact:
    """Average the members' probabilities and measure the result on the test set.

    Args:
        params: the section `evaluate`.
        members: recipes whose predictions count; each member and fold has a folder in `train_dir`.
        folds: folds each member was trained on.
        train_dir: holds `<member>-<fold>/predictions.parquet`, and features.parquet where the member is frozen.
        index: the pack index, which names classes, test pictures and groups.
        manifest: dedupe's manifest, for the source paths of suspects; None leaves these empty.
        out_dir: emptied first.

    Raises:
        InputError: a member lacks predictions, knows other classes, or covers other test pictures.
    """
    packed = read_index(index)
    found = [read_member(train_dir, name, folds, packed.classes) for name in members]
    for member in found:
        require_same_pictures(packed.test, "the pack index", member.test, member.name, "test")
        require_same_pictures(found[0].val, found[0].name, member.val, member.name, "validation")
    test = average([member.test for member in found])
    suspects = find_suspects(
        {"val": average([member.val for member in found]), "test": test},
        packed.classes,
        suspect_confidence=params.suspect_confidence,
    )
    scored = score(test.actual, test.probabilities)
    premium = leak_premium(params, features=_features(train_dir, members, folds), packed=packed, manifest=manifest)
    metrics = measure(params, scored, packed, test, {m.name: score(m.test.actual, m.test.probabilities) for m in found})
    metrics["leak_premium"] = {
        name: _rounded(value) if isinstance(value, float) else value for name, value in premium.items()
    }

    empty_folder(out_dir)
    write_table(_prediction_table(test), out_dir / "predictions.parquet", classes=packed.classes)
    write_csv(
        out_dir / "predictions.csv",
        ("image_id", "actual", "predicted", "confidence"),
        (
            (image_id, packed.classes[a], packed.classes[p], _text(c))
            for image_id, a, p, c in zip(
                test.image_ids, scored.actual, scored.predicted, scored.confidence.tolist(), strict=True
            )
        ),
    )
    counts = confusion_counts(scored.actual, scored.predicted, scored.num_classes)
    write_csv(
        out_dir / "confusion.csv",
        ("actual", *packed.classes),
        ((label, *row) for label, row in zip(packed.classes, counts.tolist(), strict=True)),
    )
    paths = _source_paths(manifest)
    write_csv(
        out_dir / "suspects.csv",
        HEADER,
        (
            (
                *(s.image_id, s.label, s.suggested, _text(s.probability_label), _text(s.probability_suggested)),
                *(s.subset, paths.get((s.image_id, s.label), "")),
            )
            for s in suspects
        ),
    )
    # last: whoever sees the metrics finds everything else in place
    write_json(out_dir / "metrics.json", metrics)
    return EvaluateArtifact(
        folder=out_dir,
        num_images=len(test.actual),
        num_right=int(scored.right.sum()),
        accuracy_low=metrics["accuracy"]["low"],
        accuracy_high=metrics["accuracy"]["high"],
        num_suspects=len(suspects),
    )


def measure(
    params: EvaluateParams, scored: Scored, packed: Packed, test: Predictions, members: dict[str, Scored]
) -> dict[str, Any]:
    """metrics.json: every figure with its interval, rounded; null where there is no evidence.

    Args:
        params: the section `evaluate`.
        scored: the members' mean on the test set.
        packed: for classes and groups.
        test: the same pictures as `scored`, for their ids.
        members: each member by itself, on the same pictures in the same order.
    """
    groups = group_numbers(
        np.asarray([packed.groups[key] for key in zip(test.image_ids, test.actual.tolist(), strict=True)], np.str_)
    )
    drawn = {
        name: bootstrap_figures(s, groups, resamples=params.bootstrap_resamples, seed=params.seed)
        for name, s in members.items()
    }
    whole = (
        # one member is its own mean
        next(iter(drawn.values()))
        if len(members) == 1
        else bootstrap_figures(scored, groups, resamples=params.bootstrap_resamples, seed=params.seed)
    )
    return {
        "num_images": len(scored.actual),
        "num_classes": scored.num_classes,
        "confidence": params.confidence,
        **{name: _figure(name, scored, whole, params.confidence) for name in FIGURES},
        "members": {
            name: {"accuracy": _figure("accuracy", s, drawn[name], params.confidence)} for name, s in members.items()
        },
        "per_class": _per_class(scored, packed.classes, params.confidence),
    }


def _features(train_dir: Path, members: Sequence[str], folds: Sequence[int]) -> Path | None:
    """The features of the first member that leaves some: those of all folds are equal."""
    paths = (train_dir / f"{name}-{folds[0]}" / "features.parquet" for name in members)
    return next((path for path in paths if path.is_file()), None)


def _figure(name: str, scored: Scored, drawn: dict[str, Any], confidence: float) -> dict[str, float | None]:
    low, high = percentile_interval(drawn[name], confidence)
    value = float(FIGURES[name](tally(scored)))
    return {"value": _rounded(value), "low": _rounded(low), "high": _rounded(high)}


def _per_class(scored: Scored, classes: list[str], confidence: float) -> dict[str, dict[str, float | int | None]]:
    tallies = tally(scored)
    lows, highs = wilson_interval(tallies.right, tallies.actual, confidence)
    precisions, recalls, f1s = precision(tallies), recall(tallies), f1(tallies)
    return {
        label: {
            "num_images": int(tallies.actual[k]),
            "precision": _rounded(precisions[k]),
            "recall": _rounded(recalls[k]),
            "recall_low": _rounded(lows[k]),
            "recall_high": _rounded(highs[k]),
            "f1": _rounded(f1s[k]),
        }
        for k, label in enumerate(classes)
    }


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), DIGITS)


def _text(value: float) -> str:
    return f"{value:.{DIGITS}f}"


def _prediction_table(test: Predictions) -> pa.Table:
    return pa.table(
        {
            "image_id": pa.array(test.image_ids, pa.string()),
            "subset": pa.array(["test"] * len(test.actual), pa.string()),
            "class_index": pa.array(test.actual, pa.int32()),
            "probabilities": pa.array(list(test.probabilities.astype(np.float32)), pa.list_(pa.float32())),
        },
        schema=PREDICTIONS,
    )


def _source_paths(manifest: Path | None) -> dict[tuple[str, str], str]:
    """By (image_id, label), the first path under which a picture came in."""
    if manifest is None:
        return {}
    table = read_table(manifest, DEDUPED, columns=["image_id", "label", "source", "source_path"])
    table = table.sort_by([("source", "descending"), ("source_path", "descending")])
    columns = [table[name].to_pylist() for name in ("image_id", "label", "source_path")]
    # descending, so that the first path is the one that stays
    return {(image_id, label): path for image_id, label, path in zip(*columns, strict=True)}
