"""What counts as the same picture, and what happens to it."""

from typing import Annotated, Literal

from pydantic import Field

from pipelines.core.params.base import Section


class DedupeParams(Section):
    near: bool
    """look for near copies too, not only for equal files and equal pixels"""
    mirror: bool
    """a mirrored picture is a near copy"""
    min_score: Annotated[float, Field(ge=0.5, le=1.0)]
    """how alike two thumbnails must be to count as near copies: correlation after alignment; rises by itself with N"""
    copies: Literal["drop", "keep"]
    """drop: the best picture of a group stays; keep: all stay, and the group is never split"""
    conflicts: Literal["hold", "keep"]
    """a picture under two labels: hold out until data/decisions/ settles it, or keep both"""
