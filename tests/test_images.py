"""Bytes become upright RGB pixels, or an error that says what is wrong with them."""

import contextlib
import io
import struct
import tarfile
import warnings
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.core.errors import ImageError
from pipelines.images.decoding import DecodedImage, ImageSummary, decode, summarize, upright

LIMIT = 1_000_000
RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def file_of(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def look(data: bytes) -> ImageSummary:
    return summarize(data, max_pixels=LIMIT, min_side=1)


def see(data: bytes) -> DecodedImage:
    return decode(data, max_pixels=LIMIT)


def refusal(data: bytes) -> ImageError:
    """The error of both ways to look at a file, which must agree."""
    with pytest.raises(ImageError) as full:
        see(data)
    with pytest.raises(ImageError) as quick:
        look(data)
    assert quick.value.reason == full.value.reason
    return full.value


def corners(width: int = 64, height: int = 48) -> Image.Image:
    """White, with a red top left and a blue top right quarter: every turn of it looks different."""
    image = Image.new("RGB", (width, height), WHITE)
    image.paste(RED, (0, 0, width // 2, height // 2))
    image.paste(BLUE, (width // 2, 0, width, height // 2))
    return image


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "AVIF", "PPM"])
def test_every_format_is_told_by_content_and_shows_the_same_picture(format: str) -> None:
    picture = see(file_of(corners(), format))
    assert (picture.format, picture.orientation, picture.num_frames) == (format, 1, 1)
    assert picture.pixels.shape == (48, 64, 3)
    assert picture.pixels.dtype == np.uint8
    for (row, column), colour in {(10, 10): RED, (10, 50): BLUE, (40, 10): WHITE}.items():
        assert np.abs(picture.pixels[row, column].astype(int) - colour).max() <= 12


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_eight_orientations_stand_upright(format: str, orientation: int) -> None:
    """The stored picture is turned the other way, so the upright one is always the same."""
    turned = corners()
    stored = {
        1: lambda i: i,
        2: lambda i: i.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: lambda i: i.transpose(Image.Transpose.ROTATE_180),
        4: lambda i: i.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: lambda i: i.transpose(Image.Transpose.TRANSPOSE),
        6: lambda i: i.transpose(Image.Transpose.ROTATE_90),
        7: lambda i: i.transpose(Image.Transpose.TRANSVERSE),
        8: lambda i: i.transpose(Image.Transpose.ROTATE_270),
    }[orientation](turned)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {"lossless": True} if format == "WEBP" else {}
    data = file_of(stored, format, exif=exif.tobytes(), **options)
    picture, found = see(data), look(data)
    assert (picture.orientation, found.orientation) == (orientation, orientation)
    assert picture.pixels.shape == (48, 64, 3)
    assert (found.width, found.height) == (64, 48)
    assert np.abs(picture.pixels[10, 10].astype(int) - RED).max() <= 12
    assert np.abs(picture.pixels[10, 50].astype(int) - BLUE).max() <= 12
    # luma of red is 76, of blue 29, of white 255
    assert found.thumbnail[5, 5] == pytest.approx(76, abs=4)
    assert found.thumbnail[5, 26] == pytest.approx(29, abs=4)
    assert found.thumbnail[26, 5] == pytest.approx(255, abs=4)


def test_upright_leaves_orientations_that_do_not_exist_alone() -> None:
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    for orientation in (0, 1, 9, -1):
        assert upright(pixels, orientation) is pixels
    assert upright(pixels, 6).tolist() == [[3, 0], [4, 1], [5, 2]]


@pytest.mark.parametrize("size", [(64, 48), (267, 301), (1000, 130), (33, 700)])
def test_a_thumbnail_does_not_depend_on_how_it_was_decoded(size: tuple[int, int]) -> None:
    """The scaled JPEG decode agrees with the full one, within what rounding explains."""
    data = file_of(noise(*size).resize(size), "JPEG", quality=95)
    full = see(data).pixels
    same_pixels = file_of(Image.fromarray(full), "PNG")
    difference = np.abs(look(data).thumbnail.astype(int) - look(same_pixels).thumbnail)
    assert difference.mean() < 2
    assert look(data).thumbnail.shape == (32, 32)


def test_a_picture_of_32_pixels_is_its_own_thumbnail() -> None:
    grey = noise(32, 32).convert("L")
    assert np.array_equal(look(file_of(grey, "PNG")).thumbnail, np.asarray(grey))


def test_a_grey_picture_becomes_rgb_and_keeps_its_mode_on_record() -> None:
    for format, mode in (("JPEG", "L"), ("PNG", "L"), ("PNG", "1")):
        picture = see(file_of(Image.new("L", (20, 20), 255).convert(mode), format))
        assert (picture.mode, picture.pixels.shape, picture.pixels.min()) == (mode, (20, 20, 3), 255)


def test_cmyk_jpegs_become_rgb() -> None:
    picture = see(file_of(corners().convert("CMYK"), "JPEG", quality=95))
    assert picture.mode == "CMYK"
    assert np.abs(picture.pixels[10, 10].astype(int) - RED).max() <= 12
    assert np.abs(picture.pixels[40, 10].astype(int) - WHITE).max() <= 12


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_to_eight_not_clipped(format: str) -> None:
    ramp = np.array([[0, 257, 32768, 65535]] * 4, np.uint16)
    picture = see(file_of(Image.fromarray(ramp), format))
    assert picture.mode.startswith("I;16")
    assert picture.pixels[0, :, 0].tolist() == [0, 1, 128, 255]


def test_samples_without_an_agreed_range_are_refused() -> None:
    error = refusal(file_of(Image.new("F", (20, 20), 0.5), "TIFF"))
    assert str(error) == "unsupported-depth: floating-point samples have no agreed range; save 8 or 16 bits"
    deep = Image.fromarray(np.full((20, 20), 1 << 20, np.int32))
    assert refusal(file_of(deep, "TIFF")).reason == "unsupported-depth"


def test_transparency_lies_on_white() -> None:
    clear = Image.new("RGBA", (20, 20), (255, 0, 0, 0))
    assert see(file_of(clear, "PNG")).pixels.min() == 255
    half = Image.new("RGBA", (20, 20), (0, 0, 0, 128))
    assert see(file_of(half, "PNG")).pixels[0, 0].tolist() == [127, 127, 127]


def test_a_transparent_palette_lies_on_white() -> None:
    image = Image.new("P", (20, 20), 0)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.paste(1, (0, 0, 10, 20))
    picture = see(file_of(image, "PNG", transparency=0))
    assert picture.mode == "P"
    assert picture.pixels[5, 5].tolist() == list(RED)
    assert picture.pixels[5, 15].tolist() == list(WHITE)


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_frame_is_used_and_the_frames_are_counted(format: str) -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in (RED, BLUE, WHITE)]
    options: dict[str, Any] = {"lossless": True} if format == "WEBP" else {}
    picture = see(file_of(frames[0], format, save_all=True, append_images=frames[1:], **options))
    assert picture.num_frames == 3
    assert picture.pixels[10, 10].tolist() == list(RED)


def test_the_second_picture_of_a_phone_photograph_is_no_frame() -> None:
    data = file_of(corners(), "MPO", save_all=True, append_images=[corners()])
    assert (see(data).format, see(data).num_frames, look(data).num_frames) == ("JPEG", 1, 1)


def test_an_empty_file_is_refused() -> None:
    assert str(refusal(b"")) == "empty-file: 0 bytes"


@pytest.mark.parametrize("kept", [0.02, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_truncated_jpeg_is_refused(kept: float, progressive: bool) -> None:
    data = file_of(noise(300, 200), "JPEG", progressive=progressive)
    assert refusal(data[: int(len(data) * kept)]).reason in ("truncated", "broken")


def test_a_jpeg_cut_in_the_middle_is_refused_though_it_ends_as_it_should() -> None:
    """Pillow alone paints the lost half grey."""
    data = file_of(noise(300, 200), "JPEG")
    error = refusal(data[: len(data) // 2] + b"\xff\xd9")
    assert error.reason == "truncated"
    assert "premature end" in error.detail.lower()


@pytest.mark.parametrize("format", ["PNG", "GIF", "BMP", "WEBP", "TIFF", "AVIF", "PPM"])
def test_a_truncated_file_of_any_format_is_refused(format: str) -> None:
    data = file_of(noise(200, 200), format)
    assert refusal(data[: len(data) // 2]).reason in ("truncated", "broken")


def test_damage_in_the_middle_of_a_png_is_refused() -> None:
    data = bytearray(file_of(noise(200, 200), "PNG"))
    data[len(data) // 2] ^= 0xFF
    assert str(refusal(bytes(data))) == "broken: the checksum of its IDAT chunk is wrong"


def test_a_header_without_a_picture_is_broken_and_says_so_in_the_same_words_each_time() -> None:
    error = refusal(b"GIF89a" + bytes(20))
    assert str(error) == "broken: announces itself as GIF, but its header cannot be read"


def test_html_named_jpg_is_told_from_a_picture() -> None:
    assert str(refusal(b"\n<!DOCTYPE html><title>404</title>")) == "not-an-image: an HTML page"
    assert str(refusal(b"hello, world, how do you do")) == "not-an-image: starts with b'hello, world'"


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"%PDF-1.7 ", "a PDF document"),
        (b"\0\0\2\0\1\0\x20\x20\0\0\1\0\1\0\x30\0\0\0\x16\0\0\0", "a Windows cursor"),
        (b"\0\0\1\0\1\0\x20\x20\0\0\1\0\1\0\x30\0\0\0\x16\0\0\0", "a Windows icon"),
        (b"\0\0\2\0\0\0\0\0\0\0\0\0\x20\0\x20\0\x18\0", "a Targa picture"),
        (b"\0\0\x0a\0\0\0\0\0\0\0\0\0\x20\0\x20\0\x20\x28", "a Targa picture"),
        (b"\0\1\1\0\0\0\1\x18\0\0\0\0\x20\0\x20\0\x08\0", "a Targa picture"),
        (b"\x0a\5\1\x08\0\0\0\0\x20\0\x20\0", "a PCX picture"),
        (b"\x01\xda\1\1\0\3\0\x20\0\x20\0\3", "an SGI picture"),
        (b"\x00\x00\x00\x0cjP  \r\n", "a JPEG 2000 picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "a PostScript document"),
        (b"<?xml version='1.0'?><svg/>", "an SVG drawing"),
    ],
)
def test_what_is_not_supported_is_named_with_a_remedy(head: bytes, what: str) -> None:
    error = refusal(head + bytes(64))
    assert error.reason == "unsupported-format"
    assert error.detail.startswith(what)
    assert "save it as" in error.detail


@pytest.mark.parametrize(
    "head",
    [b"FUJIFILMCCD-RAW 0201", b"IIU\0\x18\0\0\0", b"IIRO\x08\0\0\0", b"IIRS\x08\0\0\0", b"MMOR\0\0\0\x08", b"\0MRM\0\1",
     b"FOVb\0\0\2\0", b"II\x1a\0\0\0HEAPCCDR", b"\0\0\0\x18ftypcrx \0\0\0\1crx isom"],
)  # fmt: skip
def test_raw_files_of_cameras_are_named(head: bytes) -> None:
    assert str(refusal(head + bytes(64))) == "camera-raw: a camera's raw file; export it as JPEG or TIFF"


def test_pointers_to_files_elsewhere_say_what_fetches_them() -> None:
    lfs = refusal(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n")
    assert str(lfs) == "not-an-image: a pointer of Git LFS: `git lfs pull` fetches the file"
    annex = refusal(b"/annex/objects/SHA256E-s99--00.jpg\n")
    assert annex.detail.endswith("`git annex get` fetches the file")


def test_a_damaged_bmp_is_a_broken_one_and_two_letters_are_none() -> None:
    whole = file_of(noise(20, 20), "BMP")
    for damaged in (whole[:14] + b"\x99" + whole[15:], whole[:30], whole[:14]):
        assert refusal(damaged).reason in ("broken", "truncated")
    assert refusal(b"BM is how the text begins, and no picture").reason == "not-an-image"


def png_of(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header announces any size."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_a_decompression_bomb_is_refused_by_its_header() -> None:
    error = refusal(png_of(1500, 1000))
    assert str(error) == "too-many-pixels: 1500 x 1000 pixels; ingest.max_pixels is 1000000"
    assert str(refusal(png_of(60_000, 60_000))) == "too-many-pixels: announces 3600000000 pixels"
    jpeg = bytearray(file_of(corners(), "JPEG"))
    start = jpeg.index(b"\xff\xc0")
    jpeg[start + 5 : start + 9] = struct.pack(">HH", 65000, 65000)
    assert refusal(bytes(jpeg)).reason == "too-many-pixels"


def test_a_picture_of_exactly_max_pixels_passes() -> None:
    data = file_of(corners(40, 25), "PNG")
    assert decode(data, max_pixels=1000).pixels.shape == (25, 40, 3)
    with pytest.raises(ImageError, match="40 x 25 pixels; ingest.max_pixels is 999"):
        decode(data, max_pixels=999)


def test_a_jpeg_of_thousands_of_scans_is_refused_undecoded() -> None:
    data = file_of(corners(), "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    error = refusal(data[:-2] + scan * 2000 + b"\xff\xd9")
    assert error.reason == "broken"
    assert "made to exhaust the decoder" in error.detail


def test_a_jpeg_of_twelve_bits_is_refused_clearly() -> None:
    data = bytearray(file_of(corners(), "JPEG"))
    data[data.index(b"\xff\xc0") + 4] = 12
    assert str(refusal(bytes(data))) == "unsupported-depth: a JPEG of 12 bits a sample; save it with 8"


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_a_picture_of_one_pixel_is_too_small_for_ingest(format: str) -> None:
    data = file_of(Image.new("RGB", (1, 1), RED), format)
    with pytest.raises(ImageError, match="too-small: 1 x 1 pixels; ingest.min_side is 8"):
        summarize(data, max_pixels=LIMIT, min_side=8)
    assert see(data).pixels.shape == (1, 1, 3)


def test_damaged_exif_does_not_cost_the_picture() -> None:
    data = file_of(corners(), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    assert (see(data).orientation, look(data).orientation) == (1, 1)
    data = file_of(corners(), "PNG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    assert see(data).orientation == 1


def test_random_bytes_never_raise_anything_but_an_image_error() -> None:
    """Each format's own start, then damage: 600 files."""
    random = np.random.default_rng(7)
    whole = [file_of(noise(40, 40), format) for format in ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF")]
    for turn in range(600):
        data = bytearray(whole[turn % len(whole)])
        for place in random.integers(0, len(data), 6):
            data[place] = random.integers(0, 256)
        for judge in (see, look):
            with contextlib.suppress(ImageError):
                judge(bytes(data))


def test_pillows_own_limit_is_left_as_it_was() -> None:
    before = Image.MAX_IMAGE_PIXELS
    see(file_of(corners(), "PNG"))
    refusal(png_of(1500, 1000))
    assert before == Image.MAX_IMAGE_PIXELS


def test_threads_that_decode_at_once_see_the_same_and_leave_pillow_as_it_was(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    # far below what is allowed here: a thread that puts it back while others decode would make them refuse
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    filters = list(warnings.filters)
    whole = [file_of(noise(60, 50), format) for format in ("PNG", "TIFF", "WEBP", "GIF", "BMP", "JPEG")]
    damaged = file_of(noise(60, 50), "TIFF", compression="tiff_lzw")
    whole.append(damaged[:200] + bytes(400) + damaged[600:])

    def seen(data: bytes) -> bytes | str:
        try:
            return see(data).pixels.tobytes()
        except ImageError as error:
            return error.reason

    expected = [seen(data) for data in whole] * 40
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(seen, whole * 40)) == expected
    assert Image.MAX_IMAGE_PIXELS == 10
    assert warnings.filters == filters
    assert expected[6] == "broken"
    assert capfd.readouterr().err == ""


# what is refused of /stress, by reason; each was looked at beside a browser: beyond these, Chromium shows 13 icons and
# cursors, 9 BMPs of rare kinds, the broken_data_stream, xcsn0g01 (a wrong checksum) and beginnings of truncated files
STRESS_REJECTS = {
    "broken": 35,
    "not-an-image": 154,
    "too-many-pixels": 4,
    "too-small": 41,
    "truncated": 6,
    "unsupported-depth": 1,
    "unsupported-format": 172,
}


def test_the_stress_set_is_refused_for_these_reasons_and_no_others(capfd: pytest.CaptureFixture[str]) -> None:
    archive = Path(__file__).parents[2] / "shared" / "data" / "stress.tar.gz"
    if not archive.exists():
        pytest.skip("shared/data/stress.tar.gz is absent")
    reasons: dict[str, str] = {}
    accepted = 0
    with tarfile.open(archive) as tar:
        for member in tar:
            if not member.isfile():
                continue
            data = tar.extractfile(member).read()  # type: ignore[union-attr]
            try:
                found = summarize(data, max_pixels=100_000_000, min_side=8)
            except ImageError as error:
                reasons[member.name.removeprefix("stress/")] = error.reason
            else:
                accepted += 1
                assert found.thumbnail.shape == (32, 32)
                assert min(found.width, found.height) >= 8
    assert accepted + len(reasons) == 1262
    assert Counter(reasons.values()) == STRESS_REJECTS
    assert reasons["pillow/truncated_jpeg.jpg"] == "truncated"
    assert reasons["pillow/decompression_bomb.gif"] == "too-many-pixels"
    assert reasons["pngsuite/xcsn0g01.png"] == "broken"
    assert reasons["near-duplicates/mixed_images/ukbench09268_corrupt.jpg"] == "not-an-image"
    assert "pillow/apng/chunk_no_fctl.png" not in reasons
    assert sum(name.endswith(".bmp") and why == "unsupported-format" for name, why in reasons.items()) == 11
    assert capfd.readouterr().err == ""


def test_threads_that_decode_leave_pillows_limit_and_the_warnings_as_they_were() -> None:
    """One thread ends while another still decodes: neither may put back what the other set."""
    palette = io.BytesIO()
    Image.new("P", (300, 300)).save(palette, "PNG")
    limit, filters = Image.MAX_IMAGE_PIXELS, list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda size: decode(palette.getvalue(), max_pixels=size), range(90_000, 90_400)))
    assert {picture.pixels.shape for picture in found} == {(300, 300, 3)}
    assert limit == Image.MAX_IMAGE_PIXELS
    assert list(warnings.filters) == filters
