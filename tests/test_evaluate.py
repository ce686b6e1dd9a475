"""Evaluate: figures that scikit-learn agrees with, intervals that cover, and no average of unlike predictions."""

import csv
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import binom
from sklearn import metrics as peer

from pipelines.core.errors import InputError
from pipelines.core.params.evaluate import EvaluateParams
from pipelines.core.tables import DEDUPED, FEATURES, PACK_INDEX, PREDICTIONS, read_classes, read_table, write_table
from pipelines.evaluate import evaluate, leaks
from pipelines.evaluate.calibration import calibrated_errors, fit_temperature, temper
from pipelines.evaluate.intervals import (
    effective_numbers,
    figure_intervals,
    group_numbers,
    paired_interval,
    wilson_interval,
)
from pipelines.evaluate.leaks import UNKNOWN, Probe, divisions, leak_premium
from pipelines.evaluate.members import Predictions
from pipelines.evaluate.members import read_index as read_packed
from pipelines.evaluate.metrics import (
    FIGURES,
    Floats,
    Ints,
    calibration_bins,
    confusion_counts,
    f1,
    precision,
    recall,
    score,
    tally,
)
from pipelines.evaluate.suspects import Suspects, disputed, find_suspects

PARAMS = EvaluateParams(seed=7, ensemble="mean", confidence=0.95, leak_repeats=3)


def sure_of(predicted: list[int], num_classes: int, confidence: float = 0.9) -> Floats:
    """(N, K): `confidence` for each picture's predicted class, the rest shared evenly."""
    probabilities = np.full((len(predicted), num_classes), (1 - confidence) / max(num_classes - 1, 1))
    probabilities[np.arange(len(predicted)), predicted] = confidence if num_classes > 1 else 1.0
    return probabilities


def figures(actual: list[int], predicted: list[int], num_classes: int) -> dict[str, float]:
    scored = score(np.asarray(actual), sure_of(predicted, num_classes))
    return {name: float(figure(tally(scored))) for name, figure in FIGURES.items()}


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
    tallies = tally(score(np.array([0, 0, 1]), sure_of([0, 1, 1], 4)))
    assert recall(tallies)[:2].tolist() == [0.5, 1.0]
    assert np.isnan(recall(tallies)[2:]).all()
    assert np.isnan(precision(tallies)[2:]).all()
    assert np.isnan(f1(tallies)[2:]).all()
    assert figures([0, 0, 1], [0, 1, 1], 4)["balanced_accuracy"] == 0.75


def test_a_class_without_pictures_that_is_predicted_has_precision_zero_and_no_recall() -> None:
    tallies = tally(score(np.array([0, 0]), sure_of([0, 1], 2)))
    assert precision(tallies)[1] == 0.0
    assert np.isnan(recall(tallies)[1])
    assert f1(tallies)[1] == 0.0


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
    tallies = tally(scored)
    known = np.unique(actual)
    predicted = scored.predicted
    assert (
        confusion_counts(actual, predicted, num_classes).tolist()
        == peer.confusion_matrix(actual, predicted, labels=labels).tolist()
    )
    assert FIGURES["accuracy"](tallies) == pytest.approx(peer.accuracy_score(actual, predicted))
    assert FIGURES["balanced_accuracy"](tallies) == pytest.approx(
        peer.recall_score(actual, predicted, labels=known, average="macro")
    )
    assert FIGURES["macro_f1"](tallies) == pytest.approx(
        peer.f1_score(actual, predicted, labels=labels, average="macro", zero_division=np.nan)
    )
    assert FIGURES["log_loss"](tallies) == pytest.approx(peer.log_loss(actual, probabilities, labels=labels))
    for ours, theirs in ((precision, peer.precision_score), (recall, peer.recall_score), (f1, peer.f1_score)):
        expected = theirs(actual, predicted, labels=labels, average=None, zero_division=np.nan)
        np.testing.assert_allclose(ours(tallies), expected)


def test_calibration_bins_hold_their_upper_end() -> None:
    assert calibration_bins(np.array([0.0, 1 / 15, 0.07, 0.5, 1.0])).tolist() == [0, 0, 1, 7, 14]


