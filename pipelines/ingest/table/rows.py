"""The rows of a table of any format, one at a time, each with the line it stands on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pipelines.core.errors import InputError
from pipelines.ingest.table.delimited import csv_rows
from pipelines.ingest.table.json_lines import json_rows
from pipelines.ingest.table.parquet import parquet_rows
from pipelines.ingest.table.row import Row, wrong_encoding


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
