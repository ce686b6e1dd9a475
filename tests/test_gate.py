"""Which models take the champion's place, and how often chance decides."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipelines.evaluate.metrics import Floats
from pipelines.params.retrain import GateParams
from pipelines.use.gate import GateDecision, Pair, Run, _accuracy, _judge, compare, decide, decision_table

PARAMS = GateParams()
CLASSES = ["cat", "dog"]


def answers(actual: list[int], right: list[bool]) -> Floats:
    """(N, 2) probabilities, .9 for the class that is named."""
    named = [a if is_right else 1 - a for a, is_right in zip(actual, right, strict=True)]
    return np.array([[0.9, 0.1] if one == 0 else [0.1, 0.9] for one in named])


def run(
    right: list[bool], *, first: int = 0, learnt: tuple[str, ...] = (), classes: list[str] = CLASSES, **more: Any
) -> Run:
    """A run that tested pictures p<first>, …, cats and dogs in turn, and learnt from `learnt`."""
    ids = [f"p{first + n:04}" for n in range(len(right))]
    actual = [(first + n) % 2 for n in range(len(right))]
    predictions = pa.table(
        {
            "image_id": ids,
            "subset": ["test"] * len(ids),
            "class_index": actual,
            "probabilities": answers(actual, right).tolist(),
        }
    ).replace_schema_metadata({"classes": json.dumps(classes)})
    known = [*ids, *learnt]
    index = pa.table({"image_id": known, "subset": ["test"] * len(ids) + ["train"] * len(learnt), "group": known})
    return Run(predictions, index, more.pop("figures", {}), **more)


def some(num: int, wrong: int, start: int = 0) -> list[bool]:
    return [not start <= n < start + wrong for n in range(num)]


def test_without_a_champion_the_first_model_is_promoted() -> None:
    found = decide(PARAMS, run(some(40, 10)), None, commit="abc")
    assert (found.outcome, found.reason) == ("promote", "there is no champion yet: this is the first")


def test_a_clearly_better_model_is_promoted_with_its_numbers() -> None:
    found = decide(PARAMS, run(some(200, 10)), run(some(200, 50)), version="v1.0.0")
    assert found.outcome == "promote"
    assert (
        "of 200 test pictures in both runs that neither learnt from, accuracy went from 75.0% to 95.0%" in found.reason
    )
    assert found.checks[0].name == "accuracy"
    assert found.checks[0].low is not None
    assert 0.1 < found.checks[0].low < 0.2


def test_a_clearly_worse_model_is_rejected() -> None:
    assert decide(PARAMS, run(some(200, 50)), run(some(200, 10))).outcome == "reject"


def test_a_model_within_the_margin_is_held_and_one_that_chance_explains_is_unclear() -> None:
    same = decide(PARAMS, run(some(400, 40)), run(some(400, 40)))
    assert (same.outcome, same.reason[:35]) == ("hold", "the same answers as the champion's,")
    near = decide(PARAMS, run(some(2000, 200)), run(some(2000, 200, start=1)))
    assert (near.outcome, near.reason[:36]) == ("hold", "as good as the champion, which stays")
    unclear = decide(PARAMS, run(some(60, 12)), run(some(60, 14, start=6)))
    assert unclear.outcome == "unclear"
    assert unclear.reason.endswith("which chance alone could explain")


def test_few_pictures_promote_nothing() -> None:
    found = decide(PARAMS, run(some(20, 0)), run(some(20, 18)))
    assert found.outcome == "unclear"
    assert "20 independent test pictures are fewer than retrain.gate.min_pictures (30)" in found.reason


def test_pictures_that_the_champion_learnt_from_do_not_count() -> None:
    """All that the new model gained are pictures that the champion trained on."""
    new = run(some(200, 0))
    learnt = tuple(f"p{n:04}" for n in range(100, 200))
    found = decide(PARAMS, new, run(some(100, 0), learnt=learnt))
    assert (found.checks[0].num_images, found.num_champion_test, found.num_candidate_test) == (100, 100, 200)


def test_another_set_of_classes_or_no_shared_picture_is_unclear() -> None:
    found = decide(PARAMS, run(some(40, 0)), run(some(40, 0), classes=["cat", "fox"]))
    assert (found.outcome, "dog is new, fox is gone" in found.reason) == ("unclear", True)
    assert decide(PARAMS, run(some(40, 0)), run(some(40, 0), first=100)).reason.startswith("no test picture is in both")


def test_a_broken_rule_of_the_data_rejects_whatever_the_accuracy() -> None:
    rules = [{"rule": "min_images", "success": False, "severity": "error"}]
    found = decide(PARAMS, run(some(200, 0), rules=rules), run(some(200, 100)))
    assert (found.outcome, found.broken_rules) == ("reject", ("min_images",))
    warned = [{"rule": "min_images", "success": False, "severity": "warn"}]
    assert decide(PARAMS, run(some(200, 0), rules=warned), run(some(200, 100))).outcome == "promote"


def test_a_check_stops_a_model_that_is_more_accurate() -> None:
    """Dogs, a tenth of the pictures, are all lost."""
    num = 400
    actual = np.array([1 if n % 10 == 0 else 0 for n in range(num)])
    before, after = actual == 1, actual == 0
    before[1:200] = True
    pair = Pair(
        actual, answers(actual.tolist(), before.tolist()), answers(actual.tolist(), after.tolist()), np.arange(num)
    )
    checks = compare(PARAMS, pair, None, {}, {})
    told = {check.name: check.verdict for check in checks}
    assert (told["accuracy"], told["worst class"]) == ("better", "worse")
    assert _judge(PARAMS, pair, checks)["outcome"] == "reject"
    assert _judge(PARAMS, pair, checks)["reason"].startswith("worst class lost more than the margin")


def test_slower_less_robust_and_worse_on_new_pictures_are_rejected() -> None:
    def figures(accuracy: float, macs: int) -> dict[str, Any]:
        return {
            "robustness": {"kinds": {"noise": [{"accuracy": accuracy}]}},
            "cost": {"probe": {"macs": macs, "num_views": 2}},
        }

    old = run(some(200, 50), figures=figures(0.9, 100))
    assert decide(PARAMS, run(some(200, 10), figures=figures(0.9, 199)), old).outcome == "promote"
    slow = decide(PARAMS, run(some(200, 10), figures=figures(0.9, 201)), old)
    assert slow.reason.startswith("multiply-adds a picture lost more than the margin")
    assert decide(PARAMS, run(some(200, 10), figures=figures(0.8, 100)), old).reason.startswith("robustness lost")
    new = run(some(200, 10) + some(200, 150))
    fresh = run(some(200, 0), first=200).predictions
    found = decide(PARAMS, new, old, new_answers=fresh)
    assert found.reason.startswith("accuracy, new pictures lost more")
    assert found.checks[3].num_images == 200


def test_copies_count_once() -> None:
    """Forty groups of five, all of one mind: two hundred pictures that say as much as forty."""
    actual = np.zeros(200, np.int64)
    groups = np.arange(200) // 5
    before, after = groups >= 8, groups >= 4
    ends = []
    for grouped in (groups, np.arange(200)):
        pair = Pair(
            actual, answers(actual.tolist(), before.tolist()), answers(actual.tolist(), after.tolist()), grouped
        )
        low = compare(PARAMS, pair, None, {}, {})[0].low
        assert low is not None
        ends.append(low)
    assert ends[0] < ends[1]


def test_the_decision_is_json_and_a_table() -> None:
    found = decide(PARAMS, run(some(200, 10)), run(some(200, 50)), version="v1.0.0", commit="abc")
    assert GateDecision.model_validate_json(found.model_dump_json()) == found
    header, rows = decision_table(found)
    assert {len(row) for row in rows} == {len(header)}
    assert rows[0][:3] == ("accuracy", "75.0%", "95.0%")


@pytest.mark.parametrize(
    ("gained", "lost", "promoted"),
    [
        (0.0, 0.0, (0.0, 0.0)),
        (0.03, 0.03, (0.0, 0.05)),  # no better
        (0.10, 0.10, (0.0, 0.05)),
        (0.02, 0.04, (0.0, 0.05)),
        (0.045, 0.015, (0.8, 1.0)),  # three points better
    ],
)
def test_chance_promotes_one_in_twenty_and_three_points_are_found(
    gained: float, lost: float, promoted: tuple[float, float]
) -> None:
    """1,000 draws of 500 pictures of five classes, of which the new model wins and loses these fractions.

    The bootstraps of the other checks are made of each tenth of the better ones: what they stop is scaled up.
    """
    rng = np.random.default_rng(7)
    num, classes = 500, 5
    better, passed = 0, []
    for _ in range(1000):
        actual = rng.integers(0, classes, num)
        moved = rng.random(num)
        before, after = rng.random(num) < 0.85, np.zeros(num, bool)
        before[moved < gained] = False
        before[(moved >= gained) & (moved < gained + lost)] = True
        after[:] = before
        after[moved < gained] = True
        after[(moved >= gained) & (moved < gained + lost)] = False
        sure = rng.uniform(0.75, 0.95, num)
        probabilities = []
        for right in (before, after):
            named = np.where(right, actual, (actual + 1) % classes)
            table = np.repeat(((1 - sure) / (classes - 1))[:, None], classes, 1)
            table[np.arange(num), named] = sure
            probabilities.append(table)
        pair = Pair(actual, probabilities[0], probabilities[1], np.arange(num))
        if _accuracy("accuracy", PARAMS, pair, 0.0).verdict == "better":
            better += 1
            if better % 10 == 1:
                passed.append(_judge(PARAMS, pair, compare(PARAMS, pair, None, {}, {}))["outcome"] == "promote")
    assert promoted[0] <= better / 1000 * np.mean(passed or [True]) <= promoted[1]
