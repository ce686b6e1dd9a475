"""Files made to take for ever: each is decoded or refused quickly, by counting work, not by a clock.

Every hostile file here took from 10 seconds to hours before its kind was bounded; the limit that tests allow is far
above what is needed (0.3 s), and far below that.
"""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from pipelines.core.errors import ImageError
from pipelines.images.decoding import ImageSummary, decode, summarize
from pipelines.images.jpeg import read_header
from pipelines.images.sanitize import MAX_FRAMES, first_frame_of_gif, first_frame_of_png, first_frame_of_tiff
from pipelines.images.tiff import read_orientation

LIMIT = 1_000_000
pytestmark = pytest.mark.timeout(60)  # each of them would take minutes to hours
MEGABYTE = 1 << 20


def look(data: bytes) -> ImageSummary:
    decode(data, max_pixels=LIMIT)
    return summarize(data, max_pixels=LIMIT, min_side=1)


def file_of(format: str, *, size: int = 20, colour: str = "red", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(buffer, format, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def test_comments_of_a_png_are_not_inflated_and_cannot_cost_the_picture() -> None:
    whole = file_of("PNG")
    bomb = zlib.compress(bytes(100 * MEGABYTE), 9)
    text = (
        png_chunk(b"zTXt", b"a\0\0" + bomb) + png_chunk(b"iTXt", b"b\0\1\0\0\0" + bomb) + png_chunk(b"tEXt", b"no end")
    )
    broken = png_chunk(b"tIME", b"x")[:-1] + b"?"  # a wrong checksum, which no browser minds
    found = look(whole[:33] + text * 40 + broken + whole[33:])
    assert (found.format, found.width, found.num_frames) == ("PNG", 20, 1)


def test_a_png_of_a_million_empty_chunks_is_refused() -> None:
    whole = file_of("PNG")
    with pytest.raises(ImageError, match="broken: more than 100000 chunks: made to exhaust the decoder"):
        look(whole[:33] + png_chunk(b"IDAT", b"") * 1_000_000 + whole[33:])


def test_an_animation_whose_later_frames_are_damaged_is_its_first_frame() -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("blue", "red", "white")]
    buffer = io.BytesIO()
    frames[0].save(buffer, "PNG", save_all=True, append_images=frames[1:])
    data = buffer.getvalue()
    second = data.rindex(b"fdAT")
    damaged = data[: second + 4] + b"\xff\xff\xff\xff" + data[second + 8 :]
    for file in (data, damaged, data[: second - 4] + data[-12:]):
        found = look(file)
        assert found.num_frames == 3
        assert decode(file, max_pixels=LIMIT).pixels[9, 9].tolist() == [0, 0, 255]


def test_a_png_that_lost_only_its_end_is_whole() -> None:
    data = file_of("PNG")
    for cut in (data[:-12], data[:-9], data[:-1]):
        assert look(cut).width == 20
    with pytest.raises(ImageError, match="truncated"):
        look(data[:-24])


def gif(frames: int, *, before: bytes = b"") -> bytes:
    whole = file_of("GIF")
    start = whole.index(b",", 13 + (3 << (whole[10] % 8 + 1)))
    return whole[:start] + before + whole[start:-1] * frames + b";"


def test_frames_of_a_gif_are_counted_without_decoding_them() -> None:
    assert look(gif(1)).num_frames == 1
    assert look(gif(7)).num_frames == 7
    assert look(gif(1_000_000)).num_frames == MAX_FRAMES


def test_comments_of_a_gif_are_not_joined() -> None:
    """Each would be appended to all before: a million of them copy half a terabyte."""
    comment = b"!\xfe\x01a\0"
    assert look(gif(3, before=comment * 400_000)).num_frames == 3
    for before in (comment * 1_000_000, b"!\xfe" + b"\x01a" * (8 * MEGABYTE) + b"\0"):
        with pytest.raises(ImageError, match="broken: more than 1000000 blocks: made to exhaust"):
            look(gif(3, before=before))


def test_a_gif_keeps_the_transparency_of_its_first_frame() -> None:
    image = Image.new("P", (20, 20), 0)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.paste(1, (0, 0, 10, 20))
    buffer = io.BytesIO()
    image.save(buffer, "GIF", transparency=0)
    pixels = decode(buffer.getvalue(), max_pixels=LIMIT).pixels
    assert (pixels[5, 5].tolist(), pixels[5, 15].tolist()) == ([255, 0, 0], [255, 255, 255])
    assert look(buffer.getvalue()).transparent


def directory(*entries: tuple[int, int, int, int], following: int = 0) -> bytes:
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return struct.pack("<H", len(entries)) + packed + struct.pack("<I", following)


def test_pages_that_lead_in_a_circle_are_counted_once() -> None:
    data = bytearray(file_of("TIFF"))
    first = struct.unpack_from("<I", data, 4)[0]
    count = struct.unpack_from("<H", data, first)[0]
    struct.pack_into("<I", data, first + 2 + 12 * count, first)
    assert first_frame_of_tiff(bytes(data)).num_frames == 1
    chain = b"II*\0" + struct.pack("<I", 8)
    for _ in range(200_000):
        chain += b""
    pages = b"".join(directory(following=8 + 6 * (place + 1)) for place in range(200_000))
    assert first_frame_of_tiff(chain + pages + directory() + bytes(16)).num_frames == MAX_FRAMES


def test_tags_that_claim_the_whole_file_each_are_refused_unread() -> None:
    size = 8 * MEGABYTE
    tags = directory(*((65000 - place, 1, size, 0) for place in range(60_000)))
    data = b"II*\0" + struct.pack("<I", 8) + tags + bytes(size)
    with pytest.raises(ImageError, match="broken: its tags claim 503316480000 bytes of"):
        look(data)
    assert read_orientation(data) == 1


@pytest.mark.parametrize("format", ["AVIF", "WEBP"])
def test_exif_whose_tags_overlap_costs_nothing(format: str) -> None:
    size = 2 * MEGABYTE
    tags = directory(*((0x0112 + place, 1, size, 0) for place in range(5_000)))
    hostile = b"II*\0" + struct.pack("<I", 8) + tags + bytes(size)
    harmless = (b"II*\0" + struct.pack("<I", 8) + directory()).ljust(len(hostile), b"\7")
    whole = file_of(format, exif=harmless)
    assert harmless in whole
    assert look(whole).orientation == 1
    data = whole.replace(harmless, hostile)
    if format == "AVIF":
        with pytest.raises(ImageError, match="broken: the tags of its EXIF claim"):
            look(data)
    else:
        assert look(data).orientation == 1


def jpeg_with(segments: bytes) -> bytes:
    whole = file_of("JPEG", colour="white")
    return whole[:2] + segments + whole[2:]


@pytest.mark.parametrize("marker", [0xE1, 0xE2, 0xED, 0xFE])
def test_a_jpeg_of_millions_of_segments_is_refused(marker: int) -> None:
    segment = bytes((0xFF, marker)) + struct.pack(">H", 9) + b"Exif\0\0a"
    assert look(jpeg_with(segment * 9000)).width == 20
    with pytest.raises(ImageError, match="broken: more than 10000 segments before the picture"):
        look(jpeg_with(segment * 1_000_000))


def test_exif_of_many_segments_is_not_joined_for_a_cmyk_jpeg_either() -> None:
    buffer = io.BytesIO()
    Image.new("CMYK", (20, 20)).save(buffer, "JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", 65535) + b"Exif\0\0" + bytes(65527)
    look(buffer.getvalue()[:2] + segment * 400 + buffer.getvalue()[2:])


def test_a_thumbnail_inside_exif_is_not_taken_for_the_picture() -> None:
    thumbnail = file_of("JPEG", size=4)
    exif = b"Exif\0\0II*\0\x08\0\0\0" + directory((0x0112, 3, 1, 6)) + thumbnail
    data = jpeg_with(b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif)
    header = read_header(data)
    assert header is not None
    assert (header.width, header.orientation) == (20, 6)
    assert look(data).orientation == 6


@pytest.mark.parametrize("order", ["<", ">"])
def test_orientation_is_read_of_either_byte_order_and_of_damage_nothing(order: str) -> None:
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    for value, expected in ((6, 6), (1, 1), (0, 1), (9, 1), (700, 1)):
        entry = struct.pack(order + "HHHIHHI", 1, 0x0112, 3, 1, value, 0, 0)
        assert read_orientation(head + entry) == expected
        assert read_orientation(b"Exif\0\0" + head + entry) == expected
    for damage in (b"", b"II", head, head[:4] + b"\xff\xff\xff\xff", b"Exif\0\0" + bytes(40)):
        assert read_orientation(damage) == 1


@pytest.mark.parametrize("walk", [first_frame_of_png, first_frame_of_gif, first_frame_of_tiff, read_header])
def test_walking_random_bytes_never_raises_anything_but_an_image_error(walk: Callable[[bytes], object]) -> None:
    import numpy as np

    random = np.random.default_rng(11)
    for start in (b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\0", b"MM\0*", b"II+\0\x08\0\0\0"):
        for size in (0, 1, 7, 30, 300):
            for _ in range(30):
                data = start + random.integers(0, 256, size, dtype=np.uint8).tobytes()
                try:
                    walk(data)
                except ImageError:
                    continue
