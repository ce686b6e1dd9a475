"""train: a folder per member and fold: weights, history, predictions.

Importing this is cheap: torch is imported when something is trained or loaded.
"""

from pipelines.train.stage import TrainArtifact, load_member, train

__all__ = ["TrainArtifact", "load_member", "train"]
