"""What a file is, told from its first bytes, never from its suffix."""

from pipelines.core.errors import ImageError

_BMP_HEADER_SIZES = (12, 16, 40, 52, 56, 64, 108, 124)
_HEIF_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"))
_HINTS = {
    b"%PDF": "a PDF document",
    b"8BPS": "a Photoshop document",
    b"\x00\x00\x01\x00": "a Windows icon",
    b"\x00\x00\x02\x00": "a Windows cursor",
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


def identify(data: bytes) -> str:
    """The format that the first bytes announce: JPEG, PNG, GIF, WEBP, TIFF, AVIF, HEIF, BMP or PPM.

    Raises:
        ImageError: `empty-file`, `unsupported-format` or `not-an-image`.
    """
    if not data:
        raise ImageError("empty-file", "0 bytes")
    found = _identify(data)
    if found:
        return found
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
