"""Packs: memory-mapped pictures, and the rows that train and validate in a fold."""

import contextlib
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipelines.augmentation.packs import (
    PackIndex,
    PackReader,
    fold_rows,
    new_pack,
    open_pack,
    read_index,
    read_training_index,
    targets,
)  # fmt: skip
from pipelines.core.errors import InputError
from pipelines.core.tables import PACK_INDEX, write_table


def index_of(rows: list[tuple[str, int]]) -> PackIndex:
    """An index of (subset, fold) rows; one class, named a."""
    positions: dict[str, int] = {}
    places = []
    for subset, _ in rows:
        places.append(positions.setdefault(subset, 0))
        positions[subset] += 1
    return PackIndex(
        image_id=np.array([f"{i:064x}" for i in range(len(rows))]),
        class_index=np.zeros(len(rows), np.int64),
        subset=np.array([subset for subset, _ in rows]),
        fold=np.array([fold for _, fold in rows], np.int64),
        position=np.array(places, np.int64),
        copy=np.array([int(subset == "copies") for subset, _ in rows], np.int64),
        factors={},
        classes=["a"],
    )


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    with new_pack(tmp_path / "train.npy", num_images=2, image_size=3) as pack:
        pack[0], pack[1] = 7, 9
    found = open_pack(tmp_path / "train.npy")
    assert found.shape == (2, 3, 3, 3)
    assert (found[0] == 7).all()
    assert (found[1] == 9).all()
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 1


def test_a_pack_without_pictures_is_a_file_like_any_other(tmp_path: Path) -> None:
    with new_pack(tmp_path / "val.npy", num_images=0, image_size=5):
        pass
    assert open_pack(tmp_path / "val.npy").shape == (0, 5, 5, 3)


def test_an_error_while_packing_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), new_pack(tmp_path / "train.npy", num_images=1, image_size=2):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_old_pack(tmp_path: Path) -> None:
    with new_pack(tmp_path / "train.npy", num_images=1, image_size=2) as pack:
        pack[:] = 3
    with pytest.raises(ZeroDivisionError), new_pack(tmp_path / "train.npy", num_images=1, image_size=2) as pack:
        pack[:] = 4 // 0
    assert (open_pack(tmp_path / "train.npy") == 3).all()


def test_equal_pictures_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one.npy", "two.npy"):
        with new_pack(tmp_path / name, num_images=2, image_size=4) as pack:
            pack[:] = 5
    assert (tmp_path / "one.npy").read_bytes() == (tmp_path / "two.npy").read_bytes()


def test_a_missing_pack_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="train.npy does not exist: run `dvc repro augment`"):
        open_pack(tmp_path / "train.npy")


def test_a_truncated_pack_is_refused(tmp_path: Path) -> None:
    with new_pack(tmp_path / "train.npy", num_images=4, image_size=8) as pack:
        pack[:] = 1
    whole = (tmp_path / "train.npy").read_bytes()
    (tmp_path / "train.npy").write_bytes(whole[:-10])
    with pytest.raises(InputError, match="is no whole pack"):
        open_pack(tmp_path / "train.npy")


def test_an_array_of_another_shape_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "train.npy", np.zeros((2, 3, 4, 3), np.uint8))
    with pytest.raises(InputError, match="not uint8"):
        open_pack(tmp_path / "train.npy")


def test_a_single_split_trains_on_train_and_validates_on_val() -> None:
    rows = fold_rows(index_of([("test", -1), ("train", -1), ("train", -1), ("val", 0)]), 0)
    assert rows.train.tolist() == [1, 2]
    assert rows.val.tolist() == [3]
    assert rows.test.tolist() == [0]


def test_a_fold_trains_on_all_other_folds() -> None:
    index = index_of([("test", -1), ("train", 0), ("train", 1), ("train", 2), ("train", 1)])
    rows = fold_rows(index, 1)
    assert rows.train.tolist() == [1, 3]
    assert rows.val.tolist() == [2, 4]


def test_over_all_folds_every_training_picture_validates_once() -> None:
    index = index_of([("train", i % 3) for i in range(10)])
    seen = np.concatenate([fold_rows(index, fold).val for fold in range(3)])
    assert sorted(seen.tolist()) == list(range(10))
    for fold in range(3):
        rows = fold_rows(index, fold)
        assert not set(rows.train.tolist()) & set(rows.val.tolist())


def test_a_picture_that_never_validates_trains_in_every_fold() -> None:
    index = index_of([("train", -1), ("train", 0), ("train", 1)])
    assert 0 in fold_rows(index, 0).train
    assert 0 in fold_rows(index, 1).train


def test_a_test_picture_never_trains_whatever_its_fold() -> None:
    rows = fold_rows(index_of([("test", 0), ("train", 0), ("train", 1)]), 0)
    assert rows.test.tolist() == [0]
    assert 0 not in rows.val
    assert 0 not in rows.train


