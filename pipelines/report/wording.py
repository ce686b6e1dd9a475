"""Numbers as people read them, and the sentences that several parts of the report share."""

from collections.abc import Sequence
from typing import Any

from pipelines.core.errors import count
from pipelines.core.tables import short_id
from pipelines.report.confusion import Pair
from pipelines.report.inputs import Inputs, Row

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


def figure_of(value: object) -> str:
    """A limit or a figure of validate, short; a dash where there is none."""
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def clipped(words: Sequence[str], limit: int) -> str:
    """ "a, b and 3 more"."""
    return listed(words) if len(words) <= limit else f"{', '.join(words[:limit])} and {len(words) - limit:,} more"


def listed(words: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def headline(metrics: dict[str, Any], num_right: int) -> str:
    """What was learnt: the mean, and the class that is found least beside it."""
    accuracy, worst = metrics["accuracy"], worst_class(metrics)
    was = "was" if num_right == 1 else "were"
    beside = f" The weakest class is {worst['label']}, with {recall_of(worst)}." if worst else ""
    return (
        f"{num_right:,} of {count(metrics['num_images'], 'test picture')} {was} told apart correctly: "
        f"{percent(accuracy['value'])} ({percent_range(accuracy['low'], accuracy['high'])}).{beside}"
    )


def worst_class(metrics: dict[str, Any]) -> dict[str, Any] | None:
    """label, recall, low, high and num_images of the class with the least recall, of equals the one with the most test
    pictures; None where all classes are found equally often."""
    known = [
        {"label": label, "low": c["recall_low"], "high": c["recall_high"], **c}
        for label, c in metrics["per_class"].items()
        if c["recall"] is not None
    ]
    if len({c["recall"] for c in known}) < 2:
        return None
    given: dict[str, Any] | None = metrics.get("worst_class")
    return given or min(known, key=lambda c: (c["recall"], -c["num_images"], c["label"]))


def recall_of(one: dict[str, Any]) -> str:
    """ "1 of 5 found: 20 % (3.6 to 62.4)"."""
    found = f"{round(one['recall'] * one['num_images']):,} of {one['num_images']:,} found"
    return f"{found}: {percent(one['recall'], 0)} ({percent_range(one['low'], one['high'])})"


def easiest(metrics: dict[str, Any]) -> str:
    """The classes with the most recall; "" where fewer than two have test pictures."""
    known = [(c["recall"], label) for label, c in metrics["per_class"].items() if c["recall"] is not None]
    if len(known) < 2:
        return ""
    top = max(known)[0]
    best = [label for recall, label in known if recall == top]
    if len(best) == len(known):
        return f"All classes are recognised equally often, {percent(top, 0)} of the time."
    return f"Easiest: {clipped(best, 3)} ({percent(top, 0)} of their pictures found)."


def calibration(metrics: dict[str, Any]) -> str:
    """How far confidence lies from accuracy, beside what a calibrated model would show."""
    known = metrics.get("calibration")
    error = known["error"] if known else metrics.get("expected_calibration_error", {}).get("value")
    if error is None:
        return "Calibration error: not known."
    if not known or known["calibrated_high"] is None:
        return f"Calibration error: {percent(error)}."
    if error > known["calibrated_high"]:
        verdict = "the probabilities are further off than chance explains"
    else:
        verdict = "that much, chance explains"
    ends = percent_range(known["calibrated_low"], known["calibrated_high"])
    return (
        f"Calibration error: {percent(error)}; a perfectly calibrated model with these probabilities would show "
        f"{ends}{THIN}%: {verdict}."
    )


def decisions_taken(metrics: dict[str, Any]) -> list[str]:
    """How many decisions of people the data follows, and what changed labels do to the test; none where none is."""
    taken = metrics.get("decisions", {})
    parts = [
        count(taken[key], *nouns)
        for key, nouns in (
            ("relabelled", ("picture relabelled", "pictures relabelled")),
            ("kept", ("label confirmed", "labels confirmed")),
            ("dropped", ("picture dropped", "pictures dropped")),
            ("different", ("pair told to be different", "pairs told to be different")),
        )
        if taken.get(key)
    ]
    if not parts:
        return []
    found = [f"Decisions taken: {listed(parts)}."]
    if taken.get("relabelled_test"):
        changed = count(taken["relabelled_test"], "test label was", "test labels were")
        found.append(
            f"{changed} changed on suspicion; without {'this' if taken['relabelled_test'] == 1 else 'these'}, accuracy "
            f"is {percent(taken['accuracy_with_original_labels'])}."
        )
    return found


def idle_decisions(rows: Sequence[Row]) -> list[str]:
    """The decisions that change nothing, each with its place, picture and the reason, from decisions.csv."""
    reasons = {
        "left": "its picture has left the data",
        "superseded": "its picture is dropped",
        "two labels": "its picture came under several labels; say in relabel.csv which is right",
    }
    return [
        f"{row['file']}:{row['line']} ({', '.join(filter(None, (short_id(row['image_id']), row.get('path', ''))))}): "
        f"{reasons.get(row['status'], row['status'])}"
        for row in rows
        if row["status"] != "applied"
    ]


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
