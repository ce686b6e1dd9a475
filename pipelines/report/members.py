"""The members, each alone and all together, as rows of a table and a sentence."""

from dataclasses import dataclass
from typing import Any

from pipelines.core.errors import count
from pipelines.report.wording import percent

METHODS = {
    "mean": "by the mean of their probabilities",
    "vote": "by their votes",
    "weighted": "by the weighted mean of their probabilities",
}
MINUS = "\u2212"


@dataclass(frozen=True)
class MemberRow:
    """One row.

    Args:
        name: of the member; "all together" for the ensemble.
        tells: what it tells apart: label, or a factor.
        accuracy, log_loss: value, low and high on the test set; null without evidence.
        out_of_fold: num_images, accuracy and log_loss on validation pictures.
        weight: its share of the ensemble; None for the ensemble, and for a part of a joined member.
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


ALL = "all together"


def member_rows(metrics: dict[str, Any]) -> list[MemberRow]:
    """All together first, where there is more than one; then those that tell labels, then those that tell factors."""
    ensemble = metrics["ensemble"]
    together = MemberRow(ALL, "label", metrics["accuracy"], metrics["log_loss"], ensemble["out_of_fold"], weight=None)
    rows = [
        MemberRow(name, m["target"], m["accuracy"], m["log_loss"], m["out_of_fold"], m["weight"])
        for name, m in metrics["members"].items()
    ]
    return [together, *rows] if ensemble["num_members"] > 1 else rows


def together(metrics: dict[str, Any]) -> str:
    """What the ensemble is worth beside its best member, in a sentence or two; "" for one member."""
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
    how, num_members = METHODS[ensemble["method"]], count(ensemble["num_members"], "member")
    value, low, high = (_points(gain[key]) for key in ("value", "low", "high"))
    return (
        f"Together, {how}, {num_members} tell {percent(all_of_them)} of the test pictures right; {best}, the best "
        f"alone on validation pictures, tells {percent(alone)}. On the same pictures the difference is {value} points "
        f"({low} to {high}): {verdict}."
    )


def _points(difference: float) -> str:
    points = round(100 * difference, 1)
    # a rounded zero has no sign
    return f"{MINUS if points < 0 else '+' if points > 0 else ''}{abs(points):.1f}"
