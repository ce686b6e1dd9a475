"""Train, validation and test: stratified by label, and copies that dedupe found on one side."""

from pipelines.split.stage import SplitArtifact, split

__all__ = ["SplitArtifact", "split"]
