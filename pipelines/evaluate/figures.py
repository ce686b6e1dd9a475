"""metrics.json: every figure with its interval, of all members together and of each alone."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.evaluate.calibration import calibrated_errors
from pipelines.evaluate.ensemble import Combined
from pipelines.evaluate.intervals import (
    Interval,
    effective_numbers,
    figure_intervals,
    paired_interval,
    wilson_interval,
)
from pipelines.evaluate.members import Member, Packed, Predictions
from pipelines.evaluate.metrics import FIGURES, Ints, Scored, f1, precision, recall, score, tally
from pipelines.params.evaluate import EvaluateParams

DIGITS = 6
"""of every fraction written as text: finer ones differ between machines and clutter `git diff`"""
MEMBER_FIGURES = ("accuracy", "log_loss")


@dataclass(frozen=True)
class _Measured:
    """What one member, or several as one, did on the test set.

    Args:
        scored: N pictures.
        groups: (N,) group of each.
        intervals: by figure.
    """

    scored: Scored
    groups: Ints
    intervals: Mapping[str, Interval]

    def figure(self, name: str) -> dict[str, float | None]:
        """Value, low and high; no interval is right for the calibration error, which is biased: see `calibration`."""
        low, high = self.intervals.get(name, (math.nan, math.nan))
        return _with_interval(float(FIGURES[name](tally(self.scored))), low, high)


def measure(
    params: EvaluateParams, combined: Combined, takers: Sequence[Member], parts: Sequence[Member], packed: Packed
) -> dict[str, Any]:
    """All of metrics.json but the leak premium, decisions and suspects; null where there is no evidence.

    Args:
        params: the section `evaluate`.
        combined: the members as one.
        takers: M, the members that tell labels.
        parts: members that tell a factor; what they say together is one of `takers`.
        packed: for classes and groups.
    """
    confidence = params.confidence
    alone = {m.name: _measure(params, m.test, packed) for m in takers}
    # one member is its own ensemble
    whole = alone[takers[0].name] if len(takers) == 1 else _measure(params, combined.test, packed)
    weights = dict(zip((m.name for m in takers), combined.weights.tolist(), strict=True))
    members = {}
    for m in (*takers, *parts):
        measured = alone.get(m.name) or _measure(params, m.test, packed)
        members[m.name] = {
            "target": m.target,
            "weight": rounded(weights[m.name]) if m.name in weights else None,
            "temperature": rounded(m.temperature),
            **{name: measured.figure(name) for name in MEMBER_FIGURES},
            "out_of_fold": _out_of_fold(m.val),
        }
    best = _best(takers)
    calibrated = calibrated_errors(
        whole.scored, whole.groups, confidence=confidence, draws=params.bootstrap_resamples, seed=params.seed
    )
    per_class = _per_class(whole, packed.classes, confidence)
    return {
        "num_images": len(combined.test.actual),
        "num_classes": len(packed.classes),
        "confidence": confidence,
        **{name: whole.figure(name) for name in FIGURES},
        "calibration": {
            "error": whole.figure("expected_calibration_error")["value"],
            "calibrated_mean": rounded(calibrated.mean),
            "calibrated_low": rounded(calibrated.low),
            "calibrated_high": rounded(calibrated.high),
            "temperature": rounded(combined.temperature),
        },
        "ensemble": {
            "method": params.ensemble,
            "num_members": len(takers),
            "temperature": rounded(combined.temperature),
            "out_of_fold": _out_of_fold(combined.val),
            "best_member": best.name if len(takers) > 1 else None,
            "gain": {
                name: _gain(name, whole, alone[best.name], confidence) if len(takers) > 1 else None
                for name in MEMBER_FIGURES
            },
        },
        "members": members,
        "per_class": per_class,
        "worst_class": _worst_class(per_class),
    }


def _measure(params: EvaluateParams, test: Predictions, packed: Packed) -> _Measured:
    scored = score(test.actual, test.probabilities)
    groups = packed.group_numbers(test.image_ids)
    return _Measured(scored, groups, figure_intervals(scored, groups, params.confidence))


def _best(takers: Sequence[Member]) -> Member:
    """The member one would take were there to be one: by out-of-fold accuracy, then log loss, then order.

    Never by the test set: the best of several figures there is luck in part.
    """

    def key(member: Member) -> tuple[float, float]:
        tallies = tally(score(member.val.actual, member.val.probabilities))
        return -float(FIGURES["accuracy"](tallies)), float(FIGURES["log_loss"](tallies))

    return min(takers, key=key)


def _gain(name: str, whole: _Measured, best: _Measured, confidence: float) -> dict[str, float | None]:
    """Ensemble minus member, picture by picture, so that what both find hard is no doubt."""
    of_fractions = name == "accuracy"
    ours, theirs = (one.scored.right.astype(np.float64) if of_fractions else one.scored.loss for one in (whole, best))
    interval = paired_interval(ours - theirs, whole.groups, confidence, of_fractions=of_fractions)
    return _with_interval(float((ours - theirs).mean()), *interval)


def _out_of_fold(val: Predictions) -> dict[str, float | int | None]:
    tallies = tally(score(val.actual, val.probabilities))
    return {
        "num_images": len(val.actual),
        **{name: rounded(float(FIGURES[name](tallies))) for name in MEMBER_FIGURES},
    }


def _with_interval(value: float, low: float, high: float) -> dict[str, float | None]:
    return {"value": rounded(value), "low": rounded(low), "high": rounded(high)}


def _per_class(whole: _Measured, classes: list[str], confidence: float) -> dict[str, dict[str, Any]]:
    tallies = tally(whole.scored)
    precisions, recalls, f1s = precision(tallies), recall(tallies), f1(tallies)
    numbers = effective_numbers(whole.scored, whole.groups)
    lows, highs = wilson_interval(recalls * numbers, numbers, confidence)
    return {
        label: {
            "num_images": int(tallies.actual[k]),
            "precision": rounded(precisions[k]),
            "recall": rounded(recalls[k]),
            "recall_low": rounded(lows[k]),
            "recall_high": rounded(highs[k]),
            "f1": rounded(f1s[k]),
        }
        for k, label in enumerate(classes)
    }


def _worst_class(per_class: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """The class of lowest recall; of equals the one with the most pictures, then the first by name."""
    known = [(c["recall"], -c["num_images"], label) for label, c in per_class.items() if c["recall"] is not None]
    if not known:
        return None
    label = min(known)[2]
    found = per_class[label]
    return {
        "label": label,
        "recall": found["recall"],
        "low": found["recall_low"],
        "high": found["recall_high"],
        "num_images": found["num_images"],
    }


def rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), DIGITS)
