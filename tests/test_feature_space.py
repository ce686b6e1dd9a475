"""Neighbours and causes of mistakes, pictures of no known class, and the map."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from evaluate_inputs import run, small_stage, table, write_features
from safetensors.numpy import save
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score

from pipelines.core.errors import InputError
from pipelines.evaluate.embedding import choose_pictures, embed
from pipelines.evaluate.mistakes import Neighbour, cause_of, mistake_rows, nearest, poor_pictures
from pipelines.evaluate.strangers import (
    PENALTY,
    StrangerScorer,
    _Fitter,
    auroc,
    read_scorer,
    strangers,
    unit,
)


def near(*labels: str) -> list[Neighbour]:
    return [Neighbour("0", label, 0.9) for label in labels]


PLENTY = {"a": 100, "b": 100, "c": 100}


def cause(
    *,
    confidence: float = 0.6,
    neighbours: tuple[str, ...] = ("a", "b", "b"),
    suspect: bool = False,
    poor: bool = False,
    num_train: dict[str, int] = PLENTY,
) -> str:
    """Of a picture of a that was taken for b."""
    return cause_of(
        actual="a",
        predicted="b",
        confidence=confidence,
        neighbours=near(*neighbours),
        is_suspect=suspect,
        is_poor=poor,
        num_train=num_train,
    )


def test_the_label_is_the_cause_where_it_is_disputed_or_all_that_is_near_agrees() -> None:
    assert cause(suspect=True) == "label"
    assert cause(confidence=0.95, neighbours=("b", "b", "b")) == "label"
    assert cause(confidence=0.95, neighbours=("b", "b", "a")) != "label"
    assert cause(confidence=0.8, neighbours=("b", "b", "b")) != "label"


def test_the_picture_is_the_cause_where_it_is_poor_and_its_label_undisputed() -> None:
    assert cause(poor=True) == "picture"
    assert cause(poor=True, suspect=True) == "label"
    assert cause(poor=False) != "picture"


def test_too_few_is_the_cause_of_a_rare_class_or_a_picture_like_none_of_its_class() -> None:
    assert cause(num_train={"a": 40, "b": 100, "c": 100}) == "too_few"
    assert cause(num_train={"a": 60, "b": 100, "c": 100}) == "model"
    assert cause(neighbours=("b", "c", "b")) == "too_few"
    assert cause(neighbours=("b", "c", "b"), poor=True) == "picture"
    assert cause(neighbours=()) == "model"


def test_poor_pictures_are_the_worst_fiftieth_of_what_is_kept() -> None:
    count = 100
    columns = {
        "image_id": [f"{i:03d}" for i in range(count)],
        "verdict": ["keep"] * 99 + ["copy"],
        "width": [10] + [200] * 99,
        "height": [300] * count,
        "sharpness": [50.0] * 98 + [1.0, 0.1],
        "contrast": [20.0] * count,
    }
    assert poor_pictures(pa.table(columns)) == {"000", "098"}


def test_the_nearest_pictures_come_first_and_length_counts_for_nothing() -> None:
    train = unit(np.array([[1.0, 0.0], [5.0, 5.0], [0.0, 2.0], [-1.0, 0.0]]))
    keys = [("p", "a"), ("q", "b"), ("r", "c"), ("s", "d")]
    (found,) = nearest(unit(np.array([[3.0, 0.0]])), train, keys)
    assert found == [Neighbour("p", "a", 1.0), Neighbour("q", "b", 0.7071), Neighbour("r", "c", 0.0)]


def test_mistakes_are_listed_the_surest_first_with_three_answers() -> None:
    told = np.array([[0.2, 0.5, 0.3], [0.9, 0.1, 0.0], [0.05, 0.15, 0.8]])
    rows = mistake_rows(
        np.array(["x", "y", "z"], object),
        np.array([0, 0, 1]),
        told,
        classes=["a", "b", "c"],
        paths={("z", "b"): "b/z.jpg"},
        neighbours={"z": [Neighbour("n", "c", 0.5)]},
        suspects=frozenset(),
        poor=frozenset(),
        num_train=PLENTY,
    )
    assert rows == [
        ("z", "b/z.jpg", "b", "c", "0.800000", "0.150000", "b", "0.150000", "a", "0.050000", "n:0.5000", "too_few"),
        ("x", "", "a", "b", "0.500000", "0.200000", "c", "0.300000", "a", "0.200000", "", "model"),
    ]


def test_auroc_is_scikit_learns_ties_included() -> None:
    rng = np.random.default_rng(1)
    strange, known = rng.integers(0, 9, 40) + np.float64(2), rng.integers(0, 9, 70).astype(np.float64)
    expected = roc_auc_score([0] * 40 + [1] * 70, np.concatenate([strange, known]))
    assert auroc(strange, known) == pytest.approx(expected)


def drawn(count: int, num_classes: int, *, apart: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features and classes. `apart`: how far classes lie."""
    classes = np.arange(count) % num_classes
    features = np.random.default_rng(seed).normal(size=(count, 30)) + apart * np.eye(30)[classes]
    return features.astype(np.float16), classes


