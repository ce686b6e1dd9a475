"""Bytes to pixels, for every stage: by content, within limits, upright, RGB."""

import io
import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from pipelines.core.errors import ImageError

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Picture:
    """One decoded picture.

    Args:
        pixels: (H, W, 3) uint8 RGB, upright.
        format: by content: JPEG, PNG, …
        mode: as stored, by Pillow's names: L, RGB, CMYK, P, I;16, …
        orientation: of EXIF, 1 to 8.
        num_frames: 1 for a still picture.
    """

    pixels: Pixels
    format: str
    mode: str
    orientation: int
    num_frames: int


def decode(data: bytes, *, max_pixels: int) -> Picture:
    """Decode the bytes of one image file.

    Args:
        data: the file.
        max_pixels: larger pictures are refused before they are decoded.

    Raises:
        ImageError: with reason `empty-file`, `not-an-image`, `too-many-pixels`, `truncated` or `broken`.
    """
    if not data:
        raise ImageError("empty-file", "0 bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                if image.width * image.height > max_pixels:
                    raise ImageError("too-many-pixels", f"{image.width} x {image.height}")
                image.load()
                upright = ImageOps.exif_transpose(image).convert("RGB")
                return Picture(
                    pixels=np.asarray(upright),
                    format=image.format or "?",
                    mode=image.mode,
                    orientation=image.getexif().get(0x0112, 1),
                    num_frames=getattr(image, "n_frames", 1),
                )
    except UnidentifiedImageError as error:
        raise ImageError("not-an-image", str(error)) from error
    except (OSError, ValueError, SyntaxError) as error:
        raise ImageError("broken", str(error)) from error