def test_the_calibration_error_is_the_gap_between_confidence_and_accuracy() -> None:
    # four pictures at 0.75, three of them right: no gap; two at 0.95, one right: 0.45 for a third of the pictures
    actual = np.array([0, 0, 0, 1, 0, 1])
    probabilities = np.array([[0.75, 0.25]] * 4 + [[0.95, 0.05]] * 2)
    error = FIGURES["expected_calibration_error"](tally(score(actual, probabilities)))
    assert error == pytest.approx(0.45 * 2 / 6)


def test_wilson_gives_the_textbook_interval_and_stays_within_0_and_1() -> None:
    low, high = wilson_interval(np.array([8.0, 0.0, 10.0, 0.0]), np.array([10.0, 10.0, 10.0, 0.0]), 0.95)
    # Newcombe 1998, table I, gives .4902 to .9433 for 8 of 10
    assert (low[0], high[0]) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    assert low[1] == 0.0
    assert high[1] == pytest.approx(0.2775, abs=1e-4)
    assert high[2] == 1.0
    assert np.isnan(low[3])
    assert np.isnan(high[3])


def intervals(actual: Ints, predicted: Ints, groups: Ints, num_classes: int = 2) -> dict[str, tuple[float, float]]:
    return figure_intervals(score(actual, sure_of(predicted.tolist(), num_classes)), groups, 0.95)


def test_all_of_18_right_is_not_certain() -> None:
    found = intervals(np.arange(18) % 2, np.arange(18) % 2, np.arange(18))
    for name in ("accuracy", "balanced_accuracy", "macro_f1"):
        assert found[name] == pytest.approx((0.8241, 1.0), abs=5e-4)  # Wilson: 18 of 18 is 82.4 to 100