def told_apart(
    apart: float, *, leave_out: bool = True
) -> tuple[dict[str, Any], StrangerScorer, tuple[np.ndarray, np.ndarray]]:
    """Four classes in train and val; in test also one that nobody learnt."""
    train, val, test = (
        drawn(count, k, apart=apart, seed=seed) for seed, (count, k) in enumerate(((400, 4), (200, 4), (100, 5)))
    )
    found = strangers(train, val, test, member="probe-0", leave_out=leave_out, confidence=0.95)
    assert found is not None
    return *found, test


def test_a_class_that_nobody_learnt_is_strange_where_classes_lie_apart() -> None:
    found, scorer, (features, classes) = told_apart(25.0)
    assert found["auroc_left_out"]["value"] > 0.99
    scores = scorer.score(features)
    assert (scores[classes == 4] < found["threshold"]).all()
    assert (scores[classes != 4] < found["threshold"]).mean() < 0.15
    assert found["num_test_flagged"] == int((scores < found["threshold"]).sum())


def test_where_features_say_nothing_strangers_are_not_told() -> None:
    found, *_ = told_apart(0.0)
    assert found["auroc_left_out"]["value"] == pytest.approx(0.5, abs=0.1)
    assert found["auroc_left_out"]["low"] < 0.55


def test_a_network_that_learnt_all_classes_is_not_asked_about_one_left_out() -> None:
    assert told_apart(12.0, leave_out=False)[0]["auroc_left_out"] is None


def test_too_few_validation_pictures_set_no_threshold() -> None:
    one = (np.ones((5, 3), np.float16), np.zeros(5, np.int64))
    assert strangers(one, one, one, member="probe-0", leave_out=True, confidence=0.95) is None


@pytest.mark.parametrize("num_train", [20, 200])
def test_the_regression_is_scikit_learns_with_fewer_pictures_than_features_too(num_train: int) -> None:
    """And leaving out a class is fitting to the others."""
    (features, classes), (asked, _) = (drawn(count, 4, apart=3.0, seed=count) for count in (num_train, 50))
    for gone in (None, 2):
        scorer = _Fitter(features, classes).fit(member="probe-0", without=gone)
        kept = classes != gone
        rows, among = scorer.standardise(features)[kept], classes[kept]
        present = np.unique(among)
        ridge = Ridge(alpha=PENALTY, solver="svd").fit(rows.astype(np.float64), among[:, None] == present)
        centers = unit(np.stack([rows[among == k].mean(axis=0) for k in present]))
        new = scorer.standardise(asked)
        expected = ridge.predict(new).max(axis=1) + (new @ centers.T).max(axis=1)
        assert scorer.score(asked) == pytest.approx(expected, abs=2e-4)


