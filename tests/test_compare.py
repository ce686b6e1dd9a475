"""Better, worse or unclear."""

import copy
import math
from typing import Any

import pytest

from flows.compare import Figure, compare, difference, parse_metrics
from pipelines.core.errors import InputError


def metrics(accuracy: float, half_width: float = 0.03, **more: Any) -> dict[str, Any]:
    """A metrics.json in which every deciding figure has the same interval."""
    figure = {"value": accuracy, "low": accuracy - half_width, "high": accuracy + half_width}
    return {
        "confidence": 0.95,
        "accuracy": dict(figure),
        "balanced_accuracy": dict(figure),
        "macro_f1": dict(figure),
        "per_class": {"a": {}, "b": {}},
        **more,
    }


def test_the_interval_of_a_difference_is_the_square_and_add_one() -> None:
    """With distances 3 and 4 on the sides that matter, the half-widths are 5."""
    found = difference("accuracy", Figure(0.50, 0.42, 0.54), Figure(0.60, 0.57, 0.66))
    assert found.low == pytest.approx(0.10 - math.hypot(0.03, 0.04)) == pytest.approx(0.05)
    assert found.high == pytest.approx(0.10 + math.hypot(0.06, 0.08)) == pytest.approx(0.20)


def test_newcombes_published_example_is_met() -> None:
    """Newcombe 1998, table II (a), method 10: 56/70 against 48/80 gives 0.0524 to 0.3339."""
    found = difference("accuracy", wilson(48, 80), wilson(56, 70))
    assert [found.low, found.high] == pytest.approx([0.0524, 0.3339], abs=5e-5)


def wilson(hits: int, n: int) -> Figure:
    z, p = 1.959964, hits / n
    centre, spread = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Figure(p, (centre - spread) / (1 + z * z / n), (centre + spread) / (1 + z * z / n))


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [(0.80, 0.90, "better"), (0.90, 0.80, "worse"), (0.80, 0.84, "unclear"), (0.84, 0.80, "unclear")],
)
def test_only_a_difference_beyond_its_interval_is_a_verdict(old: float, new: float, verdict: str) -> None:
    """The half-width of the difference is 0.03 x sqrt(2) = 0.042."""
    assert compare(metrics(old), metrics(new)).verdict == verdict


def test_the_sentence_says_both_figures_and_the_interval() -> None:
    sentence = compare(metrics(0.80), metrics(0.90)).sentence
    assert sentence == ("Better: accuracy went from 80.0% to 90.0% (+10.0; +5.8 to +14.2 points at 95% confidence).")
    assert "which chance alone could explain" in compare(metrics(0.80), metrics(0.81)).sentence


def test_accuracy_decides_and_the_other_metrics_are_shown() -> None:
    new = metrics(0.80) | {"macro_f1": {"value": 0.95, "low": 0.93, "high": 0.97}}
    found = compare(metrics(0.80), new)
    assert [(row.metric, row.verdict) for row in found.differences] == [
        ("accuracy", "unclear"),
        ("balanced_accuracy", "unclear"),
        ("macro_f1", "better"),
    ]
    assert found.verdict == "unclear"


def test_the_first_run_has_nothing_to_compare() -> None:
    found = compare(None, metrics(0.80))
    assert (found.verdict, found.differences) == ("first", ())
    assert found.sentence == "First run: accuracy 80.0% (77.0% to 83.0%); nothing to compare."


def test_equal_metrics_are_said_to_be_equal() -> None:
    assert compare(metrics(0.80), metrics(0.80)).sentence == "Unclear: the new metrics equal the committed ones."


def test_other_classes_are_never_better() -> None:
    new = metrics(0.99, per_class={"a": {}, "c": {}})
    found = compare(metrics(0.50), new)
    assert found.verdict == "unclear"
    assert "the classes changed ('c' is new, 'b' is gone)" in found.sentence


def test_another_confidence_is_never_better() -> None:
    found = compare(metrics(0.50), metrics(0.99, confidence=0.5))
    assert found.verdict == "unclear"
    assert "evaluate.confidence changed from 0.95 to 0.5" in found.sentence


def test_swapping_old_and_new_swaps_the_verdict() -> None:
    there = difference("accuracy", Figure(0.5, 0.4, 0.7), Figure(0.8, 0.75, 0.82))
    back = difference("accuracy", there.new, there.old)
    assert [back.low, back.high] == pytest.approx([-there.high, -there.low])


def test_missing_and_impossible_figures_are_refused() -> None:
    broken = copy.deepcopy(metrics(0.80))
    del broken["macro_f1"]["low"]
    with pytest.raises(InputError, match="the new metrics have no macro_f1 with value, low and high"):
        compare(None, broken)
    outside = metrics(0.80) | {"accuracy": {"value": 0.9, "low": 0.1, "high": 0.2}}
    with pytest.raises(InputError, match="committed metrics: accuracy 0.9 lies outside its interval 0.1 to 0.2"):
        compare(outside, metrics(0.80))


@pytest.mark.parametrize(("text", "what"), [("{", "is not JSON"), ("[1]", "holds no object")])
def test_a_broken_file_is_named(text: str, what: str) -> None:
    with pytest.raises(InputError, match=f"metrics.json {what}.*run `dvc repro evaluate`"):
        parse_metrics(text, "metrics.json")
