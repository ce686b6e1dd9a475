"""robustness: pictures made worse by fixed amounts, and what becomes of the answers."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from train_inputs import image_id

from pipelines.evaluate.robustness import AMOUNTS, choose_pictures, csv_rows, degrade, measure_robustness

SIZE, NUM = 48, 12
IDS = np.array([image_id(i) for i in range(NUM)], object)
CLASSES = ["smooth", "striped", "dotted"]


def pictures() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """(N, S, S, 3) grey: one grey level, stripes, or dots; and which."""
    labels = np.arange(NUM) % 3
    y, x = np.mgrid[:SIZE, :SIZE]
    patterns = np.stack([np.full((SIZE, SIZE), 100), 60 + 80 * (x // 2 % 2), 60 + 80 * ((x // 2 + y // 2) % 2)])
    return np.repeat(patterns[labels][..., None], 3, axis=3).astype(np.uint8), labels


@pytest.mark.parametrize("kind", AMOUNTS)
def test_every_strength_changes_a_picture_more_than_the_one_before(kind: str) -> None:
    """On a noisy slope from dark to bright."""
    slope = np.add.outer(np.arange(112), np.arange(112))[None, :, :, None] + np.zeros((4, 1, 1, 3))
    pixels = (slope + np.random.default_rng(1).integers(0, 30, slope.shape)).astype(np.uint8)
    changes = []
    for strength in range(1, 6):
        worse = degrade(pixels, kind, strength, image_ids=IDS[:4], seed=3)
        assert worse.shape == pixels.shape
        assert worse.dtype == np.uint8
        changes.append(np.abs(worse.astype(np.float64) - pixels).mean(axis=(1, 2, 3)))
    assert (changes[0] > 0).all()
    assert (np.diff([change.mean() for change in changes]) > 0).all()


def test_what_happens_to_a_picture_depends_on_its_id_and_the_seed_alone() -> None:
    pixels, _ = pictures()
    for kind in AMOUNTS:
        whole = degrade(pixels, kind, 3, image_ids=IDS, seed=3)
        assert np.array_equal(degrade(pixels[4:7], kind, 3, image_ids=IDS[4:7], seed=3), whole[4:7])
    assert not np.array_equal(degrade(pixels, "scribble", 3, image_ids=IDS, seed=4), whole)


def test_amounts_mean_what_they_say() -> None:
    pixels = np.full((NUM, SIZE, SIZE, 3), 100, np.uint8)
    noise = degrade(pixels, "noise", 1, image_ids=IDS, seed=3).astype(np.float64)
    assert noise.std() == pytest.approx(AMOUNTS["noise"][0], rel=0.05)
    brightness = degrade(pixels, "brightness", 4, image_ids=IDS, seed=3)
    assert set(np.unique(brightness).tolist()) == {50, 200}
    covered = (degrade(pixels, "occlusion", 4, image_ids=IDS, seed=3) == 128).all(axis=3).mean(axis=(1, 2))
    np.testing.assert_allclose(covered, AMOUNTS["occlusion"][3], atol=0.03)


def tell(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Stripes differ to the right alone, dots downwards too: how much of that contrast is left decides."""
    grey = pixels.astype(np.float64).mean(axis=3)
    right, down = (np.abs(np.diff(grey, axis=axis)).mean(axis=(1, 2)) for axis in (2, 1))
    scores = np.stack([np.full(len(pixels), 20.0), right - down, right + down], axis=1)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


def measured(**changes: Any) -> dict[str, Any]:
    pixels, labels = pictures()
    values = {"classes": CLASSES, "image_ids": IDS, "seed": 3, "confidence": 0.95, **changes}
    return measure_robustness(tell, pixels, labels, **values)


def test_accuracy_falls_and_flips_rise_with_strength() -> None:
    found = measured()
    assert found["baseline"]["value"] == 1.0
    assert found["num_images"] == NUM
    assert list(found["kinds"]) == list(AMOUNTS)
    for kind, rows in found["kinds"].items():
        assert [row["strength"] for row in rows] == [1, 2, 3, 4, 5]
        assert [row["amount"] for row in rows] == list(AMOUNTS[kind])
        for row in rows:
            assert row["low"] <= row["accuracy"] <= row["high"]
            assert row["flip_rate"] == pytest.approx(1.0 - row["accuracy"], abs=2e-6)  # all were right before
            assert (row["worst_class"] is None) == (row["accuracy"] == 1.0)
    for kind in ("noise", "blur"):
        flips = [row["flip_rate"] for row in found["kinds"][kind]]
        assert flips == sorted(flips)
        assert flips[4] > 0
    # noise is contrast in all directions: only dots stay
    assert found["kinds"]["noise"][4]["worst_class"] in ("smooth", "striped")
    assert measured() == found


def test_the_rows_of_the_table_are_the_figures() -> None:
    found = measured()
    rows = csv_rows(found)
    assert [row[0] for row in rows] == [0, 1, 2, 3, 4, 5]
    assert set(rows[0][1:]) == {found["baseline"]["value"]}
    assert rows[3][1:] == tuple(found["kinds"][kind][2]["accuracy"] for kind in AMOUNTS)


def test_pictures_are_chosen_in_proportion_to_their_classes_and_none_twice() -> None:
    """60 of one class, 20 of another; of each pair of copies one at most."""
    ids = np.array([image_id(i) for i in range(80)], object)
    actual = np.repeat([0, 1], [60, 20])
    groups = np.arange(80) // 2
    rows = choose_pictures(ids, actual, groups, num=12)
    assert np.bincount(actual[rows]).tolist() == [9, 3]
    assert len(set(groups[rows])) == 12
    assert len(choose_pictures(ids, actual, groups, num=100)) == 40
    assert len(choose_pictures(ids, actual, groups, num=0)) == 0
    shuffled = np.random.default_rng(0).permutation(80)
    again = choose_pictures(ids[shuffled], actual[shuffled], groups[shuffled], num=12)
    assert set(ids[shuffled][again]) == set(ids[rows])
    # a picture less moves few of the others
    fewer = choose_pictures(ids[2:], actual[2:], groups[2:], num=12)
    assert len(set(ids[2:][fewer]) & set(ids[rows])) >= 10


def test_the_strengths_of_the_docs_are_these() -> None:
    text = (Path(__file__).parents[1] / "docs" / "networks.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (\w+) \| ([\d., ]+) \|", text, flags=re.MULTILINE))
    assert {kind: tuple(map(float, amounts.split(", "))) for kind, amounts in rows.items()} == AMOUNTS
