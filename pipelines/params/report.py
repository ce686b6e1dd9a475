"""What the report shows."""

from typing import Annotated, Literal

from pydantic import Field

from pipelines.params.base import Count, Section


class ReportParams(Section):
    title: Annotated[str, Field(min_length=1, max_length=120)] | None = None
    """null: how many classes there are, and the first of them"""
    language: Literal["en", "ja"] = "en"
    """of titles, headings of tables and axes"""
    confused_pairs: Count = 6
    """most confused pairs of classes shown with pictures"""
    pictures_per_pair: Count = 3
    """misclassified pictures shown for a pair, each way"""
    mistakes: Count = 100
    """mistakes shown with their picture and its nearest training pictures; the others are listed"""
    gallery: Count = 12
    """pictures shown in each of the galleries: duplicates, conflicts, suspects"""
    picture_size: Annotated[int, Field(ge=32, le=512)] = 192
    """longer side of an embedded picture, pixels"""