@pytest.mark.parametrize("num_images", [20, 40, 150, 2000])
@pytest.mark.parametrize("truth", [0.5, 0.9, 0.98])
def test_an_accuracy_lies_in_its_interval_about_as_often_as_it_says(num_images: int, truth: float) -> None:
    """Every number of right pictures, weighed by its chance: exact, and the same for any seed."""
    groups, actual = np.arange(num_images), np.zeros(num_images, np.int64)
    covered = 0.0
    for wrong in range(num_images + 1):
        chance = float(binom.pmf(wrong, num_images, 1 - truth))
        if chance > 1e-9:
            low, high = intervals(actual, np.minimum(np.arange(num_images) // max(num_images - wrong, 1), 1), groups)[
                "accuracy"
            ]
            covered += chance * (low <= truth <= high)
    # between the steps of a discrete count no interval is exact
    assert 0.93 <= covered <= 0.97


@pytest.mark.parametrize(
    ("num_images", "num_classes", "truth"), [(20, 2, 0.9), (40, 4, 0.5), (40, 4, 0.98), (150, 10, 0.9)]
)
def test_the_other_figures_lie_in_their_intervals_about_as_often(
    num_images: int, num_classes: int, truth: float
) -> None:
    """400 samples: a standard error of 1.1 points, so 91.5 to 98.5 is the narrowest that luck does not leave."""
    rng = np.random.default_rng(num_images)
    actual = np.arange(num_images) % num_classes
    covered = dict.fromkeys(("balanced_accuracy", "macro_f1", "log_loss"), 0)
    # calibrated: confidence is the chance to be right; the true log loss is the mean entropy
    sure, unsure = min(truth + 0.015, 1.0), truth - 0.015
    entropy = {c: -c * math.log(c) - (1 - c) * math.log((1 - c) / (num_classes - 1)) for c in (sure, unsure)}
    values = {"balanced_accuracy": truth, "macro_f1": truth, "log_loss": sum(entropy.values()) / 2}
    for _ in range(400):
        confidence = rng.choice([sure, unsure], num_images)
        step = rng.integers(1, num_classes, num_images) * (rng.random(num_images) >= confidence)
        predicted = (actual + step) % num_classes
        probabilities = np.tile(((1 - confidence) / (num_classes - 1))[:, None], num_classes)
        probabilities[np.arange(num_images), predicted] = confidence
        found = figure_intervals(
            replace(score(actual, probabilities), predicted=predicted), np.arange(num_images), 0.95
        )
        for name, value in values.items():
            covered[name] += found[name][0] <= value <= found[name][1]
    assert all(0.915 <= number / 400 <= 0.995 for number in covered.values()), covered


def test_copies_of_pictures_do_not_make_the_interval_narrower() -> None:
    predicted = (np.random.default_rng(0).random(100) >= 0.7).astype(np.int64)
    alone = intervals(np.zeros(100, np.int64), predicted, np.arange(100))
    fourfold = np.repeat(predicted, 4)
    grouped = intervals(np.zeros(400, np.int64), fourfold, np.repeat(np.arange(100), 4))
    naive = intervals(np.zeros(400, np.int64), fourfold, np.arange(400))
    for name in ("accuracy", "log_loss"):
        assert grouped[name] == pytest.approx(alone[name], abs=2e-3)
        assert naive[name][1] - naive[name][0] < 0.6 * (grouped[name][1] - grouped[name][0])


def test_pictures_of_a_group_that_are_told_apart_count_more_than_copies() -> None:
    """Groups of a patient or a product are no copies: where half of each is right, they hardly cluster."""
    groups, actual = np.repeat(np.arange(50), 4), np.zeros(200, np.int64)
    copies = effective_numbers(score(actual, sure_of(np.repeat(np.arange(50) % 2, 4).tolist(), 2)), groups)
    mixed = effective_numbers(score(actual, sure_of((np.arange(200) % 2).tolist(), 2)), groups)
    assert copies.tolist() == [50.0, 0.0]
    assert 80 < mixed[0] <= 200


def test_a_class_of_copies_has_a_wide_recall() -> None:
    """Ten pictures in one group say as much as one."""
    scored = score(np.zeros(10, np.int64), sure_of([0] * 10, 2))
    assert effective_numbers(scored, np.zeros(10, np.int64))[0] == pytest.approx(1.0)


def test_two_models_that_agree_on_few_pictures_need_not_be_equal() -> None:
    """Agresti and Min: 30 for one alone and 20 for the other of 100 are -.04 to .23; of 20 equal ones ±.11."""
    gain = np.repeat([1.0, -1.0, 0.0], [30, 20, 50])
    low, high = paired_interval(gain, np.arange(100), 0.95, of_fractions=True)
    assert (low, high) == pytest.approx((-0.0404, 0.2365), abs=2e-3)
    low, high = paired_interval(np.zeros(20), np.arange(20), 0.95, of_fractions=True)
    assert high == -low == pytest.approx(0.095, abs=5e-3)
    assert paired_interval(np.zeros(20), np.arange(20), 0.95, of_fractions=False) == (0.0, 0.0)


# calibration -------------------------------------------------------------------------------------


def calibrated_set(num_images: int, sharpness: float) -> tuple[Ints, Floats]:
    """Labels drawn from probabilities, and these probabilities made too sure (above 1) or too cautious (below)."""
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 2, (num_images, 5))
    true = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    actual = (true.cumsum(1) > rng.random((num_images, 1))).argmax(1)
    return actual, temper(true, 1 / sharpness)


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 2.0])
def test_the_temperature_undoes_what_made_probabilities_too_sure_or_too_cautious(sharpness: float) -> None:
    actual, probabilities = calibrated_set(3000, sharpness)
    temperature = fit_temperature(probabilities, actual)
    assert temperature == pytest.approx(sharpness, rel=0.06)
    after = temper(probabilities, temperature)
    assert (after.argmax(1) == probabilities.argmax(1)).all()
    losses = [float(score(actual, p).loss.mean()) for p in (probabilities, after)]
    assert losses[1] <= losses[0]
    if sharpness != 1.0:
        scored = score(actual, after)
        error = float(FIGURES["expected_calibration_error"](tally(scored)))
        range_ = calibrated_errors(scored, np.arange(3000), confidence=0.95, seed=0)
        assert error <= range_.high < float(FIGURES["expected_calibration_error"](tally(score(actual, probabilities))))


