"""What every format of table shares: rows, text files, and the error for a column that is not there."""

import codecs
import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

from pipelines.core.errors import InputError
from pipelines.ingest.labels import printable
from pipelines.ingest.table.cells import Cell

# a longer line is no row of a table, and would only fill memory
MAX_LINE = 1 << 20


class Row(NamedTuple):
    """One row.

    Of a CSV `line` is where it starts in the file, of JSON Lines its line, of Parquet its number, each from 1 on.
    """

    line: int
    cells: Sequence[Cell]
    """of the wanted columns, in their order"""
    problem: str = ""
    """why it cannot be read; then there are no cells"""


def missing_column(names: Sequence[str], columns: list[str], where: str) -> InputError:
    """The error for the first of `columns` that is not among `names`."""
    name = next(column for column in columns if column not in names)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    guess = f"; did you mean {near[0]!r}?" if near else ";"
    known = ", ".join(printable(known) for known in list(names)[:50])
    return InputError(f"{where} has no column {name!r}{guess} It has: {known or 'none'}")


def open_text(path: Path, *, newline: str) -> TextIO:
    """A text as UTF-8, or what its byte order mark says; bytes that are not UTF-8 stay as surrogates."""
    with path.open("rb") as file:
        start = file.read(2)
    if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return path.open(encoding="utf-16", errors="replace", newline=newline)
    return path.open(encoding="utf-8-sig", errors="surrogateescape", newline=newline)


def skip_line(file: TextIO) -> None:
    """Leave the rest of a line unread."""
    while (rest := file.readline(MAX_LINE)) and not rest.endswith(("\n", "\r")):
        pass
