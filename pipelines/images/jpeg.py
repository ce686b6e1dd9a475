"""Plain JPEGs: their headers, and as much of their pixels as a summary needs, by simplejpeg.

The header is parsed here: one pass gives all that is needed, and bounds what a hostile file may cost.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import simplejpeg

from pipelines.core.errors import ImageError
from pipelines.images.downscale import DOWNSCALED_SIDE
from pipelines.images.tiff import read_orientation

Pixels = npt.NDArray[np.uint8]

# channels of a pixel that differ by no more are no colour: what lossy formats make of a grey picture, in levels
COLOUR_LEVELS = 8
# a progressive JPEG costs scans x pixels; photographs have about 10 scans, hostile files thousands
_MAX_SCAN_PASSES = 40
_MAX_SCANS = 1000
# photographs have about 20, with depth maps or long XMP some hundreds
_MAX_SEGMENTS = 10_000
# cutting a file can corrupt one block, of at most 32 pixels at 1/8: want more coloured pixels than that
_SURE_PIXELS = 64
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PLAIN_CODINGS = (0xC0, 0xC1, 0xC2)
_SIMPLE = ("L", "RGB")
_MODES = {1: "L", 3: "RGB", 4: "CMYK"}


class JpegHeader(NamedTuple):
    """What the segments of a JPEG before its first scan say."""

    width: int
    """as stored, pixels"""
    height: int
    mode: str
    """by Pillow's names: L, RGB (which YCbCr counts as), CMYK"""
    bits: int
    """a sample"""
    coding: int
    """the marker of the frame: 0xC0 and 0xC1 baseline, 0xC2 progressive, others are rare"""
    size_at: int
    """where the height stands in the file; the width follows"""
    end: int
    """where the first scan starts"""
    orientation: int
    """of EXIF, 1 to 8"""
    profile: bytes | None
    """ICC"""

    @property
    def space(self) -> str:
        """simplejpeg's name of `mode`, for L and RGB."""
        return "GRAY" if self.mode == "L" else "RGB"

    @property
    def plain(self) -> bool:
        """Whether simplejpeg decodes it."""
        return (
            self.coding in _PLAIN_CODINGS and self.bits == 8 and self.mode in _SIMPLE and self.width * self.height > 0
        )


def read_header(data: bytes) -> JpegHeader | None:
    """The header of a JPEG; None where there is no whole one.

    Raises:
        ImageError: `broken`, for a file made to take for ever.
    """
    if data[:2] != b"\xff\xd8":
        return None
    position, size_at, exif = 2, 0, b""
    profile: dict[int, bytes] = {}
    for _ in range(_MAX_SEGMENTS):
        while data[position : position + 2] == b"\xff\xff":
            position += 1
        if len(data) < position + 2 or data[position] != 0xFF:
            return None
        marker = data[position + 1]
        if marker == 0xDA:
            return _header(data, size_at, position, exif, profile)
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if marker in _FRAMES and not size_at and end - position >= 10:
            size_at = position + 5
        elif marker == 0xE1 and not exif and data[position + 4 : position + 10] == b"Exif\x00\x00":
            exif = data[position + 10 : end]
        elif marker == 0xE2 and data[position + 4 : position + 16] == b"ICC_PROFILE\x00":
            profile.setdefault(data[position + 16], data[position + 18 : end])
        position = end
    raise ImageError("broken", f"more than {_MAX_SEGMENTS} segments before the picture: made to exhaust the decoder")


def _header(data: bytes, size_at: int, end: int, exif: bytes, profile: dict[int, bytes]) -> JpegHeader | None:
    if not size_at or size_at + 5 > end:
        return None
    height, width = (
        int.from_bytes(data[size_at : size_at + 2], "big"),
        int.from_bytes(data[size_at + 2 : size_at + 4], "big"),
    )
    joined = b"".join(part for _, part in sorted(profile.items()))
    mode = _MODES.get(data[size_at + 4], "")
    return JpegHeader(
        width, height, mode, data[size_at - 1], data[size_at - 4], size_at, end, read_orientation(exif), joined or None
    )


def bare(data: bytes, header: JpegHeader) -> bytes:
    """The file without EXIF, profiles and comments, which Pillow joins and parses at a cost that a file can set."""
    kept, position = [b"\xff\xd8"], 2
    while position < header.end:
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if marker in (0xE0, 0xEE) or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            kept.append(data[position:end])
        position = end
    return b"".join([*kept, data[header.end :]])


