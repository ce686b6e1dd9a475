"""Decodes image files for every stage: by content, within limits, upright, RGB.

Plain JPEGs (grey, YCbCr, RGB) are decoded by simplejpeg; everything else, and every JPEG that simplejpeg finds
fault with, by Pillow, which has the last word on what is broken. Conventions, in one place:

- upright: turned by the orientation of EXIF, as browsers do; XMP is ignored.
- transparent pixels lie on white.
- 16 bits a sample are scaled to 8; deeper and floating-point samples are refused, since their range is not known.
- the first frame of an animation, the first page of a TIFF, the first picture of an MPO.
- colours are sRGB: an embedded profile is applied if it says otherwise, and so is the gamma of a PNG
  (`pipelines.images.colours` says why, and what it costs); chromaticities without a profile are ignored.
- HEIC needs the extra `heif`.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import simplejpeg

from pipelines.core.errors import ImageError
from pipelines.images.downscale import downscale, downscale_decoded, reduce_grey
from pipelines.images.jpeg import (
    JpegHeader,
    check_scans,
    count_coloured,
    decode_scaled,
    eighths_for,
    jpeg_has_colour,
    read_header,
    scaled_extent,
)  # fmt: skip

Pixels = npt.NDArray[np.uint8]

THUMBNAIL_SIDE = 32
_THUMBNAIL = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)


@dataclass(frozen=True)
class DecodedImage:
    """One decoded picture.

    Args:
        pixels: (H, W, 3) uint8 RGB, upright.
        format: by content: JPEG, PNG, GIF, BMP, WEBP, TIFF, AVIF, HEIF or PPM.
        mode: as stored, by Pillow's names: L, RGB, CMYK, P, I;16, …
        orientation: of EXIF, 1 to 8.
        num_frames: 1 for a still picture.
    """

    pixels: Pixels
    format: str
    mode: str
    orientation: int
    num_frames: int


class ReducedImage(NamedTuple):
    """The pixels of one picture, upright, perhaps fewer than it has."""

    pixels: Pixels
    """(H, W, 3) uint8 RGB"""
    width: float
    """pixels that the picture takes of W: a reduced side is rounded up, and what is beyond is less than a pixel"""
    height: float


class ImageSummary(NamedTuple):
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
    downscaled: Pixels
    """(H, W) uint8 grey, its shorter side from 127 to 255 pixels unless the picture is smaller, not turned: what
    `pipelines.ingest.quality.sharpness` is measured on (`pipelines.images.downscale`)"""
    greyscale: bool
    """no pixel has a colour, however it is stored: its channels differ by at most `COLOUR_LEVELS`, which is what
    lossy formats make of grey. A JPEG of 256 pixels and more is looked at as small as for the thumbnail"""
    transparent: bool
    """at least one pixel is not opaque"""


def decode(data: bytes, *, max_pixels: int) -> DecodedImage:
    """Decode the bytes of one image file at full size.

    Args:
        data: the file.
        max_pixels: larger pictures are refused before they are decoded.

    Raises:
        ImageError: with reason `empty-file`, `not-an-image`, `unsupported-format`, `unsupported-depth`,
            `too-many-pixels`, `truncated` or `broken`.
    """
    header = plain_jpeg(data, max_pixels=max_pixels)
    if header is not None:
        try:
            pixels = simplejpeg.decode_jpeg(data, "RGB" if header.profile is None else header.space)  # (H, W, 1 or 3)
        except ValueError as error:
            _refuse_lost_pixels(error)
        else:
            if header.profile is not None:
                pixels = _managed(pixels, header)
            return DecodedImage(upright(pixels, header.orientation), "JPEG", header.mode, header.orientation, 1)
    from pipelines.images.pillow_decoder import decode_with_pillow

    image, stored = decode_with_pillow(data, max_pixels=max_pixels)
    return DecodedImage(np.asarray(image), stored.format, stored.mode, stored.orientation, stored.num_frames)


def decode_reduced(data: bytes, *, max_pixels: int, width: float, height: float) -> ReducedImage:
    """Decode as `decode`, a plain JPEG at the smallest n/8 of its size that has at least this width and height.

    All data is read, so that a broken file is found as it is at full size.

    Args:
        width, height: of the whole picture, upright, pixels; from its own size on, nothing is reduced.

    Raises:
        ImageError: as `decode`.
    """
    header = plain_jpeg(data, max_pixels=max_pixels)
    if header is not None:
        stored = (height, width) if header.orientation >= 5 else (width, height)
        n = eighths_for(header, *stored)
        if n < 8:
            try:
                return _reduced(data, header, n)
            except ValueError as error:
                _refuse_lost_pixels(error)
    pixels = decode(data, max_pixels=max_pixels).pixels
    return ReducedImage(pixels, pixels.shape[1], pixels.shape[0])


def _reduced(data: bytes, header: JpegHeader, n: int) -> ReducedImage:
    """A plain JPEG at n/8 of its size.

    Raises:
        ValueError: simplejpeg finds fault with it.
    """
    space = "RGB" if header.profile is None else header.space
    least = {"min_height": -(-header.height * n // 8), "min_width": -(-header.width * n // 8)}
    pixels = simplejpeg.decode_jpeg(data, space, **least)
    if header.profile is not None:
        pixels = _managed(pixels, header)
    width, height = header.width * n / 8, header.height * n / 8
    if header.orientation >= 5:
        width, height = height, width
    return ReducedImage(upright(pixels, header.orientation), width, height)


def summarize(data: bytes, *, max_pixels: int, min_side: int) -> ImageSummary:
    """Decode one image file as `decode` does, but keep a thumbnail and figures in place of the pixels.

    Plain JPEGs are decoded at a fraction of their size (all of their data is still read), which is why this is
    faster than `decode`.

    Raises:
        ImageError: as `decode`, or `too-small`: a side is shorter than `min_side` pixels.
    """
    header = plain_jpeg(data, max_pixels=max_pixels)
    if header is not None:
        _check_side(header.width, header.height, min_side)
        try:
            return _summarize_jpeg(data, header)
        except ValueError as error:
            _refuse_lost_pixels(error)
    from pipelines.images.pillow_decoder import decode_with_pillow, image_has_colour

    image, stored = decode_with_pillow(data, max_pixels=max_pixels)
    _check_side(image.width, image.height, min_side)
    grey = image.convert("L")
    thumbnail, downscaled = reduce_grey(grey, _THUMBNAIL, grey.size), downscale(np.asarray(grey))
    return ImageSummary(
        thumbnail, image.width, image.height, stored.format, stored.mode, stored.orientation, stored.num_frames,
        downscaled, not image_has_colour(image), stored.transparent,
    )  # fmt: skip


def _summarize_jpeg(data: bytes, header: JpegHeader) -> ImageSummary:
    """A plain JPEG's summary.

    Raises:
        ValueError: simplejpeg finds fault with it.
    """
    if header.profile is None:
        grey = decode_scaled(data, header, "GRAY")[:, :, 0]  # (H, W)
        coloured = jpeg_has_colour(data, header)
    else:
        pixels = _managed(decode_scaled(data, header, header.space), header)
        coloured = count_coloured(pixels) > 0
        grey = _luma(pixels)
    return _summary_of_grey(grey, header, coloured=coloured)


def _summary_of_grey(grey: Pixels, header: JpegHeader, *, coloured: bool) -> ImageSummary:
    """The summary of a JPEG decoded at n/8 of its size, (H, W), as stored."""
    width, height, orientation = header.width, header.height, header.orientation
    thumbnail = downscaled = grey
    if grey.shape != _THUMBNAIL:
        from PIL import Image

        thumbnail = reduce_grey(Image.fromarray(grey), _THUMBNAIL, scaled_extent(header, grey.shape))
        downscaled = downscale_decoded(grey, width=width, height=height)
    if orientation != 1:
        thumbnail = upright(thumbnail, orientation)
        if orientation >= 5:
            width, height = height, width
    return ImageSummary(thumbnail, width, height, "JPEG", header.mode, orientation, 1, downscaled, not coloured, False)


def _managed(pixels: Pixels, header: JpegHeader) -> Pixels:
    """Pixels (H, W, 1 or 3) of a JPEG through its profile, (H, W, 3) sRGB."""
    from PIL import Image

    from pipelines.images.colours import to_srgb

    grey_or_rgb = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
    return np.asarray(to_srgb(Image.fromarray(grey_or_rgb), header.profile))


def _luma(pixels: Pixels) -> Pixels:
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).convert("L"))


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


def plain_jpeg(data: bytes, *, max_pixels: int) -> JpegHeader | None:
    """The header of a JPEG that simplejpeg can decode, with its profile only if that matters; None for anything else.

    Raises:
        ImageError: `too-many-pixels`, or `broken` for a JPEG made to take for ever.
    """
    if data[:3] != b"\xff\xd8\xff":
        return None
    header = read_header(data)
    if header is None or not header.plain:
        return None
    check_pixels(header.width, header.height, max_pixels)
    check_scans(data, header, max_pixels=max_pixels)
    if header.profile is None:
        return header
    from pipelines.images.colours import matters

    return header if matters(header.profile, header.mode) else header._replace(profile=None)


def check_pixels(width: int, height: int, max_pixels: int) -> None:
    """Refuse a decompression bomb by what its header announces."""
    if width * height > max_pixels:
        raise ImageError("too-many-pixels", f"{width} x {height} pixels; ingest.max_pixels is {max_pixels}")


def _check_side(width: int, height: int, min_side: int) -> None:
    if min(width, height) < min_side:
        raise ImageError("too-small", f"{width} x {height} pixels; ingest.min_side is {min_side}")
