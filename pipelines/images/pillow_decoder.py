"""Decodes every format but the plain JPEG with Pillow, and decides which files are broken.

Pillow is only asked for the format that a file's first bytes announce, so that its rarer plug-ins (EPS starts a
program) see no hostile bytes.

Time is bounded by the file's size and `max_pixels` alone for BMPs in run-length coding and PPMs in text, which Pillow
decodes in plain Python: about 1 s for each 8 MB of a file made of the shortest runs.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageOps

from pipelines.core.errors import ImageError
from pipelines.images.colours import flatten
from pipelines.images.decoding import check_pixels, upright
from pipelines.images.formats import identify, is_bitmap
from pipelines.images.jpeg import COLOUR_LEVELS, bare, check_scans, count_coloured, read_header
from pipelines.images.sanitize import (
    MAX_FRAMES,
    FirstFrame,
    check_boxes,
    first_frame_of_gif,
    first_frame_of_png,
    first_frame_of_tiff,
)
from pipelines.images.tiff import from_planes, is_inverted, read_orientation, unsupported_tiff

# what Pillow's plug-ins raise on damaged bytes; anything else would be a mistake of ours
_DECODER_ERRORS = (
    OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, ArithmeticError, AttributeError, RuntimeError,
    struct.error, zlib.error, MemoryError, Image.DecompressionBombError,
)  # fmt: skip
# plug-ins that Pillow does not load by itself; loading all of them takes ten times as long
_PLUGINS = {"WEBP": "WebP", "TIFF": "Tiff", "AVIF": "Avif"}
_FIRST_FRAMES: dict[str, Callable[[bytes], FirstFrame]] = {
    "PNG": first_frame_of_png,
    "GIF": first_frame_of_gif,
    "TIFF": first_frame_of_tiff,
}

# of a JPEG without a whole header, given to Pillow for the reason
_BROKEN_BYTES = 1 << 18

_stderr_lock = threading.Lock()
_pillow_logger = logging.getLogger("PIL")


class StoredFormat(NamedTuple):
    """How a picture was stored."""

    format: str
    mode: str
    orientation: int
    num_frames: int
    transparent: bool


def decode_with_pillow(data: bytes, *, max_pixels: int) -> tuple[Image.Image, StoredFormat]:
    """Decode any supported file; the image is RGB and upright.

    Raises:
        ImageError: as `pipelines.images.decoding.decode` says.
    """
    name = identify(data)
    if name in ("AVIF", "HEIF"):
        check_boxes(data)
    first = _FIRST_FRAMES[name](data) if name in _FIRST_FRAMES else None
    header = read_header(data) if name == "JPEG" else None
    if header is not None:
        check_pixels(header.width, header.height, max_pixels)
        check_scans(data, header, max_pixels=max_pixels)
        if header.bits != 8:
            raise ImageError("unsupported-depth", f"a JPEG of {header.bits} bits a sample; save it with 8")
        first = FirstFrame(bare(data, header), header.orientation, 1)
    elif name == "JPEG":
        first = FirstFrame(data[:_BROKEN_BYTES], 1, 1)
    with _open(data if first is None else first.data, name, max_pixels) as image:
        # Pillow does not see a JPEG's profile (`bare` removes it) and does not apply a PNG's gamma
        profile = header.profile if header is not None else image.info.get("icc_profile")
        gamma = image.info.get("gamma") if "srgb" not in image.info else None
        orientation, num_frames = (first.orientation, first.num_frames) if first is not None else _about(image, name)
        image.info.pop("xmp", None)  # of which Pillow takes the orientation of a TIFF too
        mode = image.mode
        try:
            with _silent_libtiff() if name == "TIFF" else nullcontext():
                image.load()
            if name == "TIFF":
                image = ImageOps.exif_transpose(image)
                image = _as_meant(image, data, orientation)
            flat = flatten(image, profile=profile, gamma=gamma)
        except _DECODER_ERRORS as error:
            raise _judge(name, error, data) from error
        rgb = flat.image
        if name != "TIFF" and orientation > 1:  # Pillow turns a TIFF as it loads it
            rgb = Image.fromarray(upright(np.asarray(rgb), orientation))
        return rgb, StoredFormat(name, mode, orientation, num_frames, flat.transparent)


def _as_meant(image: Image.Image, data: bytes, orientation: int) -> Image.Image:
    """Correct a loaded TIFF, upright, that Pillow shows wrongly: 16 bits in planes, or with 0 for white."""
    if image.mode.startswith("I;16"):
        return Image.fromarray(0xFFFF - np.asarray(image).astype(np.uint16)) if is_inverted(data) else image
    planes = from_planes(data)
    return image if planes is None else Image.fromarray(upright(np.asarray(planes), orientation))


def image_has_colour(rgb: Image.Image) -> bool:
    """Whether the channels of any pixel differ by more than `COLOUR_LEVELS`."""
    sample = rgb.resize((32, 32), Image.Resampling.NEAREST)
    if count_coloured(np.asarray(sample)):
        return True
    red, green, blue = rgb.split()
    most = (np.asarray(ImageChops.difference(*pair)).max() for pair in ((red, green), (green, blue), (blue, red)))
    return any(int(value) > COLOUR_LEVELS for value in most)


class _Guard:
    """Sets Pillow's pixel limit and switches Python's warnings off while any thread decodes.

    Both are settings of the process, so they are restored when the last thread leaves; meanwhile the limit is the
    highest that a thread asked for. Pillow's limit also catches frames larger than their picture.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._limits: list[int] = []
        self._before: int | None = None
        self._warnings = warnings.catch_warnings()

    @contextmanager
    def __call__(self, max_pixels: int) -> Iterator[None]:
        with self._lock:
            if not self._limits:
                self._before = Image.MAX_IMAGE_PIXELS
                self._warnings = warnings.catch_warnings()
                self._warnings.__enter__()
                warnings.simplefilter("ignore")
            self._limits.append(max_pixels)
            Image.MAX_IMAGE_PIXELS = max(self._limits)
        try:
            yield
        finally:
            with self._lock:
                self._limits.remove(max_pixels)
                Image.MAX_IMAGE_PIXELS = max(self._limits, default=self._before)
                if not self._limits:
                    self._warnings.__exit__(None, None, None)