def check_scans(data: bytes, header: JpegHeader, *, max_pixels: int) -> None:
    """Refuse a JPEG whose scans go over its pixels again and again.

    Raises:
        ImageError: `broken`.
    """
    components = data[header.size_at + 4]
    if header.coding in (0xC0, 0xC1) and data[header.end + 4 : header.end + 5] == bytes([components]):
        return  # the first scan holds all there is: a decoder reads no further one
    num_scans = data.count(b"\xff\xda", header.end)
    if num_scans > _MAX_SCANS or num_scans * header.width * header.height > _MAX_SCAN_PASSES * max_pixels:
        raise ImageError(
            "broken", f"{num_scans} scans of {header.width} x {header.height} pixels: made to exhaust the decoder"
        )


def decode_scaled(data: bytes, header: JpegHeader, space: str) -> Pixels:
    """At the smallest n/8 of its size that leaves `DOWNSCALED_SIDE`, (H, W, 1 or 3), as stored; all data is read.

    Raises:
        ValueError: simplejpeg finds fault with it.
    """
    pixels: Pixels
    if min(header.width, header.height) < 2 * DOWNSCALED_SIDE:
        # asking for a scale that cannot be had makes small pictures half as slow again
        pixels = simplejpeg.decode_jpeg(data, space)
    else:
        pixels = simplejpeg.decode_jpeg(data, space, min_height=DOWNSCALED_SIDE, min_width=DOWNSCALED_SIDE)
    return pixels


def eighths_for(header: JpegHeader, width: float, height: float) -> int:
    """The smallest n such that n/8 of a JPEG, as stored, has at least this width and height; 8 where none is smaller.

    Turned and mirrored, the pixels by which libjpeg rounds a side up would lie at its start: there n divides evenly.
    """
    for n in range(1, 8):
        even = header.width * n % 8 == 0 and header.height * n % 8 == 0
        if header.width * n >= width * 8 and header.height * n >= height * 8 and (even or header.orientation == 1):
            return n
    return 8


def scaled_extent(header: JpegHeader, shape: tuple[int, int]) -> tuple[float, float]:
    """Width and height that the picture takes of a scaled decode of `shape` (H, W).

    libjpeg rounds a scaled side up: 267 pixels at 2/8 are 66.75, of which it gives 67. Taking 67 for the whole picture
    would shift the thumbnail by up to ten times the error that remains.
    """
    height, width = shape
    eighths = next(
        n for n in range(1, 9) if height == -(-header.height * n // 8) and width == -(-header.width * n // 8)
    )
    return header.width * eighths / 8, header.height * eighths / 8


def jpeg_has_colour(data: bytes, header: JpegHeader) -> bool:
    """Whether a pixel of the scaled decode has a colour; for most pictures a small piece at 1/8 answers that.

    Raises:
        ValueError: simplejpeg finds fault with it.
    """
    if header.mode == "L":
        return False
    if min(header.width, header.height) < 2 * DOWNSCALED_SIDE:
        if _any_colour(simplejpeg.decode_jpeg(data, "RGB", min_height=1, min_width=1).tobytes()):
            return True
    elif any(_shows_colour(piece) for piece in _pieces(data, header)):
        return True
    return count_coloured(decode_scaled(data, header, "RGB")) > 0


def _pieces(data: bytes, header: JpegHeader) -> Iterator[bytes]:
    """Cut-down files: the first scan of a progressive JPEG; the first rows of a baseline one, few and then more.

    Product shots begin with a white ground, so up to half of the rows are tried before the whole file is.
    """
    if header.coding == 0xC2:
        second = data.find(b"\xff\xda", header.end + 2)
        if second >= 0:
            yield data[:second]
        return
    for part in (64, 4, 2):
        rows = max(16, header.height // part // 16 * 16)
        # rows may take more than their share of the bytes; beyond twice, the rest of the piece is missing
        end = header.end + (len(data) - header.end) * 2 * rows // header.height + 1024
        start = header.size_at
        yield data[:start] + rows.to_bytes(2, "big") + data[start + 2 : end]


def _shows_colour(piece: bytes) -> bool:
    try:
        pixels = simplejpeg.decode_jpeg(piece, "RGB", min_height=1, min_width=1, strict=False)
    except ValueError:
        return False
    return count_coloured(pixels) > _SURE_PIXELS


def count_coloured(pixels: Pixels) -> int:
    """Pixels (H, W, 3) whose channels differ by more than `COLOUR_LEVELS`."""
    red, green, blue = pixels[:, :, 0], pixels[:, :, 1], pixels[:, :, 2]
    most = np.maximum(np.maximum(red, green), blue)
    least = np.minimum(np.minimum(red, green), blue)
    return int(np.count_nonzero(most - least > COLOUR_LEVELS))


def _any_colour(values: bytes) -> bool:
    """Of a few pixels, r g b r g b …: faster in plain Python, because the first often decides."""
    return any(
        max(pixel) - min(pixel) > COLOUR_LEVELS for pixel in zip(values[::3], values[1::3], values[2::3], strict=True)
    )
