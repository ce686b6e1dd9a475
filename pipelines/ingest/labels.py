"""Labels as people write them, made safe to compare, to print and to be a folder inside a tar."""

import unicodedata

from pipelines.core.errors import ImageError


def clean_label(raw: str) -> str:
    """The label in its one form: each part between slashes NFC-normalised and without spaces at its ends.

    Any script, spaces inside, `#` and emoji stay as they are.

    Raises:
        ImageError: `no-label` if nothing is left; `bad-label` for what cannot be a folder's name everywhere: `.` and
            `..`, empty parts, control characters, bytes that are not UTF-8, parts of more than 255 bytes.
    """
    parts = [unicodedata.normalize("NFC", part).strip() for part in raw.split("/")]
    label = "/".join(parts)
    if not label:
        raise ImageError("no-label", f"{printable(raw)!r} is empty")
    for part in parts:
        rule = _broken_rule(part)
        if rule:
            raise ImageError("bad-label", f"{printable(label)!r}: {rule}; rename the folder")
    return label


def _broken_rule(part: str) -> str | None:
    if part in ("", ".", ".."):
        return f"{part!r} is no name"
    if any(unicodedata.category(character) == "Cc" for character in part):
        return "it holds a control character (a tab or a line break)"
    try:
        num_bytes = len(part.encode())
    except UnicodeEncodeError:
        return "it is not UTF-8"
    return f"{num_bytes} bytes are more than the 255 that file systems allow" if num_bytes > 255 else None


def printable(name: str) -> str:
    r"""A file name as valid Unicode: bytes that are not UTF-8 become \xNN."""
    if name.isascii():
        return name
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
