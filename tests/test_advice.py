"""What to do first: each rule speaks where it should and is silent where it should, the largest gain first."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipelines.params import load_params
from pipelines.params.train import TrainParams
from pipelines.report.actions import Action
from pipelines.report.advice import what_to_do
from pipelines.report.confusion import confused_pairs
from pipelines.report.inputs import Inputs
from pipelines.report.split_card import SplitCard

TRAIN = load_params(Path(__file__).with_name("whole_params.yaml")).train
SOUND = SplitCard(notice="", shares=[], sentences=[], audit="", premium="", leak="", leaks=[], num_leaks=0)
MANIFEST = pa.table({"image_id": list("abc"), "group": list("aac"), "verdict": ["conflict", "conflict", "keep"]})
PROBE_ALONE = TRAIN.model_copy(update={"recipes": {"linear_probe": TRAIN.recipes["linear_probe"]}})
LARGE = TRAIN.model_copy(
    update={
        "members": ("linear_probe_large",),
        "recipes": {"linear_probe_large": TRAIN.recipes["linear_probe"]},
    }
)
TUNED = TRAIN.model_copy(update={"members": ("linear_probe", "finetune")})


def found(
    counts: list[list[int]], learnt: list[int] | None = None, metrics: dict[str, Any] | None = None, **changes: Any
) -> Inputs:
    """What the stages found, with a confusion matrix, and pictures to learn from of each class (100)."""
    classes = [f"class {k}" for k in range(len(counts))]
    matrix = np.array(counts)
    rows = [(k, "train") for k, number in enumerate(learnt or [100] * len(counts)) for _ in range(number)]
    recalls = [float(matrix[k, k] / matrix[k].sum()) if matrix[k].sum() else None for k in range(len(matrix))]
    known = [recall for recall in recalls if recall is not None]
    measured: dict[str, Any] = {
        "num_images": int(matrix.sum()),
        "accuracy": {"value": float(matrix.trace() / matrix.sum())},
        "balanced_accuracy": {"value": sum(known) / len(known)},
        "expected_calibration_error": {"value": 0.01},
        "per_class": {
            label: {"recall": recall, "num_images": int(matrix[k].sum())}
            for k, (label, recall) in enumerate(zip(classes, recalls, strict=True))
        },
    }
    return replace(
        Inputs(
            classes=classes,
            metrics={**measured, **(metrics or {})},
            counts=matrix,
            image_ids=[],
            actual=np.zeros(0, np.int64),
            probabilities=np.zeros((0, len(counts)), np.float32),
            manifest=MANIFEST,
            index=pa.table({"class_index": [k for k, _ in rows], "subset": [subset for _, subset in rows]}),
            suspects=[],
            duplicates=[],
            rejects=[],
            decisions=[],
            truth=None,
            expectations={"rules": []},
            histories={},
        ),
        **changes,
    )  # fmt: skip


def advice(inputs: Inputs, train: TrainParams = TUNED, division: SplitCard = SOUND) -> list[Action]:
    return what_to_do(inputs, confused_pairs(inputs.counts), train, division)


PERFECT = [[100, 0, 0], [0, 100, 0], [0, 0, 100]]
GOOD = [[90, 5, 5], [5, 90, 5], [5, 5, 90]]
BROKEN = {"rule": "max_aspect", "fault": "2 pictures are long and narrow", "limit": 4.0, "observed": 8.2943}
RULE = {**BROKEN, "success": False, "num_offenders": 2}
HISTORY = {"epoch": [1.0], "train_accuracy": [0.99], "val_accuracy": [0.6], "val_loss": [1.0]}
CONFLICT = {"image_a": "a", "image_b": "b", "verdict": "conflict"}
SUSPECT = {"image_id": "a", "label": "class 0", "suggested": "class 1"}
REJECT = {"source_path": "x.txt", "reason": "not-an-image"}
LEAK = replace(SOUND, leak="2 groups lie across.", num_leaks=2)
TOO_FEW = [[9, 0, 0], [0, 100, 0], [0, 0, 100]]
CALIBRATION = {"calibration": {"error": 0.2, "calibrated_low": 0.02, "calibrated_high": 0.05}}


COST = {"value": -0.04, "low": -0.07, "high": -0.01}
CHANGE = {"change": {"verdict": "worse", "num_shared": 200, "difference": COST}}
ADVICE = {"class": "class 1", "more_images": 60, "expected_gain": 0.02, "low": 0.01, "high": 0.03}
MORE = {"learning_curve": {"advice": ADVICE}}
SLICE = {"kind": "colour", "name": "greyscale", "num_images": 30, "accuracy": {"value": 0.6}, "rest": 0.95}
ABANDONED = [[90, 10, 0], [20, 80, 0], [4, 5, 0]]
AT = {"accuracy": {"value": 0.97, "low": 0.94, "high": 0.99}, "coverage": {"value": 0.8}}
MISSED = {"verdict": {"status": "missed", "metric": "accuracy", "goal": 0.95}}
SURE = {"coverage": {"threshold": 0.83, "at_threshold": AT}}
UNCLEAR = {"status": "unclear", "low": 0.88, "high": 0.97, "goal": 0.95, "more_images_needed": 240}
FRAGILE = {
    "robustness": {
        "baseline": {"value": 0.9},
        "kinds": {
            "blur": [{"strength": 3, "accuracy": 0.7, "high": 0.75}],
            "jpeg": [{"strength": 3, "accuracy": 0.85, "high": 0.89}, {"strength": 5, "accuracy": 0.2, "high": 0.3}],
        },
    }
}


def test_nothing_is_advised_where_nothing_is_wrong() -> None:
    assert advice(found(PERFECT)) == []


@pytest.mark.parametrize(
    ("what", "speaks", "silent"),
    [
        ("Train finetune as well", (found(GOOD), TRAIN, SOUND), (found(GOOD), TUNED, SOUND)),
        ("Train finetune as well", (found(GOOD), TRAIN, SOUND), (found(PERFECT), TRAIN, SOUND)),
        ("Train finetune as well", (found(GOOD), PROBE_ALONE, SOUND), (found(PERFECT), PROBE_ALONE, SOUND)),
        ("Mend the given split: 2 groups lie", (found(PERFECT), TUNED, LEAK), (found(PERFECT), TUNED, SOUND)),
        (
            "Look at 1 rule",
            (found(PERFECT, expectations={"rules": [RULE]}), TUNED, SOUND),
            (found(PERFECT, expectations={"rules": [{**RULE, "success": True}]}), TUNED, SOUND),
        ),
        (
            "Settle 1 picture",
            (found(PERFECT, duplicates=[CONFLICT, {**CONFLICT, "image_b": "a"}]), TUNED, SOUND),
            (found(PERFECT, duplicates=[{**CONFLICT, "verdict": "copy"}]), TUNED, SOUND),
        ),
        ("Look at 1 suspect", (found(PERFECT, suspects=[SUSPECT]), TUNED, SOUND), (found(PERFECT), TUNED, SOUND)),
        (
            "Replace or remove 1 file that",
            (found(PERFECT, rejects=[REJECT]), TUNED, SOUND),
            (found(PERFECT), TUNED, SOUND),
        ),
        (
            "Collect pictures that tell class 0 and class 1 apart",
            (found([[90, 5, 0], [0, 100, 0], [0, 0, 100]]), TUNED, SOUND),
            (found([[90, 5], [0, 100]]), TUNED, SOUND),
        ),
        ("Do not trust the recall of 1 class", (found(TOO_FEW), TUNED, SOUND), (found(PERFECT), TUNED, SOUND)),
        (
            "Give finetune more to learn from",
            (found(PERFECT, histories={("finetune", 0): HISTORY}), TUNED, SOUND),
            (found(PERFECT, histories={("linear_probe", 0): HISTORY}), TUNED, SOUND),
        ),
        (
            "Train linear_probe_large as well: a head on three networks",
            (found(GOOD), TRAIN, SOUND),
            (found(GOOD), LARGE, SOUND),
        ),
        (
            "Look at what the last change broke",
            (found(PERFECT, metrics=CHANGE), TUNED, SOUND),
            (found(PERFECT, metrics={"change": {**CHANGE["change"], "verdict": "unclear"}}), TUNED, SOUND),
        ),
        (
            "Collect 60 more pictures of class 1",
            (found(PERFECT, metrics=MORE), TUNED, SOUND),
            (found(PERFECT, metrics={"learning_curve": {"advice": None}}), TUNED, SOUND),
        ),
        (
            "Collect pictures like those of colour greyscale",
            (found(PERFECT, metrics={"slices": {"worse": [SLICE]}}), TUNED, SOUND),
            (found(PERFECT, metrics={"slices": {"worse": []}}), TUNED, SOUND),
        ),
        (
            "Win back class 2: the model never says it",
            (found(ABANDONED), TUNED, SOUND),
            (found([[90, 10, 0], [20, 80, 0], [4, 4, 1]]), TUNED, SOUND),
        ),
        (
            "Let it answer only when it is at least 83\u202f% sure",
            (found(PERFECT, metrics=MISSED | SURE), TUNED, SOUND),
            (found(PERFECT, metrics=SURE | {"verdict": {**MISSED["verdict"], "goal": 0.98}}), TUNED, SOUND),
        ),
        (
            "Test on 240 more pictures before you decide",
            (found(PERFECT, metrics={"verdict": UNCLEAR}), TUNED, SOUND),
            (found(PERFECT, metrics={"verdict": {**UNCLEAR, "status": "met"}}), TUNED, SOUND),
        ),
        (
            "Say how good is good enough",
            (found(PERFECT, metrics={"verdict": {"status": "no_goal"}}), TUNED, SOUND),
            (found(PERFECT, metrics={"verdict": {**UNCLEAR, "status": "met"}}), TUNED, SOUND),
        ),
        (
            "Train finetune with blur, if pictures in use have it",
            (found(PERFECT, metrics=FRAGILE), TUNED, SOUND),
            (found(PERFECT, metrics=FRAGILE), TRAIN, SOUND),
        ),
        (
            "Do not read the probabilities as chances",
            (found(PERFECT, metrics=CALIBRATION), TUNED, SOUND),
            (
                found(PERFECT, metrics={"calibration": {**CALIBRATION["calibration"], "calibrated_high": 0.3}}),
                TUNED,
                SOUND,
            ),
        ),
    ],
)
def test_a_rule_speaks_and_is_silent(
    what: str, speaks: tuple[Inputs, TrainParams, SplitCard], silent: tuple[Inputs, TrainParams, SplitCard]
) -> None:
    assert [action for action in advice(*speaks) if action.what.startswith(what)]
    assert not [action for action in advice(*silent) if action.what.startswith(what)]


def test_a_frozen_recipe_is_never_told_of_augmentation() -> None:
    """It has none, and validation has chosen its regularisation; the recipe that is not run comes first."""
    told = advice(found(GOOD, histories={("linear_probe", 0): HISTORY}), TRAIN)
    assert told[0].what == "Train finetune as well: all of the network, not its head alone"
    assert "88.1 to 94.3\u202f%, for six minutes on two cores" in told[0].why
    assert told[0].where == "params.yaml, train.members: [linear_probe, finetune]"
    assert not [action for action in told if "augmentation" in action.why or "regularisation" in action.why]


def test_a_class_that_the_curve_counts_is_not_asked_for_twice() -> None:
    starved = found([[1, 4, 0], [0, 20, 0], [0, 2, 18]], [14, 40, 60])
    curve = {"learning_curve": {"advice": {**ADVICE, "class": "class 0"}}}
    counted = replace(starved, metrics={**starved.metrics, **curve})
    told = [action.what for action in advice(counted) if action.what.endswith("of class 0")]
    assert told == ["Collect 60 more pictures of class 0"]


def test_what_an_abandoned_class_needs_depends_on_whether_a_network_learns() -> None:
    told = [advice(found(ABANDONED), train) for train in (TUNED, TRAIN)]
    assert [next(a for a in some if a.what.startswith("Win back")).where for some in told] == [
        "params.yaml, train.recipes.finetune.class_balance: loss_weights",
        "the source of these classes",
    ]


def test_starved_classes_are_named_with_what_they_have() -> None:
    """14 are more than a third of the median, and still too few: by recall, support and pictures to learn from."""
    counts = [[1, 4, 0], [0, 20, 0], [0, 2, 18]]
    told = [action for action in advice(found(counts, [14, 40, 60])) if action.target == "classes"]
    assert told[0].what == "Collect pictures of class 0"
    assert told[0].why.startswith("class 0: found 1 of 5, 14 to learn from. The median class has 40")
    assert not [a for a in advice(found(counts, [400, 40, 60])) if a.what.startswith("Collect pictures of ")]
    rare = [action for action in advice(found(PERFECT, [10, 40, 60])) if action.target == "classes"]
    assert rare[0].why.startswith("class 0: found 100 of 100, 10 to learn from.")


def test_of_many_starved_classes_those_that_lose_the_most_are_named() -> None:
    counts = np.diag([20] * 20)
    for k in range(7):
        counts[k, k], counts[k, 19] = 2 + k, 18 - k
    told = [action for action in advice(found(counts.tolist(), [10] * 7 + [50] * 13)) if action.target == "classes"]
    assert told[0].what == "Collect pictures of 7 classes"
    assert told[0].why.startswith("class 0: found 2 of 20, 10 to learn from; class 1: found 3 of 20")
    assert "; and 2 more. The median" in told[0].why


def test_what_makes_every_figure_wrong_comes_first_then_the_largest_gain() -> None:
    leak = replace(LEAK, notice="2 pairs of copies lie across the given split.")
    inputs = found([[60, 40, 0], [0, 100, 0], [0, 0, 9]], rejects=[REJECT], suspects=[SUSPECT])
    told = advice(inputs, TRAIN, leak)
    assert [action.what.split(" ")[0] for action in told[:3]] == ["Mend", "Train", "Collect"]
    gains = [action.gain for action in told]
    assert gains == sorted(gains, reverse=True)
    assert told[-1].what.startswith("Do not trust")


def test_a_fault_is_told_with_its_figure_and_limit() -> None:
    share = {**RULE, "rule": "max_reject_fraction", "fault": "9 files were refused", "limit": 0.1, "observed": 0.529412}
    told = advice(found(PERFECT, expectations={"rules": [RULE, share]}))
    assert told[0].why == (
        "2 pictures are long and narrow (found 8.294, limit 4); "
        "9 files were refused (found 52.9\u202f%, limit 10.0\u202f%)."
    )


def test_one_decision_never_changes_what_is_advised_about_another() -> None:
    """Settling a conflict or a suspect leaves every other advice as it was."""
    whole = found(GOOD, suspects=[SUSPECT], duplicates=[CONFLICT], rejects=[REJECT], expectations={"rules": [RULE]})
    told = {action.what: action for action in advice(whole, TRAIN)}
    decided = {"Look at 1 suspect": replace(whole, suspects=[]), "Settle 1 picture": replace(whole, duplicates=[])}
    for gone, inputs in decided.items():
        left = {action.what: action for action in advice(inputs, TRAIN)}
        assert left == {what: action for what, action in told.items() if not what.startswith(gone)}
