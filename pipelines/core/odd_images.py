"""Pillow's part of `pipelines.core.images`: every format but the plain JPEG, and the judgement of what is broken.

The format is told from the first bytes, never from a suffix, and Pillow is only ever asked for that one format: its
rarer plug-ins (EPS starts a program) see no hostile bytes.
"""

import importlib
import io
import logging
import os
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps

from pipelines.core.errors import ImageError
from pipelines.core.images import check_pixels

# what Pillow's plug-ins raise on damaged bytes; anything else would be a mistake of ours
_DECODER_ERRORS = (
    OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, ArithmeticError, AttributeError, RuntimeError,
    struct.error, zlib.error, MemoryError, Image.DecompressionBombError,
)  # fmt: skip
# plug-ins that Pillow does not load by itself; loading all of them takes ten times as long
_PLUGINS = {"WEBP": "WebP", "TIFF": "Tiff", "AVIF": "Avif"}
_BMP_HEADER_SIZES = (12, 16, 40, 52, 56, 64, 108, 124)
_HINTS = {
    b"%PDF": "a PDF document",
    b"8BPS": "a Photoshop document",
    b"\x00\x00\x01\x00": "a Windows icon",
    b"\x00\x00\x00\x0cjP  ": "a JPEG 2000 picture",
    b"\xffO\xffQ": "a JPEG 2000 picture",
    b"\xff\n": "a JPEG XL picture",
    b"\x00\x00\x00\x0cJXL ": "a JPEG XL picture",
    b"%!PS": "a PostScript document",
    b"\xc5\xd0\xd3\xc6": "a PostScript document",
    b"qoif": "a QOI picture",
    b"DDS ": "a DirectDraw texture",
    b"icns": "a Macintosh icon",
    b"SIMPLE": "a FITS file",
}

_stderr_lock = threading.Lock()
_pillow_logger = logging.getLogger("PIL")


class Stored(NamedTuple):
    """How a picture was stored."""

    format: str
    mode: str
    orientation: int
    num_frames: int


def decode_odd(data: bytes, *, max_pixels: int) -> tuple[Image.Image, Stored]:
    """Decode any supported file; the image is RGB and upright.

    Raises:
        ImageError: as `pipelines.core.images.decode` says.
    """
    name = identify(data)
    if name == "PNG":
        _check_png(data)
    with _open(data, name, max_pixels) as image:
        if name == "PNG":
            # reading its EXIF decodes the pixels, and Pillow forgives the second try what failed in the first
            try:
                image.load()
            except _DECODER_ERRORS as error:
                raise _judge(data, name, error) from error
        orientation = _orientation(image)
        stored = Stored(name, image.mode, orientation, _count_frames(image, name))
        try:
            with _silent_libtiff() if name == "TIFF" else nullcontext():
                image.load()
            return _to_rgb(ImageOps.exif_transpose(image)), stored
        except _DECODER_ERRORS as error:
            raise _judge(data, name, error) from error


def _check_png(data: bytes) -> None:
    """Compare the checksums of a PNG's critical chunks, which Pillow skips for the pixels themselves.

    Raises:
        ImageError: `broken`. A file that ends early is left to Pillow.
    """
    view = memoryview(data)
    position = 8
    while position + 12 <= len(data):
        end = position + 8 + _big_endian(data, position)
        kind = data[position + 4 : position + 8]
        critical = kind[:1].isupper()
        if critical and end + 4 <= len(data) and zlib.crc32(view[position + 4 : end]) != _big_endian(data, end):
            raise ImageError("broken", f"the checksum of its {kind.decode('ascii', 'backslashreplace')} chunk is wrong")
        position = end + 4


def _big_endian(data: bytes, position: int) -> int:
    return int.from_bytes(data[position : position + 4], "big")


def read_orientation(data: bytes) -> int:
    """The EXIF orientation of a JPEG, 1 to 8; 1 where its EXIF cannot be read."""
    try:
        with _open(data, "JPEG", None) as image:
            return _orientation(image)
    except ImageError:
        return 1


def shrink(grey: Image.Image, side: int, extent: tuple[float, float]) -> npt.NDArray[np.uint8]:
    """Average the first `extent` (width, height) pixels of an image of mode L down to (side, side) uint8.

    Hamming is nearly the plain average of an area; Pillow's own BOX counts whole pixels in or out and is off by
    2 grey levels on average where the sizes do not divide. It computes in whole numbers: the same on any processor.
    """
    return np.asarray(grey.resize((side, side), Image.Resampling.HAMMING, box=(0, 0, *extent)))


def identify(data: bytes) -> str:
    """The format that the first bytes announce.

    Raises:
        ImageError: `empty-file`, `unsupported-format` or `not-an-image`.
    """
    if not data:
        raise ImageError("empty-file", "0 bytes")
    found = _identify(data)
    if found:
        return found
    if data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"):
        raise ImageError("unsupported-format", "a HEIC picture; save it as JPEG or PNG")
    for magic, what in _HINTS.items():
        if data.startswith(magic):
            raise ImageError("unsupported-format", f"{what}; save it as JPEG or PNG")
    head = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith((b"<!doctype html", b"<html", b"<head")):
        raise ImageError("not-an-image", "an HTML page")
    if b"<svg" in head:
        raise ImageError("unsupported-format", "an SVG drawing; save it as PNG")
    raise ImageError("not-an-image", f"starts with {data[:12]!r}")


