"""augment: packs and sheet; crops decided by a person."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.augment import AugmentArtifact, augment
from pipelines.augment.fitting import to_square
from pipelines.augment.preview import break_lines, choose, describe
from pipelines.core.crops import WHOLE, Crop
from pipelines.core.errors import DecisionError, InputError
from pipelines.core.packs import PackIndex, read_index
from pipelines.core.params.augment import AugmentParams, policy_of
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
    assert set(written[0]) == {"train.npy", "val.npy", "test.npy", "index.parquet", "pack.json", "preview.png"}


def test_the_number_of_workers_changes_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    for workers in ("1", "2"):
        monkeypatch.setenv("MIWAKE_WORKERS", workers)
        monkeypatch.setattr("pipelines.augment.stage.CHUNK_IMAGES", 1)
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


def test_letterbox_keeps_all_between_grey_borders() -> None:
    square = to_square(wide(), crop=WHOLE, fit="letterbox", image_size=40)
    assert square.shape == (40, 40, 3)
    assert (square[:10] == 128).all()
    assert (square[30:] == 128).all()
    assert square[20, 2].tolist() == [255, 0, 0]
    assert square[20, 37].tolist() == [0, 0, 255]


def test_crop_keeps_the_middle() -> None:
    square = to_square(wide(), crop=WHOLE, fit="crop", image_size=20)
    assert (square == 255).all()


def test_stretch_squeezes_all_of_it() -> None:
    square = to_square(wide(), crop=WHOLE, fit="stretch", image_size=20)
    assert square[10, 1].tolist() == [255, 0, 0]
    assert square[10, 10].tolist() == [255, 255, 255]
    assert square[10, 18].tolist() == [0, 0, 255]


def test_a_picture_of_the_right_size_keeps_its_bits() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    for fit in ("letterbox", "crop", "stretch"):
        assert (to_square(pixels, crop=WHOLE, fit=fit, image_size=16) == pixels).all()


def test_making_smaller_averages_and_does_not_pick() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 254
    small = to_square(stripes, crop=WHOLE, fit="stretch", image_size=8)
    assert abs(int(small.mean()) - 127) <= 2
    assert small.std() < 5


@pytest.mark.parametrize("fit", ["letterbox", "crop", "stretch"])
@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 300, 3), (300, 1, 3)])
def test_extreme_shapes_become_squares(fit: Any, shape: tuple[int, int, int]) -> None:
    square = to_square(np.full(shape, 200, np.uint8), crop=WHOLE, fit=fit, image_size=16)
    assert square.shape == (16, 16, 3)
    assert (square[7:9, 7:9] == 200).any()


def test_a_crop_of_less_than_a_pixel_keeps_one() -> None:
    square = to_square(wide(), crop=Crop(0.0, 0.0, 0.001, 0.001), fit="stretch", image_size=8)
    assert (square == [255, 0, 0]).all()


# the sheet ----------------------------------------------------------------------------------


def index_of_classes(class_index: list[int]) -> PackIndex:
    count = len(class_index)
    return PackIndex(
        image_id=np.array([f"{i:064x}" for i in range(count)]),
        class_index=np.array(class_index, np.int64),
        subset=np.array(["train"] * count),
        fold=np.full(count, -1),
        position=np.arange(count),
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


def test_a_long_description_is_broken_between_changes() -> None:
    text = "flip 0.5 · rotation 15 · shift 0.1"
    assert break_lines(text, lambda line: len(line) <= 99) == [text]
    assert break_lines(text, lambda line: len(line) <= 24) == ["flip 0.5 · rotation 15", "shift 0.1"]
    assert break_lines(text, lambda line: len(line) <= 5) == ["flip 0.5", "rotation 15", "shift 0.1"]
