"""Normalises labels, so that they compare equal, print, and can name a folder inside a tar."""

import unicodedata
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pipelines.core.errors import ImageError, InputError

if TYPE_CHECKING:  # see pipelines.ingest.folder
    from pipelines.params.sources import LabelFrom, SubsetFrom

_SUBSETS = {
    "train": "train", "training": "train", "trainset": "train",
    "val": "val", "valid": "val", "validation": "val", "validate": "val", "dev": "val", "development": "val",
    "test": "test", "testing": "test", "testset": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip


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


def folder_label(folders: str, label_from: "LabelFrom", subset_from: "SubsetFrom") -> str:
    """The label of a file that lies in `folders` ("a/b"), clean; "" where it lies in the folder of a subset.

    Raises:
        ImageError: `bad-subset`: the first folder should name a subset and does not; else see `clean_label`.
    """
    if subset_from == "first_folder":
        first, _, folders = folders.partition("/")
        given_subset(first, "the first folder")
        if not folders:
            return ""
    match label_from:
        case "first_folder":
            return clean_label(folders.split("/", 1)[0])
        case "last_folder":
            return clean_label(folders.rsplit("/", 1)[-1])
        case "whole_path":
            return clean_label(folders)


def is_subset(name: str) -> bool:
    """Whether it is a usual name of train, val or test."""
    return name.casefold() in _SUBSETS


def given_subset(name: str, where: str) -> str:
    """train, val or test, by any of their usual names.

    Args:
        where: what the name is of: a column, the first folder.

    Raises:
        ImageError: `bad-subset`: it is none of the names known.
    """
    subset = _SUBSETS.get(name.casefold())
    if subset is None:
        raise ImageError("bad-subset", f"{where} is {printable(name)!r}; write one of {', '.join(_SUBSETS)}")
    return subset


def refuse_subset_labels(labels: Iterable[str], where: str, remedy: str) -> None:
    """Refuse train, val and test as classes.

    Args:
        labels: of one source.
        where: names it.
        remedy: what to do if they are subsets.

    Raises:
        InputError: the labels, or their first parts, have a name of train and one of val or test.
    """
    firsts = {label.split("/", 1)[0] for label in set(labels)}
    found = {first: _SUBSETS[first.casefold()] for first in firsts if is_subset(first)}
    if {"train"} < set(found.values()):
        raise InputError(
            f"{where} gives the labels {', '.join(sorted(found))}, which are names of subsets and not of classes: "
            f"{remedy}; if they are classes after all, rename them"
        )


def shown_label(folders: str, label_from: "LabelFrom", subset_from: "SubsetFrom") -> str:
    """The label of files in `folders`, as written where it is not a valid label; "" where there is none."""
    try:
        return folder_label(folders, label_from, subset_from)
    except ImageError:
        if subset_from == "first_folder":
            folders = folders.partition("/")[2]
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
