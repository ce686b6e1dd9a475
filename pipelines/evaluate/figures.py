"""Figures of predictions: every metric with its interval, for all members together and for each alone."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.evaluate.calibration import calibration
from pipelines.evaluate.coverage import coverage, top_k
from pipelines.evaluate.ensemble import EnsemblePredictions
from pipelines.evaluate.intervals import (
    Interval,
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
    average_precision,
    f1,
    metric_of,
    metric_sums,
    precision,
    recall,
    score,
)
from pipelines.evaluate.verdict import verdict
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

    def metric(self, name: str) -> dict[str, float]:
        """Value, low and high; the calibration error is biased and has no interval: see `calibration` instead."""
        low, high = self.intervals.get(name, (math.nan, math.nan))
        return _with_interval(metric_of(name, self.scored), low, high)


def compute_figures(
    params: EvaluateParams,
    combined: EnsemblePredictions,
    label_members: Sequence[MemberPredictions],
    factor_members: Sequence[MemberPredictions],
    packed: EvaluationIndex,
) -> dict[str, Any]:
    """The figures that follow from predictions alone, unrounded; NaN where there is no evidence.

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
            "weight": weights.get(m.name),
            "temperature": m.temperature,
            **{name: measured.metric(name) for name in MEMBER_METRICS},
            "out_of_fold": _out_of_fold(m.val),
            "folds": {str(fold): _out_of_fold(val) for fold, val in m.folds.items()},
        }
    best = _best(label_members)
    per_class = _per_class(whole, combined.test, packed, confidence)
    val = score(combined.val.actual, combined.val.probabilities)
    test, groups = whole.scored, whole.groups
    return {
        "num_images": len(combined.test.actual),
        "num_classes": len(packed.classes),
        "confidence": confidence,
        **{name: whole.metric(name) for name in METRICS},
        "verdict": verdict(params.goal, test, groups, val.confidence, confidence=confidence),
        "calibration": calibration(
            test,
            groups,
            temperature=combined.temperature,
            confidence=confidence,
            draws=params.bootstrap_resamples,
            seed=params.seed,
        ),
        "coverage": coverage(test, groups, val, wished_precision=params.wished_precision, confidence=confidence),
        "top_k": top_k(combined.test.probabilities, combined.test.actual, groups, confidence),
        "ensemble": {
            "method": params.ensemble,
            "num_members": len(label_members),
            "temperature": combined.temperature,
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


HEADLINES = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss")


def headline(figures: Mapping[str, Any]) -> dict[str, Any]:
    """metrics.json: the few figures that `dvc metrics diff` compares; docs/metrics.md explains each."""
    threshold = figures["coverage"]["at_threshold"]
    return {
        "num_images": figures["num_images"],
        "num_classes": figures["num_classes"],
        "confidence": figures["confidence"],
        **{name: figures[name] for name in HEADLINES},
        "calibration_error": figures["calibration"]["error"],
        "worst_recall": (figures["worst_class"] or {}).get("recall"),
        "coverage_at_threshold": threshold and threshold["coverage"]["value"],
        "accuracy_at_threshold": threshold and threshold["accuracy"] and threshold["accuracy"]["value"],
        "goal": figures["verdict"]["status"],
        "num_suspects": figures["suspects"]["num"],
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


def _gain(name: str, whole: _TestResult, best: _TestResult, confidence: float) -> dict[str, float]:
    """Ensemble minus member, image by image, so that images that are hard for both add no variance."""
    of_fractions = name == "accuracy"
    ours, theirs = (one.scored.right.astype(np.float64) if of_fractions else one.scored.loss for one in (whole, best))
    interval = paired_interval(ours - theirs, whole.groups, confidence, of_fractions=of_fractions)
    return _with_interval(float((ours - theirs).mean()), *interval)


def _out_of_fold(val: Predictions) -> dict[str, float | int]:
    scored = score(val.actual, val.probabilities)
    return {"num_images": len(val.actual), **{name: metric_of(name, scored) for name in MEMBER_METRICS}}


def _with_interval(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": value, "low": low, "high": high}


def _per_class(
    whole: _TestResult, test: Predictions, packed: EvaluationIndex, confidence: float
) -> dict[str, dict[str, Any]]:
    sums = metric_sums(whole.scored)
    columns = {
        "precision": precision(sums),
        "recall": recall(sums),
        "f1": f1(sums),
        "average_precision": average_precision(test.probabilities, test.actual),
    }
    numbers = effective_numbers(whole.scored, whole.groups)
    columns["recall_low"], columns["recall_high"] = wilson_interval(columns["recall"] * numbers, numbers, confidence)
    num_train = Counter(k for (_, k), subset in packed.subsets.items() if subset == "train")
    return {
        label: {"num_images": int(sums.actual[k]), "num_train": num_train[k]}
        | {name: float(values[k]) for name, values in columns.items()}
        for k, label in enumerate(packed.classes)
    }


def _worst_class(per_class: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """The class of lowest recall; of equals the one with the most images, then the first by name."""
    known = [(c["recall"], -c["num_images"], label) for label, c in per_class.items() if c["num_images"]]
    if not known:
        return None
    label = min(known)[2]
    names = {"recall": "recall", "low": "recall_low", "high": "recall_high", "num_images": "num_images"}
    return {"label": label} | {name: per_class[label][column] for name, column in names.items()}


def rounded(found: Any) -> Any:
    """The same value with every float in DIGITS decimals and NaN as None, in mappings and sequences too."""
    if isinstance(found, Mapping):
        return {key: rounded(value) for key, value in found.items()}
    if isinstance(found, list | tuple):
        return [rounded(value) for value in found]
    if isinstance(found, float):
        return None if math.isnan(found) else round(float(found), DIGITS)
    return found
