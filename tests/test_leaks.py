"""The leak premium: what copies on both sides would have added to the score."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from evaluate_inputs import PARAMS, run, schema_of, write_features, write_index, write_predictions

from pipelines.core.errors import InputError
from pipelines.core.tables import DEDUPED, FEATURES, read_table, write_table
from pipelines.evaluate import leaks
from pipelines.evaluate.leaks import RidgeProbe, leak_premium, naive_and_group_folds
from pipelines.evaluate.members import read_index as read_packed
from pipelines.evaluate.suspects import find_suspects


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
        probe = RidgeProbe(features, actual, 4)
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
    by_file, by_group = naive_and_group_folds(group, np.random.default_rng(0))
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
