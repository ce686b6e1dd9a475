"""Figures of quality: each against a value that can be worked out by hand."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from pipelines.images.decoding import ImageSummary, decode, summarize
from pipelines.images.downscale import DOWNSCALED_SIDE, downscale, eighths_of
from pipelines.ingest.quality import quality, sharpness


def look(data: bytes) -> ImageSummary:
    return summarize(data, max_pixels=10_000_000, min_side=1)


def file_of(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def scene(width: int, height: int) -> Image.Image:
    """Edges and textures of many sizes, as a photograph has."""
    random = np.random.default_rng(5)
    levels = np.zeros((height, width, 3))
    for cells in (4, 16, 64, 256):
        coarse = random.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        levels += np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)) / 4
    return Image.fromarray(levels.clip(0, 255).astype(np.uint8))


def sharpness_of(data: bytes) -> float:
    return sharpness(look(data).downscaled)


def test_brightness_contrast_and_entropy_of_pictures_made_by_hand() -> None:
    blank = np.full((32, 32), 77, np.uint8)
    halves = np.zeros((32, 32), np.uint8)
    halves[:16] = 200
    every = np.arange(1024, dtype=np.uint8).reshape(32, 32)  # each of 256 levels four times
    found = quality(np.stack([blank, halves, every]))
    assert found.brightness.tolist() == [77, 100, 127.5]
    assert found.contrast.tolist() == [0, 100, pytest.approx(np.sqrt((256**2 - 1) / 12))]
    assert found.entropy.tolist() == [0, 1, 8]
    assert quality(np.zeros((0, 32, 32), np.uint8)).entropy.shape == (0,)


def test_sharpness_is_the_variance_of_the_laplacian() -> None:
    blank = np.full((5, 9), 255, np.uint8)
    dot = np.zeros((5, 5), np.uint8)
    dot[2, 2] = 10  # the Laplacian is -40 there and 10 at its four neighbours, 0 at four others: mean 0
    checks = (np.indices((6, 6)).sum(axis=0) % 2 * 255).astype(np.uint8)  # ±1020 everywhere
    found = [sharpness(one) for one in (blank, dot, checks, np.zeros((2, 50), np.uint8))]
    assert found == [0, pytest.approx((1600 + 4 * 100) / 9), 1020**2, 0]


@pytest.mark.parametrize(
    "size", [(64, 48), (299, 400), (640, 480), (1024, 768), (1500, 1111), (2100, 2060), (3000, 200)]
)
def test_a_png_and_a_jpeg_of_one_picture_are_equally_sharp(size: tuple[int, int]) -> None:
    image = scene(*size)
    png, jpeg, progressive = (
        sharpness_of(file_of(image, format, **options))
        for format, options in (
            ("PNG", {"compress_level": 1}),
            ("JPEG", {"quality": 95}),
            ("JPEG", {"quality": 95, "progressive": True}),
        )
    )
    assert jpeg == pytest.approx(png, rel=0.05 if min(size) > 64 else 0.1)
    assert progressive == jpeg


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
@pytest.mark.parametrize("size", [(200, 150), (640, 480), (1024, 768)])
def test_a_blurred_picture_has_less_than_a_tenth_of_its_sharpness(format: str, size: tuple[int, int]) -> None:
    image = scene(*size)
    blurred = image.filter(ImageFilter.GaussianBlur(max(1.5, min(size) / 80)))
    assert sharpness_of(file_of(blurred, format)) < sharpness_of(file_of(image, format)) / 10


def test_turning_a_picture_leaves_its_sharpness() -> None:
    image = scene(640, 480)
    for turn in (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.FLIP_LEFT_RIGHT):
        turned = file_of(image.transpose(turn), "PNG")
        assert sharpness_of(turned) == pytest.approx(sharpness_of(file_of(image, "PNG")), rel=1e-3)


@pytest.mark.parametrize("sides", [(1, 1), (127, 5000), (128, 128), (255, 256), (256, 256), (257, 999), (4000, 3000)])
def test_the_detail_is_from_127_to_255_pixels_unless_the_picture_is_smaller(sides: tuple[int, int]) -> None:
    width, height = sides
    found = downscale(np.zeros((height, width), np.uint8))
    assert min(found.shape) <= 255
    assert min(found.shape) >= min(DOWNSCALED_SIDE - 1, width, height) or max(found.shape) >= 1024
    assert max(found.shape) <= 16 * DOWNSCALED_SIDE


@pytest.mark.parametrize("side", range(256, 1100, 105))
def test_reducing_here_is_what_libjpeg_does(side: int) -> None:
    """Of one JPEG: reduced from its full pixels, and decoded at n/8."""
    data = file_of(scene(side, side + 50).convert("L"), "JPEG", quality=95)
    by_libjpeg = look(data).downscaled.astype(int)
    here = downscale(decode(data, max_pixels=10_000_000).pixels[:, :, 0]).astype(int)
    assert eighths_of(side, side + 50) in range(1, 5)
    assert by_libjpeg.shape == here.shape
    assert np.abs(by_libjpeg - here)[:-4, :-4].max() <= 2
