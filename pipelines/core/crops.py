"""data/decisions/crop.csv: which part of a picture counts, decided by a person."""

import csv
import re
from pathlib import Path
from typing import NamedTuple

from pipelines.core.errors import DecisionError

HEADER = ["image_id", "left", "top", "right", "bottom"]


class Crop(NamedTuple):
    """The part of a picture that is kept; fractions of its width and height, upright, from the top left."""

    left: float
    top: float
    right: float
    bottom: float


WHOLE = Crop(0.0, 0.0, 1.0, 1.0)


def read_crops(path: Path) -> dict[str, Crop]:
    """The crops by image_id; none when the file does not exist.

    Raises:
        DecisionError: a row breaks a rule; names file and line.
    """
    if not path.is_file():
        return {}
    crops: dict[str, Crop] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file)
            header = next(lines, [])
            if header != HEADER:
                raise DecisionError(f"{path}, line 1: the header is {','.join(header)!r}; write {','.join(HEADER)!r}")
            for row in lines:
                where = f"{path}, line {lines.line_num}"
                if not row:
                    continue
                image_id, crop = _read_row(row, where)
                if image_id in crops:
                    raise DecisionError(f"{where}: {image_id} already has a crop above; keep one of the two rows")
                crops[image_id] = crop
    except (UnicodeDecodeError, csv.Error) as error:
        raise DecisionError(f"{path}: no CSV in UTF-8 ({error}); save it as such") from error
    return crops


def _read_row(row: list[str], where: str) -> tuple[str, Crop]:
    if len(row) != len(HEADER):
        raise DecisionError(f"{where}: {len(row)} values; write {len(HEADER)}: {', '.join(HEADER)}")
    image_id = row[0].strip()
    if not re.fullmatch(r"[0-9a-f]{64}", image_id):
        raise DecisionError(
            f"{where}: image_id {image_id!r} is no sha256 (64 digits of 0-9 and a-f); copy it from the report"
        )
    values: list[float] = []
    for name, text in zip(HEADER[1:], row[1:], strict=True):
        try:
            value = float(text)
        except ValueError as error:
            raise DecisionError(f"{where}: {name} {text!r} is no number; write a fraction from 0 to 1") from error
        if not 0.0 <= value <= 1.0:  # also refuses nan
            raise DecisionError(f"{where}: {name} {text} is outside of 0 to 1; write fractions of the side, not pixels")
        values.append(value)
    crop = Crop(*values)
    for low, high in (("left", "right"), ("top", "bottom")):
        if getattr(crop, low) >= getattr(crop, high):
            raise DecisionError(
                f"{where}: {low} {getattr(crop, low)} is not less than {high} {getattr(crop, high)}; swap or widen them"
            )
    return image_id, crop
