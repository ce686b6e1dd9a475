"""What the rows of a table mean: image, label, subset, box, groups and provenance; bad rows are rejects."""

import decimal
import glob
import math
import os
import re
from array import array
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.core.errors import ImageError, InputError
from pipelines.core.factors import write_factors
from pipelines.ingest.labels import clean_label, given_subset, is_subset, printable
from pipelines.ingest.listing import Box, Origin, Reject
from pipelines.ingest.paths import is_litter
from pipelines.ingest.table.formats import Cell, read_rows
from pipelines.params.sources import BoxColumns, TableSource

_BETWEEN_NUMBERS = re.compile(r"[\s,;|]+")


def text_of(cells: dict[str, Cell], column: str, *, only_text: bool = False) -> str:
    """The text of a cell without spaces at its ends; "" where there is nothing (also null and NaN).

    Numbers become their shortest text: 3 and 3.0 are both `3`. true and false are lower case.

    Raises:
        ImageError: `bad-row`: it is neither text nor a number; with `only_text`, no text.
    """
    value = cells[column]
    if isinstance(value, str):
        return value.strip()
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if not only_text:
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, float) and value.is_integer():
            return str(int(value))
        if isinstance(value, (int, float, decimal.Decimal)):
            return str(value)
    wanted = "text" if only_text else "text or a number"
    raise ImageError("bad-row", f"{column} is of type {type(value).__name__}, not {wanted}")


def subset_of(cells: dict[str, Cell], column: str) -> str:
    """train, val or test; "" where the cell is empty.

    Raises:
        ImageError: `bad-subset`: it is none of the names known.
    """
    value = text_of(cells, column)
    return given_subset(value, column) if value else ""


def box_of(cells: dict[str, Cell], columns: BoxColumns) -> Box | None:
    """The box of a row; None where all its cells are empty: the whole picture.

    Raises:
        ImageError: `bad-box`: not four numbers, empty, or beyond the left or top edge (of a fraction: beyond any).
    """
    names = ", ".join(columns.columns)
    values = _box_values(cells, columns)
    if all(value is None or value == "" for value in values):
        return None
    if len(values) != 4:
        raise ImageError("bad-box", f"{names} holds {len(values)} values; a box has four")
    try:
        left, top, right, bottom = (float(value) for value in values)
    except (TypeError, ValueError, OverflowError) as error:
        raise ImageError("bad-box", f"{names} holds {printable(str(values))}; a box has four numbers") from error
    if columns.order == "left_top_width_height":
        right, bottom = left + right, top + bottom
    # also refuses nan
    if not (0 <= left < right < math.inf and 0 <= top < bottom < math.inf):
        raise ImageError("bad-box", f"{left:g}, {top:g}, {right:g}, {bottom:g}: it is empty, or starts outside")
    if columns.unit == "fraction" and (right > 1 or bottom > 1):
        raise ImageError("bad-box", f"{left:g}, {top:g}, {right:g}, {bottom:g}: fractions end at 1; is unit pixels?")
    return Box(left, top, right, bottom, columns.unit == "pixels")


def _box_values(cells: dict[str, Cell], columns: BoxColumns) -> list[Cell]:
    values = [cells[column] for column in columns.columns]
    if len(values) == 1:
        value = values[0]
        if isinstance(value, str):
            inner = value.strip().strip("[](){}").strip()
            return list(_BETWEEN_NUMBERS.split(inner)) if inner else [""]
        return list(value) if isinstance(value, (list, tuple)) else [value]
    stripped = [value.strip() if isinstance(value, str) else value for value in values]
    return ["" if isinstance(value, float) and math.isnan(value) else value for value in stripped]


@dataclass
class Seen:
    """Which pictures stand above: by path or URL, the place of each row that was kept."""

    at: Callable[[int], str]
    """names a line"""
    lines: "array[int]" = field(default_factory=lambda: array("q"))
    first: dict[str, int] = field(default_factory=dict)
    others: dict[str, list[int]] = field(default_factory=dict)

    def add(self, name: str, line: int, label: str, origin: Origin, labels: list[str], origins: list[Origin]) -> None:
        """Remember a row about to be kept.

        Raises:
            ImageError: `duplicate-row` or `several-boxes`.
        """
        place = len(labels)
        before = self.first.setdefault(name, place)
        if before != place:
            for earlier in (before, *self.others.get(name, ())):
                if labels[earlier] == label:
                    _refuse_second(origin, origins[earlier], self.at(self.lines[earlier]))
            self.others.setdefault(name, []).append(place)
        self.lines.append(line)


def _refuse_second(origin: Origin, earlier: Origin, line: str) -> None:
    if origin.box != earlier.box:
        raise ImageError("several-boxes", f"{line} has it with another box; a picture has one: keep one of the rows")
    subset = origin.given_subset
    other = f", as {earlier.given_subset or 'neither'} and not {subset}" if subset != earlier.given_subset else ""
    raise ImageError("duplicate-row", f"{line} has it under the same label{other}")


# below these of the number of a row lies that of its line, above them that of its file
LINE_BITS = 40
_SUFFIXES = {
    "csv": (".csv", ".tsv", ".txt"), "parquet": (".parquet", ".parq", ".pq"), "jsonl": (".jsonl", ".ndjson", ".json"),
}  # fmt: skip


