"""Labels as people write them, made safe to compare, to print and to be a folder inside a tar."""

import unicodedata
from typing import TYPE_CHECKING

from pipelines.core.errors import ImageError

if TYPE_CHECKING:  # see pipelines.ingest.folder
    from pipelines.core.params.sources import LabelFrom


def clean_label(raw: str, *, remedy: str = "rename the folder") -> str:
    """The label in its one form: each part between slashes NFC-normalised and without spaces at its ends.

    Any script, spaces inside, `#` and emoji stay as they are. `remedy` ends the message of a bad label.

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
            raise ImageError("bad-label", f"{printable(label)!r}: {rule}; {remedy}")
    return label


def folder_label(folders: str, label_from: "LabelFrom") -> str:
    """The label of a file that lies in `folders` ("a/b"), clean.

    Raises:
        ImageError: see `clean_label`.
    """
    match label_from:
        case "first_folder":
            return clean_label(folders.split("/", 1)[0])
        case "last_folder":
            return clean_label(folders.rsplit("/", 1)[-1])
        case "whole_path":
            return clean_label(folders)


def shown_label(folders: str, label_from: "LabelFrom") -> str:
    """The label of files in `folders`; what stands there where it is no good, "" where nothing does."""
    try:
        return folder_label(folders, label_from)
    except ImageError:
        parts = folders.split("/")
        return printable({"first_folder": parts[0], "last_folder": parts[-1]}.get(label_from, folders)).strip()


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
