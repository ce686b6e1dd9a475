"""augment: the pictures at training size in memory-mapped packs, and a sheet that shows the augmentation."""

from pipelines.augment.stage import AugmentArtifact, augment

__all__ = ["AugmentArtifact", "augment"]
