"""Human decisions: data/decisions/{drop,relabel,crop}.csv, read and checked row by row.

All three are UTF-8 CSV with a fixed header. A row names its picture by image_id, or by the first 12 or more digits of
it. The same row twice is one decision; two rows that disagree are an error. A missing file holds no decision.
"""

import csv
import difflib
import io
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipelines.core.crops import Crop
from pipelines.core.errors import DecisionError

NEW_CLASS = "new class"
"""A reason in relabel.csv that begins so allows its row's label, even if no picture came under it."""

_DROP_HEADER = ("image_id", "reason")
_RELABEL_HEADER = ("image_id", "label", "reason")
_CROP_HEADER = ("image_id", *Crop._fields)
_ID = re.compile(r"[0-9a-f]{12,64}")

_Known = npt.NDArray[np.bytes_]
"""(N,) image_ids, sorted, each once; as bytes, of which a million take 64 MB"""


@dataclass(frozen=True)
class Decisions:
    """What people decided of single pictures, by full image_id.

    Args:
        drops: image_id to reason.
        relabels: image_id to (label, reason).
    """

    drops: dict[str, str]
    relabels: dict[str, tuple[str, str]]


def read_decisions(folder: Path, image_ids: Iterable[str], labels: Collection[str]) -> Decisions:
    """Read `drop.csv` and `relabel.csv` of `folder`.

    Args:
        folder: data/decisions.
        image_ids: every id of ingest's manifest.
        labels: every label of ingest's manifest. A picture may be given another label only if the reason of a row
            with that label begins with `new class`: a slip of the pen would make a class of one picture.

    Raises:
        DecisionError: a header or row is malformed, an id is unknown or ambiguous, a label is unknown, or two rows
            disagree; names the file, the line and the remedy.
    """
    drop_rows = list(_rows(folder / "drop.csv", _DROP_HEADER))
    relabel_rows = list(_rows(folder / "relabel.csv", _RELABEL_HEADER))
    if not (drop_rows or relabel_rows):
        return Decisions({}, {})
    known = _known(image_ids)
    drops: dict[str, str] = {}
    lines: dict[str, str] = {}
    for where, (given, reason) in drop_rows:
        image_id = _full_id(given, known, where)
        if drops.setdefault(image_id, reason) != reason:
            raise DecisionError(
                f"{where}: {given} is dropped a second time, for another reason than in {lines[image_id]}: delete one"
            )
        lines.setdefault(image_id, where)
    relabels: dict[str, tuple[str, str]] = {}
    used: dict[str, str] = {}
    for where, (given, written, reason) in relabel_rows:
        image_id = _full_id(given, known, where)
        label = unicodedata.normalize("NFC", written.strip())
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
        used.setdefault(label, where)
    _refuse_unknown_labels(used, relabels, labels)
    return Decisions(drops, relabels)


def read_crops(folder: Path, image_ids: Iterable[str]) -> dict[str, Crop]:
    """Read `crop.csv` of `folder`: image_id to the part that counts.

    Args:
        folder: data/decisions.
        image_ids: every id of ingest's manifest.

    Raises:
        DecisionError: as `read_decisions`, or a crop is empty or leaves its picture.
    """
    crop_rows = list(_rows(folder / "crop.csv", _CROP_HEADER))
    if not crop_rows:
        return {}
    known = _known(image_ids)
    crops: dict[str, Crop] = {}
    lines: dict[str, str] = {}
    for where, (given, *sides) in crop_rows:
        image_id = _full_id(given, known, where)
        crop = _crop(sides, where)
        if crops.setdefault(image_id, crop) != crop:
            raise DecisionError(
                f"{where}: {given} is cropped a second time, otherwise than in {lines[image_id]}: delete one"
            )
        lines.setdefault(image_id, where)
    return crops


