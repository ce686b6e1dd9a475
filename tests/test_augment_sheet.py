"""augment: the sheet that shows what each policy does."""

import io
from pathlib import Path

import numpy as np
from augmented import four_pictures, ingest_folder, pack, params
from PIL import Image

from pipelines.augment.preview import MAX_BYTES, Block, _elided, _wrapped, choose, describe, draw_sheet
from pipelines.augmentation.packs import PackIndex
from pipelines.params.augment import policy_of


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
    assert describe(policy_of(hflip=0.5, degrees=15.0)) == "hflip 0.5 · degrees 15"
    some = policy_of(
        random_resized_crop=0.4, jpeg={"probability": 0.3, "quality": 30}, auto_augment={"kind": "trivialaugment"}
    )
    assert describe(some) == "random_resized_crop 0.4 · jpeg probability 0.3 quality 30 · auto_augment trivialaugment"


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
