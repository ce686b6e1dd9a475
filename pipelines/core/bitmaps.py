"""The kinds of BMP that Pillow does not read but browsers do: any bit masks, 2 bits a pixel, a palette too long,
the short header of OS/2's second version. All others stay with Pillow."""

import struct
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipelines.core.errors import ImageError

_RAW, _MASKS, _MASKS_WITH_ALPHA = 0, 3, 6
_DEFAULT_MASKS = {16: (0x7C00, 0x3E0, 0x1F, 0), 32: (0xFF0000, 0xFF00, 0xFF, 0)}
_OS2_HEADERS = (12, 16)


class _Header(NamedTuple):
    size: int
    """bytes of the header after the first 14"""
    start: int
    """of the pixels, bytes from the beginning of the file"""
    width: int
    height: int
    from_top: bool
    bits: int
    """a pixel"""
    compression: int
    num_colours: int
    """that the palette announces"""


def decode_bitmap(data: bytes, *, max_pixels: int) -> Image.Image | None:
    """Mode RGB or RGBA; None: leave it to Pillow.

    Raises:
        ImageError: `too-many-pixels`, `truncated`, or `broken`: masks that overlap or have holes.
    """
    header = _read(data)
    if header is None or not _is_rare(header):
        return None
    if header.width * header.height > max_pixels:
        raise ImageError(
            "too-many-pixels", f"{header.width} x {header.height} pixels; ingest.max_pixels is {max_pixels}"
        )
    stride = (header.width * header.bits + 31) // 32 * 4
    missing = header.start + stride * header.height - len(data)
    if missing > 0:
        raise ImageError("truncated", f"{missing} bytes of its pixels are missing")
    rows = np.frombuffer(data, np.uint8, stride * header.height, header.start).reshape(header.height, stride)
    if not header.from_top:
        rows = rows[::-1]
    if header.bits <= 8:
        pixels = _palette(data, header)[_unpack(rows, header)]  # (H, W, 3)
    else:
        whole = np.ascontiguousarray(rows).view("<u2" if header.bits == 16 else "<u4")[:, : header.width]
        pixels = _by_masks(whole, _masks(data, header))
    return Image.fromarray(pixels)


def _read(data: bytes) -> _Header | None:
    if len(data) < 18:
        return None
    start, size = struct.unpack_from("<II", data, 10)
    if len(data) < 14 + size:
        return None
    if size in _OS2_HEADERS:
        width, height, _, bits = struct.unpack_from("<HHHH" if size == 12 else "<IIHH", data, 18)
        compression = num_colours = 0
    elif size < 40:
        return None
    else:
        width, height, _, bits, compression, _, _, _, num_colours = struct.unpack_from("<iiHHIIiiI", data, 18)
    if width <= 0 or not height:
        return None
    return _Header(size, start, width, abs(height), height < 0, bits, compression, num_colours)


def _is_rare(header: _Header) -> bool:
    if header.compression in (_MASKS, _MASKS_WITH_ALPHA):
        return header.bits in _DEFAULT_MASKS
    if header.compression != _RAW or header.bits not in (1, 2, 4, 8):
        return False
    return header.bits == 2 or header.size == 16 or header.num_colours > 1 << header.bits


def _palette(data: bytes, header: _Header) -> npt.NDArray[np.uint8]:
    """(256, 3) RGB; black beyond what the file holds."""
    first = 14 + header.size
    space = max(0, min(header.start, len(data)) - first)
    count = min(1 << header.bits, space // 4)
    colours = np.zeros((256, 3), np.uint8)
    colours[:count] = np.frombuffer(data, np.uint8, 4 * count, first).reshape(count, 4)[:, 2::-1]
    return colours


def _unpack(rows: npt.NDArray[np.uint8], header: _Header) -> npt.NDArray[np.uint8]:
    """(H, stride) bytes → (H, W) places in the palette."""
    parts = 8 // header.bits
    shifts = np.arange(8 - header.bits, -1, -header.bits, dtype=np.uint8)  # the leftmost pixel has the highest bits
    places = rows[:, :, None] >> shifts & np.uint8((1 << header.bits) - 1)  # (H, stride, parts)
    return places.reshape(len(rows), rows.shape[1] * parts)[:, : header.width]


def _masks(data: bytes, header: _Header) -> tuple[int, int, int, int]:
    """Of red, green, blue and alpha; 0: there is none."""
    red, green, blue, alpha = struct.unpack_from("<IIII", data, 54) if len(data) >= 70 else _DEFAULT_MASKS[header.bits]
    if header.size < 56 and header.compression != _MASKS_WITH_ALPHA:
        alpha = 0  # shorter headers have three masks
    return red, green, blue, alpha


def _by_masks(whole: npt.NDArray[np.unsignedinteger], masks: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """(H, W) pixels of 16 or 32 bits → (H, W, 3 or 4), each channel scaled to 255."""
    if masks[3] == 0:
        masks = masks[:3]
    channels = []
    for mask in masks:
        shift = (mask & -mask).bit_length() - 1
        most = mask >> shift if mask else 0
        if most & (most + 1):
            raise ImageError("broken", f"the bit mask {mask:#x} of a channel has holes")
        values = (whole.astype(np.int64) & mask) >> max(shift, 0)
        channels.append((values * 255 + most // 2) // max(most, 1))
    return np.stack(channels, axis=-1).astype(np.uint8)
