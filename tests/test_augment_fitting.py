"""augment: crops that a manifest or a person decided, and what makes a square of any picture."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from augmented import ID, four_pictures, ingest_folder, pack, params, png
from PIL import Image

from pipelines.augment.packing import SPARE, least_size, place, to_square
from pipelines.core.decisions import WHOLE, Crop
from pipelines.core.errors import DecisionError, ImageError, InputError
from pipelines.core.tables import SPLITS, write_table
from pipelines.images.decoding import ReducedImage, decode, decode_reduced
from pipelines.params.augment import ResizeMode
from pipelines.params.ingest import FileCrop

HEADER = "image_id,left,top,right,bottom\n"


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


def test_a_crop_of_a_picture_that_left_waits_for_it(tmp_path: Path) -> None:
    paths = ingest_folder(tmp_path, four_pictures())
    (paths["decisions_dir"] / "crop.csv").write_text(f"{HEADER}{ID},0,0,1,1\n")
    assert pack(params(), paths).num_images == 4


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


def wide() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """40 x 20: a red left quarter, a white middle, a blue right quarter."""
    pixels = np.full((20, 40, 3), 255, np.uint8)
    pixels[:, :10] = (255, 0, 0)
    pixels[:, 30:] = (0, 0, 255)
    return pixels


def squared(
    pixels: np.ndarray[Any, np.dtype[np.uint8]], *, crop: Crop, resize_mode: ResizeMode, image_size: int
) -> Any:
    """A picture decoded at its own size, as a square."""
    height, width = pixels.shape[:2]
    placement = place(width, height, crop=crop, resize_mode=resize_mode, image_size=image_size)
    whole = ReducedImage(pixels, width, height)
    return to_square(whole, width=width, height=height, placement=placement, image_size=image_size)


def test_letterbox_keeps_all_between_grey_borders() -> None:
    square = squared(wide(), crop=WHOLE, resize_mode="letterbox", image_size=40)
    assert square.shape == (40, 40, 3)
    assert (square[:10] == 128).all()
    assert (square[30:] == 128).all()
    assert square[20, 2].tolist() == [255, 0, 0]
    assert square[20, 37].tolist() == [0, 0, 255]


def test_crop_keeps_the_middle() -> None:
    square = squared(wide(), crop=WHOLE, resize_mode="center_crop", image_size=20)
    assert (square == 255).all()


def test_stretch_squeezes_all_of_it() -> None:
    square = squared(wide(), crop=WHOLE, resize_mode="squash", image_size=20)
    assert square[10, 1].tolist() == [255, 0, 0]
    assert square[10, 10].tolist() == [255, 255, 255]
    assert square[10, 18].tolist() == [0, 0, 255]


def test_a_picture_of_the_right_size_keeps_its_bits() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    for fit in ("letterbox", "center_crop", "squash"):
        assert (squared(pixels, crop=WHOLE, resize_mode=fit, image_size=16) == pixels).all()


def test_making_smaller_averages_and_does_not_pick() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 254
    small = squared(stripes, crop=WHOLE, resize_mode="squash", image_size=8)
    assert abs(int(small.mean()) - 127) <= 2
    assert small.std() < 5


@pytest.mark.parametrize("fit", ["letterbox", "center_crop", "squash"])
@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 300, 3), (300, 1, 3)])
def test_extreme_shapes_become_squares(fit: Any, shape: tuple[int, int, int]) -> None:
    square = squared(np.full(shape, 200, np.uint8), crop=WHOLE, resize_mode=fit, image_size=16)
    assert square.shape == (16, 16, 3)
    assert (square[7:9, 7:9] == 200).any()


def test_a_crop_of_less_than_a_pixel_keeps_one() -> None:
    square = squared(wide(), crop=Crop(0.0, 0.0, 0.001, 0.001), resize_mode="squash", image_size=8)
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


@pytest.mark.parametrize("fit", ["letterbox", "center_crop", "squash"])
@pytest.mark.parametrize("crop", [WHOLE, Crop(0.21, 0.4, 0.83, 0.97)])
@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("size", [(801, 603), (800, 600)])
def test_a_large_jpeg_is_decoded_smaller_and_packed_as_at_full_size(
    fit: ResizeMode, crop: Crop, orientation: int, size: tuple[int, int]
) -> None:
    data = scene(*size, orientation)
    whole = decode(data, max_pixels=10**6).pixels
    height, width = whole.shape[:2]
    placement = place(width, height, crop=crop, resize_mode=fit, image_size=48)
    least = least_size(width, height, placement)
    reduced = decode_reduced(data, max_pixels=10**6, width=least[0], height=least[1])
    # turned pictures are reduced where their sides can be divided
    assert (reduced.pixels.size < whole.size / 2) == (orientation == 1 or size == (800, 600))
    assert min(reduced.width / least[0], reduced.height / least[1]) >= 1
    found = to_square(reduced, width=width, height=height, placement=placement, image_size=48)
    expected = squared(whole, crop=crop, resize_mode=fit, image_size=48)
    difference = np.abs(found.astype(int) - expected.astype(int))
    assert difference.mean() < 0.8
    assert difference.max() <= 16
    assert (found[0, 0] == expected[0, 0]).all() or fit != "letterbox"  # the border lies where it did


def test_a_picture_is_never_reduced_below_what_its_part_needs() -> None:
    placement = place(1000, 500, crop=Crop(0.0, 0.0, 0.25, 1.0), resize_mode="center_crop", image_size=100)
    assert placement.box == (0, 125, 250, 375)
    assert least_size(1000, 500, placement) == (SPARE * 100 / 250 * 1000, SPARE * 100 / 250 * 500)


def test_a_jpeg_that_ends_early_is_refused_though_it_is_decoded_smaller() -> None:
    data = scene(800, 600)
    with pytest.raises(ImageError, match="truncated"):
        decode_reduced(data[: len(data) // 2], max_pixels=10**6, width=100, height=75)
    with pytest.raises(ImageError, match="too-many-pixels"):
        decode_reduced(data, max_pixels=1000, width=100, height=75)
