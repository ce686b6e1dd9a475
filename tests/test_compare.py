"""Better, worse or unclear."""

import copy
import math
from typing import Any

import pyarrow as pa
import pytest

from flows.compare import Estimate, SharedTestSet, compare, difference, parse_metrics, shared_test_set
from pipelines.core.errors import InputError
from pipelines.core.tables import PACK_INDEX, PREDICTIONS


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
    found = difference("accuracy", Estimate(0.50, 0.42, 0.54), Estimate(0.60, 0.57, 0.66))
    assert found.low == pytest.approx(0.10 - math.hypot(0.03, 0.04)) == pytest.approx(0.05)
    assert found.high == pytest.approx(0.10 + math.hypot(0.06, 0.08)) == pytest.approx(0.20)


def test_newcombes_published_example_is_met() -> None:
    """Newcombe 1998, table II (a), method 10: 56/70 against 48/80 gives 0.0524 to 0.3339."""
    found = difference("accuracy", wilson(48, 80), wilson(56, 70))
    assert [found.low, found.high] == pytest.approx([0.0524, 0.3339], abs=5e-5)


def wilson(hits: int, n: int) -> Estimate:
    z, p = 1.959964, hits / n
    centre, spread = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Estimate(p, (centre - spread) / (1 + z * z / n), (centre + spread) / (1 + z * z / n))


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [(0.80, 0.90, "better"), (0.90, 0.80, "worse"), (0.80, 0.84, "unclear"), (0.84, 0.80, "unclear")],
)
def test_only_a_difference_beyond_its_interval_is_a_verdict(old: float, new: float, verdict: str) -> None:
    """The half-width of the difference is 0.03 x sqrt(2) = 0.042."""
    assert compare(metrics(old), metrics(new)).verdict == verdict


def test_the_sentence_says_both_figures_the_interval_and_what_could_not_be_had() -> None:
    sentence = compare(metrics(0.80), metrics(0.90)).sentence
    assert sentence == (
        "Better: the committed predictions are not in DVC's cache, so each run is taken on its own test pictures: "
        "accuracy went from 80.0% to 90.0% (+10.0; +5.8 to +14.2 points at 95% confidence)."
    )
    assert "which chance alone could explain" in compare(metrics(0.80), metrics(0.81)).sentence


def tables(test: dict[str, str], train: str = "", groups: dict[str, str] | None = None) -> tuple[pa.Table, pa.Table]:
    """Predictions and index of a run over the classes x and y: for each test picture the true and the told label."""
    rows = [
        {"image_id": picture, "subset": "test", "class_index": "xy".index(labels[0]),
         "probabilities": [0.6, 0.4] if labels[1] == "x" else [0.4, 0.6]}
        for picture, labels in test.items()
    ]  # fmt: skip
    predictions = pa.Table.from_pylist(rows, schema=PREDICTIONS.with_metadata({"classes": '["x", "y"]'}))
    index = [
        dict.fromkeys(PACK_INDEX.names) | {"image_id": p, "subset": subset, "group": (groups or {}).get(p, p)}
        for subset, pictures in (("test", test), ("train", train))
        for p in pictures
    ]
    return predictions, pa.Table.from_pylist(index, schema=PACK_INDEX)


def test_only_pictures_that_both_runs_test_and_neither_learnt_from_count() -> None:
    old = tables({"a": "xx", "b": "xy", "c": "yy", "d": "yx", "e": "xx"}, train="f")
    # the old run learnt from f; g is new; of d it is now known that f shows the same; b's label has been corrected
    new = tables({"a": "xy", "b": "yy", "c": "yy", "d": "yy", "f": "xx", "g": "xx"}, groups={"d": "f", "c": "a"})
    found = shared_test_set(*old, *new)
    assert found == SharedTestSet(
        num_old=5, num_new=6, num=3, num_independent=2, old_right=3, new_right=2, only_old=1, only_new=0
    )
    sentence = compare(metrics(0.80), metrics(0.90), found).sentence
    assert sentence.startswith(
        "Unclear: of 5 test pictures before and 6 now, 3 are in both runs and neither learnt from them: accuracy went "
        "from 100.0% to 66.7% (-33.3; "
    )
    assert shared_test_set(None, old[1], *new) is None


def test_the_interval_of_paired_pictures_is_bonett_and_prices() -> None:
    """Of 100 pictures 10 gained, 2 lost: (11 - 3) / 102 -+ 1.96 sqrt((14 / 102 - (8 / 102)²) / 102)."""
    gains = SharedTestSet(120, 110, 100, 100, old_right=80, new_right=88, only_old=2, only_new=10)
    assert gains.difference(0.95) == pytest.approx((0.008164, 0.148699), abs=1e-6)
    assert compare(metrics(0.90), metrics(0.80), gains).verdict == "better"
    doubled = SharedTestSet(240, 220, 200, 100, old_right=160, new_right=176, only_old=4, only_new=20)
    assert doubled.difference(0.95) == gains.difference(0.95)  # each twice tells no more


def test_without_a_common_picture_there_is_nothing_to_compare() -> None:
    found = compare(metrics(0.80), metrics(0.90), SharedTestSet(5, 6, 0, 0, 0, 0, 0, 0))
    assert found.verdict == "unclear"
    assert "of 5 test pictures before and 6 now, 0 are in both runs" in found.sentence


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


def test_nothing_new_is_a_verdict() -> None:
    found = compare(metrics(0.80), metrics(0.80))
    assert (found.verdict, found.sentence) == ("nothing new", "Nothing new: the metrics equal the committed ones.")


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
    there = difference("accuracy", Estimate(0.5, 0.4, 0.7), Estimate(0.8, 0.75, 0.82))
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
