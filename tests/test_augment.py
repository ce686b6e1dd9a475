"""augment: every picture in the pack of its subset, copies of rare classes, pictures without a label."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from augmented import ID, four_pictures, ingest_folder, pack, params, png
from PIL import Image

from pipelines.augment import AugmentArtifact
from pipelines.augment.copies import FIRST_EPOCH, plan_copies
from pipelines.augmentation.applying import apply
from pipelines.augmentation.packs import PackReader, fold_rows, read_index, read_training_index
from pipelines.augmentation.random import picture_keys
from pipelines.augmentation.sampling import sample_params
from pipelines.core.errors import InputError
from pipelines.core.tables import write_table
from pipelines.params.augment import AugmentParams, CopyParams


def test_every_picture_is_packed_into_its_subset(tmp_path: Path) -> None:
    paths = ingest_folder(tmp_path, four_pictures())
    artifact = pack(params(), paths)
    assert (artifact.num_images, artifact.num_classes, artifact.image_size) == (4, 2, 16)
    index = read_index(paths["out_dir"] / "index.parquet")
    assert index.classes == ["cat", "dog"]
    assert index.subset.tolist() == ["test", "train", "train", "val"]
    assert index.class_index.tolist() == [1, 0, 1, 0]
    assert index.position.tolist() == [0, 0, 1, 0]
    train = np.load(paths["out_dir"] / "train.npy")
    assert train.shape == (2, 16, 16, 3)
    assert train[0, 0, 0].tolist() == [10, 20, 30]
    assert train[1, 0, 0].tolist() == [70, 80, 90]
    with Image.open(paths["out_dir"] / "preview.png") as sheet:
        assert sheet.width > 100


def test_folds_leave_an_empty_val_pack(tmp_path: Path) -> None:
    pictures = [(i, label, "train", n % 2, data) for n, (i, label, _, _, data) in enumerate(four_pictures())]
    paths = ingest_folder(tmp_path, pictures)
    pack(params(), paths)
    assert np.load(paths["out_dir"] / "val.npy").shape == (0, 16, 16, 3)
    assert np.load(paths["out_dir"] / "test.npy").shape == (0, 16, 16, 3)


def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    written = []
    for name in ("one", "two"):
        paths = ingest_folder(tmp_path / name, four_pictures())
        pack(params(), paths)
        written.append({path.name: path.read_bytes() for path in paths["out_dir"].iterdir()})
    assert written[0] == written[1]
    packs = {f"{name}.npy" for name in ("train", "val", "test", "copies", "unlabelled")}
    tables = {f"{name}.parquet" for name in ("index", "copies", "unlabelled")}
    assert set(written[0]) == {*packs, *tables, "pack.json", "preview.png"}


def test_the_number_of_workers_changes_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    for workers in ("1", "2"):
        monkeypatch.setenv("MIWAKE_WORKERS", workers)
        monkeypatch.setattr("pipelines.augment.packing.CHUNK_IMAGES", 1)
        paths = ingest_folder(tmp_path / workers, four_pictures())
        pack(params(), paths)
        written.append((paths["out_dir"] / "train.npy").read_bytes())
    assert written[0] == written[1]


def test_what_an_earlier_run_left_goes(tmp_path: Path) -> None:
    paths = ingest_folder(tmp_path, four_pictures())
    paths["out_dir"].mkdir()
    (paths["out_dir"] / "train.npy.partial").write_bytes(b"half")
    pack(params(), paths)
    assert not (paths["out_dir"] / "train.npy.partial").exists()


def test_copies_fill_each_class_evenly_up_to_a_share_of_the_largest() -> None:
    labels = np.array([0] * 10 + [1] * 4 + [2] * 2 + [3] * 6)
    plan = plan_copies(labels, 0.5)
    assert list(zip(plan.source.tolist(), plan.copy.tolist(), strict=True)) == [(10, 1), (14, 1), (15, 1), (14, 2)]
    whole = plan_copies(labels, 1.0)
    per_picture = np.bincount(whole.source, minlength=22)
    assert (np.bincount(labels) + np.bincount(labels[whole.source], minlength=4)).tolist() == [10] * 4
    assert per_picture[:10].max() == 0
    for label in (1, 2, 3):
        assert np.ptp(per_picture[labels == label]) <= 1


def test_no_share_and_no_pictures_need_no_copies() -> None:
    assert len(plan_copies(np.array([0, 0, 0, 1]), 0.0).source) == 0
    assert len(plan_copies(np.zeros(0, np.int64), 1.0).source) == 0


def uneven() -> list[tuple[str, str, str, int, bytes]]:
    """Six cats and two dogs to train on, a picture of each to validate and to test."""
    dice = np.random.default_rng(5)
    found = []
    for number, (label, subset) in enumerate(
        [*[("cat", "train")] * 6, *[("dog", "train")] * 2, ("cat", "val"), ("dog", "test")]
    ):
        buffer = io.BytesIO()
        Image.fromarray(dice.integers(0, 256, (16, 16, 3), np.uint8)).save(buffer, "PNG")
        found.append((f"{number:x}" * 64, label, subset, 0 if subset == "val" else -1, buffer.getvalue()))
    return found


def with_copies(share: float, name: str, **changes: Any) -> AugmentParams:
    return params(copies=CopyParams(share=share, policy=name), **changes)


def test_a_copy_is_its_picture_changed_as_its_policy_and_seed_say(tmp_path: Path) -> None:
    paths = ingest_folder(tmp_path, uneven())
    artifact = pack(with_copies(1.0, "strong", seed=7), paths)
    assert (artifact.num_images, artifact.num_copies, artifact.filled) == (10, 4, {"dog": (2, 4)})
    assert str(artifact) == "10 pictures of 2 classes at 16 px, 4 augmented copies for 1 of them; dog 2 + 4"
    index = read_training_index(paths["out_dir"])
    copies = np.flatnonzero(index.subset == "copies")
    dogs = ["6" * 64, "7" * 64]
    assert index.image_id[copies].tolist() == dogs * 2
    assert index.copy[copies].tolist() == [1, 1, 2, 2]
    assert index.class_index[copies].tolist() == [1] * 4
    assert "copies" not in read_index(paths["out_dir"] / "index.parquet").subset
    reader = PackReader(paths["out_dir"], index)
    originals = np.flatnonzero((index.subset == "train") & (index.class_index == 1))
    images = torch.from_numpy(reader.read(originals)).permute(0, 3, 1, 2).float()
    strong = params().policies["strong"]
    for number in (1, 2):
        draws = sample_params(strong, seed=7, epoch=FIRST_EPOCH + number, pictures=picture_keys(np.array(dogs)))
        expected = apply(images, draws, strong).round().byte().permute(0, 2, 3, 1).numpy()
        assert np.array_equal(reader.read(copies[2 * number - 2 : 2 * number]), expected)


def test_copies_by_an_unknown_policy_are_refused() -> None:
    with pytest.raises(ValueError, match=r"copies.policy is 'stronk', which is none of the policies \(plain, strong\)"):
        with_copies(0.5, "stronk")


def test_copies_by_a_policy_that_changes_nothing_are_their_pictures(tmp_path: Path) -> None:
    paths = ingest_folder(tmp_path, uneven())
    pack(with_copies(0.5, "plain"), paths)
    index = read_training_index(paths["out_dir"])
    assert index.image_id[index.subset == "copies"].tolist() == ["6" * 64]
    reader = PackReader(paths["out_dir"], index)
    (copied,) = np.flatnonzero(index.subset == "copies")
    (own,) = np.flatnonzero((index.subset == "train") & (index.image_id == "6" * 64))
    assert np.array_equal(reader.picture(int(copied)), reader.picture(int(own)))


def test_copies_are_the_same_bytes_whatever_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    for batch in (64, 1):
        monkeypatch.setattr("pipelines.augment.copies.BATCH", batch)
        paths = ingest_folder(tmp_path / str(batch), uneven())
        pack(with_copies(1.0, "strong"), paths)
        written.append([(paths["out_dir"] / f"copies.{kind}").read_bytes() for kind in ("npy", "parquet")])
    assert written[0] == written[1]


def test_copies_of_folds_are_counted_over_all_of_training(tmp_path: Path) -> None:
    pictures = [
        (i, label, subset if subset == "test" else "train", -1 if subset == "test" else n % 2, data)
        for n, (i, label, subset, _, data) in enumerate(uneven())
    ]
    paths = ingest_folder(tmp_path, pictures)
    assert pack(with_copies(1.0, "plain"), paths).filled == {"dog": (2, 5)}
    index = read_training_index(paths["out_dir"])
    of = dict(zip(index.image_id[index.subset == "train"], index.fold[index.subset == "train"], strict=True))
    copied = index.subset == "copies"
    assert [of[image_id] for image_id in index.image_id[copied]] == index.fold[copied].tolist()
    for fold in (0, 1):
        rows = fold_rows(index, fold)
        assert not set(index.image_id[rows.train]) & set(index.image_id[rows.val])


def test_many_filled_classes_are_counted_in_the_line() -> None:
    filled = {f"class {n}": (1, n) for n in range(12)}
    artifact = AugmentArtifact(Path(), 30, 13, 16, 66, filled, 4)
    assert str(artifact) == (
        "30 pictures of 13 classes at 16 px, 66 augmented copies for 12 of them, 4 pictures without a label; "
        + ", ".join(f"class {n} 1 + {n}" for n in range(10))
        + ", and 2 more"
    )


def test_pictures_without_a_label_have_a_pack_of_their_own(tmp_path: Path) -> None:
    without = [
        ("a" * 64, "none", "unlabelled", -1, png((1, 2, 3))),
        ("b" * 64, "none", "unlabelled", -1, png((4,) * 3)),
    ]
    paths = ingest_folder(tmp_path, [*four_pictures(), *without])
    artifact = pack(params(), paths)
    assert (artifact.num_images, artifact.num_classes, artifact.num_unlabelled) == (4, 2, 2)
    assert str(artifact) == "4 pictures of 2 classes at 16 px, 2 pictures without a label"
    assert np.load(paths["out_dir"] / "unlabelled.npy")[:, 0, 0].tolist() == [[1, 2, 3], [4, 4, 4]]
    index = read_training_index(paths["out_dir"])
    assert index.classes == ["cat", "dog"]
    assert index.class_index[fold_rows(index, 0).unlabelled].tolist() == [-1, -1]
    assert set(read_index(paths["out_dir"] / "index.parquet").subset.tolist()) == {"train", "val", "test"}
    packed = len(pq.read_table(paths["out_dir"] / "unlabelled.parquet"))
    assert packed == 2


def test_nothing_but_pictures_without_a_label_is_refused(tmp_path: Path) -> None:
    paths = ingest_folder(tmp_path, [(ID, "none", "unlabelled", -1, png((1, 2, 3)))])
    with pytest.raises(InputError, match="names no pictures"):
        pack(params(), paths)


def test_factors_come_from_the_split_to_the_index(tmp_path: Path) -> None:
    paths = ingest_folder(tmp_path, four_pictures())
    table = pq.read_table(paths["splits"])
    at = table.schema.get_field_index("factors")
    coats = pa.array([f'{{"coat": "{coat}"}}' for coat in ("long", "short", "short", "long")])
    write_table(table.set_column(at, "factors", coats), paths["splits"])
    pack(params(), paths)
    index = read_index(paths["out_dir"] / "index.parquet")
    assert index.image_id.tolist() == [digit * 64 for digit in "1423"]
    assert index.factors["coat"].tolist() == ["short", "short", "long", "long"]
