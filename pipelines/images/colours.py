"""Any of Pillow's modes to RGB as a browser shows it: sRGB, 8 bits, on white.

Embedded profiles (ICC) are applied. Cameras that store Display P3 or Adobe RGB, and printers' CMYK, then give the
colours of the same thing in an sRGB file; ignored, a red of P3 lies 30 levels off, and a classifier of look-alikes
learns the camera. Colours that sRGB has are kept, and its black is the file's (relative colorimetric). A profile that
moves no colour by more than 3 levels counts as sRGB and costs nothing: nearly all files. Applying one takes about 20 ms
a megapixel, ten times as long as decoding a JPEG. One that is damaged or made for other samples is ignored.
"""

import io
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from pipelines.core.errors import ImageError

if TYPE_CHECKING:
    from PIL.ImageCms import ImageCmsTransform

_SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}
_MAX_PROFILE_BYTES = 8 << 20
_SRGB_LEVELS = 3
_SRGB_GAMMA = 1 / 2.2


class FlattenedImage(NamedTuple):
    """A picture without alpha."""

    image: Image.Image
    """RGB"""
    transparent: bool
    """at least one pixel was not opaque"""


def flatten(image: Image.Image, *, profile: bytes | None, gamma: float | None = None) -> FlattenedImage:
    """Turn a loaded image to sRGB, on white.

    Args:
        image: of any mode.
        profile: ICC, as embedded.
        gamma: of a PNG without a profile: its gAMA.

    Raises:
        ImageError: `unsupported-depth`: floating-point samples, or whole numbers beyond 16 bits.
    """
    alpha = None
    if image.mode.startswith("I;16") or image.mode == "I":
        image, alpha = _to_eight_bits(image)
    elif image.mode == "F":
        raise ImageError("unsupported-depth", "floating-point samples have no agreed range; save 8 or 16 bits")
    elif image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        layer = image.convert({"LA": "LA", "La": "LA"}.get(image.mode, "RGBA"))
        alpha, image = layer.getchannel("A"), layer.convert(layer.mode[:-1])
    rgb = _curve(to_srgb(image, profile), None if profile else gamma)
    if alpha is None or alpha.getextrema()[0] == 255:
        return FlattenedImage(rgb, False)
    rgb.putalpha(alpha)
    return FlattenedImage(Image.alpha_composite(Image.new("RGBA", rgb.size, "white"), rgb).convert("RGB"), True)


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """RGB, through `profile` where there is one that fits the image's mode."""
    if profile and image.mode not in _SPACES:
        image = image.convert("RGB")
    transform = _transform(profile, image.mode) if profile and len(profile) <= _MAX_PROFILE_BYTES else None
    if image.mode == "LAB":
        transform = _lab()
    if transform is None:
        return image.convert("RGB")
    found: Image.Image = transform.apply(image)
    return found


def matters(profile: bytes, mode: str) -> bool:
    """Whether applying `profile` to an image of mode L or RGB changes more than rounding does."""
    return len(profile) <= _MAX_PROFILE_BYTES and _transform(profile, mode) is not None


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> "ImageCmsTransform | None":
    """None: the profile cannot be used, or is sRGB itself."""
    from PIL import ImageCms

    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if opened.profile.xcolor_space.strip() != _SPACES[mode]:
            return None
        found = ImageCms.buildTransform(
            opened, ImageCms.createProfile("sRGB"), mode, "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )  # fmt: skip
        colours = _all_colours(mode)
        moved = np.asarray(found.apply(colours), np.int16) - np.asarray(colours.convert("RGB"), np.int16)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    return found if mode == "CMYK" or np.abs(moved).max() > _SRGB_LEVELS else None


def _all_colours(mode: str) -> Image.Image:
    """A small image of colours from all over the cube."""
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    steps = np.arange(0, 256, 51, dtype=np.uint8)
    grid = np.stack(np.meshgrid(*[steps] * len(mode)), axis=-1)  # (6, …, 6, C)
    return Image.frombytes(mode, (len(steps) ** len(mode), 1), grid.tobytes())


@lru_cache(maxsize=1)
def _lab() -> "ImageCmsTransform":
    from PIL import ImageCms

    return ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")


def _curve(rgb: Image.Image, gamma: float | None) -> Image.Image:
    """Undo a PNG's gAMA if it is another than sRGB's; as in libpng, 5 % make no difference."""
    if not gamma or not 0.05 <= gamma <= 5 or abs(gamma / _SRGB_GAMMA - 1) <= 0.05:
        return rgb
    levels = np.arange(256) / 255
    table = np.rint(255 * levels ** (_SRGB_GAMMA / gamma)).astype(int).tolist()
    return rgb.point(table * 3)


def _to_eight_bits(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Scale 0..65535 to 0..255, rounded; mode I holds 32 bits, but 16-bit files are opened as I too.

    Returns:
        The image of mode L, and its alpha where one grey value stands for nothing.
    """
    samples = np.asarray(image).astype(np.int64)
    if samples.min() < 0 or samples.max() > 0xFFFF:
        raise ImageError("unsupported-depth", "32-bit samples have no agreed range; save 8 or 16 bits")
    clear = image.info.get("transparency")
    alpha = None
    if isinstance(clear, int):
        alpha = Image.fromarray(np.where(samples == clear, 0, 255).astype(np.uint8))
    return Image.fromarray(((samples * 255 + 0x7FFF) // 0xFFFF).astype(np.uint8)), alpha
