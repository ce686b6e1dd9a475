"""BMP: every kind of header, palette and bit mask shows the same picture."""

import struct

import numpy as np
import pytest

from pipelines.core.errors import ImageError
from pipelines.core.images import Picture, decode, sketch

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def see(data: bytes) -> Picture:
    picture = decode(data, max_pixels=1000)
    found = sketch(data, max_pixels=1000, min_side=1)
    assert (found.height, found.width, 3) == picture.pixels.shape
    return picture


def bmp(
    rows: list[bytes], *, bits: int, width: int, compression: int = 0, header: int = 40, extra: bytes = b"",
    num_colours: int = 0, from_top: bool = False,
) -> bytes:  # fmt: skip
    """A file of `rows`, the topmost first; `extra` stands between header and pixels: masks or a palette."""
    pixels = b"".join(row.ljust(-(-len(row) // 4) * 4, b"\0") for row in (rows if from_top else rows[::-1]))
    if header == 12:
        info = struct.pack("<IHHHH", 12, width, len(rows), 1, bits)
    elif header == 16:
        info = struct.pack("<IIIHH", 16, width, len(rows), 1, bits)
    else:
        height = -len(rows) if from_top else len(rows)
        fields = (header, width, height, 1, bits, compression, len(pixels), 2835, 2835, num_colours, 0)
        info = struct.pack("<IiiHHIIiiII", *fields)
        taken = extra[: header - 40]
        info, extra = (info + taken).ljust(header, b"\0"), extra[len(taken) :]
    start = 14 + len(info) + len(extra)
    return struct.pack("<2sIHHI", b"BM", start + len(pixels), 0, 0, start) + info + extra + pixels


def masks(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


def palette(*colours: tuple[int, int, int], entry: int = 4) -> bytes:
    return b"".join(bytes(colour[::-1]).ljust(entry, b"\0") for colour in colours)


FOUR = [list(RED), list(GREEN), list(BLUE), list(WHITE)]


@pytest.mark.parametrize(
    "layout",
    [(0xF800, 0x7E0, 0x1F), (0x7C00, 0x3E0, 0x1F), (0xF00, 0xF0, 0xF), (0xC000, 0x3800, 0x7FF), (0x1F, 0x7E0, 0xF800)],
)
def test_sixteen_bits_with_any_masks(layout: tuple[int, int, int]) -> None:
    row = struct.pack("<4H", *layout, sum(layout))
    picture = see(bmp([row] * 4, bits=16, width=4, compression=3, extra=masks(*layout)))
    assert picture.pixels[2].tolist() == FOUR
    assert (picture.format, picture.mode) == ("BMP", "RGB")


@pytest.mark.parametrize("header", [40, 52, 56, 108, 124])
def test_thirty_two_bits_with_masks_in_or_after_any_header(header: int) -> None:
    layout = (0x3FF00000, 0xFFC00, 0x3FF)  # ten bits each
    row = struct.pack("<4I", *layout, sum(layout))
    data = bmp(
        [row] * 4, bits=32, width=4, compression=3, header=header, extra=masks(*layout, 0)[: 16 if header > 52 else 12]
    )
    assert see(data).pixels[0].tolist() == FOUR


def test_alpha_of_a_mask_lies_on_white() -> None:
    row = struct.pack("<4I", 0xFF0000FF, 0x800000FF, 0x000000FF, 0xFFFFFFFF)
    layout = masks(0xFF, 0xFF00, 0xFF0000, 0xFF000000)
    for header, compression in ((40, 6), (56, 3), (124, 3)):
        data = bmp([row] * 4, bits=32, width=4, compression=compression, header=header, extra=layout)
        assert see(data).pixels[1].tolist() == [[255, 0, 0], [255, 127, 127], [255, 255, 255], [255, 255, 255]]
        assert sketch(data, max_pixels=1000, min_side=1).transparent


def test_two_bits_and_palettes_that_are_too_long_or_too_short() -> None:
    row = bytes([0b00011011])
    assert see(bmp([row] * 3, bits=2, width=4, extra=palette(RED, GREEN, BLUE, WHITE))).pixels[0].tolist() == FOUR
    long = palette(RED, GREEN, BLUE, WHITE, *[(9, 9, 9)] * 296)
    data = bmp([bytes([0, 1, 2, 3])] * 3, bits=8, width=4, extra=long, num_colours=300)
    assert see(data).pixels[0].tolist() == FOUR
    absurd = bmp([bytes([0, 1, 2, 3])] * 3, bits=8, width=4, extra=palette(RED, GREEN, BLUE), num_colours=305_402_420)
    assert see(absurd).pixels[0].tolist() == [*FOUR[:3], [0, 0, 0]]


@pytest.mark.parametrize(("bits", "row"), [(1, [0b01000000]), (2, [0b00010000]), (4, [0x01, 0x00]), (8, [0, 1, 0, 0])])
def test_the_short_header_of_os2(bits: int, row: list[int]) -> None:
    for header, entry in ((12, 3), (16, 4)):
        if (header, bits) == (12, 2):
            continue  # never existed
        colours = palette(WHITE, BLUE, *[(1, 2, 3)] * ((1 << bits) - 2), entry=entry)
        picture = see(bmp([bytes(row)] * 2, bits=bits, width=4, header=header, extra=colours))
        assert picture.pixels[0].tolist() == [list(WHITE), list(BLUE), list(WHITE), list(WHITE)]


def test_rows_from_the_top_and_from_the_bottom() -> None:
    layout = (0xF00, 0xF0, 0xF)
    rows = [struct.pack("<2H", value, value) for value in layout]
    for from_top in (False, True):
        data = bmp(rows, bits=16, width=2, compression=3, extra=masks(*layout), from_top=from_top)
        assert see(data).pixels[:, 0].tolist() == FOUR[:3]


def test_run_length_coding() -> None:
    runs = bytes([2, 0, 2, 1, 0, 0, 4, 2, 0, 0, 0, 1])  # two rows from the bottom, then the end
    data = bmp([runs], bits=8, width=4, compression=1, extra=palette(RED, GREEN, BLUE, *[(0, 0, 0)] * 253))
    data = data[:22] + struct.pack("<i", 2) + data[26:]
    assert see(data).pixels.tolist() == [[list(BLUE)] * 4, [list(RED)] * 2 + [list(GREEN)] * 2]


def test_what_cannot_be_is_refused() -> None:
    row = struct.pack("<4H", 1, 2, 3, 4)
    holes = bmp([row] * 4, bits=16, width=4, compression=3, extra=masks(0b101, 0xF0, 0xF00))
    with pytest.raises(ImageError, match="broken: the bit mask 0x5 of a channel has holes"):
        see(holes)
    whole = bmp([row] * 4, bits=16, width=4, compression=3, extra=masks(0xF, 0xF0, 0xF00))
    with pytest.raises(ImageError, match="truncated: 3 bytes of its pixels are missing"):
        see(whole[:-3])
    huge = whole[:18] + struct.pack("<ii", 100_000, 100_000) + whole[26:]
    with pytest.raises(ImageError, match="too-many-pixels: 100000 x 100000 pixels"):
        see(huge)
    assert np.array_equal(see(whole).pixels, see(whole + b"what follows").pixels)