def test_few_pictures_move_the_temperature_little_or_not_at_all() -> None:
    surely = sure_of([0] * 400, 2, 0.6)
    actual = np.zeros(400, np.int64)
    assert fit_temperature(surely[:19], actual[:19]) == 1.0
    assert 0.2 < fit_temperature(surely[:20], actual[:20]) < 0.9
    assert fit_temperature(surely, actual) < fit_temperature(surely[:20], actual[:20])
    assert fit_temperature(np.ones((50, 1)), np.zeros(50, np.int64)) == 1.0
    assert fit_temperature(np.eye(2)[[1] * 50], np.zeros(50, np.int64)) == pytest.approx(10.0, rel=1e-3)


def test_a_calibrated_model_shows_an_error_and_copies_make_it_larger() -> None:
    """Confidence .8 on N pictures: one bin, whose error is the distance of a fraction from .8, .32 / sqrt(N) in mean
    (.8 times the standard deviation)."""
    scored = score(np.zeros(100, np.int64), sure_of([0] * 100, 2, 0.8))
    found = calibrated_errors(scored, np.arange(100), confidence=0.95, seed=0)
    assert found.mean == pytest.approx(0.032, abs=0.003)
    assert found.low < found.mean < found.high == pytest.approx(1.96 * 0.04, abs=0.02)
    copies = calibrated_errors(scored, np.repeat(np.arange(25), 4), confidence=0.95, seed=0)
    assert copies.mean == pytest.approx(0.064, abs=0.006)


def test_groups_are_numbered_by_name() -> None:
    assert group_numbers(np.array(["b", "a", "b"])).tolist() == [1, 0, 1]


# the stage ---------------------------------------------------------------------------------------


def write_index(path: Path, classes: list[str], rows: list[tuple[str, int, str]]) -> None:
    """A pack index of (image_id, class_index, subset)."""
    columns: dict[str, list[Any]] = {
        "image_id": [r[0] for r in rows],
        "label": [classes[r[1]] for r in rows],
        "class_index": [r[1] for r in rows],
        "group": [r[0] for r in rows],
        "subset": [r[2] for r in rows],
        "fold": [0 if r[2] == "val" else -1 for r in rows],
        "position": list(range(len(rows))),
        "factors": [""] * len(rows),
        "copy": [0] * len(rows),
    }
    write_table(pa.table(columns, schema=PACK_INDEX), path, classes=classes)


def write_predictions(
    folder: Path, classes: list[str], rows: list[tuple[str, int, str, list[float]]], target: str | None = None
) -> None:
    """Predictions of (image_id, class_index, subset, probabilities)."""
    columns: dict[str, list[Any]] = {
        "image_id": [r[0] for r in rows],
        "subset": [r[2] for r in rows],
        "class_index": [r[1] for r in rows],
        "probabilities": [r[3] for r in rows],
    }
    write_table(pa.table(columns, schema=PREDICTIONS), folder / "predictions.parquet", classes=classes, target=target)


CLASSES = ["Jaguar", "ジャズマスター", "Mustang"]
ROWS = [("a", 0, "test"), ("b", 1, "test"), ("c", 1, "test"), ("v", 0, "val"), ("w", 1, "val"), ("t", 2, "train")]


def row(image_id: str, actual: int, subset: str, *probabilities: float) -> tuple[str, int, str, list[float]]:
    return image_id, actual, subset, list(probabilities)


