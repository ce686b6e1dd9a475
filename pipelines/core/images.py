"""Bytes to pixels, for every stage: by content, within limits, upright, RGB.

Plain JPEGs (grey, YCbCr, RGB) are decoded by simplejpeg; everything else, and every JPEG that simplejpeg finds
fault with, by Pillow, which has the last word on what is broken. Conventions, in one place:

- upright: turned by the orientation of EXIF, as browsers do; XMP is ignored.
- transparent pixels lie on white.
- 16 bits a sample are scaled to 8; deeper and floating-point samples are refused, since their range is not known.
- the first frame of an animation, the first page of a TIFF, the first picture of an MPO.
- embedded colour profiles are not applied, but CMYK is turned to RGB.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import simplejpeg

from pipelines.core.errors import ImageError

Pixels = npt.NDArray[np.uint8]

THUMBNAIL_SIDE = 32
# scaled decodes keep at least this side: thumbnails then differ from those of a full decode by 0.14 grey levels on
# average over photographs (0.4 with 64), and it costs 8 % more than the smallest scale
_SKETCH_SIDE = 128
_MODES = {"Gray": "L", "YCbCr": "RGB", "RGB": "RGB"}
# a progressive JPEG costs scans x pixels; photographs have about 10 scans, hostile files thousands
_MAX_SCAN_PASSES = 40
_SMALL_FILE_BYTES = 1 << 14


@dataclass(frozen=True)
class Picture:
    """One decoded picture.

    Args:
        pixels: (H, W, 3) uint8 RGB, upright.
        format: by content: JPEG, PNG, GIF, BMP, WEBP, TIFF, AVIF or PPM.
        mode: as stored, by Pillow's names: L, RGB, CMYK, P, I;16, …
        orientation: of EXIF, 1 to 8.
        num_frames: 1 for a still picture.
    """

    pixels: Pixels
    format: str
    mode: str
    orientation: int
    num_frames: int


class Sketch(NamedTuple):
    """What ingest keeps of one picture; a tuple, because 60,000 of them are made a second."""

    thumbnail: Pixels
    """(32, 32) uint8 grey (ITU-R 601 luma), upright, antialiased; a picture of 32 x 32 is its own thumbnail"""
    width: int
    """pixels, upright"""
    height: int
    """pixels, upright"""
    format: str
    mode: str
    orientation: int
    num_frames: int
    sharpness: float
    """see pipelines.ingest.quality"""
    greyscale: bool
    """no pixel has a colour, however it is stored"""
    transparent: bool
    """at least one pixel is not opaque"""


def decode(data: bytes, *, max_pixels: int) -> Picture:
    """Decode the bytes of one image file at full size.

    Args:
        data: the file.
        max_pixels: larger pictures are refused before they are decoded.

    Raises:
        ImageError: with reason `empty-file`, `not-an-image`, `unsupported-format`, `unsupported-depth`,
            `too-many-pixels`, `truncated` or `broken`.
    """
    header = _plain_jpeg(data, max_pixels=max_pixels)
    if header is not None:
        try:
            pixels = simplejpeg.decode_jpeg(data, "RGB")  # (H, W, 3)
        except ValueError as error:
            _refuse_lost_pixels(error)
        else:
            orientation = _jpeg_orientation(data)
            return Picture(upright(pixels, orientation), "JPEG", header.mode, orientation, 1)
    from pipelines.core.odd_images import decode_odd

    image, stored = decode_odd(data, max_pixels=max_pixels)
    return Picture(np.asarray(image), stored.format, stored.mode, stored.orientation, stored.num_frames)


def sketch(data: bytes, *, max_pixels: int, min_side: int) -> Sketch:
    """Judge one image file as `decode` does, but keep a thumbnail and figures in place of the pixels.

    Plain JPEGs are decoded at a fraction of their size (all of their data is still read), which is why this is
    faster than `decode`.

    Raises:
        ImageError: as `decode`, or `too-small`: a side is shorter than `min_side` pixels.
    """
    header = _plain_jpeg(data, max_pixels=max_pixels)
    if header is not None:
        _check_side(header.width, header.height, min_side)
        try:
            if min(header.width, header.height) < 2 * _SKETCH_SIDE:
                # asking for a scale that cannot be had makes small pictures half as slow again
                grey = simplejpeg.decode_jpeg(data, "GRAY")  # (H, W, 1)
            else:
                grey = simplejpeg.decode_jpeg(data, "GRAY", min_height=_SKETCH_SIDE, min_width=_SKETCH_SIDE)
        except ValueError as error:
            _refuse_lost_pixels(error)
        else:
            orientation = _jpeg_orientation(data)
            width, height = (header.width, header.height) if orientation < 5 else (header.height, header.width)
            thumbnail = _shrink(grey[:, :, 0], header, orientation)
            sharp = sharpness(grey[:, :, 0])
            return Sketch(
                thumbnail, width, height, "JPEG", header.mode, orientation, 1, sharp, header.mode == "L", False
            )
    from pipelines.core.odd_images import decode_odd, shrink

    image, stored = decode_odd(data, max_pixels=max_pixels)
    _check_side(image.width, image.height, min_side)
    thumbnail = shrink(image.convert("L"), THUMBNAIL_SIDE, (image.width, image.height))
    bands = image.split()
    grey = np.asarray(image.convert("L"))
    coloured = any(band.tobytes() != bands[0].tobytes() for band in bands[1:])
    return Sketch(thumbnail, image.width, image.height, *stored, sharpness(grey), not coloured, "A" in stored.mode)


def sharpness(grey: Pixels) -> float:
    """Standard deviation of the Laplacian of a grey picture (H, W), grey levels."""
    factor = max(1, min(grey.shape) // _SKETCH_SIDE)
    if factor > 1:
        height, width = grey.shape[0] // factor * factor, grey.shape[1] // factor * factor
        blocks = grey[:height, :width].reshape(height // factor, factor, width // factor, factor)
        grey = blocks.mean(axis=(1, 3), dtype=np.float64).astype(np.uint8)
    if min(grey.shape) < 3:
        return 0.0
    small = grey.astype(np.int16)
    middle = 4 * small[1:-1, 1:-1]
    laplacian = middle - small[:-2, 1:-1] - small[2:, 1:-1] - small[1:-1, :-2] - small[1:-1, 2:]
    return float(np.float32(laplacian.std()))


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """Turn and mirror `pixels` (H, W, …) as EXIF `orientation` asks; 1 and unknown values change nothing."""
    if orientation not in range(2, 9):
        return pixels
    turned = pixels.swapaxes(0, 1) if orientation >= 5 else pixels
    if orientation in (3, 4, 7, 8):
        turned = turned[::-1]
    if orientation in (2, 3, 6, 7):
        turned = turned[:, ::-1]
    return np.ascontiguousarray(turned)


def _refuse_lost_pixels(error: ValueError) -> None:
    """Pillow paints grey where a JPEG's data ends early or is garbled; stray bytes between markers are left to it.

    Raises:
        ImageError: `truncated` or `broken`, if simplejpeg's complaint means that pixels are missing.
    """
    message = str(error)
    if "premature end" in message.lower():
        raise ImageError("truncated", message) from error
    if "huffman" in message.lower():
        raise ImageError("broken", message) from error


class _Header(NamedTuple):
    width: int
    """as stored, pixels"""
    height: int
    mode: str


def _plain_jpeg(data: bytes, *, max_pixels: int) -> _Header | None:
    """The header of a JPEG that simplejpeg can decode; None for anything else, which Pillow then judges.

    Raises:
        ImageError: `too-many-pixels`, or `broken` for a JPEG made to take for ever.
    """
    if data[:3] != b"\xff\xd8\xff":
        return None
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    num_pixels = width * height
    check_pixels(width, height, max_pixels)
    num_scans = _count_scans(data)
    if num_scans * num_pixels > _MAX_SCAN_PASSES * max_pixels or num_scans > 1000:
        raise ImageError("broken", f"{num_scans} scans of {width} x {height} pixels: made to exhaust the decoder")
    mode = _MODES.get(space)
    return None if mode is None else _Header(width, height, mode)


class _Head(NamedTuple):
    """The segments of a JPEG before its first scan."""

    end: int
    """where the first scan starts"""
    one_scan: bool
    """the first scan holds all there is: a decoder reads no further one"""


def _head(data: bytes) -> _Head:
    """Walk the segments up to the first scan; a damaged or small file counts as all head.

    Searching a whole photograph for two or six bytes takes a tenth of the time of decoding it, and the walk takes
    none; for a small file it is the other way round.
    """
    if len(data) < _SMALL_FILE_BYTES:
        return _Head(len(data), False)
    position, frame, components = 2, 0, 0
    while position + 10 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xDA:
            return _Head(position, frame in (0xC0, 0xC1) and data[position + 4] == components)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            frame, components = marker, data[position + 9]
        position += 1 if marker == 0xFF else 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return _Head(len(data), False)


def _count_scans(data: bytes) -> int:
    if len(data) >= _SMALL_FILE_BYTES and _head(data).one_scan:
        return 1
    return data.count(b"\xff\xda")


def check_pixels(width: int, height: int, max_pixels: int) -> None:
    """Refuse a decompression bomb by what its header announces."""
    if width * height > max_pixels:
        raise ImageError("too-many-pixels", f"{width} x {height} pixels; ingest.max_pixels is {max_pixels}")


def _check_side(width: int, height: int, min_side: int) -> None:
    if min(width, height) < min_side:
        raise ImageError("too-small", f"{width} x {height} pixels; ingest.min_side is {min_side}")


def _jpeg_orientation(data: bytes) -> int:
    """The orientation of EXIF; most JPEGs have none, and are spared the import and the parse."""
    end = len(data) if len(data) < _SMALL_FILE_BYTES else _head(data).end
    if data.find(b"Exif\x00\x00", 0, end) < 0:
        return 1
    from pipelines.core.odd_images import read_orientation

    return read_orientation(data)


def _shrink(grey: Pixels, header: _Header, orientation: int) -> Pixels:
    """A plain JPEG decoded at n/8 of its size (H, W) → (32, 32), upright."""
    height, width = grey.shape
    if (height, width) != (THUMBNAIL_SIDE, THUMBNAIL_SIDE):
        from PIL import Image

        from pipelines.core.odd_images import shrink

        # libjpeg rounds a scaled side up: 267 pixels at 2/8 are 66.75, of which it gives 67. Taking 67 for the whole
        # picture would shift the thumbnail by up to ten times the error that remains
        eighths = next(
            n for n in range(1, 9) if height == -(-header.height * n // 8) and width == -(-header.width * n // 8)
        )
        extent = (header.width * eighths / 8, header.height * eighths / 8)
        grey = shrink(Image.fromarray(grey), THUMBNAIL_SIDE, extent)
    return grey if orientation == 1 else upright(grey, orientation)
