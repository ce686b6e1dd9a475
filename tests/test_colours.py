"""Profiles: the same colours whatever space a file stores them in. The profiles are made here, byte by byte."""

import io
import itertools
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.images.decoding import decode, summarize

LIMIT = 1_000_000
# red, green and blue of the space as XYZ under D50
SRGB = ((0.4360, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))
DISPLAY_P3 = ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841))
D50 = (0.9642, 1.0, 0.8249)


def profile_of(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    """An ICC profile of version 2 with a table of tags."""
    body, table = b"", struct.pack(">I", len(tags))
    start = 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data
    kind = b"prtr" if space == b"CMYK" else b"mntr"
    connection = b"Lab " if space == b"CMYK" else b"XYZ "
    head = struct.pack(
        ">I4sI4s4s4s12s4s", start + len(body), b"\0" * 4, 0x02400000, kind, space, connection, b"", b"acsp"
    )
    white = struct.pack(">iii", *(round(value * 65536) for value in D50))
    return head.ljust(68, b"\0") + white.ljust(60, b"\0") + table + body


def xyz(values: tuple[float, ...]) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">iii", *(round(value * 65536) for value in values))


def curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))


def rgb_profile(primaries: tuple[tuple[float, ...], ...]) -> bytes:
    tags = {b"wtpt": xyz(D50)}
    for letter, primary in zip((b"r", b"g", b"b"), primaries, strict=True):
        tags |= {letter + b"XYZ": xyz(primary), letter + b"TRC": curve(2.2)}
    return profile_of(b"RGB ", tags)


def cmyk_profile() -> bytes:
    """Black ink gives black, any other ink Lab's middle green: told from a plain conversion at a glance."""
    white, green, black = bytes((255, 128, 128)), bytes((128, 64, 128)), bytes((0, 128, 128))
    grid = b"".join(black if inks[3] else green if any(inks) else white for inks in itertools.product((0, 1), repeat=4))
    identity = struct.pack(">9i", *(65536 * (row == column) for row in range(3) for column in range(3)))
    ramp = bytes(range(256))
    table = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + identity + ramp * 4 + grid + ramp * 3
    return profile_of(b"CMYK", {b"wtpt": xyz(D50), b"A2B0": table})


