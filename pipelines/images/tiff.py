"""TIFFs that are not what their first picture shows (a camera's raw file), that are sound but of a kind without an
agreed look on a screen, or that Pillow would show wrongly."""

import math
from collections.abc import Iterator

import numpy as np
from PIL import Image

from pipelines.core.errors import ImageError
from pipelines.images.exif import first_directory, read_directory, read_values

_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_STRIPS, _SAMPLES, _STRIP_BYTES, _PLANAR = 273, 277, 279, 284
_TILE_WIDTH, _TILES, _TILE_BYTES, _SUBDIRECTORIES, _FORMAT, _DNG = 322, 324, 325, 330, 339, 50706
_LAYOUT = frozenset((
    _SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _PLANAR, _TILE_WIDTH, _SUBDIRECTORIES,
    _FORMAT, _DNG,
))  # fmt: skip
_PIECES = frozenset((_STRIPS, _STRIP_BYTES, _TILES, _TILE_BYTES))
# colour filter array and linear raw; compressions of Nikon, Sony, Samsung, Pentax and Kodak
_RAW_PHOTOMETRIC, _RAW_COMPRESSION = (32803, 34892), (34713, 32767, 32770, 65535, 65000)
# those that every libtiff of Pillow's wheels unpacks
_COMPRESSIONS = (1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946, 34925, 50000)
# CR2 of Canon; IIQ of Phase One
_RAW_MAGIC = {b"CR\x02\x00", b"IIII", b"MMMM"}
_MAX_PAGES, _MAX_PIECES = 8, 1 << 20
_PHOTOMETRICS = {
    0: "grey", 1: "grey", 2: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr", 8: "Lab", 9: "Lab", 10: "Lab", 32844: "LogL",
    32845: "LogLuv",
}  # fmt: skip
Values = dict[int, tuple[int, ...]]


def refuse_previews(data: bytes) -> None:
    """Refuse a TIFF whose first picture is not the photograph.

    Raises:
        ImageError: `camera-raw`, or `unsupported-format`: the first of several pictures says that it is a preview.
    """
    first = first_directory(data) or 0
    values = read_values(data, first, _LAYOUT)
    others = list(_others(data, first, values))
    if data[8:12] in _RAW_MAGIC or _DNG in values or any(map(_is_raw, [values, *others])):
        raise ImageError("camera-raw", "a camera's raw file; export it as JPEG or TIFF")
    if _one(values, _SUBFILE) & 1 and others:
        size = f"{_one(values, _WIDTH)} x {_one(values, _HEIGHT)} pixels"
        detail = f"its first picture, {size}, is a preview of another; save that one alone as TIFF or JPEG"
        raise ImageError("unsupported-format", detail)


def unsupported_tiff(data: bytes, is_opened: bool) -> ImageError | None:
    """Why a TIFF that Pillow cannot read is sound all the same; None: it is damaged, or this cannot be told.

    Args:
        is_opened: whether Pillow took its header: then only its compression can be foreign.
    """
    first = first_directory(data) or 0
    values = read_values(data, first, _LAYOUT)
    pieces = _pieces(data, first)
    bits, samples = max(values.get(_BITS, (1,)), default=0), max(_one(values, _SAMPLES, 1), len(values.get(_BITS, ())))
    if not (_one(values, _WIDTH) and _one(values, _HEIGHT) and 0 < bits <= 64 and 0 < samples <= 0x1000 and pieces):
        return None
    if any(offset + length > len(data) for offset, length in pieces):
        return None
    if is_opened and _one(values, _COMPRESSION, 1) in _COMPRESSIONS:
        return None
    if data[:4] == b"MM\x00+":
        return ImageError("unsupported-format", "a BigTIFF whose numbers are big-endian; save it as TIFF or PNG")
    kind = {2: " signed", 3: " floating-point"}.get(_one(values, _FORMAT), "")
    what = f"{samples}{kind} band{'' if samples == 1 else 's'} of {bits} bits"
    if kind or bits not in (1, 2, 4, 8, 16):
        why = ", which have no agreed range" if kind or bits > 16 else ""
        return ImageError("unsupported-depth", f"{what}{why}; save 8 or 16 bits")
    if samples > 4:
        return ImageError("unsupported-format", f"{what}; save three of them as RGB, or one as grey")
    colours = _PHOTOMETRICS.get(_one(values, _PHOTOMETRIC), f"photometric {_one(values, _PHOTOMETRIC)}")
    how = f"{what} ({colours}, compression {_one(values, _COMPRESSION, 1)})"
    return ImageError("unsupported-format", f"a TIFF of {how}; save it as RGB or grey of 8 or 16 bits")


