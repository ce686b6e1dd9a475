"""Better, worse or unclear: two sets of metrics, each figure known by an interval only.

The rule. For a metric with the values a (committed) and b (new) and their intervals, the interval of the difference
b - a is found from the four distances (Newcombe's square-and-add; MOVER: Zou & Donner, Statistics in Medicine 27,
2008):

    low  = (b - a) - sqrt((b - b_low)² + (a_high - a)²)
    high = (b - a) + sqrt((b_high - b)² + (a - a_low)²)

It lies wholly above 0: better; wholly below 0: worse; else: unclear. Accuracy decides; the other metrics are shown.
The interval has the confidence of the two it is made of if these come from different test pictures. On the same test
pictures the two models' errors go together, and it is too wide: "unclear" comes more often than it must, "better" and
"worse" do not.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pipelines.core.errors import InputError

Verdict = Literal["first", "better", "worse", "unclear"]

METRICS = ("accuracy", "balanced_accuracy", "macro_f1")
DECIDING = "accuracy"


@dataclass(frozen=True)
class Figure:
    """A value in [0, 1] and its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """One metric of both runs. `low` to `high` is the interval of new - old."""

    metric: str
    old: Figure
    new: Figure
    low: float
    high: float

    @property
    def verdict(self) -> Verdict:
        if self.low > 0.0:
            return "better"
        return "worse" if self.high < 0.0 else "unclear"


@dataclass(frozen=True)
class Comparison:
    """What a retraining brought.

    Args:
        verdict: of the deciding metric; unclear when the two cannot be compared, first without committed metrics.
        sentence: the verdict in one sentence, with its figures.
        differences: one a metric, the deciding one first; empty for the first run.
    """

    verdict: Verdict
    sentence: str
    differences: tuple[Difference, ...]


def compare(old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> Comparison:
    """Compare two data/evaluate/metrics.json; `old` is None when none is committed.

    Raises:
        InputError: a metric is missing, or its value lies outside its interval.
    """
    figures = {metric: read_figure(new, metric, "the new metrics") for metric in METRICS}
    now = figures[DECIDING]
    if old is None:
        return Comparison(
            "first", f"First run: accuracy {now.value:.1%} ({now.low:.1%} to {now.high:.1%}); nothing to compare.", ()
        )
    differences = tuple(
        difference(metric, read_figure(old, metric, "the committed metrics"), figures[metric]) for metric in METRICS
    )
    reason = not_comparable(old, new)
    if reason:
        return Comparison("unclear", f"Unclear: {reason}, so the two figures do not measure the same.", differences)
    if old == new:
        return Comparison("unclear", "Unclear: the new metrics equal the committed ones.", differences)
    deciding = differences[0]
    return Comparison(deciding.verdict, _sentence(deciding, float(new["confidence"])), differences)


def difference(metric: str, old: Figure, new: Figure) -> Difference:
    """The difference new - old with the interval of the rule above."""
    change = new.value - old.value
    return Difference(
        metric,
        old,
        new,
        low=change - math.hypot(new.value - new.low, old.high - old.value),
        high=change + math.hypot(new.high - new.value, old.value - old.low),
    )


def not_comparable(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Why two sets of metrics cannot be compared; empty when they can."""
    before, after = set(old.get("per_class", {})), set(new.get("per_class", {}))
    if before != after:
        changes = [f"{label!r} is new" for label in sorted(after - before)]
        changes += [f"{label!r} is gone" for label in sorted(before - after)]
        return f"the classes changed ({', '.join(changes[:4])}{', …' if len(changes) > 4 else ''})"
    if old.get("confidence") != new.get("confidence"):
        return f"evaluate.confidence changed from {old.get('confidence')} to {new.get('confidence')}"
    return ""


def read_figure(metrics: Mapping[str, Any], metric: str, where: str) -> Figure:
    """One metric with its interval out of metrics.json."""
    try:
        found = Figure(*(float(metrics[metric][key]) for key in ("value", "low", "high")))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{where} have no {metric} with value, low and high: run `dvc repro evaluate`") from error
    if not found.low <= found.value <= found.high:
        raise InputError(
            f"{where}: {metric} {found.value} lies outside its interval {found.low} to {found.high}: "
            "run `dvc repro -f evaluate`"
        )
    return found


def parse_metrics(text: str, where: str) -> dict[str, Any]:
    """metrics.json as it stands in `where`."""
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{where} is not JSON ({error}): run `dvc repro evaluate`") from error
    if not isinstance(found, dict):
        raise InputError(f"{where} holds no object: run `dvc repro evaluate`")
    return found


def _sentence(found: Difference, confidence: float) -> str:
    points = (found.new.value - found.old.value) * 100
    interval = f"{found.low * 100:+.1f} to {found.high * 100:+.1f} points at {confidence:.0%} confidence"
    move = f"accuracy went from {found.old.value:.1%} to {found.new.value:.1%} ({points:+.1f}; {interval})"
    if found.verdict == "unclear":
        return f"Unclear: {move}, which chance alone could explain."
    return f"{found.verdict.capitalize()}: {move}."
