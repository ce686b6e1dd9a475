"""Evaluate: figures that scikit-learn agrees with, and no average of unlike predictions."""

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from evaluate_inputs import (
    CLASSES,
    ONE,
    ROWS,
    TWO,
    row,
    run,
    small_stage,
    sure_of,
    table,
    write_features,
    write_index,
    write_predictions,
)
from sklearn import metrics as peer

from pipelines.core.errors import InputError
from pipelines.core.tables import DEDUPED, PREDICTIONS, read_classes, read_table, write_table
from pipelines.evaluate.intervals import (
    group_numbers,
)
from pipelines.evaluate.leaks import UNKNOWN
from pipelines.evaluate.metrics import (
    METRICS,
    calibration_bins,
    confusion_counts,
    f1,
    metric_sums,
    precision,
    recall,
    score,
)


def figures(actual: list[int], predicted: list[int], num_classes: int) -> dict[str, float]:
    scored = score(np.asarray(actual), sure_of(predicted, num_classes))
    return {name: float(figure(metric_sums(scored))) for name, figure in METRICS.items()}


def test_rows_of_the_confusion_counts_are_the_truth() -> None:
    counts = confusion_counts(np.array([0, 0, 0, 1]), np.array([0, 1, 1, 1]), 3)
    assert counts.tolist() == [[1, 2, 0], [0, 1, 0], [0, 0, 0]]


def test_all_right_is_one_and_all_wrong_is_zero() -> None:
    right = figures([0, 1, 2], [0, 1, 2], 3)
    assert (right["accuracy"], right["balanced_accuracy"], right["macro_f1"]) == (1.0, 1.0, 1.0)
    wrong = figures([0, 1, 2], [1, 2, 0], 3)
    assert (wrong["accuracy"], wrong["balanced_accuracy"], wrong["macro_f1"]) == (0.0, 0.0, 0.0)
    assert wrong["expected_calibration_error"] == pytest.approx(0.9)


def test_a_certain_mistake_costs_much_but_not_infinitely() -> None:
    scored = score(np.array([0]), np.array([[0.0, 1.0]]))
    assert scored.loss[0] == pytest.approx(-math.log(np.finfo(np.float64).eps))


def test_no_evidence_is_nan_and_not_zero() -> None:
    sums = metric_sums(score(np.array([0, 0, 1]), sure_of([0, 1, 1], 4)))
    assert recall(sums)[:2].tolist() == [0.5, 1.0]
    assert np.isnan(recall(sums)[2:]).all()
    assert np.isnan(precision(sums)[2:]).all()
    assert np.isnan(f1(sums)[2:]).all()
    assert figures([0, 0, 1], [0, 1, 1], 4)["balanced_accuracy"] == 0.75


def test_a_class_without_pictures_that_is_predicted_has_precision_zero_and_no_recall() -> None:
    sums = metric_sums(score(np.array([0, 0]), sure_of([0, 1], 2)))
    assert precision(sums)[1] == 0.0
    assert np.isnan(recall(sums)[1])
    assert f1(sums)[1] == 0.0


def test_one_class_is_always_right() -> None:
    assert figures([0, 0], [0, 0], 1)["accuracy"] == 1.0
    assert figures([0, 0], [0, 0], 1)["log_loss"] == 0.0


@pytest.mark.parametrize("num_classes", [2, 13, 100])
def test_scikit_learn_agrees(num_classes: int) -> None:
    rng = np.random.default_rng(num_classes)
    actual = rng.integers(num_classes, size=500)
    probabilities = rng.dirichlet(np.full(num_classes, 0.3), size=500)
    probabilities[np.arange(500), actual] += rng.random(500)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    scored, labels = score(actual, probabilities), list(range(num_classes))
    sums = metric_sums(scored)
    known = np.unique(actual)
    predicted = scored.predicted
    assert (
        confusion_counts(actual, predicted, num_classes).tolist()
        == peer.confusion_matrix(actual, predicted, labels=labels).tolist()
    )
    assert METRICS["accuracy"](sums) == pytest.approx(peer.accuracy_score(actual, predicted))
    assert METRICS["balanced_accuracy"](sums) == pytest.approx(
        peer.recall_score(actual, predicted, labels=known, average="macro")
    )
    assert METRICS["macro_f1"](sums) == pytest.approx(
        peer.f1_score(actual, predicted, labels=labels, average="macro", zero_division=np.nan)
    )
    assert METRICS["log_loss"](sums) == pytest.approx(peer.log_loss(actual, probabilities, labels=labels))
    for ours, theirs in ((precision, peer.precision_score), (recall, peer.recall_score), (f1, peer.f1_score)):
        expected = theirs(actual, predicted, labels=labels, average=None, zero_division=np.nan)
        np.testing.assert_allclose(ours(sums), expected)


def test_calibration_bins_hold_their_upper_end() -> None:
    assert calibration_bins(np.array([0.0, 1 / 15, 0.07, 0.5, 1.0])).tolist() == [0, 0, 1, 7, 14]


