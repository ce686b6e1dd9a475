"""Metrics with intervals of the members and of their ensemble, confusion counts, and images with disputed labels."""

from pipelines.evaluate.stage import EvaluateArtifact, evaluate

__all__ = ["EvaluateArtifact", "evaluate"]
