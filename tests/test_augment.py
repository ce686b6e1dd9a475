"""augment: packs and sheet; crops decided by a person."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from pipelines.augment import AugmentArtifact, augment
from pipelines.augment.copies import FIRST_EPOCH, plan_copies
from pipelines.augment.fitting import SPARE, Fit, least_size, place, to_square
from pipelines.augment.preview import choose, describe
from pipelines.augment.sheet import MAX_BYTES, Block, _elided, _wrapped, draw_sheet
from pipelines.core.augmentation import apply
from pipelines.core.crops import WHOLE, Crop
from pipelines.core.draws import draw, picture_keys
from pipelines.core.errors import DecisionError, ImageError, InputError
from pipelines.core.images import Reduced, decode, decode_reduced
from pipelines.core.packs import PackIndex, PackReader, fold_rows, read_index, read_training_index
from pipelines.core.params.augment import AugmentParams, CopyParams, policy_of
from pipelines.core.params.ingest import CropParams, FileCrop, NoCrop
from pipelines.core.tables import MANIFEST, SPLITS, write_table

HEADER = "image_id,left,top,right,bottom\n"
ID = "ab" * 32
NO_CROP = NoCrop(kind="none")


def params(**changes: Any) -> AugmentParams:
    values: dict[str, Any] = {
        "image_size": 16,
        "fit": "stretch",
        "seed": 1,
        "preview_images": 3,
        "copies": None,
        "policies": {"plain": policy_of(), "strong": policy_of(flip=0.5, rotation=20.0, erase=0.5)},
    }
    return AugmentParams(**{**values, **changes})


# the stage ----------------------------------------------------------------------------------


def ingest_folder(
    root: Path, pictures: list[tuple[str, str, str, int, bytes]], *, crop: Crop = WHOLE
) -> dict[str, Path]:
    """Ingest's folder and split's table for (image_id, label, subset, fold, file); each picture cropped so."""
    (root / "ingest").mkdir(parents=True)
    (root / "decisions").mkdir()
    manifest, splits, shard = [], [], b""
    for image_id, label, subset, fold, data in sorted(pictures, key=lambda p: (p[1], p[0])):
        width, height = Image.open(io.BytesIO(data)).size
        manifest.append(
            {
                **{"image_id": image_id, "label": label, "shard": "images-00000.tar", "offset": len(shard)},
                **{"size": len(data), "format": "PNG", "mode": "RGB", "width": width, "height": height},
                **{"orientation": 1, "num_frames": 1, "brightness": 0.0, "contrast": 0.0},
                **{"source": "0-folder", "source_path": f"{label}/{image_id}.png"},
                **{f"crop_{side}": value for side, value in zip(Crop._fields, crop, strict=True)},
            }
        )
        splits.append({"image_id": image_id, "label": label, "group": image_id, "subset": subset, "fold": fold})
        shard += data
    (root / "ingest" / "images-00000.tar").write_bytes(shard)
    write_table(pa.Table.from_pylist(manifest, schema=MANIFEST), root / "ingest" / "manifest.parquet")
    write_table(pa.Table.from_pylist(splits, schema=SPLITS), root / "splits.parquet")
    return {
        "splits": root / "splits.parquet",
        "ingest_dir": root / "ingest",
        "decisions_dir": root / "decisions",
        "out_dir": root / "augment",
    }


def pack(params: AugmentParams, paths: dict[str, Path], *, crop: CropParams = NO_CROP) -> AugmentArtifact:
    return augment(params, crop=crop, **paths)


def png(colour: tuple[int, int, int], size: tuple[int, int] = (20, 20)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def four_pictures() -> list[tuple[str, str, str, int, bytes]]:
    return [
        ("4" * 64, "cat", "train", -1, png((10, 20, 30))),
        ("3" * 64, "cat", "val", 0, png((40, 50, 60))),
        ("2" * 64, "dog", "train", -1, png((70, 80, 90))),
        ("1" * 64, "dog", "test", -1, png((100, 110, 120))),
    ]


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


# copies, pictures without a label, factors ---------------------------------------------------


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
    assert str(artifact) == "10 pictures of 2 classes at 16 px, 4 copies for 1 of them; dog 2 + 4"
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
        draws = draw(strong, seed=7, epoch=FIRST_EPOCH + number, pictures=picture_keys(np.array(dogs)))
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
        "30 pictures of 13 classes at 16 px, 66 copies for 12 of them, 4 pictures without a label; "
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


# crops ---------------------------------------------------------------------------------------


def red_and_blue() -> bytes:
    """20 x 20: a red left half, a blue right half."""
    half = Image.new("RGB", (20, 20), (255, 0, 0))
    half.paste((0, 0, 255), (10, 0, 20, 20))
    buffer = io.BytesIO()
    half.save(buffer, "PNG")
    return buffer.getvalue()


def test_the_crop_of_the_manifest_cuts_the_picture_before_it_is_resized(tmp_path: Path) -> None:
    paths = ingest_folder(tmp_path, [(ID, "a", "train", -1, red_and_blue())], crop=Crop(0.5, 0.0, 1.0, 1.0))
    pack(params(), paths)
    assert (np.load(paths["out_dir"] / "train.npy")[0] == [0, 0, 255]).all()


def test_a_row_of_crop_csv_overrides_the_manifest(tmp_path: Path) -> None:
    paths = ingest_folder(tmp_path, [(ID, "a", "train", -1, red_and_blue())], crop=Crop(0.5, 0.0, 1.0, 1.0))
    (paths["decisions_dir"] / "crop.csv").write_text(f"{HEADER}{ID[:12]},0,0,.5,1\n")
    pack(params(), paths)
    assert (np.load(paths["out_dir"] / "train.npy")[0] == [255, 0, 0]).all()


def test_a_file_under_two_labels_is_cut_for_each_as_its_row_says(tmp_path: Path) -> None:
    pictures = [(ID, "left", "train", -1, red_and_blue()), (ID, "right", "train", -1, red_and_blue())]
    paths = ingest_folder(tmp_path, pictures)
    table = pq.read_table(paths["ingest_dir"] / "manifest.parquet")
    for name, values in (("crop_left", [0.0, 0.5]), ("crop_right", [0.5, 1.0])):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, pa.array(values, pa.float32()))
    write_table(table, paths["ingest_dir"] / "manifest.parquet")
    pack(params(), paths)
    packed = np.load(paths["out_dir"] / "train.npy")
    assert (packed[0] == [255, 0, 0]).all()
    assert (packed[1] == [0, 0, 255]).all()


def test_a_crop_of_an_unknown_picture_is_named(tmp_path: Path) -> None:
    paths = ingest_folder(tmp_path, four_pictures())
    (paths["decisions_dir"] / "crop.csv").write_text(f"{HEADER}{ID},0,0,1,1\n")
    with pytest.raises(DecisionError, match=rf"crop.csv:2: no picture has the image_id {ID}"):
        pack(params(), paths)


def test_pictures_that_must_have_a_row_and_have_none_are_named(tmp_path: Path) -> None:
    paths = ingest_folder(tmp_path, four_pictures())
    crop_csv = paths["decisions_dir"] / "crop.csv"
    crop_csv.write_text(f"{HEADER}{'1' * 64},0,0,1,1\n{'2' * 64},0,0,1,1\n")
    with pytest.raises(DecisionError) as caught:
        pack(params(), paths, crop=FileCrop(kind="file", without="error"))
    assert str(caught.value) == (
        f"{crop_csv} has no row for 2 of 4 pictures, and ingest.crop.without is error. Add a line for each (these keep "
        "the whole picture), drop the picture in drop.csv, or set ingest.crop.without: whole\n"
        f"    cat, cat/{'3' * 64}.png: {'3' * 64},0,0,1,1\n"
        f"    cat, cat/{'4' * 64}.png: {'4' * 64},0,0,1,1"
    )
    assert pack(params(), paths, crop=FileCrop(kind="file", without="whole")).num_images == 4
    crop_csv.write_text(HEADER + "".join(f"{n * 64},0,0,1,1\n" for n in "1234"))
    assert pack(params(), paths, crop=FileCrop(kind="file", without="error")).num_images == 4


def test_of_many_pictures_without_a_row_five_are_named(tmp_path: Path) -> None:
    pictures = [(f"{n:x}" * 64, "cat", "train", -1, png((n, n, n))) for n in range(8)]
    paths = ingest_folder(tmp_path, pictures)
    with pytest.raises(DecisionError, match=r"(?s)no row for 8 of 8 .*4444,0,0,1,1\n    and 3 more$"):
        pack(params(), paths, crop=FileCrop(kind="file", without="error"))


def test_a_split_of_another_run_is_refused(tmp_path: Path) -> None:
    paths = ingest_folder(tmp_path, four_pictures())
    row = {"image_id": ID, "label": "cat", "group": ID, "subset": "train", "fold": -1}
    write_table(pa.Table.from_pylist([row], schema=SPLITS), paths["splits"])
    with pytest.raises(InputError, match=f"names picture {ID}, which .* does not"):
        pack(params(), paths)


def test_a_split_without_pictures_is_refused(tmp_path: Path) -> None:
    paths = ingest_folder(tmp_path, four_pictures())
    write_table(pa.Table.from_pylist([], schema=SPLITS), paths["splits"])
    with pytest.raises(InputError, match="names no pictures"):
        pack(params(), paths)


def test_damaged_bytes_in_a_shard_are_an_error_that_names_the_picture(tmp_path: Path) -> None:
    paths = ingest_folder(tmp_path, four_pictures())
    shard = paths["ingest_dir"] / "images-00000.tar"
    shard.write_bytes(b"\0" * shard.stat().st_size)
    with pytest.raises(InputError, match="no longer decodes"):
        pack(params(), paths)


# to a square --------------------------------------------------------------------------------


def wide() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """40 x 20: a red left quarter, a white middle, a blue right quarter."""
    pixels = np.full((20, 40, 3), 255, np.uint8)
    pixels[:, :10] = (255, 0, 0)
    pixels[:, 30:] = (0, 0, 255)
    return pixels


def squared(pixels: np.ndarray[Any, np.dtype[np.uint8]], *, crop: Crop, fit: Fit, image_size: int) -> Any:
    """A picture decoded at its own size, as a square."""
    height, width = pixels.shape[:2]
    placement = place(width, height, crop=crop, fit=fit, image_size=image_size)
    whole = Reduced(pixels, width, height)
    return to_square(whole, width=width, height=height, placement=placement, image_size=image_size)


def test_letterbox_keeps_all_between_grey_borders() -> None:
    square = squared(wide(), crop=WHOLE, fit="letterbox", image_size=40)
    assert square.shape == (40, 40, 3)
    assert (square[:10] == 128).all()
    assert (square[30:] == 128).all()
    assert square[20, 2].tolist() == [255, 0, 0]
    assert square[20, 37].tolist() == [0, 0, 255]


def test_crop_keeps_the_middle() -> None:
    square = squared(wide(), crop=WHOLE, fit="crop", image_size=20)
    assert (square == 255).all()


def test_stretch_squeezes_all_of_it() -> None:
    square = squared(wide(), crop=WHOLE, fit="stretch", image_size=20)
    assert square[10, 1].tolist() == [255, 0, 0]
    assert square[10, 10].tolist() == [255, 255, 255]
    assert square[10, 18].tolist() == [0, 0, 255]


def test_a_picture_of_the_right_size_keeps_its_bits() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    for fit in ("letterbox", "crop", "stretch"):
        assert (squared(pixels, crop=WHOLE, fit=fit, image_size=16) == pixels).all()


def test_making_smaller_averages_and_does_not_pick() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 254
    small = squared(stripes, crop=WHOLE, fit="stretch", image_size=8)
    assert abs(int(small.mean()) - 127) <= 2
    assert small.std() < 5


@pytest.mark.parametrize("fit", ["letterbox", "crop", "stretch"])
@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 300, 3), (300, 1, 3)])
def test_extreme_shapes_become_squares(fit: Any, shape: tuple[int, int, int]) -> None:
    square = squared(np.full(shape, 200, np.uint8), crop=WHOLE, fit=fit, image_size=16)
    assert square.shape == (16, 16, 3)
    assert (square[7:9, 7:9] == 200).any()


def test_a_crop_of_less_than_a_pixel_keeps_one() -> None:
    square = squared(wide(), crop=Crop(0.0, 0.0, 0.001, 0.001), fit="stretch", image_size=8)
    assert (square == [255, 0, 0]).all()


def scene(width: int, height: int, orientation: int = 1) -> bytes:
    """A JPEG of smooth shapes with edges and fine noise, as photographs have; of that size as stored."""
    dice = np.random.default_rng(width)
    total = np.zeros((height, width, 3))
    for cells, weight in ((4, 60), (16, 40), (64, 25)):
        field = Image.fromarray(dice.integers(0, 256, (cells, cells, 3), np.uint8))
        total += weight * (np.asarray(field.resize((width, height), Image.Resampling.BICUBIC), float) / 127.5 - 1)
    total += 60 * (np.sin(np.arange(width) / 9)[None, :, None] > 0) + dice.normal(0, 4, total.shape)
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray((total + 100).clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=92, exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize("fit", ["letterbox", "crop", "stretch"])
@pytest.mark.parametrize("crop", [WHOLE, Crop(0.21, 0.4, 0.83, 0.97)])
@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("size", [(801, 603), (800, 600)])
def test_a_large_jpeg_is_decoded_smaller_and_packed_as_at_full_size(
    fit: Fit, crop: Crop, orientation: int, size: tuple[int, int]
) -> None:
    data = scene(*size, orientation)
    whole = decode(data, max_pixels=10**6).pixels
    height, width = whole.shape[:2]
    placement = place(width, height, crop=crop, fit=fit, image_size=48)
    least = least_size(width, height, placement)
    reduced = decode_reduced(data, max_pixels=10**6, width=least[0], height=least[1])
    # turned pictures are reduced where their sides can be divided
    assert (reduced.pixels.size < whole.size / 2) == (orientation == 1 or size == (800, 600))
    assert min(reduced.width / least[0], reduced.height / least[1]) >= 1
    found = to_square(reduced, width=width, height=height, placement=placement, image_size=48)
    expected = squared(whole, crop=crop, fit=fit, image_size=48)
    difference = np.abs(found.astype(int) - expected.astype(int))
    assert difference.mean() < 0.8
    assert difference.max() <= 16
    assert (found[0, 0] == expected[0, 0]).all() or fit != "letterbox"  # the border lies where it did


def test_a_picture_is_never_reduced_below_what_its_part_needs() -> None:
    placement = place(1000, 500, crop=Crop(0.0, 0.0, 0.25, 1.0), fit="crop", image_size=100)
    assert placement.box == (0, 125, 250, 375)
    assert least_size(1000, 500, placement) == (SPARE * 100 / 250 * 1000, SPARE * 100 / 250 * 500)


def test_a_jpeg_that_ends_early_is_refused_though_it_is_decoded_smaller() -> None:
    data = scene(800, 600)
    with pytest.raises(ImageError, match="truncated"):
        decode_reduced(data[: len(data) // 2], max_pixels=10**6, width=100, height=75)
    with pytest.raises(ImageError, match="too-many-pixels"):
        decode_reduced(data, max_pixels=1000, width=100, height=75)


# the sheet ----------------------------------------------------------------------------------


def index_of_classes(class_index: list[int]) -> PackIndex:
    count = len(class_index)
    return PackIndex(
        image_id=np.array([f"{i:064x}" for i in range(count)]),
        class_index=np.array(class_index, np.int64),
        subset=np.array(["train"] * count),
        fold=np.full(count, -1),
        position=np.arange(count),
        copy=np.zeros(count, np.int64),
        factors={},
        classes=[str(i) for i in range(max(class_index) + 1)],
    )


def test_the_sheet_shows_as_many_classes_as_it_can() -> None:
    index = index_of_classes([0, 0, 0, 1, 1, 2])
    assert choose(index, 3).tolist() == [0, 3, 5]
    assert choose(index, 5).tolist() == [0, 1, 3, 4, 5]
    assert choose(index, 99).tolist() == [0, 1, 2, 3, 4, 5]


def test_with_more_classes_than_rows_the_shown_ones_are_spread() -> None:
    index = index_of_classes(list(range(100)))
    assert choose(index, 4).tolist() == [0, 25, 50, 75]


def test_a_policy_is_described_by_what_it_does() -> None:
    assert describe(policy_of()) == "nothing changes"
    assert describe(policy_of(flip=0.5, rotation=15.0)) == "flip 0.5 · rotation 15"
    some = policy_of(crop=0.4, jpeg={"probability": 0.3, "quality": 30}, auto={"kind": "trivialaugment"})
    assert describe(some) == "crop 0.4 · jpeg probability 0.3 quality 30 · auto trivialaugment"


def block(name: str, line: str = "flip 0.5", *, pictures: int = 8, draws: int = 3, side: int = 32) -> Block:
    dice = np.random.default_rng(len(name))
    return Block(name, line, dice.integers(0, 256, (pictures, 1 + draws, side, side, 3), np.uint8))


def sheet_of(blocks: list[Block]) -> Image.Image:
    return Image.open(io.BytesIO(draw_sheet(blocks, [f"class {i}" for i in range(len(blocks[0].strip))])))


def test_many_policies_lie_side_by_side_on_a_page_of_a_screen_s_shape() -> None:
    for count in (4, 6, 9, 16):
        sheet = sheet_of([block(f"policy {i}") for i in range(count)])
        assert 0.9 <= sheet.width / sheet.height <= 2.2


def test_the_sheet_stays_small_by_showing_smaller_pictures() -> None:
    # noise is what compresses worst
    blocks = [block(f"policy {i}", side=128, pictures=12) for i in range(8)]
    drawn = draw_sheet(blocks, ["a"] * 12)
    assert 0.5 * MAX_BYTES < len(drawn) <= MAX_BYTES
    assert drawn == draw_sheet(blocks, ["a"] * 12)


def test_small_pictures_are_shown_as_they_are_beside_their_draws() -> None:
    one = block("one", pictures=2, draws=2, side=30)
    pixels = np.asarray(sheet_of([one])).astype(int)
    rounded = (one.strip.astype(int) + 2) // 4 * 4
    found = np.lib.stride_tricks.sliding_window_view(pixels, (30, 30, 3))[:, :, 0]
    places = [
        tuple(np.argwhere((found == rounded[i, j].clip(0, 255)).all(axis=(2, 3, 4)))[0]) for i in (0, 1) for j in (0, 2)
    ]
    (top, left), (low, same), (level, right), (_, same_right) = places
    assert (same, same_right, level) == (left, right, top)
    assert low - top > 2 * 30
    assert right - left == 34


def test_more_pictures_than_fit_side_by_side_come_below() -> None:
    narrow, wide_one = sheet_of([block("a", pictures=10)]), sheet_of([block("a", pictures=11)])
    assert wide_one.width == narrow.width
    assert wide_one.height > 1.6 * narrow.height


def test_a_long_description_is_wrapped_and_a_long_label_cut() -> None:
    lines = _wrapped(" · ".join(f"change {i} 0.5" for i in range(20)), 100, lambda text: 5.0 * len(text))
    assert all(len(line) <= 20 for line in lines)
    assert " · ".join(lines).count("change") == 20
    assert _elided("fender_jazzmaster", 60, lambda text: 5.0 * len(text)) == "fender_ja..."
    assert _elided("short", 60, lambda text: 5.0 * len(text)) == "short"


def test_without_a_policy_the_sheet_shows_the_pictures(tmp_path: Path) -> None:
    paths = ingest_folder(tmp_path, four_pictures())
    pack(params(policies={}), paths)
    with Image.open(paths["out_dir"] / "preview.png") as sheet:
        assert sheet.width > 100
