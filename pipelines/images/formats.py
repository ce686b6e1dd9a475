"""Identifies image formats by a file's first bytes, never by its suffix."""

import struct

from pipelines.core.errors import ImageError

_BMP_HEADER_SIZES = (12, 16, 40, 52, 56, 64, 108, 124)
_HEIF_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"))
_HINTS = {
    b"%PDF": "a PDF document",
    b"8BPS": "a Photoshop document",
    b"gimp xcf": "a GIMP document",
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
    b"\x01\xda": "an SGI picture",
    b"\x59\xa6\x6a\x95": "a Sun raster picture",
    b"/* XPM */": "an XPM picture",
    b"v/1\x01": "an OpenEXR picture",
    b"#?RADIANCE": "a Radiance picture",
    b"\xd7\xcd\xc6\x9a": "a Windows metafile",
}
_RAW = (b"FUJIFILMCCD-RAW", b"IIU\x00", b"IIRO", b"IIRS", b"MMOR", b"\x00MRM", b"FOVb")
"""how raw files of cameras begin that are no TIFFs: RAF, RW2, three of ORF, MRW, X3F"""
_POINTERS = {b"version https://git-lfs.github.com/spec/": "Git LFS: `git lfs pull`", b"/annex/objects/": "git-annex: "
             "`git annex get`"}  # fmt: skip


def identify(data: bytes) -> str:
    """The format that the first bytes announce: JPEG, PNG, GIF, WEBP, TIFF, AVIF, HEIF, BMP or PPM.

    Raises:
        ImageError: `empty-file`, `camera-raw`, `unsupported-format`, `broken` or `not-an-image`.
    """
    if not data:
        raise ImageError("empty-file", "0 bytes")
    found = _identify(data)
    if found:
        return found
    if data.startswith(_RAW) or data[6:14] == b"HEAPCCDR" or data[4:12] == b"ftypcrx ":
        raise ImageError("camera-raw", "a camera's raw file; export it as JPEG or TIFF")
    for magic, what in _POINTERS.items():
        if data.startswith(magic):
            raise ImageError("not-an-image", f"a pointer of {what} fetches the file")
    if is_bitmap(data):
        raise ImageError("broken", "announces itself as BMP, but its header cannot be read")
    for magic, what in _HINTS.items():
        if data.startswith(magic):
            raise ImageError("unsupported-format", f"{what}; save it as JPEG or PNG")
    if found := _by_header(data):
        raise ImageError("unsupported-format", f"{found}; save it as JPEG or PNG")
    head = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith((b"<!doctype html", b"<html", b"<head")):
        raise ImageError("not-an-image", "an HTML page")
    if b"<svg" in head:
        raise ImageError("unsupported-format", "an SVG drawing; save it as PNG")
    raise ImageError("not-an-image", f"starts with {data[:12]!r}")


def is_bitmap(data: bytes) -> bool:
    """Whether it starts as a BMP does, with more than its two letters: the reserved bytes are 0, the pixels inside."""
    return data[:2] == b"BM" and data[6:10] == bytes(4) and 14 < int.from_bytes(data[10:14], "little") <= 1 << 12


def _by_header(data: bytes) -> str | None:
    """Formats without a signature, recognised by the values in their header."""
    if len(data) < 18:
        return None
    count, start = struct.unpack_from("<H12xI", data, 4) if len(data) >= 22 else (0, 0)
    is_icon = data[:2] == bytes(2) and data[2:4] in (b"\1\0", b"\2\0") and data[9] == 0
    if is_icon and 6 + 16 * count <= start < len(data):
        return "a Windows icon" if data[2] == 1 else "a Windows cursor"
    if data[0] == 10 and data[1] in (0, 2, 3, 4, 5) and data[2] == 1 and data[3] in (1, 2, 4, 8):
        return "a PCX picture"
    width, height, bits, flags = struct.unpack_from("<HHBB", data, 12)
    has_map, kind = data[1], data[2]
    is_plain = kind in (2, 3, 10, 11) and has_map == 0 and not any(data[3:8])
    is_mapped = kind in (1, 9) and has_map == 1 and data[7] in (15, 16, 24, 32)
    if (is_plain or is_mapped) and width and height and bits in (8, 15, 16, 24, 32) and not flags & 0xC0:
        return "a Targa picture"
    return None


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
    if data[4:8] == b"ftyp":
        return _identify_box(data)
    if data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in _BMP_HEADER_SIZES:
        return "BMP"
    if data[:1] == b"P" and data[1:2] in b"123456" and data[2:3].isspace():
        return "PPM"
    return None


def _identify_box(data: bytes) -> str | None:
    """Of a file of ISO boxes: by its brands, the major one and those it is compatible with."""
    end = min(int.from_bytes(data[:4], "big"), 256)
    brands = {data[8:12], *(data[place : place + 4] for place in range(16, end - 3, 4))}
    if brands & {b"avif", b"avis"}:
        return "AVIF"
    return "HEIF" if brands & _HEIF_BRANDS else None
