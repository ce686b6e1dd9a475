"""Human decisions: data/decisions/drop.csv and relabel.csv, read and checked row by row."""

import csv
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.core.errors import DecisionError

_DROP_HEADER = ("image_id", "reason")
_RELABEL_HEADER = ("image_id", "label", "reason")
_ID = re.compile(r"[0-9a-f]{12,64}")


@dataclass(frozen=True)
class Decisions:
    """What people decided of single pictures, by full image_id.

    Args:
        drops: image_id to reason.
        relabels: image_id to (label, reason).
    """

    drops: dict[str, str]
    relabels: dict[str, tuple[str, str]]


def read_decisions(folder: Path, image_ids: Iterable[str]) -> Decisions:
    """Read `drop.csv` and `relabel.csv` of `folder`; a missing file holds no decision.

    Args:
        folder: data/decisions.
        image_ids: every id of the manifest; a decision may name one by its first 12 or more digits.

    Raises:
        DecisionError: a header or row is malformed, an id is unknown or ambiguous, or two rows disagree; names
            the file, the line and the remedy.
    """
    known = np.unique(np.array(sorted(image_ids), dtype="U64"))
    drops: dict[str, str] = {}
    lines: dict[str, str] = {}
    for where, (given, reason) in _rows(folder / "drop.csv", _DROP_HEADER):
        image_id = _full_id(given, known, where)
        if drops.setdefault(image_id, reason) != reason:
            raise DecisionError(
                f"{where}: {given} is dropped a second time, for another reason than in {lines[image_id]}: delete one"
            )
        lines.setdefault(image_id, where)
    relabels: dict[str, tuple[str, str]] = {}
    for where, (given, label, reason) in _rows(folder / "relabel.csv", _RELABEL_HEADER):
        image_id = _full_id(given, known, where)
        label = unicodedata.normalize("NFC", label.strip())
        if not label:
            raise DecisionError(f"{where}: the label is empty: write the right label, or use drop.csv")
        if image_id in drops:
            raise DecisionError(f"{where}: {given} is dropped in {lines[image_id]}: delete one of the two rows")
        if relabels.setdefault(image_id, (label, reason)) != (label, reason):
            raise DecisionError(
                f"{where}: {given} becomes {label!r} ({reason}), but {relabels[image_id][0]!r} "
                f"({relabels[image_id][1]}) in {lines[image_id]}: delete one of the two rows"
            )
        lines.setdefault(image_id, where)
    return Decisions(drops, relabels)


def _rows(path: Path, header: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
    """Each row with the place that a message names; blank lines are skipped."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return
    except UnicodeDecodeError as error:
        raise DecisionError(f"{path} is not UTF-8 ({error.reason}): save it as UTF-8") from error
    # strict: an open quote at the end is an error instead of a silently swallowed rest of the file
    reader = csv.reader(text.splitlines(keepends=True), strict=True)
    expected = ",".join(header)
    try:
        first = next(reader, None)
        if first is None or tuple(cell.strip() for cell in first) != header:
            found = "nothing" if first is None else repr(",".join(first))
            raise DecisionError(f"{path}:1: the header is {found}, it must be {expected}: write that as line 1")
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            where = f"{path}:{reader.line_num}"
            if len(row) != len(header):
                raise DecisionError(
                    f"{where}: {len(row)} values where {len(header)} belong ({expected}): "
                    "put a value that holds a comma in double quotes"
                )
            yield where, [cell.strip() for cell in row]
    except csv.Error as error:
        raise DecisionError(f"{path}:{reader.line_num}: not valid CSV ({error}): mend the quotes") from error


def _full_id(given: str, known: np.ndarray[tuple[int], np.dtype[np.str_]], where: str) -> str:
    """The one id that starts with `given`."""
    wanted = given.lower()
    if not _ID.fullmatch(wanted):
        raise DecisionError(f"{where}: {given!r} is no image_id: give its first 12 to 64 hex digits")
    start = int(np.searchsorted(known, wanted))
    matches = [str(found) for found in known[start : start + 2] if str(found).startswith(wanted)]
    if not matches:
        raise DecisionError(
            f"{where}: no picture has the image_id {given}: it left the data set, or the id is mistyped; "
            "delete the row or correct it"
        )
    if len(matches) > 1:
        raise DecisionError(f"{where}: several pictures' image_ids start with {given}: give more digits")
    return matches[0]