def _identify(data: bytes) -> str | None:
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data.startswith((b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")):
        return "TIFF"
    if data[4:8] == b"ftyp" and (b"avif" in data[8:40] or b"avis" in data[8:40]):
        return "AVIF"
    if data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in _BMP_HEADER_SIZES:
        return "BMP"
    if data[:1] == b"P" and data[1:2] in b"123456" and data[2:3].isspace():
        return "PPM"
    return None


@contextmanager
def _open(data: bytes, name: str, max_pixels: int | None) -> Iterator[Image.Image]:
    """Read the header of a file of format `name`; Pillow's own limit follows `max_pixels` meanwhile."""
    if name in _PLUGINS:
        importlib.import_module(f"PIL.{_PLUGINS[name]}ImagePlugin")
    if not _pillow_logger.handlers:
        # without any handler, Python prints what Pillow logs of damaged files
        _pillow_logger.addHandler(logging.NullHandler())
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = max_pixels
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a picture that is usable but untidy is not worth a line each
            try:
                image = Image.open(io.BytesIO(data), formats=[name])
            except _DECODER_ERRORS as error:
                raise _judge(data, name, error) from error
            with image:
                if max_pixels is not None:
                    check_pixels(image.width, image.height, max_pixels)
                yield image
    finally:
        Image.MAX_IMAGE_PIXELS = limit


@contextmanager
def _silent_libtiff() -> Iterator[None]:
    """libtiff writes to file descriptor 2 what Pillow then raises too: hundreds of lines for a few damaged files."""
    with _stderr_lock:
        try:
            kept = os.dup(2)
        except OSError:  # a daemon without standard error
            yield
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(nowhere)


def _orientation(image: Image.Image) -> int:
    """Of EXIF alone: before `load`, because Pillow forgets it once a TIFF is turned."""
    for key in ("xmp", "XML:com.adobe.xmp"):
        image.info.pop(key, None)
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except _DECODER_ERRORS:
        # ImageOps.exif_transpose would fail over the same damaged EXIF; without it, the pixels are still good
        image.info.pop("exif", None)
        image._exif = None
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _count_frames(image: Image.Image, name: str) -> int:
    """Frames of an animation or pages of a TIFF; the further pictures of a JPEG are previews and depth maps."""
    if name == "JPEG":
        return 1
    try:
        return int(getattr(image, "n_frames", 1))
    except _DECODER_ERRORS:
        return 1  # damaged after the first frame, which is all that is used
    finally:
        image.seek(0)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":
        return _to_eight_bits(image).convert("RGB")
    if image.mode == "F":
        raise ImageError("unsupported-depth", "floating-point samples have no agreed range; save 8 or 16 bits")
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Scale 0..65535 to 0..255, rounded; mode I holds 32 bits, but 16-bit files are opened as I too."""
    samples = np.asarray(image).astype(np.int64)
    if samples.min() < 0 or samples.max() > 0xFFFF:
        raise ImageError("unsupported-depth", "32-bit samples have no agreed range; save 8 or 16 bits")
    return Image.fromarray(((samples * 255 + 0x7FFF) // 0xFFFF).astype(np.uint8))


def _judge(data: bytes, name: str, error: BaseException) -> ImageError:
    """Pillow's many errors as one of our reasons."""
    if isinstance(error, ImageError):
        return error
    if isinstance(error, Image.DecompressionBombError):
        announced = re.search(r"\d+", str(error))
        return ImageError("too-many-pixels", f"announces {announced[0] if announced else 'too many'} pixels")
    if name == "JPEG" and (bits := _jpeg_bits(data)) not in (None, 8):
        return ImageError("unsupported-depth", f"a JPEG of {bits} bits a sample; save it with 8")
    message = str(error) or type(error).__name__
    if "cannot identify image file" in message:
        # the address of the buffer in Pillow's message changes from run to run
        message = f"announces itself as {name}, but its header cannot be read"
        if name in ("BMP", "PPM"):  # two letters are not much of an announcement
            return ImageError("not-an-image", f"starts with {data[:12]!r}")
    if message.startswith("decoder error"):  # libtiff gives Pillow no reason
        message = f"its {name} data cannot be decoded"
    if isinstance(error, EOFError) or any(word in message.lower() for word in ("truncated", "unexpected end")):
        return ImageError("truncated", message)
    return ImageError("broken", message)


def _jpeg_bits(data: bytes) -> int | None:
    """Bits a sample, from the first frame header; None where there is none."""
    position = 2
    while position + 5 <= len(data):
        if data[position] != 0xFF:
            return None
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return data[position + 4]
        elif marker == 0xDA:
            return None
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return None
