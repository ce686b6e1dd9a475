"""Every format that ingest takes: known colours after `decode`, and `summarize` telling the same of each."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.core.errors import ImageError
from pipelines.images.decoding import DecodedImage, ImageSummary, decode, summarize

LIMIT = 1_000_000
PATCHES = ((200, 40, 40), (40, 160, 60), (50, 60, 190), (128, 128, 128), (0, 0, 0), (255, 255, 255))
SIDE = 48


def patches(mode: str = "RGB") -> Image.Image:
    """Six squares of known colours in two rows: 144 x 96 pixels."""
    image = Image.new("RGB", (3 * SIDE, 2 * SIDE))
    for index, colour in enumerate(PATCHES):
        left, top = index % 3 * SIDE, index // 3 * SIDE
        image.paste(colour, (left, top, left + SIDE, top + SIDE))
    return image.convert(mode)


def file_of(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def both(data: bytes) -> tuple[DecodedImage, ImageSummary]:
    """What both ways to look at a file say; where they overlap they must agree."""
    picture, found = decode(data, max_pixels=LIMIT), summarize(data, max_pixels=LIMIT, min_side=1)
    assert picture.pixels.shape == (found.height, found.width, 3)
    assert (picture.format, picture.mode, picture.orientation, picture.num_frames) == (
        found.format, found.mode, found.orientation, found.num_frames,
    )  # fmt: skip
    lossless = summarize(file_of(Image.fromarray(picture.pixels), "PNG"), max_pixels=LIMIT, min_side=1)
    assert np.abs(found.thumbnail.astype(int) - lossless.thumbnail).mean() < 2
    assert (found.greyscale, found.downscaled.shape) == (lossless.greyscale, lossless.downscaled.shape)
    return picture, found


def assert_shows(pixels: Any, colours: Any, *, within: int) -> None:
    for index, colour in enumerate(colours):
        row, column = index // 3 * SIDE + SIDE // 2, index % 3 * SIDE + SIDE // 2
        assert np.abs(pixels[row, column].astype(int) - colour).max() <= within, (colour, pixels[row, column])


FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "baseline": ("JPEG", {"quality": 95}),
    "progressive": ("JPEG", {"quality": 95, "progressive": True}),
    "4:4:4": ("JPEG", {"quality": 95, "subsampling": 0}),
    "stored as RGB": ("JPEG", {"quality": 95, "keep_rgb": True}),
    "restart markers": ("JPEG", {"quality": 95, "restart_marker_rows": 1}),
    "png": ("PNG", {}),
    "webp": ("WEBP", {"quality": 95}),
    "lossless webp": ("WEBP", {"lossless": True}),
    "bmp": ("BMP", {}),
    "ppm": ("PPM", {}),
    "avif": ("AVIF", {"quality": 95, "subsampling": "4:4:4"}),
    "plain tiff": ("TIFF", {}),
    "lzw": ("TIFF", {"compression": "tiff_lzw"}),
    "deflate": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    "packbits": ("TIFF", {"compression": "packbits"}),
    "jpeg in tiff": ("TIFF", {"compression": "jpeg", "quality": 95}),
    "big tiff": ("TIFF", {"big_tiff": True}),
}


@pytest.mark.parametrize("name", FORMATS)
def test_the_colours_of_every_format_are_those_that_were_stored(name: str) -> None:
    format, options = FORMATS[name]
    picture, found = both(file_of(patches(), format, **options))
    assert_shows(picture.pixels, PATCHES, within=3)
    assert (picture.format, found.greyscale, found.transparent) == (format, False, False)


@pytest.mark.parametrize("format", ["GIF", "PNG", "BMP", "TIFF"])
def test_a_palette_keeps_its_colours(format: str) -> None:
    picture, _ = both(file_of(patches().quantize(16), format))
    assert picture.mode == "P"
    assert_shows(picture.pixels, PATCHES, within=2)


@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize("size", [(40, 30), (300, 200), (900, 700)])
def test_grey_stored_in_three_channels_counts_as_grey(size: tuple[int, int], subsampling: int) -> None:
    noise = np.random.default_rng(3).integers(0, 256, (size[1], size[0]), dtype=np.uint8)
    grey = Image.fromarray(noise).convert("RGB")
    for options in ({"quality": 60}, {"quality": 60, "progressive": True}):
        picture, found = both(file_of(grey, "JPEG", subsampling=subsampling, **options))
        assert (picture.mode, found.greyscale) == ("RGB", True)
    assert both(file_of(grey, "PNG"))[1].greyscale


@pytest.mark.parametrize("progressive", [False, True])
def test_a_small_part_in_colour_is_found_wherever_it_lies(progressive: bool) -> None:
    for place in ((0, 0), (600, 40), (780, 580)):
        image = Image.new("RGB", (800, 600), (120, 120, 120))
        image.paste((160, 100, 100), (*place, place[0] + 16, place[1] + 16))
        for format, options in (("JPEG", {"quality": 90, "progressive": progressive}), ("PNG", {})):
            assert not both(file_of(image, format, **options))[1].greyscale


def test_colour_starts_above_eight_levels() -> None:
    for tint, grey in ((8, True), (9, False)):
        image = Image.new("RGB", (40, 40), (100, 100, 100))
        image.putpixel((17, 23), (100 + tint, 100, 100))
        assert both(file_of(image, "PNG"))[1].greyscale is grey


def test_transparent_means_that_a_pixel_is_not_opaque_whatever_the_mode_says() -> None:
    opaque = patches("RGBA")
    assert not both(file_of(opaque, "PNG"))[1].transparent
    assert not both(file_of(opaque, "WEBP", lossless=True))[1].transparent
    pierced = opaque.copy()
    pierced.putpixel((5, 5), (0, 0, 0, 254))
    for format, options in (("PNG", {}), ("WEBP", {"lossless": True, "exact": True}), ("TIFF", {})):
        assert both(file_of(pierced, format, **options))[1].transparent
    assert both(file_of(patches("LA"), "PNG"))[0].mode == "LA"
    assert not both(file_of(patches("LA"), "PNG"))[1].transparent


def test_one_colour_that_stands_for_nothing_lies_on_white() -> None:
    """tRNS of a PNG without alpha, for 8 and 16 bits."""
    picture, found = both(file_of(patches(), "PNG", transparency=PATCHES[0]))
    assert_shows(picture.pixels, ((255, 255, 255), *PATCHES[1:]), within=0)
    assert found.transparent
    ramp = np.tile(np.array([[0, 257, 32768, 65535]], np.uint16), (4, 1))
    data = file_of(Image.fromarray(ramp), "PNG")
    picture, found = both(with_chunk(data, b"tRNS", struct.pack(">H", 0)))
    assert (picture.pixels[0, :, 0].tolist(), found.transparent) == ([255, 1, 128, 255], True)


def with_chunk(png: bytes, kind: bytes, body: bytes) -> bytes:
    """A PNG with one more chunk, right after its header."""
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return png[:33] + chunk + png[33:]


@pytest.mark.parametrize(("bits", "levels"), [(1, [0, 255]), (2, [0, 85, 170, 255]), (4, [0, 17, 136, 255])])
def test_grey_pngs_of_few_bits_reach_from_black_to_white(bits: int, levels: list[int]) -> None:
    most = (1 << bits) - 1
    samples = [level * most // 255 for level in levels]
    row = sum(sample << (bits * (7 - place)) for place, sample in enumerate(samples * (8 // len(samples))))
    packed = row.to_bytes(bits, "big")
    header = struct.pack(">IIBBBBB", 8, 2, bits, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header)
    data += png_chunk(b"IDAT", zlib.compress((b"\0" + packed) * 2)) + png_chunk(b"IEND", b"")
    assert both(data)[0].pixels[1, : len(levels), 1].tolist() == levels


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def test_sixteen_bits_of_rgb_and_an_interlaced_png() -> None:
    samples = np.zeros((4, 4, 3), ">u2")
    samples[:, :, 0], samples[:, :, 1] = 0xC8C8, 0x2828
    rows = b"".join(b"\0" + row.tobytes() for row in samples)
    data = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0))
    assert both(data + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b""))[0].pixels[2, 2].tolist() == [
        200, 40, 0,
    ]  # fmt: skip
    # Adam7 of one colour: passes of 1x1, 0, 1x1, 2x1, 1x2, 2x... all rows alike
    passes = [(1, 1), (0, 1), (1, 0), (1, 1), (2, 1), (2, 2), (4, 2)]
    rows = b"".join((b"\0" + bytes((200, 40, 0)) * width) * height for width, height in passes if width and height)
    data = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 2, 0, 0, 1))
    data += png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    assert both(data)[0].pixels.reshape(-1, 3).tolist() == [[200, 40, 0]] * 16


def test_the_gamma_of_a_png_is_undone() -> None:
    """Linear samples (gamma 1): 55 of 255 is a mid-grey of 127 in sRGB's 1/2.2."""
    data = file_of(Image.new("RGB", (8, 8), (55, 55, 55)), "PNG")
    assert both(with_chunk(data, b"gAMA", struct.pack(">I", 100_000)))[0].pixels[0, 0, 0] == 127
    assert both(with_chunk(data, b"gAMA", struct.pack(">I", 45_455)))[0].pixels[0, 0, 0] == 55
    linear_but_srgb = with_chunk(with_chunk(data, b"gAMA", struct.pack(">I", 100_000)), b"sRGB", b"\0")
    assert both(linear_but_srgb)[0].pixels[0, 0, 0] == 55


