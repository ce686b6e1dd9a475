"""Sketches of many small files are those of each alone."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.ImageCms import ImageCmsProfile, createProfile

from pipelines.core import batches
from pipelines.core.batches import Alike, sketch_many
from pipelines.core.errors import ImageError
from pipelines.core.images import Sketch, sketch


def jpeg(index: int, *, size: tuple[int, int] = (32, 32), mode: str = "RGB", **options: Any) -> bytes:
    pixels = np.random.default_rng(index).integers(0, 256, (size[1] // 4 + 1, size[0] // 4 + 1, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).convert(mode)
    buffer = io.BytesIO()
    image.convert(options.pop("stored", mode)).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def alone(data: bytes, **limits: int) -> Sketch | ImageError:
    try:
        return sketch(data, **{"max_pixels": 1_000_000, "min_side": 8} | limits)
    except ImageError as error:
        return error


def assert_same(files: list[bytes], **limits: int) -> None:
    found = sketch_many(files, **{"max_pixels": 1_000_000, "min_side": 8} | limits).one_by_one()
    for one, expected in zip(found, [alone(data, **limits) for data in files], strict=True):
        if isinstance(one, ImageError) or isinstance(expected, ImageError):
            assert str(one) == str(expected)
        else:
            for field, value, other in zip(Sketch._fields, one, expected, strict=True):
                assert np.array_equal(value, other), field  # type: ignore[arg-type]


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures each tall JPEG that was decoded held."""
    counts: list[int] = []
    real = batches._sketch_alike

    def counted(*arguments: Any) -> Alike | None:
        made = real(*arguments)
        counts.append(0 if made is None else len(made.rows))
        return made

    monkeypatch.setattr(batches, "_sketch_alike", counted)
    return counts


@pytest.mark.parametrize("size", [(32, 32), (17, 9), (33, 100), (128, 96), (8, 8)])
@pytest.mark.parametrize(
    "options", [{}, {"subsampling": 0}, {"subsampling": 1}, {"mode": "L"}, {"mode": "L", "stored": "RGB"}]
)
def test_joined_pictures_are_bit_for_bit_those_of_each_alone(
    joined: list[int], size: tuple[int, int], options: dict[str, Any]
) -> None:
    assert_same([jpeg(index, size=size, **options) for index in range(11)])
    assert joined == [11]


def test_orientation_and_grey_among_colours_hold(joined: list[int]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert_same([jpeg(index, size=(40, 24), exif=exif.tobytes()) for index in range(5)])
    mixed = [jpeg(index, stored="RGB", mode="L" if index % 3 else "RGB") for index in range(12)]
    assert_same(mixed)
    assert joined == [5, 12]
    assert [
        isinstance(one, Sketch) and one.greyscale
        for one in sketch_many(mixed, max_pixels=9999, min_side=1).one_by_one()
    ] == [bool(index % 3) for index in range(12)]


def test_one_damaged_file_costs_no_other(joined: list[int]) -> None:
    whole = [jpeg(index) for index in range(8)]
    for damage in (
        whole[3][:-40],
        whole[3][:-40] + b"\xff\xd9",
        whole[3][:-2],
        whole[3][:640],
        whole[3][:-30] + bytes(28) + b"\xff\xd9",
    ):
        files = [*whole[:3], damage, *whole[4:]]
        assert_same(files)
        found = sketch_many(files, max_pixels=9999, min_side=1).one_by_one()
        assert sum(isinstance(one, Sketch) for one in found) >= 7
    assert set(joined) <= {0, 8}


def test_large_files_among_others_are_what_they_are_alone() -> None:
    large = [jpeg(index, size=(640, 300 + 90 * index)) for index in range(7)]
    turned = Image.Exif()
    turned[0x0112] = 8
    others = [
        jpeg(7, size=(500, 400), progressive=True),
        jpeg(8, size=(500, 400), mode="L"),
        jpeg(8, size=(500, 400), mode="L", stored="RGB"),
        jpeg(9, size=(500, 400), exif=turned.tobytes()),
        jpeg(9, size=(500, 400), stored="CMYK"),
        jpeg(10, size=(500, 400), icc_profile=ImageCmsProfile(createProfile("LAB")).tobytes()),
        jpeg(11, size=(1200, 1000)),  # more pixels than are allowed
        jpeg(12, size=(300, 6)),  # too few rows
        large[0][:5000],
        large[1][:4000] + bytes(300) + large[1][4300:],
        b"no picture",
        b"",
    ]
    assert_same([*large[:4], *others, *large[4:]])


def test_what_cannot_be_joined_is_looked_at_alone(joined: list[int]) -> None:
    assert_same([])
    assert_same([b"", b"no image", jpeg(1), jpeg(2, progressive=True), jpeg(3, size=(500, 400))])
    assert_same([jpeg(index, progressive=True) for index in range(6)])
    assert_same([jpeg(index, optimize=True) for index in range(6)])
    assert_same([jpeg(index, restart_marker_blocks=2) for index in range(6)])
    assert_same([jpeg(index, size=(200, 150)) for index in range(6)])
    assert joined == []


def test_a_header_cut_short_joins_no_files_that_begin_like_it(joined: list[int]) -> None:
    whole = [jpeg(index) for index in range(6)]
    end = whole[0].index(b"\xff\xda")
    for length in (end + 2, end + 3, end + 4, end + 8, end + 2 + int.from_bytes(whole[0][end + 2 : end + 4], "big")):
        assert_same([whole[0][:length], *whole])
        assert joined[-1] == 6
    assert_same([whole[0][: end + 2] + b"\0", *whole])


def test_files_of_two_makers_join_their_own(joined: list[int]) -> None:
    pairs = [jpeg(index, subsampling=index % 2) for index in range(10)]
    assert_same(pairs)
    assert_same([b"\0" * 20_000, *pairs, b"\0", pairs[0] + bytes(20_000), b""])
    assert joined == [5, 5, 5, 5]


def test_limits_hold_for_joined_files_too() -> None:
    files = [jpeg(index) for index in range(6)]
    assert_same(files, min_side=33)
    assert_same(files, max_pixels=1023)
    assert_same(files, max_pixels=1024, min_side=32)


def test_more_files_than_one_tall_picture_holds(joined: list[int]) -> None:
    """A JPEG has at most 65,535 rows."""
    some = [jpeg(index) for index in range(7)]
    assert_same((some * 300)[:2050])
    assert joined == [2031, 19]
