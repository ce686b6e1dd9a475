"""Reads the rows of a decisions file, in any form that an editor or a spreadsheet saves.

Accepted: a byte order mark, any line end, semicolons or tabs for commas (row by row, since commands append rows
with commas to what a spreadsheet saved with semicolons), a first line `sep=;`, a row that is one quoted cell, a header
in capitals, empty cells and rows at the end. Refused, with what to do: another encoding than UTF-8, and two rows on one
line, which is what appending to a file without a last line end makes.
"""

import csv
import io
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from pipelines.core.errors import DecisionError

FILE = "file"
"""the column that a decisions file may have beyond its header: a name for people, which decides nothing"""

_SEPARATOR = re.compile(r'\ufeff? *(?:"(?:[^"]|"")*"|[^,;\t"]*) *([,;\t])')
_SEP_LINE = re.compile(r'\s*"?sep=.?"?[\s,;]*', re.IGNORECASE)
_ENDS_IN_AN_ID = re.compile(r"(?:^|[^\s0-9a-f])[0-9a-f]{12,}$")


class DecisionRow(NamedTuple):
    """A row: the place that a message names, `<file>:<line>`, its line, its values, and its column `file`."""

    where: str
    line: int
    values: list[str]
    file: str


def read_rows(path: Path, header: tuple[str, ...]) -> Iterator[DecisionRow]:
    """Each row of `path`, with as many values as `header`; blank rows are skipped; none where there is no file.

    Raises:
        DecisionError: the file is not UTF-8, its header is another one, or a row has too few or too many values.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DecisionError(
            f"{path} is not UTF-8 (line {line}: {error.reason}): save it as UTF-8; in Excel that is the type CSV UTF-8"
        ) from error
    expected = ",".join(header)
    names: list[str] | None = None
    for line, cells in _records(path, text):
        where, row = f"{path}:{line}", [cell.strip().strip("\ufeff") for cell in cells]
        while len(row) > len(header) and not row[-1]:
            row.pop()
        if not any(row):
            continue
        if names is None:
            names = [cell.casefold() for cell in row]
            if names not in ([*header], [*header, FILE]):
                found = ",".join(row)
                raise DecisionError(f"{path}:1: the header is {found!r}, it must be {expected}: write that as line 1")
            continue
        num_more = len(row) - len(header)
        if num_more > 0 and _ENDS_IN_AN_ID.search(row[len(header) - 1]):
            raise DecisionError(
                f"{where}: two rows stand on one line: begin a new line where the second image_id begins"
            )
        # a file name never begins with a space, but what follows a comma within a sentence does
        if num_more not in (0, 1) or (num_more and len(names) == len(header) and cells[-1].startswith(" ")):
            raise DecisionError(
                f"{where}: {len(row)} values where {len(header)} belong ({expected}): "
                "put a value that holds a comma in double quotes"
            )
        yield DecisionRow(where, line, row[: len(header)], row[-1] if num_more else "")
    if names is None:
        raise DecisionError(f"{path}:1: the header is nothing, it must be {expected}: write that as line 1")


def _records(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """The cells of each row, with the line where it starts; each row has a separator of its own."""
    lines = iter(io.StringIO(text, newline=""))
    number = 0
    for line in lines:
        start = number + 1
        if start == 1 and _SEP_LINE.fullmatch(line):
            number = 1
            continue
        # strict: an open quote at the end is an error instead of a silently swallowed rest of the file
        reader = csv.reader(chain([line], lines), delimiter=_separator(line), strict=True)
        try:
            row = next(reader)
            if len([cell for cell in row if cell]) == 1 and _SEPARATOR.match(row[0]):
                # opened where another separator is usual, a whole row became one cell
                row = next(csv.reader([row[0]], delimiter=_separator(row[0]), strict=True))
        except csv.Error as error:
            at = start + reader.line_num - 1
            raise DecisionError(f"{path}:{at}: not valid CSV ({error}): mend the quotes") from error
        number += reader.line_num
        yield start, row


def _separator(line: str) -> str:
    found = _SEPARATOR.match(line)
    return found[1] if found else ","
