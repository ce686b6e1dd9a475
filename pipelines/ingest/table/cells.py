"""What the cells of a table mean: text, subsets and boxes."""

import decimal
import math
import re
from typing import Any

from pipelines.core.errors import ImageError
from pipelines.ingest.labels import given_subset, printable
from pipelines.ingest.listing import Box
from pipelines.params.sources import BoxColumns

# of a CSV always text; of Parquet and JSON Lines whatever stands there
Cell = Any

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
