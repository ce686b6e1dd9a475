"""Writes data/decisions/*.csv, one decision at a time: whole, sorted, and never losing what somebody else wrote there.

`core.decisions` reads and checks these files for the stages; here they are kept as rows. A picture has one decision on
its label: that it is right (keep.csv), another label (relabel.csv) or none (drop.csv); a new one takes the place of the
old. Crops, and pairs that are different pictures, stand beside it.
"""

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipelines.core.decision_files import FILE, read_rows
from pipelines.core.decisions import HEADERS, NEW_CLASS
from pipelines.core.errors import InputError
from pipelines.core.files import write_csv
from pipelines.core.tables import short_id

Rows = dict[str, list[tuple[str, ...]]]
"""by file (drop, relabel, keep, crop) its rows: the values of the header, then the path"""


@dataclass(frozen=True)
class Decided:
    """What stands in the files about one picture, or one pair.

    Args:
        label: "", "right", "drop" or "relabel:<label>".
        crop: left, top, right, bottom, 0 to 1; None for none.
        is_different: of a pair, whether it is said to be two different pictures.
    """

    label: str = ""
    crop: tuple[float, ...] | None = None
    is_different: bool = False


class DecisionFiles:
    """The four files of a folder; every change reads them anew, so that an editor may have them open as well."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()

    def version(self) -> str:
        """Changes whenever one of the files does."""
        stats = [path.stat() for kind in HEADERS if (path := self._path(kind)).exists()]
        return "-".join(f"{one.st_mtime_ns:x}.{one.st_size:x}" for one in stats)

    def read(self) -> Rows:
        """All rows as they stand.

        Raises:
            DecisionError: a file is no UTF-8, or a row is malformed.
        """
        return {
            kind: [(*row.values, row.file) for row in read_rows(self._path(kind), header)]
            for kind, header in HEADERS.items()
        }

    def decide(
        self,
        image_id: str,
        action: str,
        *,
        path: str = "",
        label: str = "",
        reason: str = "",
        other_id: str = "",
        crop: tuple[float, ...] | None = None,
        is_new_class: bool = False,
    ) -> Rows:
        """Write one decision; the rows about this picture from before, which `restore` brings back.

        Args:
            action: right, relabel, drop, crop, different (this and `other_id` are two pictures), or clear.
            path: of the picture, for people.
            label: of relabel.
            crop: left, top, right, bottom; None takes the crop back.
            is_new_class: whether no picture has `label` yet.

        Raises:
            InputError: the action is unknown, or lacks what it needs.
        """
        with self._lock:
            rows = self.read()
            before = {kind: [row for row in own if _is_about(kind, row, image_id)] for kind, own in rows.items()}
            short = short_id(image_id)
            if action in ("right", "relabel", "drop", "clear"):
                for kind in ("drop", "relabel", "keep"):
                    rows[kind] = [row for row in rows[kind] if not _same(row[0], image_id) or _is_pair(kind, row)]
            if action == "right":
                rows["keep"].append((short, "", reason or "label is right", path))
            elif action == "relabel":
                if not label.strip():
                    raise InputError("relabel needs the right label: choose one, or drop the picture")
                said = f"{NEW_CLASS}: {reason}" if is_new_class else reason
                rows["relabel"].append((short, label.strip(), said or "reviewed", path))
            elif action == "drop":
                rows["drop"].append((short, reason or "reviewed", path))
            elif action == "different":
                if not other_id or _same(image_id, other_id):
                    raise InputError("a picture cannot be different from itself: these two have equal bytes")
                rows["keep"] = [row for row in rows["keep"] if not _is_of_pair(row, image_id, other_id)]
                rows["keep"].append((short, short_id(other_id), reason or "two different pictures", path))
            elif action == "crop":
                rows["crop"] = [row for row in rows["crop"] if not _same(row[0], image_id)]
                if crop is not None:
                    left, top, right, bottom = (min(max(side, 0.0), 1.0) for side in crop)
                    if right - left < 0.02 or bottom - top < 0.02:
                        raise InputError("this crop is narrower than 2 % of the picture: drag a larger part")
                    rows["crop"].append((short, *(f"{side:.4g}" for side in (left, top, right, bottom)), path))
            elif action != "clear":
                raise InputError(f"{action!r} is no decision: right, relabel, drop, crop, different or clear")
            self._write(rows)
            return before

    def restore(self, image_id: str, before: Rows) -> None:
        """Put back the rows about a picture that `decide` gave."""
        with self._lock:
            rows = self.read()
            for kind, own in rows.items():
                rows[kind] = [*(row for row in own if not _is_about(kind, row, image_id)), *before[kind]]
            self._write(rows)

    def _path(self, kind: str) -> Path:
        return self.folder / f"{kind}.csv"

    def _write(self, rows: Rows) -> None:
        before = self.read()
        for kind, header in HEADERS.items():
            own = sorted(set(rows[kind]))
            if own != sorted(set(before[kind])):
                has_file = any(row[-1] for row in own)
                columns = (*header, FILE) if has_file else header
                write_csv(self._path(kind), columns, [row if has_file else row[:-1] for row in own])


def decided(rows: Rows, image_id: str, other_id: str = "") -> Decided:
    """What `rows` say of a picture, and whether it and another are two."""
    label, crop = "", None
    for row in rows["keep"]:
        if _same(row[0], image_id) and not row[1]:
            label = "right"
    for row in rows["relabel"]:
        if _same(row[0], image_id):
            label = f"relabel:{row[1]}"
    if any(_same(row[0], image_id) for row in rows["drop"]):
        label = "drop"
    for row in rows["crop"]:
        if _same(row[0], image_id):
            crop = tuple(float(side.replace(",", ".")) for side in row[1:5])
    return Decided(
        label, crop, any(_is_of_pair(row, image_id, other_id) for row in rows["keep"]) if other_id else False
    )


class Judged:
    """`decided` of many pictures: rows found by the first digits of an id instead of one by one."""

    def __init__(self, rows: Rows) -> None:
        self._by_id: dict[str, Rows] = {}
        for kind, own in rows.items():
            for row in own:
                for image_id in (row[0], row[1] if kind == "keep" and row[1] else row[0]):
                    self._by_id.setdefault(image_id[:12], {name: [] for name in HEADERS})[kind].append(row)

    def of(self, image_id: str, other_id: str = "") -> Decided:
        rows = self._by_id.get(image_id[:12])
        return Decided() if rows is None else decided(rows, image_id, other_id)


def _same(one: str, other: str) -> bool:
    """Whether two ids, each perhaps shortened, are of one picture."""
    return bool(one) and bool(other) and (one.startswith(other) or other.startswith(one))


def _is_about(kind: str, row: tuple[str, ...], image_id: str) -> bool:
    return _same(row[0], image_id) or (_is_pair(kind, row) and _same(row[1], image_id))


def _is_pair(kind: str, row: tuple[str, ...]) -> bool:
    return kind == "keep" and bool(row[1])


def _is_of_pair(row: tuple[str, ...], image_id: str, other_id: str) -> bool:
    return bool(row[1]) and (
        (_same(row[0], image_id) and _same(row[1], other_id)) or (_same(row[0], other_id) and _same(row[1], image_id))
    )


def check(folder: Path, image_ids: Iterable[str], labels: set[str]) -> list[str]:
    """What is wrong with the decisions, a sentence each: as the stages see it, and what has no effect.

    Raises:
        DecisionError: a row breaks a rule; names file, line and remedy.
    """
    from pipelines.core.decisions import read_decisions, told_of

    found = read_decisions(folder, image_ids, labels)
    lines = told_of(found.taken)
    lines += [
        f"{one.file}:{one.line} {short_id(one.image_id)} has no effect, for drop.csv leaves the picture out: delete "
        "one of the two rows"
        for one in found.taken
        if one.status == "superseded"
    ]
    return lines