ONE = [
    row("a", 0, "test", 0.8, 0.1, 0.1),
    row("b", 1, "test", 0.6, 0.4, 0.0),
    row("c", 1, "test", 0.95, 0.05, 0.0),
    row("v", 0, "val", 0.1, 0.1, 0.8),
    row("w", 1, "val", 0.2, 0.7, 0.1),
]
TWO = [
    row("a", 0, "test", 0.6, 0.2, 0.2),
    row("b", 1, "test", 0.2, 0.8, 0.0),
    row("c", 1, "test", 0.85, 0.1, 0.05),
    row("v", 0, "val", 0.3, 0.1, 0.6),
    row("w", 1, "val", 0.1, 0.9, 0.0),
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_index(tmp_path / "index.parquet", CLASSES, ROWS)
    write_predictions(tmp_path / "train" / "one-0", CLASSES, ONE)
    write_predictions(tmp_path / "train" / "two-0", CLASSES, TWO)
    names = {"image_id": ["c", "c"], "label": [CLASSES[1]] * 2, "source_path": ["z/c.jpg", "ジャ/c.jpg"]}
    filler = {f.name: pa.nulls(2, f.type) for f in DEDUPED if f.name not in names}
    write_table(
        pa.table({**{k: pa.array(v) for k, v in names.items()}, **filler}).select(DEDUPED.names),
        tmp_path / "manifest.parquet",
    )
    return tmp_path


def run(
    root: Path,
    *,
    members: tuple[str, ...] = ("one", "two"),
    folds: tuple[int, ...] = (0,),
    ensemble: str = "mean",
) -> dict[str, Any]:
    evaluate(
        PARAMS.model_copy(update={"ensemble": ensemble}),
        folders={(member, fold): root / "train" / f"{member}-{fold}" for member in members for fold in folds},
        index=root / "index.parquet",
        manifest=root / "manifest.parquet",
        out_dir=root / "evaluate",
    )
    metrics: dict[str, Any] = json.loads((root / "evaluate" / "metrics.json").read_text())
    return metrics


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


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
            "subset": "test",
            # by path, not by the order of the manifest
            "source_path": "z/c.jpg",
        }
    ]
    # no member leaves features, and five pictures are too few to flip labels of
    assert metrics["suspects"] == {"num": 1, "num_pictures": 5, "expected_precision": None, "method": "members"}


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
    assert set(first) == {"metrics.json", "predictions.parquet", "predictions.csv", "confusion.csv", "suspects.csv"}


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


# suspects ----------------------------------------------------------------------------------------


def mislabelled(
    root: Path, *, wrong: int, copies: int = 0, distance: float = 2.0, num_images: int = 240
) -> tuple[list[str], Suspects]:
    """The first `wrong` of pictures of three classes stand under another label; of these, the first have a copy under
    it too. Returns their ids and what is found of all.

    Args:
        distance: of the classes' centres, in standard deviations of a feature.
    """
    root.mkdir(parents=True)
    rng = np.random.default_rng(1)
    true = np.arange(num_images) % 3
    features = rng.normal(size=(num_images, 12)) + distance * np.eye(12)[true]
    given = true.copy()
    given[:wrong] = (true[:wrong] + 1) % 3
    rows = [*range(num_images), *range(copies)]
    ids = [f"{i:064x}" for i in range(len(rows))]
    keys = [(image_id, int(given[i])) for image_id, i in zip(ids, rows, strict=True)]
    write_features(root, keys, features[rows], features[rows])
    subsets = ["test" if i % 5 == 0 else "val" if i % 5 == 1 else "train" for i in rows]
    write_index(root / "index.parquet", ["a", "b", "c"], [(*k, s) for k, s in zip(keys, subsets, strict=True)])
    packed = read_packed(root / "index.parquet")
    packed.groups.update({keys[num_images + i]: keys[i][0] for i in range(copies)})
    none = Predictions(np.array([], object), np.array([], np.int64), np.zeros((0, 3)))
    found = find_suspects([none], packed, features=root / "features.parquet", settled={}, seed=1)
    return [ids[i] for i in (*range(wrong), *range(num_images, num_images + copies))], found


def test_wrong_labels_of_every_subset_are_found_first(tmp_path: Path) -> None:
    planted, found = mislabelled(tmp_path / "x", wrong=10, distance=7.0)
    assert found.method == "probe"
    assert found.num_pictures == 240
    assert {s.image_id for s in found.found[:10]} == set(planted)
    assert {s.subset for s in found.found[:10]} == {"train", "val", "test"}
    assert found.found[0].probability_label == pytest.approx(0.0, abs=0.02)
    assert found.found[0].probability_suggested == pytest.approx(1.0, abs=0.02)
    by_id = {s.image_id: s for s in found.found}
    assert (by_id[planted[0]].label, by_id[planted[0]].suggested) == ("b", "a")