def _rows(path: Path, header: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
    """Each row with the place that a message names, `<file>:<line>`; blank lines are skipped."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return
    except UnicodeDecodeError as error:
        raise DecisionError(f"{path} is not UTF-8 ({error.reason}): save it as UTF-8") from error
    # strict: an open quote at the end is an error instead of a silently swallowed rest of the file
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    expected = ",".join(header)
    try:
        first = next(reader, None)
        if first is None or tuple(cell.strip() for cell in first) != header:
            found = "nothing" if first is None else repr(",".join(first))
            raise DecisionError(f"{path}:1: the header is {found}, it must be {expected}: write that as line 1")
        ended = reader.line_num
        for row in reader:
            # a quoted reason may hold line ends: a person looks for the line where the row starts
            where, ended = f"{path}:{ended + 1}", reader.line_num
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != len(header):
                raise DecisionError(
                    f"{where}: {len(row)} values where {len(header)} belong ({expected}): "
                    "put a value that holds a comma in double quotes"
                )
            yield where, [cell.strip() for cell in row]
    except csv.Error as error:
        raise DecisionError(f"{path}:{reader.line_num}: not valid CSV ({error}): mend the quotes") from error


def _known(image_ids: Iterable[str]) -> _Known:
    return np.unique(np.array(list(image_ids), dtype="S64"))


def _full_id(given: str, known: _Known, where: str) -> str:
    """The one id that starts with `given`."""
    wanted = given.lower()
    if not _ID.fullmatch(wanted):
        raise DecisionError(f"{where}: {given!r} is no image_id: give its first 12 to 64 hex digits")
    start = int(np.searchsorted(known, wanted.encode("ascii")))
    matches = [found for found in (one.decode("ascii") for one in known[start : start + 2]) if found.startswith(wanted)]
    if not matches:
        raise DecisionError(
            f"{where}: no picture has the image_id {given}: it left the data set, or the id is mistyped; "
            "delete the row or correct it"
        )
    if len(matches) > 1:
        raise DecisionError(f"{where}: several pictures' image_ids start with {given}: give more digits")
    return str(matches[0])


def _refuse_unknown_labels(used: dict[str, str], relabels: dict[str, tuple[str, str]], labels: Collection[str]) -> None:
    """A label that no picture came under must be declared.

    Args:
        used: label to the first place that gives it.
    """
    declared = {label for label, reason in relabels.values() if reason.casefold().startswith(NEW_CLASS)}
    known = set(labels)
    for label, where in used.items():
        if label in known or label in declared:
            continue
        near = _nearest(label, known | declared)
        raise DecisionError(
            f"{where}: no picture came under the label {label!r}; "
            + (f"did you mean {near!r}? " if near else "")
            + f"Correct it, or, if a class of that name is to be, begin the reason of one of its rows with "
            f"{NEW_CLASS!r}"
        )


def _nearest(label: str, known: Collection[str]) -> str:
    """The label of `known` that looks most like `label`; "" where none does."""
    folded = {name.casefold(): name for name in sorted(known, reverse=True)}
    close = difflib.get_close_matches(label.casefold(), folded, n=1)
    return folded[close[0]] if close else ""


def _crop(sides: list[str], where: str) -> Crop:
    values: list[float] = []
    for name, text in zip(Crop._fields, sides, strict=True):
        try:
            value = float(text)
        except ValueError as error:
            raise DecisionError(f"{where}: {name} {text!r} is no number: write a fraction from 0 to 1") from error
        if not 0.0 <= value <= 1.0:  # also refuses nan
            raise DecisionError(f"{where}: {name} {text} is outside of 0 to 1: write fractions of the side, not pixels")
        values.append(value)
    crop = Crop(*values)
    for low, high in (("left", "right"), ("top", "bottom")):
        if getattr(crop, low) >= getattr(crop, high):
            raise DecisionError(
                f"{where}: {low} {getattr(crop, low)} is not less than {high} {getattr(crop, high)}: swap or widen them"
            )
    return crop
