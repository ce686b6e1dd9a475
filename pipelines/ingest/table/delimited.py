"""CSV: with commas, semicolons or tabs, or what the line `sep=` says that Excel writes; quoted or not."""

import csv
import re
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from pipelines.core.errors import InputError
from pipelines.ingest.table.row import MAX_LINE, Row, missing_column, open_text, skip_line

_DELIMITERS = ",;\t"
_SEP = re.compile(r'"?sep=([^"])"?\s*', re.IGNORECASE)


def csv_rows(path: Path, columns: list[str], where: str, encoding: str) -> Iterator[Row]:
    """The rows of a CSV; see `read_rows`."""
    with open_text(path, encoding, newline="") as file:
        sep = _SEP.fullmatch(file.readline(MAX_LINE))
    delimiter, header = _header(path, columns, where, encoding, sep)
    for column in columns:
        if header.count(column) > 1:
            raise InputError(f"{where} has {header.count(column)} columns {column!r}; give each its own name")
    places = [header.index(column) for column in columns]
    with open_text(path, encoding, newline="") as file:
        lines = _Lines(file)
        reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
        for _ in range(2 if sep else 1):
            next(reader)
        while True:
            lines.next_row()
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                # a quote that is never closed swallows what follows: only the line that opens it is bad
                yield Row(lines.give_back(), (), str(error))
                continue
            if len(cells) == len(header) or (len(cells) > len(header) and not any(cells[len(header) :])):
                yield Row(lines.number, [cells[place] for place in places])
            elif cells:
                yield Row(lines.number, (), f"{len(cells)} cells, where the header has {len(header)}")


def _header(
    path: Path, columns: list[str], where: str, encoding: str, sep: re.Match[str] | None
) -> tuple[str, list[str]]:
    """The delimiter whose header has all columns, and the header; `sep` is the line above it that names one."""
    found: list[list[str]] = []
    for delimiter in sep[1] if sep else _DELIMITERS:
        with open_text(path, encoding, newline="") as file:
            if sep:
                file.readline()
            reader = csv.reader(_Lines(file), delimiter=delimiter, skipinitialspace=True, strict=True)
            try:
                header = [name.strip() for name in next(reader, [])]
            except csv.Error:
                continue
        if all(column in header for column in columns):
            return delimiter, header
        found.append(header)
    raise missing_column(max(found, key=len, default=[]), columns, where)


class _Lines:
    """The lines of a file, with those of the current row at hand; `number` is where that row starts."""

    def __init__(self, file: TextIO) -> None:
        self.number = 1
        self._file = file
        self._row: list[str] = []
        self._again: deque[str] = deque()

    def next_row(self) -> None:
        self.number += len(self._row)
        self._row = []

    def give_back(self) -> int:
        """Give all lines of the current row but the first out again; returns where it starts."""
        self._again.extendleft(reversed(self._row[1:]))
        del self._row[1:]
        return self.number

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else self._file.readline(MAX_LINE)
        if not line:
            raise StopIteration
        self._row.append(line)
        if len(line) == MAX_LINE and not line.endswith(("\n", "\r")):
            skip_line(self._file)
            raise csv.Error(f"the line is longer than {MAX_LINE} characters")
        return line
