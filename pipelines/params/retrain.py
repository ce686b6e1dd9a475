"""Scheduled retraining (flows/retrain.py); no DVC stage reads this."""

import re
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator

from pipelines.params.base import Section

FIELDS = (
    # name, lowest, highest value, names that stand for values
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day", 1, 31, ()),
    ("month", 1, 12, ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")),
    ("weekday", 0, 7, ("sun", "mon", "tue", "wed", "thu", "fri", "sat")),
)


class RetrainParams(Section):
    cron: Annotated[str, Field(pattern=r"^\S+( \S+){4}$")] = "0 3 * * 1"
    """minute hour day month weekday; `0 3 * * 1` is Monday at three"""
    timezone: str = "UTC"
    """an IANA name, such as Asia/Tokyo"""
    refresh: bool = False
    """whether a scheduled run reads every source anew: its day becomes ingest.snapshot"""

    @field_validator("cron")
    @classmethod
    def _cron_is_possible(cls, cron: str) -> str:
        for (name, low, high, names), text in zip(FIELDS, cron.split(" "), strict=True):
            if not all(_is_possible(part, low, high, names) for part in text.split(",")):
                raise ValueError(
                    f"retrain.cron {cron!r}: {text!r} is no {name}; write {low} to {high}, *, */5, 1-5 or 1,3,5"
                )
        return cron

    @field_validator("timezone")
    @classmethod
    def _timezone_is_known(cls, timezone: str) -> str:
        try:
            ZoneInfo(timezone)
        except (KeyError, ValueError, OSError) as error:
            raise ValueError(
                f"retrain.timezone {timezone!r} is no time zone; write UTC or an IANA name, such as Asia/Tokyo"
            ) from error
        return timezone


def _is_possible(part: str, low: int, high: int, names: tuple[str, ...]) -> bool:
    """Whether `part` is a value, a range or a step that a field of a cron line may hold."""
    found = re.fullmatch(r"(?:\*|(\w+)(?:-(\w+))?)(?:/([1-9]\d*))?", part.lower())
    if not found:
        return False
    first, last, _step = found.groups()
    values = [_value(text, low, names) for text in (first, last) if text is not None]
    return all(value is not None and low <= value <= high for value in values) and values == sorted(
        value for value in values if value is not None
    )


def _value(text: str, low: int, names: tuple[str, ...]) -> int | None:
    if text in names:
        # months count from 1, weekdays from 0
        return names.index(text) + low
    return int(text) if text.isascii() and text.isdigit() else None
