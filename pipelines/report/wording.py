"""Numbers as people read them, and the sentences that several parts of the report share."""

from collections.abc import Sequence
from typing import Any

from pipelines.core.errors import count
from pipelines.report.confusion import Pair
from pipelines.report.inputs import Inputs

THIN = "\u202f"
"""narrow no-break space, between a number and its sign"""


def percent(fraction: float | None, digits: int = 1) -> str:
    """0.907 as "90.7 %"; a dash where there is no evidence."""
    return "–" if fraction is None else f"{100 * fraction:.{digits}f}{THIN}%"


def percent_range(low: float | None, high: float | None) -> str:
    """An interval of fractions as "85.3 to 94.2"."""
    return "–" if low is None or high is None else f"{100 * low:.1f} to {100 * high:.1f}"


def decimal(value: float | None) -> str:
    """A figure that is no fraction, with three digits."""
    return "–" if value is None else f"{value:.3f}"


def listed(words: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def headline(metrics: dict[str, Any], num_right: int) -> str:
    """What was learnt, in one sentence."""
    accuracy = metrics["accuracy"]
    was = "was" if num_right == 1 else "were"
    return (
        f"{num_right:,} of {count(metrics['num_images'], 'test picture')} {was} told apart correctly: "
        f"{percent(accuracy['value'])} ({percent_range(accuracy['low'], accuracy['high'])})."
    )


def best_and_worst(metrics: dict[str, Any]) -> str:
    """The classes at both ends of recall; "" where fewer than two have test pictures."""
    known = [(c["recall"], label) for label, c in metrics["per_class"].items() if c["recall"] is not None]
    if len(known) < 2:
        return ""
    top, bottom = max(known)[0], min(known)[0]
    if top == bottom:
        return f"All classes are recognised equally often, {percent(top, 0)} of the time."
    best = [label for recall, label in known if recall == top]
    worst = [label for recall, label in known if recall == bottom]
    return (
        f"Easiest: {_some(best)} ({percent(top, 0)} of their pictures found). "
        f"Hardest: {_some(worst)} ({percent(bottom, 0)})."
    )


def most_confused(inputs: Inputs, pairs: list[Pair]) -> str:
    """The pair with the most mistakes, as a sentence; "" without mistakes."""
    if not pairs:
        return ""
    pair = pairs[0]
    total = sum(p.mistakes for p in pairs)
    return (
        f"Most often confused: {inputs.classes[pair.first]} and {inputs.classes[pair.second]}, "
        f"with {pair.mistakes:,} of the {count(total, 'mistake')}."
        if total > 1
        else f"The only mistake: between {inputs.classes[pair.first]} and {inputs.classes[pair.second]}."
    )


def _some(labels: list[str]) -> str:
    return listed(labels) if len(labels) <= 3 else f"{', '.join(labels[:3])} and {len(labels) - 3} more"