def is_inverted(data: bytes) -> bool:
    """Whether 0 is white, which Pillow knows of samples up to 8 bits alone."""
    return _one(read_values(data, first_directory(data) or 0, _LAYOUT), _PHOTOMETRIC, 1) == 0


def from_planes(data: bytes) -> Image.Image | None:
    """Samples of 16 bits that lie in planes as they are, of which Pillow would take the first one for the whole: RGB,
    rounded down to 8 bits as Pillow does for samples side by side. None: it is no such file.

    Raises:
        ImageError: `unsupported-format`: other colours, or in tiles; `truncated`.
    """
    first = first_directory(data) or 0
    values = read_values(data, first, _LAYOUT)
    samples = _one(values, _SAMPLES, 1)
    is_plain = _one(values, _COMPRESSION, 1) == 1 and _one(values, _PLANAR, 1) == 2
    if not is_plain or samples == 1 or _one(values, _BITS) != 16:
        return None
    if samples != 3 or _one(values, _PHOTOMETRIC) != 2 or _TILE_WIDTH in values:
        detail = f"{samples} bands of 16 bits in planes, one after the other; save them side by side (interleaved)"
        raise ImageError("unsupported-format", detail)
    shape = (samples, _one(values, _HEIGHT), _one(values, _WIDTH))
    whole = b"".join(data[offset : offset + length] for offset, length in _pieces(data, first))
    num_bytes = 2 * math.prod(shape)
    if len(whole) < num_bytes:
        raise ImageError("truncated", f"{num_bytes - len(whole)} bytes of its pixels are missing")
    planes = np.frombuffer(whole, "<u2" if data[:2] == b"II" else ">u2", math.prod(shape)).reshape(shape)
    return Image.fromarray(np.ascontiguousarray((planes >> 8).astype(np.uint8).transpose(1, 2, 0)))  # (H, W, 3)


def _one(values: Values, tag: int, default: int = 0) -> int:
    return next(iter(values.get(tag, ())), default)


def _is_raw(values: Values) -> bool:
    return _one(values, _PHOTOMETRIC) in _RAW_PHOTOMETRIC or _one(values, _COMPRESSION) in _RAW_COMPRESSION


def _others(data: bytes, first: int, values: Values) -> Iterator[Values]:
    """The directories below the first one and those that follow it, a few of them."""
    seen = {first}
    page = read_directory(data, first, next_only=True)
    while page is not None and page.next and page.next not in seen and len(seen) <= _MAX_PAGES:
        seen.add(page.next)
        found = read_values(data, page.next, _LAYOUT)
        if found:
            yield found
        page = read_directory(data, page.next, next_only=True)
    for below in values.get(_SUBDIRECTORIES, ())[:_MAX_PAGES]:
        found = read_values(data, below, _LAYOUT)
        if found:
            yield found


def _pieces(data: bytes, first: int) -> list[tuple[int, int]]:
    """Offset and length of every strip or tile."""
    values = read_values(data, first, _PIECES, most=_MAX_PIECES)
    for offsets, lengths in ((_TILES, _TILE_BYTES), (_STRIPS, _STRIP_BYTES)):
        if len(values.get(offsets, ())) == len(values.get(lengths, ())) > 0:
            return list(zip(values[offsets], values[lengths], strict=True))
    return []
