"""Compute metrics.json: every metric with its interval, for all members together and for each alone."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.evaluate.ensemble import EnsemblePredictions
from pipelines.evaluate.intervals import (
    Interval,
    calibration_error_by_chance,
    effective_numbers,
    metric_intervals,
    paired_interval,
    wilson_interval,
)
from pipelines.evaluate.members import EvaluationIndex, MemberPredictions, Predictions
from pipelines.evaluate.metrics import (
    METRICS,
    Ints,
    ScoredImages,
    f1,
    metric_of,
    metric_sums,
    precision,
    recall,
    score,
)
from pipelines.params.evaluate import EvaluateParams

DIGITS = 6
"""decimals of what is written as text: finer ones differ between machines and clutter `git diff`"""
MEMBER_METRICS = ("accuracy", "log_loss")


@dataclass(frozen=True)
class _TestResult:
    """The test images as scored for one member or an ensemble, the (N,) group of each, and intervals by metric."""

    scored: ScoredImages
    groups: Ints
    intervals: Mapping[str, Interval]

    def metric(self, name: str) -> dict[str, float | None]:
        """Value, low and high; the calibration error is biased and has no interval: see `calibration` instead."""
        low, high = self.intervals.get(name, (math.nan, math.nan))
        return _with_interval(metric_of(name, self.scored), low, high)


def compute_metrics(
    params: EvaluateParams,
    combined: EnsemblePredictions,
    label_members: Sequence[MemberPredictions],
    factor_members: Sequence[MemberPredictions],
    packed: EvaluationIndex,
) -> dict[str, Any]:
    """All of metrics.json but the leak premium, decisions and suspects; null where there is no evidence.

    Args:
        combined: the label members as one.
        label_members: M, those that predict labels.
        factor_members: those that predict a factor; joined, they are one of `label_members`.
        packed: for classes and groups.
    """
    confidence = params.confidence
    alone = {m.name: _test_result(params, m.test, packed) for m in label_members}
    # one member is its own ensemble
    whole = alone[label_members[0].name] if len(label_members) == 1 else _test_result(params, combined.test, packed)
    weights = dict(zip((m.name for m in label_members), combined.weights.tolist(), strict=True))
    members = {}
    for m in (*label_members, *factor_members):
        measured = alone.get(m.name) or _test_result(params, m.test, packed)
        members[m.name] = {
            "target": m.target,
            "weight": rounded(weights[m.name]) if m.name in weights else None,
            "temperature": rounded(m.temperature),
            **{name: measured.metric(name) for name in MEMBER_METRICS},
            "out_of_fold": _out_of_fold(m.val),
        }
    best = _best(label_members)
    by_chance = calibration_error_by_chance(
        whole.scored, whole.groups, confidence=confidence, draws=params.bootstrap_resamples, seed=params.seed
    )
    per_class = _per_class(whole, packed.classes, confidence)
    return {
        "num_images": len(combined.test.actual),
        "num_classes": len(packed.classes),
        "confidence": confidence,
        **{name: whole.metric(name) for name in METRICS},
        "calibration": {
            "error": whole.metric("expected_calibration_error")["value"],
            **{f"calibrated_{name}": rounded(value) for name, value in by_chance._asdict().items()},
            "temperature": rounded(combined.temperature),
        },
        "ensemble": {
            "method": params.ensemble,
            "num_members": len(label_members),
            "temperature": rounded(combined.temperature),
            "out_of_fold": _out_of_fold(combined.val),
            "best_member": best.name if len(label_members) > 1 else None,
            "gain": {
                name: _gain(name, whole, alone[best.name], confidence) if len(label_members) > 1 else None
                for name in MEMBER_METRICS
            },
        },
        "members": members,
        "per_class": per_class,
        "worst_class": _worst_class(per_class),
    }


def _test_result(params: EvaluateParams, test: Predictions, packed: EvaluationIndex) -> _TestResult:
    scored = score(test.actual, test.probabilities)
    groups = packed.group_numbers(test.image_ids)
    return _TestResult(scored, groups, metric_intervals(scored, groups, params.confidence))


def _best(label_members: Sequence[MemberPredictions]) -> MemberPredictions:
    """The best single member, by out-of-fold accuracy, then log loss, then order; on the test set luck would choose."""

    def key(member: MemberPredictions) -> tuple[float, float]:
        scored = score(member.val.actual, member.val.probabilities)
        return -metric_of("accuracy", scored), metric_of("log_loss", scored)

    return min(label_members, key=key)


def _gain(name: str, whole: _TestResult, best: _TestResult, confidence: float) -> dict[str, float | None]:
    """Ensemble minus member, image by image, so that images that are hard for both add no variance."""
    of_fractions = name == "accuracy"
    ours, theirs = (one.scored.right.astype(np.float64) if of_fractions else one.scored.loss for one in (whole, best))
    interval = paired_interval(ours - theirs, whole.groups, confidence, of_fractions=of_fractions)
    return _with_interval(float((ours - theirs).mean()), *interval)


def _out_of_fold(val: Predictions) -> dict[str, float | int | None]:
    scored = score(val.actual, val.probabilities)
    return {"num_images": len(val.actual), **{name: rounded(metric_of(name, scored)) for name in MEMBER_METRICS}}


def _with_interval(value: float, low: float, high: float) -> dict[str, float | None]:
    return {"value": rounded(value), "low": rounded(low), "high": rounded(high)}


def _per_class(whole: _TestResult, classes: list[str], confidence: float) -> dict[str, dict[str, Any]]:
    sums = metric_sums(whole.scored)
    precisions, recalls, f1s = precision(sums), recall(sums), f1(sums)
    numbers = effective_numbers(whole.scored, whole.groups)
    lows, highs = wilson_interval(recalls * numbers, numbers, confidence)
    return {
        label: {
            "num_images": int(sums.actual[k]),
            "precision": rounded(precisions[k]),
            "recall": rounded(recalls[k]),
            "recall_low": rounded(lows[k]),
            "recall_high": rounded(highs[k]),
            "f1": rounded(f1s[k]),
        }
        for k, label in enumerate(classes)
    }


def _worst_class(per_class: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """The class of lowest recall; of equals the one with the most images, then the first by name."""
    known = [(c["recall"], -c["num_images"], label) for label, c in per_class.items() if c["recall"] is not None]
    if not known:
        return None
    label = min(known)[2]
    names = {"recall": "recall", "low": "recall_low", "high": "recall_high", "num_images": "num_images"}
    return {"label": label} | {name: per_class[label][column] for name, column in names.items()}


def rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), DIGITS)
