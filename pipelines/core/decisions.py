"""Human decisions: data/decisions/{drop,relabel,keep,crop}.csv, read and checked row by row.

All are UTF-8 CSV with a fixed header, to which a column `file` may be added for people. A row names its picture by
image_id, or by the first 12 or more digits of it. The same row twice is one decision; two rows that disagree are an
error. A missing file holds no decision. A row about a picture that is not in the data set waits for it.
"""

import difflib
import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipelines.core.decision_files import DecisionRow, read_rows
from pipelines.core.errors import DecisionError


class Crop(NamedTuple):
    """The part of a picture that is kept; fractions of its width and height, upright, from the top left."""

    left: float
    top: float
    right: float
    bottom: float


WHOLE = Crop(0.0, 0.0, 1.0, 1.0)

NEW_CLASS = "new class"
"""A reason in relabel.csv that begins so allows its row's label, even if no picture came under it."""

HEADERS: dict[str, tuple[str, ...]] = {
    "drop": ("image_id", "reason"),
    "relabel": ("image_id", "label", "reason"),
    "keep": ("image_id", "other_id", "reason"),
    "crop": ("image_id", *Crop._fields),
}
_ID = re.compile(r"[0-9a-f]{12,64}")
_NUMBER = re.compile(r"[0-9]+([.,][0-9]+)?(e[+-]?[0-9]+)?")

_Known = npt.NDArray[np.bytes_]
"""(N,) image_ids, sorted, each once; as bytes, of which a million take 64 MB"""


class Decision(NamedTuple):
    """One row, and what became of it: a row of data/dedupe/decisions.csv.

    Args:
        decision: drop, relabel, keep (the label is right), different (two pictures, no copies) or crop.
        file, line: where the row stands.
        image_id, other_id: in full; as written where no picture has it.
        label: that relabel.csv gives.
        status: applied; left: no picture has the id; superseded: the picture is dropped; two labels: keep.csv cannot
            say which of them is right.
        path: the row's column `file`.
    """

    decision: str
    file: str
    line: int
    image_id: str
    other_id: str
    label: str
    reason: str
    status: str
    path: str


@dataclass(frozen=True)
class Decisions:
    """What people decided of pictures that are there, by full image_id.

    Args:
        drops: image_id to reason.
        relabels: image_id to (label, reason).
        keeps: image_id to the reason why its label is right.
        different: image_id to the others that it is no copy of, each with the place of the row; both ways round.
        taken: every row of the four files.
    """

    drops: dict[str, str] = field(default_factory=dict)
    relabels: dict[str, tuple[str, str]] = field(default_factory=dict)
    keeps: dict[str, str] = field(default_factory=dict)
    different: dict[str, dict[str, str]] = field(default_factory=dict)
    taken: tuple[Decision, ...] = ()


def read_decisions(folder: Path, image_ids: Iterable[str], labels: Collection[str]) -> Decisions:
    """Read and check the four files of `folder`.

    Args:
        folder: data/decisions.
        image_ids: every id of ingest's manifest.
        labels: every label of ingest's manifest. A picture may be given another label only if the reason of a row
            with that label begins with `new class`: a slip of the pen would make a class of one picture.

    Raises:
        DecisionError: a file is no UTF-8, a header or row is malformed, an id is ambiguous, a label is unknown, or two
            rows disagree; names the file, the line and the remedy.
    """
    rows = {kind: list(read_rows(folder / f"{kind}.csv", header)) for kind, header in HEADERS.items()}
    if not any(rows.values()):
        return Decisions()
    known = _known(image_ids)
    found = Decisions()
    lines: dict[str, str] = {}
    taken = [
        *(_drop(row, known, found, lines) for row in rows["drop"]),
        *_relabel_rows(rows["relabel"], known, found, lines, labels),
        *(_keep(row, known, found) for row in rows["keep"]),
    ]
    _crops_of(rows["crop"], known)
    for row in rows["crop"]:
        image_id = _full_id(row.values[0], known, row.where)
        taken.append(_taken("crop", row, image_id, superseded=image_id in found.drops))
    return Decisions(found.drops, found.relabels, found.keeps, found.different, tuple(taken))


def _taken(
    decision: str,
    row: DecisionRow,
    image_id: str | None,
    *,
    other_id: str | None = "",
    label: str = "",
    reason: str = "",
    superseded: bool = False,
) -> Decision:
    """The row as decisions.csv has it; an id that is None left the data set."""
    status = "left" if image_id is None or other_id is None else "superseded" if superseded else "applied"
    file = f"{'keep' if decision == 'different' else decision}.csv"
    other = row.values[1] if other_id is None else other_id
    return Decision(decision, file, row.line, image_id or row.values[0], other, label, reason, status, row.file)


def _drop(row: DecisionRow, known: _Known, found: Decisions, lines: dict[str, str]) -> Decision:
    given, reason = row.values
    image_id = _full_id(given, known, row.where)
    if image_id is not None:
        if found.drops.setdefault(image_id, reason) != reason:
            raise DecisionError(
                f"{row.where}: {given} is dropped a second time, for another reason than in {lines[image_id]}: "
                "delete one"
            )
        lines.setdefault(image_id, row.where)
    return _taken("drop", row, image_id, reason=reason)


