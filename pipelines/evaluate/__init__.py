"""What the members know together: metrics with intervals, confusion counts, and pictures whose label they dispute."""

from pipelines.evaluate.stage import EvaluateArtifact, evaluate

__all__ = ["EvaluateArtifact", "evaluate"]
