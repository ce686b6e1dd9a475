"""Better, worse or unclear: two sets of metrics, and the pictures that both tested.

The rule. Accuracy decides, on the test pictures that both runs have and neither learnt from. Of m of these, independent
of each other, b are right in the new run alone and c in the old one alone: the difference is (b - c) / m, its interval
that of Bonett and Price (2012), which adds one to b and c and two to m. It lies wholly above 0: better; wholly below 0:
worse; else: unclear.

Where the old predictions cannot be had, the two estimates decide, each known by its interval only, and so do the other
metrics that are shown. With the values a (committed) and b (new), the interval of the difference b - a is found from
the four distances (Newcombe's square-and-add; MOVER: Zou & Donner, Statistics in Medicine 27, 2008):

    low  = (b - a) - sqrt((b - b_low)² + (a_high - a)²)
    high = (b - a) + sqrt((b_high - b)² + (a - a_low)²)

It has the confidence of the two it is made of if these come from different test pictures. On the same ones the two
models' errors go together, and it is too wide: "unclear" comes more often than it must, "better" and "worse" do not.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import pyarrow as pa

from pipelines.core.errors import InputError

RetrainVerdict = Literal["first", "better", "worse", "unclear", "nothing new"]

METRICS = ("accuracy", "balanced_accuracy", "macro_f1")
DECIDING = "accuracy"


@dataclass(frozen=True)
class Estimate:
    """A value in [0, 1] and its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class MetricDifference:
    """One metric of both runs. `low` to `high` is the interval of new - old."""

    metric: str
    old: Estimate
    new: Estimate
    low: float
    high: float

    @property
    def verdict(self) -> RetrainVerdict:
        if self.low > 0.0:
            return "better"
        return "worse" if self.high < 0.0 else "unclear"


@dataclass(frozen=True)
class RunComparison:
    """What a retraining brought.

    Args:
        verdict: of accuracy; unclear when the two cannot be compared, first without committed metrics, nothing new
            when they equal these.
        sentence: the verdict in one sentence, with its estimates.
        differences: one a metric, the deciding one first; empty for the first run.
    """

    verdict: RetrainVerdict
    sentence: str
    differences: tuple[MetricDifference, ...]


@dataclass(frozen=True)
class SharedTestSet:
    """The test pictures that both runs have and neither learnt from, by today's labels.

    Args:
        num_old, num_new: test pictures of each run.
        num: of those that count.
        num_independent: groups of alike pictures among them.
        old_right, new_right: how many each run tells right.
        only_old, only_new: how many it alone tells right.
    """

    num_old: int
    num_new: int
    num: int
    num_independent: int
    old_right: int
    new_right: int
    only_old: int
    only_new: int

    def difference(self, confidence: float) -> tuple[float, float]:
        """The interval of the difference in accuracy, new - old; at least one picture counts."""
        m = self.num_independent
        gained, lost = ((n * m / self.num + 1) / (m + 2) for n in (self.only_new, self.only_old))
        z = NormalDist().inv_cdf((1 + confidence) / 2)
        half = z * math.sqrt((gained + lost - (gained - lost) ** 2) / (m + 2))
        return max(-1.0, gained - lost - half), min(1.0, gained - lost + half)


def shared_test_set(
    old: pa.Table | None, old_index: pa.Table | None, new: pa.Table | None, new_index: pa.Table | None
) -> SharedTestSet | None:
    """What two runs can be compared on; None when a table is missing, or is not of one label a picture.

    Args:
        old, new: data/evaluate/predictions.parquet.
        old_index, new_index: data/augment/index.parquet.
    """
    if old is None or old_index is None or new is None or new_index is None:
        return None
    predicted = [_predictions_by_image(table) for table in (old, new)]
    group = dict(zip(new_index["image_id"].to_pylist(), new_index["group"].to_pylist(), strict=True))
    learnt = {
        group.get(image_id)
        for image_id, subset in zip(old_index["image_id"].to_pylist(), old_index["subset"].to_pylist(), strict=True)
        if subset not in ("test", "unlabelled")
    }
    pictures = [image_id for image_id in predicted[1] if image_id in predicted[0] and group[image_id] not in learnt]
    right = [[one[image_id][1] == predicted[1][image_id][0] for image_id in pictures] for one in predicted]
    pairs = list(zip(*right, strict=True))
    return SharedTestSet(
        num_old=len(predicted[0]),
        num_new=len(predicted[1]),
        num=len(pictures),
        num_independent=len({group[image_id] for image_id in pictures}),
        old_right=sum(right[0]),
        new_right=sum(right[1]),
        only_old=pairs.count((True, False)),
        only_new=pairs.count((False, True)),
    )