def test_two_copies_under_one_wrong_label_do_not_vouch_for_each_other(tmp_path: Path) -> None:
    planted, found = mislabelled(tmp_path / "x", wrong=6, copies=6, distance=7.0)
    assert {s.image_id for s in found.found[:12]} == set(planted)


def test_the_expected_precision_tells_wrong_labels_from_hard_pictures(tmp_path: Path) -> None:
    _, wrong = mislabelled(tmp_path / "wrong", wrong=24, distance=4.0, num_images=600)
    _, hard = mislabelled(tmp_path / "hard", wrong=0, distance=1.5, num_images=600)
    assert wrong.expected_precision is not None
    assert hard.expected_precision is not None
    assert wrong.expected_precision > 0.7
    assert len(hard.found) > 20
    assert hard.expected_precision < 0.4


def test_a_label_that_a_person_looked_at_is_no_suspect(tmp_path: Path) -> None:
    planted, _ = mislabelled(tmp_path / "x", wrong=10, distance=7.0)
    packed, features = read_packed(tmp_path / "x" / "index.parquet"), tmp_path / "x" / "features.parquet"
    settled = dict.fromkeys(planted[:2], "keep: looked at")
    found = find_suspects([], packed, features=features, settled=settled, seed=1)
    assert {s.image_id for s in found.found[:8]} == set(planted[2:])


def test_labels_that_nothing_disputes_give_no_suspects(tmp_path: Path) -> None:
    _, found = mislabelled(tmp_path / "x", wrong=0, distance=8.0)
    assert (found.found, found.expected_precision) == ([], None)
    assert disputed(np.zeros(4, np.int64), np.full((4, 2), 0.5)) == []


def test_predictions_judge_what_has_no_features(tmp_path: Path) -> None:
    planted, found = mislabelled(tmp_path / "x", wrong=10, distance=7.0)
    packed = read_packed(tmp_path / "x" / "index.parquet")
    keys = sorted(packed.groups)
    honest = {s.image_id: "abc".index(s.suggested) for s in found.found if s.image_id in planted}
    told = sure_of([honest.get(image_id, k) for image_id, k in keys], 3)
    predicted = Predictions(np.array([k[0] for k in keys], object), np.array([k[1] for k in keys], np.int64), told)
    by_members = find_suspects([predicted], packed, features=None, settled={}, seed=1)
    assert by_members.method == "members"
    assert {s.image_id for s in by_members.found} == set(planted)


def test_confident_learning_does_not_start_torch() -> None:
    look = "import sys, cleanlab.filter; print('torch' in sys.modules, 'matplotlib' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "False"]


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


# the leak premium --------------------------------------------------------------------------------


def write_features(folder: Path, keys: list[tuple[str, int]], plain: Floats, edited: Floats) -> None:
    order = sorted(range(len(keys)), key=keys.__getitem__)
    columns = {
        "image_id": pa.array([keys[i][0] for i in order], pa.string()),
        "class_index": pa.array([keys[i][1] for i in order], pa.int32()),
        "plain": pa.array([plain[i].astype("<f2").tobytes() for i in order], pa.binary()),
        "edited": pa.array([edited[i].astype("<f2").tobytes() for i in order], pa.binary()),
    }
    write_table(pa.table(columns, schema=FEATURES), folder / "features.parquet")