@pytest.mark.parametrize("by_position", [True, False])
def test_rows_of_several_packs_come_in_the_order_asked_for(
    by_position: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not by_position:  # as on Windows
        monkeypatch.delattr(os, "preadv")
    index = index_of([("test", -1), ("train", -1), ("train", -1), ("val", 0)])
    for subset, values in (("test", [10]), ("train", [20, 21]), ("val", [30])):
        with new_pack(tmp_path / f"{subset}.npy", num_images=len(values), image_size=2) as pack:
            pack[:] = np.array(values, np.uint8)[:, None, None, None]
    reader = PackReader(tmp_path, index)
    assert reader.read(np.array([3, 2, 0, 1]))[:, 0, 0, 0].tolist() == [30, 21, 10, 20]
    assert reader.picture(2)[0, 0, 0] == 21
    assert reader.image_size == 2


def test_a_pack_that_becomes_shorter_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    for subset in ("train", "val", "test"):
        with new_pack(tmp_path / f"{subset}.npy", num_images=1, image_size=2) as pack:
            pack[:] = 7
    reader = PackReader(tmp_path, index_of([("test", -1), ("train", -1), ("val", 0)]))
    os.truncate(tmp_path / "val.npy", (tmp_path / "val.npy").stat().st_size - 1)
    assert (reader.read(np.array([0, 1])) == 7).all()
    with pytest.raises(InputError, match=r"val.npy became shorter while it was read"):
        reader.read(np.array([1, 2]))


def descriptors(folder: Path) -> list[str]:
    """The files of `folder` that this process has open."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the listing's own
            found.append(str(entry.readlink()))
    return [name for name in found if name.startswith(str(folder))]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="the system does not tell which files are open")
def test_a_pack_replaced_while_it_is_read_stays_the_old_one_and_is_closed_at_the_end(tmp_path: Path) -> None:
    for subset in ("train", "val", "test"):
        with new_pack(tmp_path / f"{subset}.npy", num_images=1, image_size=2) as pack:
            pack[:] = 7
    reader = PackReader(tmp_path, index_of([("test", -1), ("train", -1), ("val", 0)]))
    with new_pack(tmp_path / "val.npy", num_images=1, image_size=2) as pack:
        pack[:] = 8
    assert (reader.read(np.array([2])) == 7).all()
    assert descriptors(tmp_path)
    del reader, pack
    assert not descriptors(tmp_path)


def test_a_pack_that_does_not_fit_its_index_is_refused(tmp_path: Path) -> None:
    for subset in ("train", "val", "test"):
        with new_pack(tmp_path / f"{subset}.npy", num_images=1, image_size=2) as pack:
            pack[:] = 0
    with pytest.raises(InputError, match=r"train.npy holds 1 picture, but index.parquet names 2"):
        PackReader(tmp_path, index_of([("train", -1), ("train", -1), ("val", 0), ("test", -1)]))


def test_copies_train_where_their_picture_does_not_validate_and_never_validate() -> None:
    index = index_of([("train", 0), ("train", 1), ("copies", 0), ("copies", 1), ("copies", 0), ("test", -1)])
    rows = fold_rows(index, 0)
    assert rows.train.tolist() == [1, 3]
    assert rows.val.tolist() == [0]
    assert rows.test.tolist() == [5]
    assert fold_rows(index, 1).train.tolist() == [0, 2, 4]


def test_copies_of_a_single_split_always_train() -> None:
    rows = fold_rows(index_of([("train", -1), ("val", 0), ("copies", -1)]), 0)
    assert rows.train.tolist() == [0, 2]
    assert rows.val.tolist() == [1]


def test_unlabelled_pictures_are_rows_of_their_own() -> None:
    rows = fold_rows(index_of([("train", -1), ("val", 0), ("unlabelled", -1), ("unlabelled", -1)]), 0)
    assert rows.unlabelled.tolist() == [2, 3]
    assert rows.train.tolist() == [0]
    assert rows.val.tolist() == [1]
    assert rows.test.tolist() == []


def packs_of(folder: Path, **values: list[int]) -> None:
    """A pack of 2 x 2 pictures for each subset, each of one grey value."""
    for subset, greys in values.items():
        with new_pack(folder / f"{subset}.npy", num_images=len(greys), image_size=2) as pack:
            pack[:] = np.array(greys, np.uint8)[:, None, None, None]


def test_a_reader_opens_the_packs_that_its_index_names(tmp_path: Path) -> None:
    packs_of(tmp_path, train=[1], val=[], test=[])
    assert PackReader(tmp_path, index_of([("train", -1)])).read(np.array([0])).max() == 1
    packs_of(tmp_path, copies=[2, 3], unlabelled=[4])
    index = index_of([("train", -1), ("copies", -1), ("copies", -1), ("unlabelled", -1)])
    assert PackReader(tmp_path, index).read(np.array([3, 2, 0, 1]))[:, 0, 0, 0].tolist() == [4, 3, 1, 2]
    with pytest.raises(InputError, match=r"copies.npy holds 2 pictures, but copies.parquet names 1"):
        PackReader(tmp_path, index_of([("train", -1), ("copies", -1)]))


def write_rows(path: Path, classes: list[str], rows: list[tuple[str, int, str, int, str]]) -> None:
    """A table of (subset, class_index, factors, copy, label) rows."""
    table = [
        {
            **{"image_id": f"{i:064x}", "label": label, "class_index": class_index, "group": f"{i:064x}"},
            **{"subset": subset, "fold": -1, "position": i, "factors": factors, "copy": copy},
        }
        for i, (subset, class_index, factors, copy, label) in enumerate(rows)
    ]
    write_table(pa.Table.from_pylist(table, schema=PACK_INDEX), path, classes=classes)


def write_three(folder: Path) -> None:
    """index.parquet, copies.parquet and unlabelled.parquet, the last without factors."""
    man, woman = '{"gender": "man", "rank": "lord"}', '{"gender": "woman", "rank": "lord"}'
    write_rows(folder / "index.parquet", ["a", "b"], [("test", 0, man, 0, "a"), ("train", 1, woman, 0, "b")])
    write_rows(folder / "copies.parquet", ["a", "b"], [("copies", 1, woman, 1, "b"), ("copies", 1, woman, 2, "b")])
    write_rows(folder / "unlabelled.parquet", ["a", "b"], [("unlabelled", -1, "", 0, "new")])


def test_an_index_for_training_has_the_other_one_s_rows_first(tmp_path: Path) -> None:
    write_three(tmp_path)
    index = read_training_index(tmp_path)
    assert index.subset.tolist() == ["test", "train", "copies", "copies", "unlabelled"]
    assert index.class_index.tolist() == [0, 1, 1, 1, -1]
    assert index.copy.tolist() == [0, 0, 1, 2, 0]
    assert index.position.tolist() == [0, 1, 0, 1, 0]
    assert index.factors["gender"].tolist() == ["man", "woman", "woman", "woman", ""]
    assert read_index(tmp_path / "index.parquet").subset.tolist() == ["test", "train"]


def test_tables_of_two_runs_are_refused(tmp_path: Path) -> None:
    write_three(tmp_path)
    write_rows(tmp_path / "copies.parquet", ["a", "c"], [])
    with pytest.raises(InputError, match="copies.parquet has other classes than index.parquet"):
        read_training_index(tmp_path)


def test_a_target_is_the_label_or_a_factor(tmp_path: Path) -> None:
    write_three(tmp_path)
    index = read_training_index(tmp_path)
    assert targets(index, "label")[0] == ["a", "b"]
    assert targets(index, "label")[1].tolist() == [0, 1, 1, 1, -1]
    classes, numbers = targets(index, "gender")
    assert classes == ["man", "woman"]
    assert numbers.tolist() == [0, 1, 1, 1, -1]
    assert numbers.dtype == np.int64


def test_an_unknown_factor_is_answered_with_those_there_are(tmp_path: Path) -> None:
    write_three(tmp_path)
    index = read_training_index(tmp_path)
    with pytest.raises(InputError, match=r"target 'sex' is no factor of these pictures: there are gender, rank; name"):
        targets(index, "sex")
    with pytest.raises(InputError, match=r"they have none; only tables with several label columns give factors"):
        targets(index_of([("train", -1)]), "gender")


def test_a_picture_without_the_factor_is_named(tmp_path: Path) -> None:
    gender = [("train", 0, '{"gender": "man"}', 0, "a"), ("train", 1, "", 0, "b")]
    write_rows(tmp_path / "index.parquet", ["a", "b"], gender)
    with pytest.raises(InputError, match=rf"1 picture has no factor 'gender', first {1:064x} of the class 'b': give"):
        targets(read_index(tmp_path / "index.parquet"), "gender")


def test_a_factor_of_one_value_cannot_be_learnt(tmp_path: Path) -> None:
    write_three(tmp_path)
    with pytest.raises(InputError, match=r"the factor 'rank' has the one value 'lord': a classifier needs two"):
        targets(read_training_index(tmp_path), "rank")


@pytest.mark.parametrize("text", ["[1]", "{", "nonsense", "3", '{"a": 1}', pytest.param("[" * 100_000, id="deep")])
def test_factors_that_are_no_object_are_refused(tmp_path: Path, text: str) -> None:
    index = tmp_path / "data/augment/index.parquet"
    index.parent.mkdir(parents=True)
    write_rows(index, ["a"], [("train", 0, text, 0, "a")])
    with pytest.raises(InputError, match=r"no JSON object of texts .*: run `dvc repro augment`"):
        read_index(index)


def test_classes_in_any_script_survive_the_index(tmp_path: Path) -> None:
    row = {"image_id": "0" * 64, "label": "琴", "class_index": 1, "group": "g", "subset": "train", "fold": -1}
    table = pa.Table.from_pylist([{**row, "position": 0}], schema=PACK_INDEX)
    write_table(table, tmp_path / "index.parquet", classes=["guitar", "琴"])
    index = read_index(tmp_path / "index.parquet")
    assert index.classes == ["guitar", "琴"]
    assert index.class_index.tolist() == [1]
