"""Scheduled retraining (flows/retrain.py); no DVC stage reads this."""

from typing import Annotated

from pydantic import Field

from pipelines.core.params.base import Section


class RetrainParams(Section):
    cron: Annotated[str, Field(pattern=r"^\S+( \S+){4}$")]
    """minute hour day month weekday"""
    timezone: str
    """an IANA name, such as Asia/Tokyo"""