def test_the_calibration_error_is_the_gap_between_confidence_and_accuracy() -> None:
    # four pictures at 0.75, three of them right: no gap; two at 0.95, one right: 0.45 for a third of the pictures
    actual = np.array([0, 0, 0, 1, 0, 1])
    probabilities = np.array([[0.75, 0.25]] * 4 + [[0.95, 0.05]] * 2)
    error = METRICS["expected_calibration_error"](metric_sums(score(actual, probabilities)))
    assert error == pytest.approx(0.45 * 2 / 6)


def test_groups_are_numbered_by_name() -> None:
    assert group_numbers(np.array(["b", "a", "b"])).tolist() == [1, 0, 1]


# the stage ---------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return small_stage(tmp_path)


def test_members_are_averaged_and_measured_together_and_alone(root: Path) -> None:
    metrics = run(root)
    assert metrics["num_images"] == 3
    assert metrics["num_classes"] == 3
    # a right, b (0.4, 0.6) right, c wrong
    assert metrics["accuracy"]["value"] == 0.666667
    assert metrics["balanced_accuracy"]["value"] == 0.75
    assert metrics["members"]["one"]["accuracy"]["value"] == 0.333333
    assert metrics["members"]["two"]["accuracy"]["value"] == 0.666667
    assert metrics["per_class"]["ジャズマスター"] == {
        "num_images": 2,
        "precision": 1.0,
        "recall": 0.5,
        "recall_low": 0.094531,
        "recall_high": 0.905469,
        "f1": 0.666667,
        "average_precision": 0.833333,
        "num_train": 0,
    }
    assert table(root / "evaluate" / "predictions.csv") == [
        {"image_id": "a", "actual": "Jaguar", "predicted": "Jaguar", "confidence": "0.700000"},
        {"image_id": "b", "actual": "ジャズマスター", "predicted": "ジャズマスター", "confidence": "0.600000"},
        {"image_id": "c", "actual": "ジャズマスター", "predicted": "Jaguar", "confidence": "0.900000"},
    ]
    assert (root / "evaluate" / "confusion.csv").read_text().splitlines() == [
        "actual,Jaguar,ジャズマスター,Mustang",
        "Jaguar,1,0,0",
        "ジャズマスター,1,1,0",
        "Mustang,0,0,0",
    ]
    predictions = read_table(root / "evaluate" / "predictions.parquet", PREDICTIONS)
    assert predictions["subset"].to_pylist() == ["test"] * 3
    assert predictions["probabilities"].to_pylist()[0] == pytest.approx([0.7, 0.15, 0.15])
    assert read_classes(root / "evaluate" / "predictions.parquet") == CLASSES


def test_a_class_without_test_pictures_is_null_in_json(root: Path) -> None:
    assert run(root)["per_class"]["Mustang"] == {
        "num_images": 0,
        "precision": None,
        "recall": None,
        "recall_low": None,
        "recall_high": None,
        "f1": None,
        "average_precision": None,
        "num_train": 1,
    }


def test_a_suspect_has_both_probabilities_and_its_path(root: Path) -> None:
    metrics = run(root)
    assert table(root / "evaluate" / "suspects.csv") == [
        {
            "image_id": "c",
            "label": "ジャズマスター",
            "suggested": "Jaguar",
            "probability_label": "0.075000",
            "probability_suggested": "0.900000",
            "probability_wrong": "",
            "subset": "test",
            # by path, not by the order of the manifest
            "source_path": "z/c.jpg",
        }
    ]
    # no member leaves features, and five pictures are too few to flip labels of
    assert metrics["suspects"] == {
        "num": 1,
        "per_class": {"ジャズマスター": {"num": 1, "expected_precision": None}},
        "num_pictures": 5,
        "expected_precision": None,
        "method": "members",
    }


def test_folds_are_averaged_for_test_and_joined_for_validation(root: Path) -> None:
    write_predictions(root / "train" / "one-1", CLASSES, [*TWO[:3], row("t", 2, "val", 0.0, 0.95, 0.05)])
    metrics = run(root, members=("one",), folds=(0, 1))
    assert metrics["accuracy"]["value"] == 0.666667
    assert [r["image_id"] for r in table(root / "evaluate" / "suspects.csv")] == ["t", "c", "v"]


def test_a_folder_left_by_an_earlier_run_is_ignored(root: Path) -> None:
    before = run(root)
    write_predictions(root / "train" / "one-1", CLASSES, [row("a", 0, "test", 0.0, 0.0, 1.0)])
    (root / "train" / "gone-0").mkdir()
    assert run(root) == before


