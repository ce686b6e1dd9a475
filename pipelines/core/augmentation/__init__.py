"""Draws applied to a batch of pictures on their device; what training does, and what the preview shows."""

from pipelines.core.augmentation.changes import apply
from pipelines.core.augmentation.geometry import GREY

__all__ = ["GREY", "apply"]
