"""The state of an unfinished training, written whole after every epoch: a killed run continues where it was."""

import hashlib
import pickle
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipelines.core.files import code_digest, whole_file


@dataclass(frozen=True)
class Checkpoint:
    """Where one training keeps its state; nothing else ever has the same folder.

    Args:
        folder: below `.miwake/checkpoints`, named by member, fold and all that the result depends on.
    """

    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / "last.pt"

    def load(self) -> dict[str, Any] | None:
        """The state after the last whole epoch, on the CPU; None at the beginning, or when it cannot be read."""
        try:
            state: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, pickle.UnpicklingError, EOFError):
            return None
        return state

    def save(self, state: dict[str, Any]) -> None:
        # straight to the file: in memory it would be there twice, of a ResNet-18 270 MB
        with whole_file(self.path) as file:
            torch.save(state, file)

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def checkpoint_for(cache_dir: Path, title: str, *, parts: list[bytes]) -> Checkpoint:
    """The place for a training.

    Args:
        cache_dir: `.miwake`.
        title: member and fold.
        parts: all that the result depends on: recipe, policy, seed, pixels, labels, device.
    """
    digest = hashlib.sha256(str((code_digest("core", "train"), torch.__version__)).encode())
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return Checkpoint(cache_dir / "checkpoints" / f"{title}-{digest.hexdigest()[:16]}")
