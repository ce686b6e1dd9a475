"""metrics.json: every figure with its interval, of all members together and of each alone."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.core.params.evaluate import EvaluateParams
from pipelines.evaluate.ensemble import Combined
from pipelines.evaluate.intervals import bootstrap_figures, percentile_interval, wilson_interval
from pipelines.evaluate.members import Member, Packed, Predictions
from pipelines.evaluate.metrics import FIGURES, Floats, Scored, f1, precision, recall, score, tally

DIGITS = 6
"""of every fraction written as text: finer ones differ between machines and clutter `git diff`"""
MEMBER_FIGURES = ("accuracy", "log_loss")


@dataclass(frozen=True)
class _Measured:
    """What one member, or several as one, did on the test set, and on resampled ones: per figure (B,)."""

    scored: Scored
    drawn: Mapping[str, Floats]

    def figure(self, name: str, confidence: float) -> dict[str, float | None]:
        value = float(FIGURES[name](tally(self.scored)))
        return _with_interval(value, self.drawn[name], confidence)


def measure(
    params: EvaluateParams, combined: Combined, takers: Sequence[Member], parts: Sequence[Member], packed: Packed
) -> dict[str, Any]:
    """All of metrics.json but the leak premium; null where there is no evidence.

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
            **{name: measured.figure(name, confidence) for name in MEMBER_FIGURES},
            "out_of_fold": _out_of_fold(m.val),
        }
    best = _best(takers)
    return {
        "num_images": len(combined.test.actual),
        "num_classes": len(packed.classes),
        "confidence": confidence,
        **{name: whole.figure(name, confidence) for name in FIGURES},
        "ensemble": {
            "method": params.ensemble,
            "num_members": len(takers),
            "out_of_fold": _out_of_fold(combined.val),
            "best_member": best.name if len(takers) > 1 else None,
            "gain": {
                name: _gain(name, whole, alone[best.name], confidence) if len(takers) > 1 else None
                for name in MEMBER_FIGURES
            },
        },
        "members": members,
        "per_class": _per_class(whole.scored, packed.classes, confidence),
    }


def _measure(params: EvaluateParams, test: Predictions, packed: Packed) -> _Measured:
    scored = score(test.actual, test.probabilities)
    groups = packed.group_numbers(test.image_ids)
    drawn = bootstrap_figures(scored, groups, resamples=params.bootstrap_resamples, seed=params.seed)
    return _Measured(scored, drawn)


def _best(takers: Sequence[Member]) -> Member:
    """The member one would take were there to be one: by out-of-fold accuracy, then log loss, then order.

    Never by the test set: the best of several figures there is luck in part.
    """

    def key(member: Member) -> tuple[float, float]:
        tallies = tally(score(member.val.actual, member.val.probabilities))
        return -float(FIGURES["accuracy"](tallies)), float(FIGURES["log_loss"](tallies))

    return min(takers, key=key)


def _gain(name: str, whole: _Measured, best: _Measured, confidence: float) -> dict[str, float | None]:
    """Ensemble minus member. The resampled test sets are the same, so that what both find hard is no doubt."""
    values = [float(FIGURES[name](tally(one.scored))) for one in (whole, best)]
    return _with_interval(values[0] - values[1], whole.drawn[name] - best.drawn[name], confidence)


def _out_of_fold(val: Predictions) -> dict[str, float | int | None]:
    tallies = tally(score(val.actual, val.probabilities))
    return {
        "num_images": len(val.actual),
        **{name: rounded(float(FIGURES[name](tallies))) for name in MEMBER_FIGURES},
    }


def _with_interval(value: float, drawn: Floats, confidence: float) -> dict[str, float | None]:
    low, high = percentile_interval(drawn, confidence)
    return {"value": rounded(value), "low": rounded(low), "high": rounded(high)}


def _per_class(scored: Scored, classes: list[str], confidence: float) -> dict[str, dict[str, float | int | None]]:
    tallies = tally(scored)
    lows, highs = wilson_interval(tallies.right, tallies.actual, confidence)
    precisions, recalls, f1s = precision(tallies), recall(tallies), f1(tallies)
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


def rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), DIGITS)