_guard = _Guard()


@contextmanager
def _open(data: bytes, name: str, max_pixels: int) -> Iterator[Image.Image]:
    """Read the header of a file of format `name`."""
    if not _pillow_logger.handlers:
        # without any handler, Python prints what Pillow logs of damaged files
        _pillow_logger.addHandler(logging.NullHandler())
    if name in _PLUGINS:
        importlib.import_module(f"PIL.{_PLUGINS[name]}ImagePlugin")
    if name == "HEIF":
        _load_heif()
    with _guard(max_pixels):
        try:
            image = Image.open(io.BytesIO(data), formats=[name])
        except _DECODER_ERRORS as error:
            raise _judge(name, error, data) from error
        with image:
            check_pixels(image.width, image.height, max_pixels)
            yield image


def _load_heif() -> None:
    """Teach Pillow HEIF.

    Raises:
        ImageError: `unsupported-format`: the extra is not installed.
    """
    if "HEIF" in Image.OPEN:
        return
    try:
        import pillow_heif
    except ImportError as error:
        raise ImageError(
            "unsupported-format",
            "a HEIC picture; install the extra `heif` (pip install 'miwake[heif]') or save it as JPEG",
        ) from error
    pillow_heif.register_heif_opener(thumbnails=False)


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


def _about(image: Image.Image, name: str) -> tuple[int, int]:
    """Orientation and number of frames, where the file's own structure was not walked."""
    exif = image.info.get("exif", b"")
    orientation = 1 if name == "HEIF" else read_orientation(exif)  # libheif turns what it decodes
    return orientation, min(int(getattr(image, "n_frames", 1)), MAX_FRAMES) if name in ("WEBP", "AVIF") else 1


def _judge(name: str, error: BaseException, data: bytes) -> ImageError:
    """Pillow's many errors as one of our reasons."""
    if isinstance(error, ImageError):
        return error
    if isinstance(error, Image.DecompressionBombError):
        announced = re.search(r"\d+", str(error))
        return ImageError("too-many-pixels", f"announces {announced[0] if announced else 'too many'} pixels")
    message = str(error) or type(error).__name__
    if message.startswith("Unsupported BMP"):
        return ImageError("unsupported-format", f"a BMP of a rare kind ({message[16:]}); save it as PNG")
    is_opened = message.startswith("decoder error")
    if (
        name == "TIFF"
        and ("cannot identify" in message or is_opened)
        and (refusal := unsupported_tiff(data, is_opened))
    ):
        return refusal
    if "cannot identify image file" in message:
        # the address of the buffer in Pillow's message changes from run to run
        message = f"announces itself as {name}, but its header cannot be read"
        # two letters are not much of an announcement
        if name == "PPM" or (name == "BMP" and not is_bitmap(data)):
            return ImageError("not-an-image", f"starts with {data[:12]!r}")
    if message.startswith("decoder error"):  # libtiff gives Pillow no reason
        message = f"its {name} data cannot be decoded"
    if isinstance(error, EOFError) or any(word in message.lower() for word in ("truncated", "unexpected end")):
        return ImageError("truncated", message)
    return ImageError("broken", message)
