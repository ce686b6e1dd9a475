"""Reads the rows of CSV, JSON Lines and Parquet files, one at a time, each with the line it stands on.

CSV: with commas, semicolons or tabs, or what the line `sep=` says that Excel writes; quoted or not. JSON Lines: an
object a line. Parquet: a few thousand rows at a time; numbers of classes become their names where the file has them
(`datasets` writes them beside the schema). Keys of objects and fields of structs are joined by dots.
"""

import codecs
import csv
import difflib
import json
import re
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TextIO

from pipelines.core.errors import InputError
from pipelines.ingest.labels import printable

# of a CSV always text; of Parquet and JSON Lines whatever stands there
Cell = Any

# the longest first: that of UTF-32 begins with that of UTF-16
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
# a longer line is no row of a table, and would only fill memory
MAX_LINE = 1 << 20


class TableRow(NamedTuple):
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


_DELIMITERS = ",;\t"
_SEP = re.compile(r'"?sep=([^"])"?\s*', re.IGNORECASE)


def csv_rows(path: Path, columns: list[str], where: str, encoding: str) -> Iterator[TableRow]:
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
                yield TableRow(lines.give_back(), (), str(error))
                continue
            if len(cells) == len(header) or (len(cells) > len(header) and not any(cells[len(header) :])):
                yield TableRow(lines.number, [cells[place] for place in places])
            elif cells:
                yield TableRow(lines.number, (), f"{len(cells)} cells, where the header has {len(header)}")


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


# remembered for the message that names the keys there are
_MAX_NAMES = 1000
_ABSENT = object()


def json_rows(path: Path, columns: list[str], where: str, encoding: str) -> Iterator[TableRow]:
    """The rows of JSON Lines; see `read_rows`."""
    unseen = set(columns)
    names: dict[str, None] = {}
    number = 0
    with open_text(path, encoding, newline="\n") as file:
        while line := file.readline(MAX_LINE):
            number += 1
            if len(line) == MAX_LINE and not line.endswith("\n"):
                skip_line(file)
                yield TableRow(number, (), f"the line is longer than {MAX_LINE} characters")
            elif line.strip():
                try:
                    found = json.loads(line)
                except (ValueError, RecursionError) as error:
                    yield TableRow(number, (), f"no JSON ({error})")
                    continue
                if not isinstance(found, dict):
                    yield TableRow(number, (), f"a JSON {type(found).__name__}, where an object belongs")
                    continue
                cells = [_deep(found, column) for column in columns]
                if unseen:
                    unseen -= {column for column, cell in zip(columns, cells, strict=True) if cell is not _ABSENT}
                    if len(names) < _MAX_NAMES:
                        names |= dict.fromkeys(_flat(found))
                yield TableRow(number, [None if cell is _ABSENT else cell for cell in cells])
    if unseen and names:
        raise missing_column(list(names), [column for column in columns if column in unseen], where)


def _deep(found: Any, column: str) -> Cell:
    """The value under a key, or under keys that are joined by dots; _ABSENT where there is no such key."""
    if isinstance(found, dict):
        if column in found:
            return found[column]
        head, dot, rest = column.partition(".")
        if dot and head in found:
            return _deep(found[head], rest)
    return _ABSENT


def _flat(found: dict[str, Any], above: str = "") -> Iterator[str]:
    for key, value in found.items():
        if isinstance(value, dict) and len(above) < 200:
            yield from _flat(value, f"{above}{key}.")
        else:
            yield above + key


_BATCH_ROWS = 4096


def parquet_rows(path: Path, columns: list[str], where: str) -> Iterator[TableRow]:
    """The rows of a Parquet file; see `read_rows`."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            routes = {".".join(route): route for route in _routes(file.schema_arrow)}
            if any(column not in routes for column in columns):
                raise missing_column(list(routes), columns, where)
            twice = [name for name in file.schema_arrow.names if file.schema_arrow.names.count(name) > 1]
            if twice:
                raise InputError(f"{where} has several columns {twice[0]!r}; give each its own name")
            tops = list(dict.fromkeys(routes[column][0] for column in columns))
            names = _class_names(file.schema_arrow.metadata or {})
            number = 0
            for batch in file.iter_batches(_BATCH_ROWS, columns=tops):
                cells = []
                for column in columns:
                    top, *deeper = routes[column]
                    array = batch.column(top)  # by name: they come in the order of the file
                    found = (pc.struct_field(array, deeper) if deeper else array).to_pylist()
                    cells.append([_name(names[column], cell) for cell in found] if column in names else found)
                for row in zip(*cells, strict=True):
                    number += 1
                    yield TableRow(number, row)
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise InputError(f"{where} is a broken Parquet file ({error}); write it again") from error


def _class_names(metadata: dict[bytes, bytes]) -> dict[str, list[str]]:
    """Column: the names of its classes, of columns that `datasets` wrote as ClassLabel."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        return {column: list(map(str, one["names"])) for column, one in features.items() if _is_class_label(one)}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _is_class_label(feature: Any) -> bool:
    return isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and isinstance(feature.get("names"), list)


def _name(names: list[str], cell: Cell) -> Cell:
    """-1, which stands for no class, and numbers beyond the names give None."""
    return cell if type(cell) is not int else names[cell] if 0 <= cell < len(names) else None


def _routes(fields: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The names on the way to each column, structs entered."""
    import pyarrow as pa

    for field in fields:
        yield (*above, field.name)
        if pa.types.is_struct(field.type):
            yield from _routes(
                [field.type.field(place) for place in range(field.type.num_fields)], (*above, field.name)
            )


def read_rows(
    path: Path, format: Literal["csv", "parquet", "jsonl"], columns: list[str], where: str, encoding: str = "utf-8"
) -> Iterator[TableRow]:
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


def _decoded(path: Path, rows: Iterator[TableRow], where: str) -> Iterator[TableRow]:
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
