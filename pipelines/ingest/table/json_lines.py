"""JSON Lines: an object a line; keys of objects inside are joined by dots."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.ingest.table.cells import Cell
from pipelines.ingest.table.row import MAX_LINE, Row, missing_column, open_text, skip_line

# remembered for the message that names the keys there are
_MAX_NAMES = 1000
_ABSENT = object()


def json_rows(path: Path, columns: list[str], where: str, encoding: str) -> Iterator[Row]:
    """The rows of JSON Lines; see `read_rows`."""
    unseen = set(columns)
    names: dict[str, None] = {}
    number = 0
    with open_text(path, encoding, newline="\n") as file:
        while line := file.readline(MAX_LINE):
            number += 1
            if len(line) == MAX_LINE and not line.endswith("\n"):
                skip_line(file)
                yield Row(number, (), f"the line is longer than {MAX_LINE} characters")
            elif line.strip():
                try:
                    found = json.loads(line)
                except (ValueError, RecursionError) as error:
                    yield Row(number, (), f"no JSON ({error})")
                    continue
                if not isinstance(found, dict):
                    yield Row(number, (), f"a JSON {type(found).__name__}, where an object belongs")
                    continue
                cells = [_deep(found, column) for column in columns]
                if unseen:
                    unseen -= {column for column, cell in zip(columns, cells, strict=True) if cell is not _ABSENT}
                    if len(names) < _MAX_NAMES:
                        names |= dict.fromkeys(_flat(found))
                yield Row(number, [None if cell is _ABSENT else cell for cell in cells])
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