def _relabel_rows(
    rows: list[DecisionRow], known: _Known, found: Decisions, lines: dict[str, str], labels: Collection[str]
) -> list[Decision]:
    taken = []
    used: dict[str, str] = {}
    declared: set[str] = set()
    for row in rows:
        given, written, reason = row.values
        image_id = _full_id(given, known, row.where)
        label = unicodedata.normalize("NFC", written.strip())
        if not label:
            raise DecisionError(f"{row.where}: the label is empty: write the right label, or use drop.csv")
        if reason.casefold().startswith(NEW_CLASS):
            declared.add(label)
        taken.append(_taken("relabel", row, image_id, label=label, reason=reason))
        if image_id is None:
            continue
        if image_id in found.drops:
            raise DecisionError(f"{row.where}: {given} is dropped in {lines[image_id]}: delete one of the two rows")
        known_label, known_reason = found.relabels.setdefault(image_id, (label, reason))
        if (known_label, known_reason) != (label, reason):
            raise DecisionError(
                f"{row.where}: {given} becomes {label!r} ({reason}), but {known_label!r} ({known_reason}) in "
                f"{lines[image_id]}: delete one of the two rows"
            )
        lines.setdefault(image_id, row.where)
        used.setdefault(label, row.where)
    _refuse_unknown_labels(used, {*labels, *declared})
    return taken


def _keep(row: DecisionRow, known: _Known, found: Decisions) -> Decision:
    given, other, reason = row.values
    image_id = _full_id(given, known, row.where)
    if not other:
        if image_id is not None and image_id not in found.drops:
            found.keeps.setdefault(image_id, reason)
        return _taken("keep", row, image_id, reason=reason, superseded=image_id in found.drops)
    other_id = _full_id(other, known, row.where)
    superseded = image_id in found.drops or other_id in found.drops
    if image_id is not None and image_id == other_id:
        raise DecisionError(
            f"{row.where}: {given} and {other} are one image_id, so the same bytes: these are no two pictures; leave "
            "other_id empty to say that the label is right, or say in relabel.csv which label is"
        )
    if image_id is not None and other_id is not None and not superseded:
        found.different.setdefault(image_id, {}).setdefault(other_id, row.where)
        found.different.setdefault(other_id, {}).setdefault(image_id, row.where)
    return _taken("different", row, image_id, other_id=other_id, reason=reason, superseded=superseded)


def told_of(taken: Sequence[Decision]) -> list[str]:
    """Warnings that name every row that changes nothing, and say what to do."""
    texts = {
        "left": "without a picture in the data set; each counts again when its picture comes back. Delete a row that "
        "is no longer wanted, correct an id that is mistyped",
        "two labels": "without effect: the picture came under several labels. Say in relabel.csv which is right",
    }
    found = []
    for status, text in texts.items():
        named = [
            f"\n    {one.file}:{one.line} {one.image_id[:12]}"
            + (f" and {one.other_id[:12]}" if one.other_id else "")
            + (f" ({one.path})" if one.path else "")
            for one in taken
            if one.status == status
        ]
        if named:
            found.append(f"{len(named):,} of {len(taken):,} decisions {text}:{''.join(named)}")
    return found


def read_crops(folder: Path, image_ids: Iterable[str]) -> dict[str, Crop]:
    """Read `crop.csv` of `folder`: image_id to the part that counts, for the pictures that are there.

    Args:
        folder: data/decisions.
        image_ids: every id of ingest's manifest.

    Raises:
        DecisionError: as `read_decisions`, or a crop is empty or leaves its picture.
    """
    rows = list(read_rows(folder / "crop.csv", HEADERS["crop"]))
    return _crops_of(rows, _known(image_ids)) if rows else {}


def _crops_of(rows: list[DecisionRow], known: _Known) -> dict[str, Crop]:
    crops: dict[str, Crop] = {}
    lines: dict[str, str] = {}
    for row in rows:
        given, *sides = row.values
        image_id, crop = _full_id(given, known, row.where), _crop(sides, row.where)
        if image_id is None:
            continue
        if crops.setdefault(image_id, crop) != crop:
            raise DecisionError(
                f"{row.where}: {given} is cropped a second time, otherwise than in {lines[image_id]}: delete one"
            )
        lines.setdefault(image_id, row.where)
    return crops


def _known(image_ids: Iterable[str]) -> _Known:
    return np.unique(np.array(list(image_ids), dtype="S64"))


def _full_id(given: str, known: _Known, where: str) -> str | None:
    """The one id that starts with `given`; None where there is none."""
    wanted = given.lower()
    if not _ID.fullmatch(wanted):
        if _NUMBER.fullmatch(wanted):
            raise DecisionError(
                f"{where}: the image_id is {given!r}: a spreadsheet took it for a number and changed it. Copy it again "
                "from where it came from, into a column of the format Text or with a text editor"
            )
        raise DecisionError(f"{where}: {given!r} is no image_id: give its first 12 to 64 hex digits")
    start = int(np.searchsorted(known, wanted.encode("ascii")))
    matches = [found for found in (one.decode("ascii") for one in known[start : start + 2]) if found.startswith(wanted)]
    if len(matches) > 1:
        raise DecisionError(f"{where}: several pictures' image_ids start with {given}: give more digits")
    return matches[0] if matches else None


def _refuse_unknown_labels(used: dict[str, str], known: set[str]) -> None:
    """A label that no picture came under must be declared.

    Args:
        used: label to the first place that gives it.
        known: the labels that pictures came under, and the declared ones.
    """
    for label, where in used.items():
        if label in known:
            continue
        near = _nearest(label, known)
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
            value = float(text.replace(",", "."))  # 0,5 in half of the world's spreadsheets
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
