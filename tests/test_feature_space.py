"""Neighbours and causes of mistakes, pictures of no known class, and the map."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from evaluate_inputs import run, small_stage, table, write_features
from sklearn.metrics import roc_auc_score

from pipelines.evaluate.embedding import choose_pictures, embed
from pipelines.evaluate.mistakes import Neighbour, cause_of, mistake_rows, nearest, poor_pictures
from pipelines.evaluate.strangers import auroc, strangers, unit


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
    strange, known = rng.integers(0, 9, 40) + 2.0, rng.integers(0, 9, 70).astype(float)
    expected = roc_auc_score([1] * 40 + [0] * 70, np.concatenate([strange, known]))
    assert auroc(strange, known) == pytest.approx(expected)


def told_apart(apart: float, *, leave_out: bool = True) -> tuple[dict, np.ndarray, np.ndarray]:
    """Four classes in train and val; in test also one that nobody learnt. `apart`: how far classes lie."""
    rng = np.random.default_rng(3)

    def draw(count: int, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
        classes = np.arange(count) % num_classes
        return unit(rng.normal(size=(count, 30)) + apart * np.eye(30)[classes]), classes

    test = draw(100, 5)
    found, scores = strangers(*draw(400, 4), *draw(200, 4), *test, leave_out=leave_out, confidence=0.95)
    assert found is not None
    return found, scores, test[1] == 4


def test_a_class_that_nobody_learnt_is_strange_where_classes_lie_apart() -> None:
    found, scores, is_strange = told_apart(25.0)
    assert found["auroc_left_out"]["value"] > 0.99
    assert (scores[is_strange] > found["threshold"]).all()
    assert (scores[~is_strange] > found["threshold"]).mean() < 0.15
    assert found["num_test_flagged"] == int((scores > found["threshold"]).sum())


def test_where_features_say_nothing_strangers_are_not_told() -> None:
    found, _, _ = told_apart(0.0)
    assert found["auroc_left_out"]["value"] == pytest.approx(0.5, abs=0.1)
    assert found["auroc_left_out"]["low"] < 0.55


def test_a_network_that_learnt_all_classes_is_not_asked_about_one_left_out() -> None:
    assert told_apart(12.0, leave_out=False)[0]["auroc_left_out"] is None


def test_too_few_validation_pictures_set_no_threshold() -> None:
    one = unit(np.ones((5, 3)))
    labels = np.zeros(5, np.int64)
    found, scores = strangers(one, labels, one, labels, one, labels, leave_out=True, confidence=0.95)
    assert found is None
    assert len(scores) == 0


def test_the_map_lays_what_is_alike_together() -> None:
    rng = np.random.default_rng(1)
    actual = np.repeat([0, 1, 2], 20)
    places = embed(rng.normal(size=(60, 40)) + 15 * np.eye(40)[actual])
    assert places is not None
    assert places.min() == 0.0
    assert places.max() == 1.0
    distances = np.linalg.norm(places[:, None] - places[None], axis=2) + np.eye(60) * 9
    assert (actual[distances.argmin(axis=1)] == actual).all()
    assert embed(np.zeros((4, 3))) is None


def test_the_map_is_the_same_with_any_number_of_threads() -> None:
    code = (
        "import numpy as np, hashlib; from pipelines.evaluate.embedding import embed;"
        "print(hashlib.sha256(embed(np.random.default_rng(1).normal(size=(300, 80))).tobytes()).hexdigest())"
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
    assert [row["neighbours"] for row in table(tmp_path / "evaluate" / "mistakes.csv")] == [""]
