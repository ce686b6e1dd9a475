"""What a training is given besides its recipe."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from pipelines.augmentation.packs import FoldRows, PackReader, Rows
from pipelines.params.networks import MemberWeights, Weights
from pipelines.params.train import TrainParams
from pipelines.train.processes import Processes


@dataclass(frozen=True)
class Job:
    """One member on one fold.

    Args:
        params: the section `train`.
        member, fold: which.
        reader, rows: of the packs.
        labels: (N,) int64, of every row of the reader's index, of the recipe's target.
        classes: K labels of that target.
        device: to train on.
        processes: that train together.
        root: folder that relative paths of params.yaml begin at.
        members_dir: with the folders of members that this one needs.
        cache_dir: `.miwake`.
    """

    params: TrainParams
    member: str
    fold: int
    reader: PackReader
    rows: FoldRows
    labels: Rows
    classes: list[str]
    device: torch.device
    processes: Processes
    root: Path
    members_dir: Path
    cache_dir: Path

    @property
    def title(self) -> str:
        return f"{self.member}-{self.fold}"

    @property
    def where(self) -> str:
        """The recipe's path in params.yaml, for messages."""
        return f"train.recipes.{self.member}"

    def model_path(self, member: str) -> Path:
        """Of a member that was trained before, on the same fold."""
        return self.members_dir / f"{member}-{self.fold}" / "model.safetensors"

    def source_path(self, weights: Weights) -> Path | None:
        """Of the member that `weights` come from; None for other weights."""
        return self.model_path(weights.member) if isinstance(weights, MemberWeights) else None

    def say(self, line: str) -> None:
        """A line of the log, once for all processes."""
        if self.processes.writes:
            print(f"{self.title}: {line}", flush=True)

    def model_paths(self, members: Sequence[str]) -> list[Path]:
        return [self.model_path(member) for member in members]