def planted(
    folder: Path, *, copies: int, edited_copies: int = 0, num_images: int = 120, num_features: int = 300
) -> dict[str, Any]:
    """The premium of pictures whose features say nothing of their class, the first ones with copies.

    Args:
        copies: files of equal bytes.
        edited_copies: files of other bytes, of the pictures after these.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    plain, edited = rng.normal(size=(2, num_images, num_features))
    keys = [(f"{i:064x}", i % 3) for i in range(num_images)]
    write_features(folder, keys, plain, edited)
    write_index(folder / "index.parquet", ["a", "b", "c"], [(*key, "test") for key in keys])
    files = [(image_id, "abc"[k], "keep", image_id) for image_id, k in keys]
    files += [(image_id, "abc"[k], "copy", image_id) for image_id, k in keys[:copies]]
    files += [(f"copy of {one}", "abc"[k], "copy", one) for one, k in keys[copies : copies + edited_copies]]
    files += [("held", "a", "conflict", keys[0][0]), ("gone", "a", "drop", keys[0][0])]
    names = ("image_id", "label", "verdict", "best_id")
    columns = {name: pa.array([file[i] for file in files], pa.string()) for i, name in enumerate(names)}
    table = {
        name: columns.get(name, pa.nulls(len(files), kind)) for name, kind in zip(*schema_of(DEDUPED), strict=True)
    }
    write_table(pa.table(table, schema=DEDUPED), folder / "manifest.parquet")
    return leak_premium(
        PARAMS,
        features=folder / "features.parquet",
        packed=read_packed(folder / "index.parquet"),
        manifest=folder / "manifest.parquet",
    )


def schema_of(schema: pa.Schema) -> tuple[list[str], list[pa.DataType]]:
    return schema.names, schema.types


def test_without_copies_there_is_no_premium(tmp_path: Path) -> None:
    found = planted(tmp_path / "none", copies=0)
    assert (found["value"], found["low"], found["high"]) == (0.0, 0.0, 0.0)
    assert found["by_file"] == found["by_group"]
    assert (found["num_files"], found["num_in_groups"]) == (120, 0)


def test_copies_on_both_sides_raise_the_score_by_what_is_learnt_by_heart(tmp_path: Path) -> None:
    """Nothing can be learnt of noise: whole groups score a third. Of 240 files, each has its copy among the other
    four folds in 4 of 5 divisions, and is then told right: 1/3 + 4/5 x 2/3 is 0.87."""
    found = planted(tmp_path / "all", copies=120)
    assert found["by_group"] == pytest.approx(1 / 3, abs=0.1)
    assert found["by_file"] == pytest.approx(0.87, abs=0.08)
    assert found["value"] == pytest.approx(found["by_file"] - found["by_group"])
    assert found["low"] < found["value"] < found["high"]
    assert (found["num_files"], found["num_in_groups"]) == (240, 240)


def test_few_copies_raise_it_a_little(tmp_path: Path) -> None:
    found = planted(tmp_path / "few", copies=12)
    assert 0 < found["value"] < 0.15
    assert found["low"] <= found["value"] <= found["high"]
    assert found["num_in_groups"] == 24


def test_a_copy_of_other_bytes_has_the_features_of_an_edit(tmp_path: Path) -> None:
    """Here edits have nothing in common with their pictures: there is nothing to recognise, and no premium."""
    found = planted(tmp_path / "edited", copies=0, edited_copies=120)
    assert found["num_in_groups"] == 240
    assert abs(found["value"]) < 0.1


def test_the_premium_is_the_same_each_time_and_another_with_another_seed(tmp_path: Path) -> None:
    assert planted(tmp_path / "a", copies=30) == planted(tmp_path / "b", copies=30)


def test_both_ways_of_solving_agree_with_scikit_learn() -> None:
    from sklearn.linear_model import Ridge

    rng = np.random.default_rng(0)
    fold = rng.integers(5, size=90)
    actual = rng.integers(4, size=90)
    for num_features in (20, 200):  # fewer than files, and more
        features = rng.normal(size=(90, num_features)) + actual[:, None] * 0.3
        probe = Probe(features, actual, 4)
        rows = (features - features.mean(axis=0)) / features.std(axis=0)
        right = np.zeros(90)
        for k in range(5):
            trains = fold != k
            targets = np.eye(4)[actual]
            peer = Ridge(alpha=float(num_features), fit_intercept=False)
            peer.fit(rows[trains], (targets - targets.mean(axis=0))[trains])
            scores = peer.predict(rows[~trains]) + targets.mean(axis=0)
            right[~trains] = scores.argmax(axis=1) == actual[~trains]
        assert probe.right(fold).tolist() == right.tolist()


def test_divisions_differ_in_further_files_of_groups_alone() -> None:
    group = np.repeat(np.arange(40), np.arange(40) % 4 + 1)
    by_file, by_group = divisions(group, np.random.default_rng(0))
    first = np.unique(group, return_index=True)[1]
    assert (by_file[first] == by_group[first]).all()
    assert all(len(set(by_group[group == g].tolist())) == 1 for g in range(40))
    assert (by_file != by_group).any()
    assert np.bincount(by_group[first]).tolist() == [8] * 5


def test_of_many_files_whole_groups_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert planted(tmp_path / "all", copies=60)["sampled"] is False
    monkeypatch.setattr(leaks, "MAX_FILES", 101)
    found = planted(tmp_path / "some", copies=60)
    assert found["sampled"] is True
    assert found["num_files"] in (100, 101)
    # a group is whole or left out
    assert found["num_in_groups"] % 2 == 0
    assert 0 < found["num_in_groups"] < 100


def test_the_premium_is_unknown_where_nothing_leaves_features_or_nobody_asks(tmp_path: Path) -> None:
    planted(tmp_path / "x", copies=5)
    packed, manifest = read_packed(tmp_path / "x" / "index.parquet"), tmp_path / "x" / "manifest.parquet"
    assert set(leak_premium(PARAMS, features=None, packed=packed, manifest=manifest).values()) == {None}
    off = PARAMS.model_copy(update={"leak_repeats": 0})
    path = tmp_path / "x" / "features.parquet"
    assert leak_premium(off, features=path, packed=packed, manifest=manifest)["value"] is None
    few = planted(tmp_path / "few", copies=3, num_images=9)
    assert few["value"] is None


def test_features_of_other_pictures_are_refused(tmp_path: Path) -> None:
    planted(tmp_path / "x", copies=5)
    write_index(tmp_path / "index.parquet", ["a", "b"], [("f" * 64, 0, "test")])
    packed = read_packed(tmp_path / "index.parquet")
    with pytest.raises(InputError, match="the pack index lacks 120 of the pictures"):
        find_suspects([], packed, features=tmp_path / "x" / "features.parquet", settled={}, seed=1)
    with pytest.raises(InputError, match="features of 120 pictures that the pack index does not name: run `dvc repro"):
        leak_premium(
            PARAMS,
            features=tmp_path / "x" / "features.parquet",
            packed=read_packed(tmp_path / "index.parquet"),
            manifest=tmp_path / "x" / "manifest.parquet",
        )


def test_the_premium_stands_in_the_metrics(root: Path) -> None:
    """Null where no member is frozen, or too few pictures have features; never a division by nothing."""
    assert run(root)["leak_premium"]["value"] is None
    keys = [(image_id, k) for image_id, k, _ in ROWS]
    write_features(root / "train" / "two-0", keys, np.ones((len(keys), 4)), np.ones((len(keys), 4)))
    assert set(run(root)["leak_premium"]) == {*UNKNOWN}


def test_the_premium_is_the_same_whatever_the_member_tells_apart(tmp_path: Path) -> None:
    """A member of a factor numbers its pictures by the factor's values; the premium is of labels."""
    found = planted(tmp_path / "x", copies=30)
    table = read_table(tmp_path / "x" / "features.parquet", FEATURES)
    column = table.schema.get_field_index("class_index")
    of_factor = table.set_column(column, "class_index", pa.array([i % 2 for i in range(120)], pa.int32()))
    write_table(of_factor, tmp_path / "x" / "features.parquet")
    assert found == leak_premium(
        PARAMS,
        features=tmp_path / "x" / "features.parquet",
        packed=read_packed(tmp_path / "x" / "index.parquet"),
        manifest=tmp_path / "x" / "manifest.parquet",
    )


def test_the_premium_of_a_stage_is_rounded(tmp_path: Path) -> None:
    found = planted(tmp_path / "x", copies=30)
    folder = tmp_path / "x" / "train" / "one-0"
    rows = [(f"{i:064x}", i % 3, "test", [0.5, 0.25, 0.25]) for i in range(120)]
    write_predictions(folder, ["a", "b", "c"], rows)
    (tmp_path / "x" / "features.parquet").rename(folder / "features.parquet")
    metrics = run(tmp_path / "x", members=("one",))
    assert metrics["leak_premium"]["value"] == round(found["value"], 6) > 0
    assert metrics["leak_premium"]["num_files"] == 150