def test_two_runs_write_the_same_bytes_and_clear_what_was_there(root: Path) -> None:
    run(root)
    first = {path.name: path.read_bytes() for path in (root / "evaluate").iterdir()}
    (root / "evaluate" / "stale.csv").write_text("")
    run(root)
    assert {path.name: path.read_bytes() for path in (root / "evaluate").iterdir()} == first
    tables = (
        *("compared", "confusion", "coverage", "embedding", "learning_curve", "mistakes", "predictions"),
        *("reliability", "suspects"),
    )
    assert set(first) == {
        *("metrics.json", "figures.json", "predictions.parquet", "strangers.safetensors"),
        *(f"{name}.csv" for name in tables),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (TWO[1:], "the pack index and two do not cover the same test pictures: two lacks 1 of 3 and has 0 others"),
        ([*TWO, row("x", 0, "test", 1.0, 0.0, 0.0)], "two lacks 0 of 3 and has 1 others"),
        ([row("a", 1, "test", 1.0, 0.0, 0.0), *TWO[1:]], "two lacks 1 of 3 and has 1 others"),
        (TWO[:4], "one and two do not cover the same validation pictures: two lacks 1 of 2"),
        ([row("a", 0, "test", 0.5, 0.5), *TWO[1:]], "does not hold 3 probabilities a picture"),
        ([row("a", 0, "test", 0.5, 0.1, 0.1), *TWO[1:]], "probabilities that do not sum to 1"),
        ([row("a", 0, "test", math.nan, 0.1, 0.1), *TWO[1:]], "probabilities that do not sum to 1"),
    ],
)
def test_predictions_that_cannot_be_averaged_are_refused(
    root: Path, rows: list[tuple[str, int, str, list[float]]], message: str
) -> None:
    write_predictions(root / "train" / "two-0", CLASSES, rows)
    with pytest.raises(InputError) as caught:
        run(root)
    assert message in str(caught.value)
    assert "dvc repro" in str(caught.value)
    assert not (root / "evaluate").exists()


def test_other_classes_are_refused(root: Path) -> None:
    write_predictions(root / "train" / "two-0", ["Jaguar", "Mustang", "ジャズマスター"], TWO)
    with pytest.raises(InputError, match="was predicted for other classes than the pack's"):
        run(root)


def test_a_member_without_predictions_is_named(root: Path) -> None:
    with pytest.raises(InputError, match="three-0/predictions.parquet does not exist"):
        run(root, members=("one", "three"))


def test_a_picture_that_validates_twice_is_refused(root: Path) -> None:
    write_predictions(root / "train" / "one-1", CLASSES, ONE)
    with pytest.raises(InputError, match="one validated a picture in two folds"):
        run(root, members=("one",), folds=(0, 1))


def test_a_split_without_test_pictures_is_refused(root: Path) -> None:
    write_index(root / "index.parquet", CLASSES, ROWS[3:])
    with pytest.raises(InputError, match="no test picture, so nothing can be measured: raise split.test_fraction"):
        run(root)


def test_decisions_are_counted_and_what_they_did_to_the_test_set_is_told(root: Path) -> None:
    """c was a Jaguar, as the members say; b was of a class that is no more, and would count as wrong."""
    names = {
        "image_id": ["a", "b", "c", "v", "t"],
        "label": [CLASSES[k] for k in (0, 1, 1, 0, 2)],
        "original_label": [CLASSES[0], "Gone", CLASSES[0], CLASSES[0], CLASSES[2]],
        "source_path": list("abcvt"),
        "decision": ["", "relabel: was gone", "relabel: looked", "keep: right", "drop: blurred"],
    }
    filler = {f.name: pa.nulls(5, f.type) for f in DEDUPED if f.name not in names}
    write_table(
        pa.table({**{k: pa.array(v) for k, v in names.items()}, **filler}).select(DEDUPED.names),
        root / "manifest.parquet",
    )
    assert run(root)["decisions"] == {
        **{"relabelled_test": 2, "accuracy_with_original_labels": 0.666667},
        **{"kept": 0, "relabelled": 0, "dropped": 0, "different": 0},
    }
    (root / "decisions.csv").write_text(
        "decision,status\nrelabel,applied\nrelabel,applied\nkeep,applied\ndrop,left\ndifferent,applied\n"
    )
    counted = run(root)["decisions"]
    assert [counted[key] for key in ("kept", "relabelled", "dropped", "different")] == [1, 2, 0, 1]
    # c has been looked at
    assert table(root / "evaluate" / "suspects.csv") == []


def test_the_worst_class_stands_beside_the_mean(root: Path) -> None:
    assert run(root)["worst_class"] == {
        **{"label": "ジャズマスター", "recall": 0.5, "low": 0.094531, "high": 0.905469, "num_images": 2}
    }


def test_the_premium_stands_in_the_metrics(root: Path) -> None:
    """Null where no member is frozen, or too few pictures have features; never a division by nothing."""
    assert run(root)["leak_premium"]["value"] is None
    keys = [(image_id, k) for image_id, k, _ in ROWS]
    write_features(root / "train" / "two-0", keys, np.ones((len(keys), 4)), np.ones((len(keys), 4)))
    assert set(run(root)["leak_premium"]) == {*UNKNOWN}
