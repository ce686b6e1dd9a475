"""Evaluate: figures that scikit-learn agrees with, intervals that cover, and no average of unlike predictions."""

import csv
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn import metrics as peer

from pipelines.core.errors import InputError
from pipelines.core.params.evaluate import EvaluateParams
from pipelines.core.tables import DEDUPED, FEATURES, PACK_INDEX, PREDICTIONS, read_classes, read_table, write_table
from pipelines.evaluate import evaluate, leaks
from pipelines.evaluate.intervals import bootstrap_figures, group_numbers, percentile_interval, wilson_interval
from pipelines.evaluate.leaks import UNKNOWN, Probe, divisions, leak_premium
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

PARAMS = EvaluateParams(
    seed=7, ensemble="mean", bootstrap_resamples=200, confidence=0.95, suspect_confidence=0.6, leak_repeats=3
)


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


def interval(actual: Ints, predicted: Ints, groups: Ints, resamples: int = 400) -> tuple[float, float]:
    scored = score(actual, sure_of(predicted.tolist(), 2))
    drawn = bootstrap_figures(scored, groups, resamples=resamples, seed=1)
    return percentile_interval(drawn["accuracy"], 0.95)


def test_the_bootstrap_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(100):
        predicted = (rng.random(150) >= 0.8).astype(np.int64)
        low, high = interval(np.zeros(150, np.int64), predicted, np.arange(150), resamples=200)
        covered += low <= 0.8 <= high
    assert 88 <= covered <= 99


def test_copies_of_pictures_do_not_make_the_interval_narrower() -> None:
    predicted = (np.random.default_rng(0).random(100) >= 0.7).astype(np.int64)
    alone = interval(np.zeros(100, np.int64), predicted, np.arange(100))
    fourfold = np.repeat(predicted, 4)
    grouped = interval(np.zeros(400, np.int64), fourfold, np.repeat(np.arange(100), 4))
    naive = interval(np.zeros(400, np.int64), fourfold, np.arange(400))
    assert grouped == alone
    assert naive[1] - naive[0] < 0.6 * (grouped[1] - grouped[0])


def test_the_bootstrap_of_10000_pictures_and_100_classes_takes_less_than_two_seconds() -> None:
    rng = np.random.default_rng(0)
    scored = score(rng.integers(100, size=10_000), rng.dirichlet(np.ones(100), size=10_000))
    started = time.process_time()
    bootstrap_figures(scored, np.arange(10_000), resamples=2000, seed=1)
    assert time.process_time() - started < 2.0


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


def test_suspects_come_from_test_and_out_of_fold_pictures_the_worst_first(root: Path) -> None:
    run(root)
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
        },
        {
            "image_id": "v",
            "label": "Jaguar",
            "suggested": "Mustang",
            "probability_label": "0.200000",
            "probability_suggested": "0.700000",
            "subset": "val",
            "source_path": "",
        },
    ]


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
