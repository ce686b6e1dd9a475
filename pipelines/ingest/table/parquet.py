"""Parquet: a few thousand rows at a time; fields of structs are joined by dots.

Numbers of classes become their names where the file has them (`datasets` writes them beside the schema).
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.core.errors import InputError
from pipelines.ingest.table.cells import Cell
from pipelines.ingest.table.row import Row, missing_column

_BATCH_ROWS = 4096


def parquet_rows(path: Path, columns: list[str], where: str) -> Iterator[Row]:
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
                    yield Row(number, row)
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
