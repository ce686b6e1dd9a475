"""What every format of table shares: rows, text files, and the error for a column that is not there."""

import codecs
import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

from pipelines.core.errors import InputError
from pipelines.ingest.labels import printable
from pipelines.ingest.table.cells import Cell

# the longest first: that of UTF-32 begins with that of UTF-16
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
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


def encoding_of(path: Path, encoding: str) -> str:
    """What a text is surely written in, by its byte order mark or every second byte of zero; else `encoding`."""
    with path.open("rb") as file:
        start = file.read(8)
    for mark, name in _MARKS:
        if start.startswith(mark):
            return name
    if len(start) == 8 and 0 not in start[::2] and not any(start[1::2]):
        return "utf-16-le"
    if len(start) == 8 and 0 not in start[1::2] and not any(start[::2]):
        return "utf-16-be"
    return encoding


def wrong_encoding(path: Path, error: UnicodeDecodeError, where: str) -> InputError:
    """The one error for a table in another encoding; shows the first line that is, as it may be meant."""
    number, line = 0, b""
    with path.open("rb") as file:
        while line := file.readline(MAX_LINE):
            number += 1
            try:
                line.decode(error.encoding)
            except UnicodeDecodeError:
                break
    guesses = []
    for name in ("windows-1252", "shift_jis"):
        try:
            guesses.append(f"{name} where it says {line.decode(name).strip()[:60]!r}")
        except UnicodeDecodeError:
            continue
    hint = f" ({', '.join(guesses)})" if guesses else ""
    return InputError(
        f"{where} is not {error.encoding} (line {number}, byte {error.object[error.start]:#x}): set encoding: in "
        f"ingest.sources to what it is{hint}, or save it as UTF-8"
    )


def open_text(path: Path, encoding: str, *, newline: str) -> TextIO:
    """A text in `encoding`, or what it surely is (`encoding_of`); reading raises UnicodeDecodeError where it is not."""
    return path.open(encoding=encoding_of(path, encoding), newline=newline)


def skip_line(file: TextIO) -> None:
    """Leave the rest of a line unread."""
    while (rest := file.readline(MAX_LINE)) and not rest.endswith(("\n", "\r")):
        pass
