"""Numbers as people read them, and the sentences and the table of members that several parts of the report share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.core.errors import count
from pipelines.core.tables import short_id
from pipelines.report.confusion import ConfusedPair
from pipelines.report.inputs import CsvRow, Inputs

THIN = "\u202f"
"""narrow no-break space, between a number and its sign"""
ALL = "all together"
ENSEMBLE_METHODS = {
    "mean": "by the mean of their probabilities",
    "vote": "by their votes",
    "weighted": "by the weighted mean of their probabilities",
}
MINUS = "\u2212"


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
    """Accuracy, and beside it the class with the least recall."""
    accuracy, worst = metrics["accuracy"], worst_class(metrics)
    was = "was" if num_right == 1 else "were"
    beside = f" The weakest class is {worst['label']}, with {recall_of(worst)}." if worst else ""
    return (
        f"{num_right:,} of {count(metrics['num_images'], 'test picture')} {was} told apart correctly: "
        f"{percent(accuracy['value'])} ({percent_range(accuracy['low'], accuracy['high'])}).{beside}"
    )


VERDICTS_OF_CHANGE = {
    "better": "better than chance explains",
    "worse": "worse than chance explains",
    "unclear": "chance alone could explain that",
}


def change_sentence(change: Mapping[str, Any] | None, since: str = "Since the last committed run") -> str:
    """What evaluate says of what changed; "" where nothing is known."""
    if not change:
        return ""
    difference = change["difference"]
    return (
        f"{since}, on the {count(change['num_shared'], 'test picture')} that both have: "
        f"{points(difference['value'])} points ({points(difference['low'])} to {points(difference['high'])}), "
        f"{change['gained']:,} gained and {change['lost']:,} lost; {VERDICTS_OF_CHANGE[change['verdict']]}."
    )


def verdict_sentences(inputs: Inputs, pairs: list[ConfusedPair]) -> list[str]:
    """The report in three sentences: whether the goal is met, what is confused, what changed."""
    verdict = inputs.metrics.get("verdict")
    measured = headline(inputs.metrics, int(inputs.counts.trace()))
    first = verdict["sentence"] if verdict and verdict["status"] != "no_goal" else measured
    return [*filter(None, (first, most_confused(inputs, pairs), change_sentence(inputs.metrics.get("change"))))]


def worst_class(metrics: dict[str, Any]) -> dict[str, Any] | None:
    """label, recall, low, high and num_images of the class with the least recall; None where all have the same."""
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


def calibration(metrics: dict[str, Any]) -> str:
    """The calibration error, beside that of a calibrated model."""
    known = metrics.get("calibration")
    error = known["error"] if known else None
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
    """How many decisions were applied, and what changed labels do to accuracy."""
    taken = metrics.get("decisions") or {}
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


def run_line(inputs: Inputs, *, snapshot: str, members: Sequence[str]) -> str:
    """Which run this is: equal inputs give an equal id, and no clock is read."""
    applied = sum(row["status"] == "applied" for row in inputs.decisions)
    parts = [f"run {inputs.run_id}", f"snapshot {snapshot}", clipped(members, 4)]
    return " · ".join([*parts, count(applied, "decision") if applied else "no decisions"])


def idle_decisions(rows: Sequence[CsvRow]) -> list[str]:
    """The rows of decisions.csv without effect, each with its place, image and the reason."""
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


def most_confused(inputs: Inputs, pairs: list[ConfusedPair]) -> str:
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


@dataclass(frozen=True)
class MemberRow:
    """A row of the table of members.

    Args:
        name: of the member; ALL for the ensemble.
        tells: label, or the factor that it predicts.
        accuracy, log_loss: value, low and high on the test set; null without evidence.
        out_of_fold: num_images, accuracy and log_loss on validation images.
        weight: its share of the ensemble; None for the ensemble, and for a member of a factor.
    """

    name: str
    tells: str
    accuracy: dict[str, float | None]
    log_loss: dict[str, float | None]
    out_of_fold: dict[str, float | None]
    weight: float | None

    @property
    def is_all(self) -> bool:
        return self.name == ALL


def member_rows(metrics: dict[str, Any]) -> list[MemberRow]:
    """The ensemble first, where there is more than one; then members of labels, then those of factors."""
    ensemble = metrics["ensemble"]
    ensemble_row = MemberRow(
        ALL, "label", metrics["accuracy"], metrics["log_loss"], ensemble["out_of_fold"], weight=None
    )
    rows = [
        MemberRow(name, m["target"], m["accuracy"], m["log_loss"], m["out_of_fold"], m["weight"])
        for name, m in metrics["members"].items()
    ]
    return [ensemble_row, *rows] if ensemble["num_members"] > 1 else rows


def ensemble_sentence(metrics: dict[str, Any]) -> str:
    """The gain of the ensemble over its best member; "" for one member."""
    ensemble = metrics["ensemble"]
    best = ensemble["best_member"]
    if best is None:
        return ""
    gain = ensemble["gain"]["accuracy"]
    alone, all_of_them = metrics["members"][best]["accuracy"]["value"], metrics["accuracy"]["value"]
    if gain["low"] > 0:
        verdict = "together they are better"
    elif gain["high"] < 0:
        verdict = "alone it is better"
    else:
        verdict = "chance alone could explain that"
    how, num_members = ENSEMBLE_METHODS[ensemble["method"]], count(ensemble["num_members"], "member")
    value, low, high = (points(gain[key]) for key in ("value", "low", "high"))
    return (
        f"Together, {how}, {num_members} tell {percent(all_of_them)} of the test pictures right; {best}, the best "
        f"alone on validation pictures, tells {percent(alone)}. On the same pictures the difference is {value} points "
        f"({low} to {high}): {verdict}."
    )


def points(difference: float) -> str:
    """A difference of fractions in points of 1 %, with its sign."""
    value = round(100 * difference, 1)
    # a rounded zero has no sign
    return f"{MINUS if value < 0 else '+' if value > 0 else ''}{abs(value):.1f}"
