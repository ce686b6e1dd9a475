"""The rows of a table of any format, one at a time, each with the line it stands on."""

import glob
import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pipelines.core.errors import ImageError, InputError
from pipelines.ingest.labels import clean_label, given_subset, is_subset, printable
from pipelines.ingest.listing import Origin, Reject
from pipelines.ingest.paths import is_litter
from pipelines.ingest.table.cells import Cell, box_of, subset_of, text_of
from pipelines.ingest.table.delimited import csv_rows
from pipelines.ingest.table.json_lines import json_rows
from pipelines.ingest.table.parquet import parquet_rows
from pipelines.ingest.table.row import Row, wrong_encoding
from pipelines.params.sources import TableSource

# below these of the number of a row lies that of its line, above them that of its file
LINE_BITS = 40
_SUFFIXES = {
    "csv": (".csv", ".tsv", ".txt"), "parquet": (".parquet", ".parq", ".pq"), "jsonl": (".jsonl", ".ndjson", ".json"),
}  # fmt: skip


def read_rows(
    path: Path, format: Literal["csv", "parquet", "jsonl"], columns: list[str], where: str, encoding: str = "utf-8"
) -> Iterator[Row]:
    """The rows of a table.

    Args:
        path: the file.
        encoding: of CSV and JSON Lines, where nothing in the file says another.
        columns: the wanted ones; keys of Parquet and JSON Lines that lie deeper are joined by dots.
        where: names the table in messages.

    Raises:
        InputError: it is not of this format or encoding, broken, or has no such column; names the nearest.
    """
    with path.open("rb") as file:
        start = file.read(4)
    if not start:
        raise InputError(f"{where} is empty; write a row for each picture")
    _refuse_other_formats(start, format, where)
    if format == "parquet":
        return parquet_rows(path, columns, where)
    return _decoded(path, (csv_rows if format == "csv" else json_rows)(path, columns, where, encoding), where)


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


def _decoded(path: Path, rows: Iterator[Row], where: str) -> Iterator[Row]:
    try:
        yield from rows
    except UnicodeDecodeError as error:
        raise wrong_encoding(path, error, where) from error


def _refuse_other_formats(start: bytes, format: str, where: str) -> None:
    if (start == b"PAR1") != (format == "parquet"):
        remedy = "set format: csv or jsonl" if format == "parquet" else "set format: parquet"
        raise InputError(f"{where} is {'no' if format == 'parquet' else 'a'} Parquet file; {remedy}")
    for signature, name in ((b"\x1f\x8b", "compressed by gzip"), (b"PK\x03\x04", "a zip, or a spreadsheet")):
        if start.startswith(signature):
            raise InputError(f"{where} is {name}; unpack it, or save it as CSV")


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
        return label, json.dumps(factors, ensure_ascii=False)

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
        return json.dumps({column: value}, ensure_ascii=False) if value else ""


def _known(cells: dict[str, Cell], column: str | None) -> str:
    return printable(text_of(cells, column)) if column else ""
