"""train, the stage: what it refuses, what it leaves, and what importing it costs."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from train_inputs import FROZEN, SCRATCH, colours, params, run, small_packs, write_packs, written

from pipelines.core.errors import InputError
from pipelines.train import load_member, train
from pipelines.train.data_loader import resize
from pipelines.train.device import choose_device
from pipelines.train.member import save_member
from pipelines.train.temperature import fit_temperature


def test_a_loaded_member_refuses_what_is_no_picture(tmp_path: Path) -> None:
    run(tmp_path, small_packs(tmp_path / "packs"))
    member = load_member(tmp_path / "out")
    assert member.predict(np.zeros((0, 16, 16, 3), np.uint8)).shape == (0, 3)
    assert member.predict(np.zeros((2, 40, 40, 3), np.uint8)).shape == (2, 3)  # resized to its own size
    with pytest.raises(InputError, match=r"shape \(2, 16, 8, 3\) cannot be predicted"):
        member.predict(np.zeros((2, 16, 8, 3), np.uint8))
    with pytest.raises(InputError, match="type float32 cannot be predicted: give uint8"):
        member.predict(np.zeros((2, 16, 16, 3), np.float32))


def test_a_member_knows_its_temperature_and_what_it_tells_apart(tmp_path: Path) -> None:
    """That of its validation pictures, 24 here; for fewer than 20 it is 1."""
    pixels, labels = colours(48, 16)
    subsets, folds = ["train"] * 18 + ["val"] * 24 + ["test"] * 6, [-1] * 18 + [0] * 24 + [-1] * 6
    run(tmp_path, write_packs(tmp_path / "packs", subsets, labels, pixels, folds))
    member = load_member(tmp_path / "out")
    table = pq.read_table(tmp_path / "out" / "predictions.parquet").to_pylist()
    val = [row for row in table if row["subset"] == "val"]
    probabilities = np.array([row["probabilities"] for row in val])
    expected = fit_temperature(probabilities, np.array([row["class_index"] for row in val]))
    assert member.temperature == pytest.approx(expected, abs=2e-6) != 1.0
    assert (member.target, member.classes) == ("label", ["r", "g", "b"])


def test_a_file_that_is_no_member_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(InputError, match="does not exist: run `dvc repro train`"):
        load_member(path)
    path.write_bytes(b"not at all")
    with pytest.raises(InputError, match="is no whole safetensors file"):
        load_member(path)
    path.write_bytes(safetensors.torch.save({"a": torch.zeros(1)}))
    with pytest.raises(InputError, match="was not written by this project"):
        load_member(path)
    path.write_bytes(save_member({"a": torch.zeros(1)}, {"model": "unheard_of"}))
    with pytest.raises(InputError, match="was written by another version"):
        load_member(path)
    old = safetensors.torch.save({"a": torch.zeros(1)}, metadata={"miwake": '{"format": 1, "model": "resnet18"}'})
    path.write_bytes(old)
    with pytest.raises(InputError, match=r"was written by another version \(format 1\): run `dvc repro train`"):
        load_member(path)


def test_what_an_earlier_run_left_goes(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.safetensors.partial").write_bytes(b"half")
    run(tmp_path, small_packs(tmp_path / "packs"))
    assert "model.safetensors.partial" not in written(tmp_path)


def test_a_fold_without_validation_pictures_is_refused(tmp_path: Path) -> None:
    packs = small_packs(tmp_path / "packs")
    with pytest.raises(InputError, match=r"fold 3 has no validation pictures \(folds that have: 0\)"):
        run(tmp_path, packs, fold=3)
    assert not (tmp_path / "out").exists()


def test_one_class_to_train_on_is_refused(tmp_path: Path) -> None:
    pixels, _ = colours(6, 32)
    labels = np.array([1, 1, 1, 1, 0, 0])
    packs = write_packs(tmp_path / "packs", ["train"] * 4 + ["val"] * 2, labels, pixels, [-1] * 4 + [0] * 2)
    with pytest.raises(InputError, match=r"training pictures of 1 class \(g\); a classifier needs at least 2"):
        run(tmp_path, packs)


def test_a_class_that_cannot_be_learnt_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pixels, _ = colours(8, 32)
    labels = np.array([0, 0, 1, 1, 0, 1, 2, 0])
    packs = write_packs(tmp_path / "packs", ["train"] * 4 + ["val"] * 4, labels, pixels, [-1] * 4 + [0] * 4)
    run(tmp_path, packs)
    assert "no training picture of b: never predicted" in capsys.readouterr().err


def test_no_test_pictures_are_no_error(tmp_path: Path) -> None:
    pixels, labels = colours(12, 32)
    packs = write_packs(tmp_path / "packs", ["train"] * 9 + ["val"] * 3, labels, pixels, [-1] * 9 + [0] * 3)
    for recipe in (FROZEN, SCRATCH):
        run(tmp_path, packs, recipe)
        assert pq.read_table(tmp_path / "out" / "predictions.parquet").num_rows == 3


def test_an_unknown_member_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="member 'lite1' is not among train.recipes: one, two"):
        train(
            params({"one": FROZEN, "two": SCRATCH}),
            member="lite1",
            fold=0,
            **dict.fromkeys(("augment_dir", "members_dir", "root", "cache_dir", "out_dir"), tmp_path),
        )


def test_packs_that_are_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="index.parquet does not exist"):
        run(tmp_path, tmp_path / "nowhere")


def test_pictures_are_never_enlarged(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="image_size 32 is larger than the packed pictures, 16 px"):
        run(tmp_path, small_packs(tmp_path / "packs"), FROZEN)


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="train.device is cuda, but torch finds none on this machine"):
        choose_device("cuda")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto").type == "cpu"


def test_pictures_are_resized_with_antialiasing() -> None:
    stripes = np.zeros((1, 64, 64, 3), np.uint8)
    stripes[:, :, ::2] = 254
    small = resize(stripes, 8)
    assert small.shape == (1, 8, 8, 3)
    assert abs(int(small.mean()) - 127) <= 2
    assert small.std() < 5
    assert resize(stripes, 64) is stripes


def test_importing_train_does_not_import_torch() -> None:
    code = "import sys, pipelines.train; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout.strip() == b"False"


def test_equal_members_are_equal_bytes() -> None:
    tensors = {"b": torch.ones(2), "a": torch.zeros(3, 2).T}
    one = save_member(tensors, {"x": 1, "y": "琴"})
    two = save_member(dict(reversed(tensors.items())), {"y": "琴", "x": 1})
    assert one == two
    loaded = safetensors.torch.load(one)
    assert loaded["a"].shape == (2, 3)
    assert io.BytesIO(one).read() == two
