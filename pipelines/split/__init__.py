"""Train, validation and test: stratified by label, and never a copy on both sides."""

from pipelines.split.stage import SplitArtifact, split

__all__ = ["SplitArtifact", "split"]