def test_heic_is_decoded_upright_and_ten_bits_are_scaled() -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    pillow_heif.from_pillow(patches().rotate(90, expand=True)).save(buffer, quality=95, chroma=444, exif=exif.tobytes())
    picture, found = both(buffer.getvalue())
    assert (picture.format, found.width, found.height) == ("HEIF", 144, 96)
    assert_shows(picture.pixels, PATCHES, within=4)
    deep = np.asarray(patches(), np.uint16) * 257
    buffer = io.BytesIO()
    ten_bits = pillow_heif.from_bytes("RGB;16", patches().size, deep.tobytes())
    ten_bits.save(buffer, quality=95, chroma=444)
    assert_shows(both(buffer.getvalue())[0].pixels, PATCHES, within=4)


def test_heic_without_the_extra_is_refused_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    with pytest.raises(ImageError, match="unsupported-format: a HEIC picture; install the extra `heif`"):
        decode(b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic", max_pixels=LIMIT)


def test_a_suffix_is_never_asked_and_brands_tell_avif_from_heic() -> None:
    for brands, reason in ((b"mif1\0\0\0\0heic", "broken"), (b"mif1\0\0\0\0avif", "broken"), (b"isom", "not-an-image")):
        box = b"ftyp" + brands
        with pytest.raises(ImageError) as error:
            decode(struct.pack(">I", len(box) + 4) + box + bytes(64), max_pixels=LIMIT)
        assert error.value.reason == reason


@pytest.mark.parametrize("tile", [(64, 32), (144, 96)])
def test_a_tiled_tiff(tile: tuple[int, int]) -> None:
    picture, _ = both(tiled_tiff(np.asarray(patches()), *tile))
    assert_shows(picture.pixels, PATCHES, within=0)


def tiled_tiff(pixels: Any, tile_width: int, tile_height: int) -> bytes:
    """An uncompressed RGB TIFF in tiles; those at the edges are filled up with black."""
    height, width = pixels.shape[:2]
    tiles = []
    for top in range(0, height, tile_height):
        for left in range(0, width, tile_width):
            tile = np.zeros((tile_height, tile_width, 3), np.uint8)
            part = pixels[top : top + tile_height, left : left + tile_width]
            tile[: part.shape[0], : part.shape[1]] = part
            tiles.append(tile.tobytes())
    size = tile_width * tile_height * 3
    lists = 8 + size * len(tiles)
    offsets = [8 + size * index for index in range(len(tiles))]
    bits = lists + 8 * len(tiles)
    entries = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, bits), (259, 3, 1, 1), (262, 3, 1, 2), (277, 3, 1, 3),
        (322, 4, 1, tile_width), (323, 4, 1, tile_height),
        (324, 4, len(tiles), lists if len(tiles) > 1 else 8),
        (325, 4, len(tiles), lists + 4 * len(tiles) if len(tiles) > 1 else size),
    ]  # fmt: skip
    data = b"II*\0" + struct.pack("<I", bits + 6) + b"".join(tiles)
    data += struct.pack(f"<{len(tiles)}I", *offsets) + struct.pack(f"<{len(tiles)}I", *[size] * len(tiles))
    data += struct.pack("<HHH", 8, 8, 8) + struct.pack("<H", len(entries))
    return data + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)


