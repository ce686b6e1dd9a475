"""What changed since the last committed run, on the test pictures that both have.

compared.csv lies in git: the answers now, and those of the last commit (`previous`). Where the commit's own answers
equal today's, its `previous` stays: running a committed state again gives the same file.
"""

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from pipelines.evaluate.intervals import group_numbers, paired_interval
from pipelines.evaluate.members import Names
from pipelines.evaluate.metrics import Ints

HEADER = ("image_id", "actual", "predicted", "previous")
ID_DIGITS = 16
MAX_ROWS = 10_000
"""pictures in compared.csv: those with the smallest ids, so that git holds little"""
MAX_CHANGED = 200
"""pictures that changed sides, as figures.json lists them"""

ChangeVerdict = Literal["better", "worse", "unclear"]


class Answer(NamedTuple):
    """A row of compared.csv; `previous` is "" where the last committed run did not have the picture."""

    image_id: str
    actual: str
    predicted: str
    previous: str


def compare_answers(
    image_ids: Names, actual: Sequence[str], predicted: Sequence[str], committed: str | None
) -> list[Answer]:
    """The rows of compared.csv.

    Args:
        image_ids: (N,) test pictures, sorted.
        actual, predicted: (N,) names of classes.
        committed: the text of compared.csv in the last commit, None without one.
    """
    now = [
        Answer(image_id[:ID_DIGITS], a, p, "")
        for image_id, a, p in list(zip(image_ids.tolist(), actual, predicted, strict=True))[:MAX_ROWS]
    ]
    rows = csv.DictReader(io.StringIO(committed or ""))
    before = list(rows) if tuple(rows.fieldnames or ()) == HEADER else []
    same = [(one.image_id, one.actual, one.predicted) for one in now] == [
        (row["image_id"], row["actual"], row["predicted"]) for row in before
    ]
    column = "previous" if same else "predicted"
    known = {row["image_id"]: row[column] for row in before}
    return [one._replace(previous=known.get(one.image_id, "")) for one in now]


def change(
    answers: Sequence[Answer], groups: Mapping[str, str], *, confidence: float, num_before: int | None = None
) -> dict[str, Any] | None:
    """The part `change` of figures.json, unrounded; None where the last committed run shares no picture.

    Args:
        answers: rows of compared.csv, by the labels of today.
        groups: the first ID_DIGITS of an image_id to its duplicate group; one without a group is its own.
        confidence: of the interval, 0 to 1.
        num_before: pictures of the run before, where that is known.
    """
    shared = [one for one in answers if one.previous]
    if not shared:
        return None
    group = group_numbers(np.array([groups.get(one.image_id, one.image_id) for one in shared], np.str_))
    gain = np.array([(one.predicted == one.actual) - (one.previous == one.actual) for one in shared], np.float64)
    low, high = paired_interval(gain, group, confidence, of_fractions=True)
    sides: dict[str, Counter[str]] = {}
    for one, value in zip(shared, gain.tolist(), strict=True):
        if value:
            sides.setdefault(one.actual, Counter())["gained" if value > 0 else "lost"] += 1
    p = mcnemar(gain, group)
    told: ChangeVerdict = "better" if low > 0 else "worse" if high < 0 else "unclear"
    return {
        "num_shared": len(shared),
        "num_before": num_before,
        "num_now": len(answers),
        "gained": int((gain > 0).sum()),
        "lost": int((gain < 0).sum()),
        "difference": {"value": float(gain.mean()), "low": low, "high": high},
        "p_mcnemar": p,
        "verdict": told,
        "per_class": {
            label: {"gained": sides[label]["gained"], "lost": sides[label]["lost"]} for label in sorted(sides)
        },
        "changed": [
            {"image_id": one.image_id, "actual": one.actual, "before": one.previous, "now": one.predicted}
            for one in shared
            if one.previous != one.predicted
        ][:MAX_CHANGED],
    }


def mcnemar(gain: "np.typing.NDArray[np.float64]", groups: Ints) -> float:
    """Two-sided exact p of as many groups gained as lost (McNemar 1947); a group with as many of both says nothing.

    Args:
        gain: (N,) 1 where only the new run is right, -1 where only the old one is, else 0.
        groups: (N,) 0 to G - 1.
    """
    from scipy.stats import binomtest

    net = np.bincount(groups, gain)
    num_up, num_all = int((net > 0).sum()), int((net != 0).sum())
    return float(binomtest(num_up, num_all).pvalue) if num_all else 1.0