def test_a_scorer_comes_back_from_its_file_and_other_files_are_refused(tmp_path: Path) -> None:
    found, scorer, (features, _) = told_apart(25.0)
    path = tmp_path / "strangers.safetensors"
    scorer.save(path)
    first = path.read_bytes()
    scorer.save(path)
    assert path.read_bytes() == first
    again = read_scorer(path)
    assert again is not None
    assert (again.threshold, again.member) == (found["threshold"], "probe-0")
    assert (again.score(features) == scorer.score(features)).all()
    path.write_bytes(first[:50])
    with pytest.raises(InputError, match=r"is no whole safetensors file .* `dvc checkout --force`"):
        read_scorer(path)
    with pytest.raises(InputError, match="does not exist: run `dvc repro evaluate`"):
        read_scorer(tmp_path / "absent")
    path.write_bytes(save({"a": np.ones(1)}))
    with pytest.raises(InputError, match="lacks the metadata key 'miwake'"):
        read_scorer(path)


def test_the_map_lays_what_is_alike_together() -> None:
    rng = np.random.default_rng(1)
    actual = np.repeat([0, 1, 2], 20)
    places = embed(rng.normal(size=(60, 40)) + 15 * np.eye(40)[actual])
    assert places is not None
    assert places.min() == 0.0
    assert places.max() == 1.0
    distances = np.linalg.norm(places[:, None] - places[None], axis=2) + np.eye(60) * 9
    assert (actual[distances.argmin(axis=1)] == actual).all()
    assert embed(np.eye(4)) is None
    assert embed(np.ones((60, 3))) is None
    assert embed(np.arange(60.0)[:, None]) is None


def test_the_map_is_the_same_with_any_number_of_threads() -> None:
    code = (
        "import numpy as np, hashlib; from pipelines.evaluate.embedding import embed;"
        "print(hashlib.sha256(embed(np.random.default_rng(1).normal(size=(120, 60))).tobytes()).hexdigest())"
    )
    found = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2")
    ]
    assert found[0] == found[1]


def test_all_mistakes_are_on_a_map_that_is_too_small_for_all_pictures() -> None:
    is_mistake = np.arange(50) >= 45
    rows = choose_pictures([str(i) for i in range(50)], is_mistake, most=12)
    assert len(rows) == 12
    assert set(range(45, 50)) <= set(rows.tolist())


def test_the_stage_writes_mistakes_with_neighbours_and_no_figures_of_too_little(tmp_path: Path) -> None:
    root = small_stage(tmp_path)
    keys = [("a", 0), ("b", 1), ("c", 1), ("v", 0), ("w", 1), ("t", 2)]
    write_features(root / "train" / "one-0", keys, np.eye(6), np.eye(6))
    write_features(root / "train" / "two-0", keys, np.eye(6), np.eye(6))
    figures = run(root)
    assert (figures["learning_curve"], figures["strangers"]) == (None, None)
    assert read_scorer(root / "evaluate" / "strangers.safetensors") is None
    rows = table(root / "evaluate" / "mistakes.csv")
    assert [row["image_id"] for row in rows] == ["c"]
    assert rows[0]["source_path"] == "z/c.jpg"
    # val pictures are not learnt from: one training picture is left
    assert rows[0]["neighbours"] == "t:0.0000"
    places = table(root / "evaluate" / "embedding.csv")
    assert {row["image_id"]: row["is_mistake"] for row in places}["c"] == "1"
    assert figures["embedding"]["num_images"] == 6
    assert table(root / "evaluate" / "learning_curve.csv") == []


def test_the_stage_needs_no_features(tmp_path: Path) -> None:
    figures = run(small_stage(tmp_path))
    assert (figures["learning_curve"], figures["strangers"], figures["embedding"]) == (None, None, None)
    assert read_scorer(tmp_path / "evaluate" / "strangers.safetensors") is None
    assert [row["neighbours"] for row in table(tmp_path / "evaluate" / "mistakes.csv")] == [""]