def table_files(path: Path, format: str, root: Path) -> tuple[list[Path], int]:
    """The files of a table, sorted: the one at `path`, or all of that format in its folder, or that it fits as a
    pattern; and how many others are litter. The name of `root` is no pattern."""
    if path.is_file():
        return [path], 0
    if path.is_dir():
        found = [one for one in path.rglob("*") if one.suffix.lower() in _SUFFIXES[format]]
        found = [one for one in found if not any(part.startswith(".") for part in one.relative_to(path).parts[:-1])]
    else:
        pattern = os.path.relpath(path, root)
        found = [root / one for one in glob.glob(pattern, root_dir=root, recursive=True)]  # noqa: PTH207 - `..` too
    files = [one for one in found if one.is_file()]
    clean = sorted(one for one in files if not is_litter(one.name) and not one.name.startswith("."))
    return clean, sum(is_litter(one.name) for one in files)


@dataclass
class TableRows:
    """The rows of a table, and what is remembered from one to the next."""

    params: TableSource
    source: str
    where: str
    paths: list[Path]
    rejects: list[Reject] = field(default_factory=list)
    labels: dict[tuple[str, ...], tuple[str, str] | ImageError] = field(default_factory=dict)
    origins: dict[Origin, Origin] = field(default_factory=dict)
    subset: str = ""
    """of the file that is being read"""
    image_column: str | None = None
    """in place of that of params; "": none is read"""

    def columns(self) -> list[str]:
        params = self.params
        optional = (
            params.subset_column, params.group_column, params.license_column, params.creator_column,
            params.page_url_column,
        )  # fmt: skip
        boxes = params.box.columns if params.box else ()
        image = params.image_column if self.image_column is None else self.image_column
        named = [*([image] if image else ()), *params.label_columns, *(name for name in optional if name), *boxes]
        return list(dict.fromkeys(named))

    def __iter__(self) -> Iterator[tuple[int, dict[str, Cell]]]:
        """Line (for `at`) and cells of each row that could be read; the others are rejects."""
        columns = self.columns()
        empty = True
        for number, path in enumerate(self.paths):
            where = self.where if len(self.paths) == 1 else f"{self.where}: {self.name(number)}"
            self.subset = self._subset(number) if self.params.subset_from else ""
            for row in read_rows(path, self.params.format, columns, where, self.params.encoding):
                empty = False
                line = number << LINE_BITS | row.line
                if row.problem:
                    self.reject(line, "", "", ImageError("bad-row", row.problem))
                else:
                    yield line, dict(zip(columns, row.cells, strict=True))
        if empty:
            raise InputError(f"{self.where} has no rows; write one for each picture")

    def name(self, number: int) -> str:
        """Of one of the table's files."""
        folder = os.path.commonpath([path.parent for path in self.paths])
        return printable(self.paths[number].relative_to(folder).as_posix())

    def at(self, line: int) -> str:
        """The line as a person finds it."""
        own = f"line {line % (1 << LINE_BITS)}"
        return own if len(self.paths) == 1 else f"{self.name(line >> LINE_BITS)}, {own}"

    def _subset(self, number: int) -> str:
        """What the name of a file or of its folder begins with."""
        path = self.paths[number]
        for name in (path.stem, path.parent.name):
            word = re.match(r"[^\W\d_]*", name)
            if word and is_subset(word[0]):
                return given_subset(word[0], "")
        raise InputError(
            f"{self.where}: the name of {self.name(number)} begins with no train, val or test; rename it, or take "
            "subset_from: file_name out"
        )

    def reject(self, line: int, name: str, label: str, error: ImageError) -> None:
        name = printable(name) or self.at(line)
        self.rejects.append(Reject(self.source, name, label, error.reason, f"{self.at(line)}: {error.detail}"))

    def label(self, cells: dict[str, Cell]) -> tuple[str, str]:
        """The label, and its factors as JSON."""
        values = tuple(text_of(cells, column) for column in self.params.label_columns)
        known = self.labels.get(values)
        if known is None:
            try:
                known = self._join(values)
            except ImageError as error:
                known = error
            self.labels[values] = known
        if isinstance(known, ImageError):
            raise known
        return known

    def shown_label(self, cells: dict[str, Cell]) -> str:
        """The label that a refused row counts under: as it stands there if it is no good."""
        try:
            return self.label(cells)[0]
        except ImageError:
            with suppress(ImageError):
                values = [text_of(cells, column) for column in self.params.label_columns]
                return printable(self.params.joined_by.join(values)).strip() if all(values) else ""
            return ""

    def _join(self, values: tuple[str, ...]) -> tuple[str, str]:
        joined_by = self.params.joined_by
        factors: dict[str, str] = {}
        for column, value in zip(self.params.label_columns, values, strict=True):
            if not value:
                raise ImageError("no-label", f"{column} is empty")
            factors[column] = clean_label(value, remedy="change it in the table")
            if len(values) > 1 and joined_by in factors[column]:
                raise ImageError(
                    "bad-label",
                    f"{column} {printable(value)!r} holds {joined_by!r}, which joins labels; change joined_by",
                )
        label = clean_label(joined_by.join(factors.values()), remedy="change joined_by or the table")
        return label, write_factors(factors)

    def origin(self, cells: dict[str, Cell], factors: str) -> Origin:
        params = self.params
        found = Origin(
            page_url=_known(cells, params.page_url_column),
            license=_known(cells, params.license_column),
            creator=_known(cells, params.creator_column),
            given_subset=subset_of(cells, params.subset_column) if params.subset_column else self.subset,
            factors=factors,
            given_groups=self._groups(cells),
            box=box_of(cells, params.box) if params.box else None,
        )
        # rows that know nothing of their own share one object: 1,000,000 of them would take 300 MB
        return found if found.page_url or found.box else self.origins.setdefault(found, found)

    def _groups(self, cells: dict[str, Cell]) -> str:
        column = self.params.group_column
        value = _known(cells, column)
        return write_factors({column: value}) if column and value else ""


def _known(cells: dict[str, Cell], column: str | None) -> str:
    return printable(text_of(cells, column)) if column else ""
