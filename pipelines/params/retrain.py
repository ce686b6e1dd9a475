"""Scheduled retraining (flows/retrain.py); no DVC stage reads this."""

import datetime
from typing import Annotated
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import Field, field_validator

from pipelines.params.base import Section

CRON_FIELDS = "minute 0 to 59, hour 0 to 23, day 1 to 31, month 1 to 12 or jan, weekday 0 to 7 or sun"


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
        try:
            CronSim(cron, datetime.datetime(2000, 1, 1))  # parses all fields; the day does not matter
        except CronSimError as error:
            raise ValueError(
                f"retrain.cron {cron!r}: {str(error).lower()}; write {CRON_FIELDS}, each as 5, *, */5, 1-5 or 1,3,5"
            ) from error
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