def file_of(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def colour(data: bytes) -> list[int]:
    found: list[int] = decode(data, max_pixels=LIMIT).pixels[20, 20].tolist()
    return found


LOSSLESS: dict[str, dict[str, Any]] = {
    "PNG": {}, "TIFF": {}, "WEBP": {"lossless": True}, "JPEG": {"quality": 98, "subsampling": 0},
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
}  # fmt: skip


@pytest.mark.parametrize("format", LOSSLESS)
def test_display_p3_is_shown_as_srgb(format: str) -> None:
    """P3's (200, 100, 100) is sRGB's (214, 95, 97): computed by hand from both sets of primaries."""
    image = Image.new("RGB", (300, 300), (200, 100, 100))
    options = LOSSLESS[format]
    assert colour(file_of(image, format, **options)) == pytest.approx((200, 100, 100), abs=2)
    managed = file_of(image, format, icc_profile=rgb_profile(DISPLAY_P3), **options)
    assert colour(managed) == pytest.approx(by_hand((200, 100, 100)), abs=3)
    found = summarize(managed, max_pixels=LIMIT, min_side=1)
    luma = np.dot(by_hand((200, 100, 100)), (0.299, 0.587, 0.114))
    assert found.thumbnail[16, 16] == pytest.approx(luma, abs=3)
    assert not found.greyscale


def by_hand(levels: tuple[int, ...]) -> list[float]:
    """Display P3, with a gamma of 2.2, to sRGB."""
    linear = (np.array(levels) / 255) ** 2.2
    srgb = np.linalg.solve(np.array(SRGB).T, np.array(DISPLAY_P3).T @ linear).clip(0, 1)
    curved = np.where(srgb <= 0.0031308, 12.92 * srgb, 1.055 * srgb ** (1 / 2.4) - 0.055)
    found: list[float] = (curved * 255).tolist()
    return found


def test_a_profile_that_is_srgb_in_all_but_name_changes_no_bit() -> None:
    image = Image.effect_noise((300, 300), 60).convert("RGB")
    from PIL import ImageCms

    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    plain, tagged = file_of(image, "JPEG"), file_of(image, "JPEG", icc_profile=own)
    assert np.array_equal(decode(plain, max_pixels=LIMIT).pixels, decode(tagged, max_pixels=LIMIT).pixels)
    first, second = (summarize(data, max_pixels=LIMIT, min_side=1) for data in (plain, tagged))
    assert np.array_equal(first.thumbnail, second.thumbnail)


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk_goes_through_its_profile_and_without_one_by_plain_arithmetic(format: str) -> None:
    image = Image.new("CMYK", (64, 64), (255, 0, 0, 0))
    options = {"quality": 98} if format == "JPEG" else {}
    assert colour(file_of(image, format, **options)) == pytest.approx((0, 255, 255), abs=2)
    managed = file_of(image, format, icc_profile=cmyk_profile(), **options)
    # Lab (50, -64, 0) is a strong green outside of sRGB: no red left
    red, green, blue = colour(managed)
    assert red == 0
    assert green == pytest.approx(145, abs=15)
    assert blue == pytest.approx(120, abs=15)
    found = summarize(managed, max_pixels=LIMIT, min_side=1)
    assert found.thumbnail[9, 9] == pytest.approx(0.299 * red + 0.587 * green + 0.114 * blue, abs=3)
    white = file_of(Image.new("CMYK", (64, 64), (0, 0, 0, 0)), format, icc_profile=cmyk_profile(), **options)
    assert colour(white) == pytest.approx((255, 255, 255), abs=3)


def test_the_inversion_of_adobe_is_undone_for_cmyk_and_ycck() -> None:
    """Adobe stores 255 for no ink, and says so by its marker; Pillow writes that kind."""
    data = file_of(Image.new("CMYK", (64, 64), (0, 255, 255, 0)), "JPEG", quality=98)
    assert b"Adobe" in data
    assert colour(data) == pytest.approx((255, 0, 0), abs=2)
    marker = data.index(b"Adobe") + 11
    assert data[marker] in (0, 2)
    ycck = bytearray(data)
    ycck[marker] = 2  # the same samples read as YCC of inverted inks: 255, 0, 0 is a colour of its own
    red, green, blue = colour(bytes(ycck))
    assert (red, green, blue) != (255, 0, 0)


@pytest.mark.parametrize("damage", [b"", b"no profile at all", bytes(200)])
def test_a_damaged_profile_is_ignored(damage: bytes) -> None:
    whole = rgb_profile(DISPLAY_P3)
    for profile in (damage, whole[:150], whole[:140] + damage + whole[160:]):
        for mode in ("RGB", "CMYK", "L"):
            image = Image.new("RGB", (64, 64), {"RGB": (200, 100, 100), "L": (77, 77, 77)}.get(mode, "white")).convert(
                mode
            )
            expected = {"RGB": (200, 100, 100), "CMYK": (255, 255, 255), "L": (77, 77, 77)}[mode]
            data = file_of(
                image, "JPEG", quality=98, icc_profile=profile, **({} if mode == "L" else {"subsampling": 0})
            )
            assert colour(data) == pytest.approx(expected, abs=2)


def test_a_profile_for_other_samples_is_ignored() -> None:
    image = Image.new("RGB", (64, 64), (200, 100, 100))
    assert colour(file_of(image, "PNG", icc_profile=cmyk_profile())) == [200, 100, 100]


def test_grey_goes_through_a_grey_profile() -> None:
    """Linear light: 55 of 255 is sRGB's 127."""
    profile = profile_of(b"GRAY", {b"wtpt": xyz(D50), b"kTRC": curve(1.0)})
    for format in ("JPEG", "PNG", "TIFF"):
        data = file_of(Image.new("L", (64, 64), 55), format, icc_profile=profile)
        assert colour(data) == pytest.approx((127, 127, 127), abs=3)
        assert summarize(data, max_pixels=LIMIT, min_side=1).greyscale


def test_a_lab_tiff_becomes_rgb() -> None:
    data = file_of(Image.new("LAB", (40, 40), (255, 128, 128)), "TIFF")
    assert colour(data) == pytest.approx((255, 255, 255), abs=3)
