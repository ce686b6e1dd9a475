"""Copies and near copies grouped, pictures with two labels held back, human decisions applied."""

from pipelines.dedupe.stage import DedupeArtifact, dedupe

__all__ = ["DedupeArtifact", "dedupe"]
