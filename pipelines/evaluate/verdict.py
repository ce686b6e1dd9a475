"""Whether the goal of evaluate.goal is met: its metric, on the share of images that must be answered."""

from typing import Any, Literal

import numpy as np

from pipelines.core.errors import count
from pipelines.evaluate.intervals import effective_number, metric_intervals, wilson_interval
from pipelines.evaluate.metrics import Floats, Ints, ScoredImages, metric_of, take
from pipelines.params.evaluate import GoalParams

Status = Literal["met", "missed", "unclear", "no_goal"]
_NAMES = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "macro_f1": "macro F1"}
_MOST = 1e7
"""images: who would need more cannot know"""


def verdict(
    goal: GoalParams, test: ScoredImages, groups: Ints, val_confidence: Floats, *, confidence: float
) -> dict[str, Any]:
    """The part `verdict` of figures.json, unrounded.

    The goal is met where the whole interval lies at or above it, missed where all of it lies below; else the test
    images are too few to tell, and `more_images_needed` says how many more would, were the metric what it is now.

    Args:
        goal: value None: only the metric is told.
        test: N images.
        groups: (N,) group of each, 0 to G - 1.
        val_confidence: confidences of validation images: the threshold that leaves goal.coverage of them is applied
            to the test images; without any, theirs is taken.
        confidence: of the interval, 0 to 1.
    """
    threshold = 0.0
    if goal.coverage < 1:
        known = val_confidence if len(val_confidence) else test.confidence
        num_answered = max(int(np.ceil(round(goal.coverage * len(known), 6))), 1)
        threshold = float(np.sort(known)[-num_answered])
    answered = test.confidence >= threshold
    if not answered.any():
        answered[:] = True
    some, some_groups = take(test, answered), np.unique(groups[answered], return_inverse=True)[1].astype(np.int64)
    value = metric_of(goal.metric, some)
    low, high = metric_intervals(some, some_groups, confidence)[goal.metric]
    more = None
    status: Status = "no_goal"
    if goal.value is not None:
        status = "met" if low >= goal.value else "missed" if high < goal.value else "unclear"
        if status == "unclear":
            # answered images come with unanswered ones
            needed = _needed(value, low, goal.value, confidence, len(some.actual))
            more = None if needed is None else int(np.ceil(needed / answered.mean()))
    return {
        "status": status,
        "metric": goal.metric,
        "goal": goal.value,
        "coverage": goal.coverage,
        "measured_coverage": float(answered.mean()),
        "threshold": threshold,
        "value": value,
        "low": low,
        "high": high,
        "num_images": len(some.actual),
        "num_independent": round(effective_number(some.right, some_groups)),
        "more_images_needed": more,
        "sentence": _sentence(status, goal, value, low, high, len(some.actual), more),
    }


def _needed(value: float, low: float, goal: float, confidence: float, num_images: int) -> int | None:
    """How many more images would put `goal` outside the interval of `value`; None where no number would."""

    def end(number: float) -> float:
        ends = wilson_interval(np.array([value * number]), np.array([number]), confidence)
        return float(ends[0][0]) if value >= goal else float(ends[1][0])

    def tells(number: float) -> bool:
        return end(number) >= goal if value >= goal else end(number) < goal

    if not tells(_MOST):
        return None
    # the number of independent images that the interval speaks of
    below, above = 1.0, float(_MOST)
    for _ in range(60):
        middle = (below * above) ** 0.5
        lower = float(wilson_interval(np.array([value * middle]), np.array([middle]), confidence)[0][0])
        below, above = (middle, above) if lower < low else (below, middle)
    now = below
    above = float(_MOST)
    for _ in range(60):
        middle = (below * above) ** 0.5
        below, above = (below, middle) if tells(middle) else (middle, above)
    return max(1, int(np.ceil(num_images * (above / now - 1))))


def _sentence(
    status: Status, goal: GoalParams, value: float, low: float, high: float, num_images: int, more: int | None
) -> str:
    share = "" if goal.coverage >= 1 else f" on the surest {100 * goal.coverage:g} % of pictures"
    name = _NAMES[goal.metric]
    measured = f"{100 * value:.1f} % ({100 * low:.1f} to {100 * high:.1f}) of {count(num_images, 'test picture')}"
    if goal.value is None:
        return f"No goal is set (evaluate.goal.value): {name}{share} is {measured}."
    wanted = f"{100 * goal.value:g} % {name}{share}"
    if status == "met":
        return f"The goal is met: {wanted}; measured {measured}."
    if status == "missed":
        return f"The goal is missed: {wanted}; measured {measured}."
    tail = (
        "no number of them would while the two are so close"
        if more is None
        else f"about {more:,} more of the same kind would tell"
    )
    return f"The test pictures are too few to tell whether the goal is met: {wanted}; measured {measured}; {tail}."