def test_twelve_bit_and_lossless_jpegs_are_refused_clearly() -> None:
    whole = file_of(patches(), "JPEG")
    twelve = bytearray(whole)
    twelve[whole.index(b"\xff\xc0") + 4] = 12
    with pytest.raises(ImageError, match="unsupported-depth: a JPEG of 12 bits a sample; save it with 8"):
        decode(bytes(twelve), max_pixels=LIMIT)
    lossless = bytearray(whole)
    lossless[whole.index(b"\xff\xc0") + 1] = 0xC3
    for judge in (decode, lambda data, max_pixels: summarize(data, max_pixels=max_pixels, min_side=1)):
        with pytest.raises(ImageError) as error:
            judge(bytes(lossless), max_pixels=LIMIT)
        assert error.value.reason in ("unsupported-format", "broken", "truncated")


@pytest.mark.parametrize(("bits", "compression", "kind"), [(2, 0, "pixel depth (2)"), (16, 3, "bitfields layout")])
def test_bitmaps_of_rare_kinds_are_unsupported_not_broken(bits: int, compression: int, kind: str) -> None:
    masks = struct.pack("<III", 0xF00, 0xF0, 0xF)
    header = struct.pack("<IiiHHIIiiII", 40, 8, 8, 1, bits, compression, 0, 0, 0, 0, 0)
    data = struct.pack("<2sIHHI", b"BM", 400, 0, 0, 66) + header + masks + b"\0" * 400
    with pytest.raises(ImageError) as caught:
        decode(data, max_pixels=1000)
    assert (caught.value.reason, caught.value.detail) == (
        "unsupported-format", f"a BMP of a rare kind ({kind}); save it as PNG"
    )  # fmt: skip