def _predictions_by_image(predictions: pa.Table) -> dict[str, tuple[str, str]]:
    """The label and the predicted label of each test picture."""
    classes = json.loads(predictions.schema.metadata[b"classes"])
    return {
        row["image_id"]: (classes[row["class_index"]], classes[row["probabilities"].index(max(row["probabilities"]))])
        for row in predictions.to_pylist()
        if row["subset"] == "test"
    }


def compare(
    old: Mapping[str, Any] | None, new: Mapping[str, Any], shared: SharedTestSet | None = None
) -> RunComparison:
    """Compare two data/evaluate/metrics.json; `old` is None when none is committed.

    Args:
        shared: what both tested; None where that is not known.

    Raises:
        InputError: a metric is missing, or its value lies outside its interval.
    """
    estimates = {metric: read_estimate(new, metric, "the new metrics") for metric in METRICS}
    now = estimates[DECIDING]
    if old is None:
        return RunComparison(
            "first", f"First run: accuracy {now.value:.1%} ({now.low:.1%} to {now.high:.1%}); nothing to compare.", ()
        )
    differences = tuple(
        difference(metric, read_estimate(old, metric, "the committed metrics"), estimates[metric]) for metric in METRICS
    )
    reason = not_comparable(old, new)
    if reason:
        return RunComparison("unclear", f"Unclear: {reason}, so the two do not measure the same.", differences)
    if old == new:
        return RunComparison("nothing new", "Nothing new: the metrics equal the committed ones.", differences)
    confidence = float(new["confidence"])
    if shared is None:
        whole = differences[0]
        about = "the committed predictions are not in DVC's cache, so each run is taken on its own test pictures: "
        change = whole.new.value - whole.old.value
        return _decided(
            about, whole.old.value, whole.new.value, (change, whole.low, whole.high), confidence, differences
        )
    about = (
        f"of {shared.num_old:,} test pictures before and {shared.num_new:,} now, {shared.num:,} are in both runs and "
        "neither learnt from them: "
    )
    if not shared.num:
        return RunComparison("unclear", f"Unclear: {about}nothing to compare.", differences)
    before, after = shared.old_right / shared.num, shared.new_right / shared.num
    interval = shared.difference(confidence)
    return _decided(about, before, after, (after - before, *interval), confidence, differences)


def difference(metric: str, old: Estimate, new: Estimate) -> MetricDifference:
    """The difference new - old with the interval of the rule above."""
    change = new.value - old.value
    return MetricDifference(
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


def read_estimate(metrics: Mapping[str, Any], metric: str, where: str) -> Estimate:
    """One metric with its interval out of metrics.json."""
    try:
        found = Estimate(*(float(metrics[metric][key]) for key in ("value", "low", "high")))
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


def _decided(
    about: str, before: float, after: float, change: tuple[float, float, float], confidence: float,
    differences: tuple[MetricDifference, ...],
) -> RunComparison:  # fmt: skip
    """The verdict by a change of accuracy: its value and the two ends of its interval."""
    points, low, high = (100 * value for value in change)
    verdict: RetrainVerdict = "better" if low > 0 else "worse" if high < 0 else "unclear"
    interval = f"{low:+.1f} to {high:+.1f} points at {confidence:.0%} confidence"
    move = f"accuracy went from {before:.1%} to {after:.1%} ({points:+.1f}; {interval})"
    chance = ", which chance alone could explain" if verdict == "unclear" else ""
    return RunComparison(verdict, f"{verdict.capitalize()}: {about}{move}{chance}.", differences)
