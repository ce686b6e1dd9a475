"""What changes while a network is trained, and how it is saved, so that a killed run continues after its last epoch."""

import hashlib
import math
import pickle
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pipelines.core.files import code_digest, whole_file
from pipelines.params.recipes import EarlyStopping
from pipelines.train.job import HISTORY_HEADER

if TYPE_CHECKING:
    from timm.utils.model_ema import ModelEmaV3


@dataclass
class TrainState:
    """The state after `epoch` whole epochs.

    Args:
        module: the network.
        optimizer: of the phase that `epoch` belongs to.
        scaler: of gradients.
        ema: moving average of the weights, where the recipe wants one.
        num_parts: parts that each batch is computed in.
        num_updates: steps that `ema` has averaged.
        plateau_factor: product of the reductions by the schedule `plateau`.
        bad_epochs: epochs since the best one or the last reduction.
    """

    module: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    ema: "ModelEmaV3 | None"
    num_parts: int
    epoch: int = 0
    num_updates: int = 0
    plateau_factor: float = 1.0
    bad_epochs: int = 0
    best_epoch: int = 0
    best_score: float = -math.inf
    best_weights: dict[str, torch.Tensor] = field(default_factory=dict)
    history: list[tuple[float, ...]] = field(default_factory=list)

    @property
    def evaluated(self) -> nn.Module:
        """The network that is validated and kept: the moving average, if there is one."""
        return self.module if self.ema is None else self.ema.module

    def add_epoch(self, line: tuple[float, ...], stopping: EarlyStopping) -> None:
        """Append an epoch's line of history, and keep the weights if it is the best so far."""
        self.history.append(line)
        metrics = dict(zip(HISTORY_HEADER, line, strict=True))
        score = -metrics["val_loss"] if stopping.monitor == "val_loss" else metrics[stopping.monitor]
        # batch statistics of a first few small batches may overflow; later epochs recover
        if not math.isfinite(metrics["val_loss"]) or score <= self.best_score:
            self.bad_epochs += 1
            return
        self.best_score, self.best_epoch, self.bad_epochs = score, self.epoch, 0
        self.best_weights = {name: t.detach().cpu().clone() for name, t in self.evaluated.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self._parts()} | {
            name: getattr(self, name) for name in _PLAIN
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Continue from `saved`; `optimizer` must already be that of its phase."""
        for name, part in self._parts():
            part.load_state_dict(saved[name])
        for name in _PLAIN:
            setattr(self, name, saved[name])

    def _parts(self) -> list[tuple[str, Any]]:
        parts: list[tuple[str, Any]] = [
            ("module", self.module),
            ("optimizer", self.optimizer),
            ("scaler", self.scaler),
        ]
        return parts if self.ema is None else [*parts, ("ema", self.ema.module)]


_PLAIN = (
    *("num_parts", "epoch", "num_updates", "plateau_factor", "bad_epochs"),
    *("best_epoch", "best_score", "best_weights", "history"),
)


@dataclass(frozen=True)
class Checkpoint:
    """The folder in which one training saves its state.

    Args:
        folder: below `.miwake/checkpoints`, named by member, fold and a digest of all that the result depends on.
    """

    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / "last.pt"

    def load(self) -> dict[str, Any] | None:
        """Read the state, on the CPU; None where there is none, or a damaged one."""
        try:
            state: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, pickle.UnpicklingError, EOFError):
            return None
        return state

    def save(self, state: dict[str, Any]) -> None:
        # straight to the file: a copy in memory would be 270 MB for a ResNet-18
        with whole_file(self.path) as file:
            torch.save(state, file)

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def checkpoint_for(cache_dir: Path, title: str, *, parts: list[bytes]) -> Checkpoint:
    """Return the checkpoint of a training.

    Args:
        cache_dir: `.miwake`.
        title: member and fold.
        parts: all that the result depends on but the code: recipe, policy, seed, pixels, labels, device.
    """
    code = code_digest("core", "augmentation", "features", "train")
    digest = hashlib.sha256(str((code, torch.__version__)).encode())
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return Checkpoint(cache_dir / "checkpoints" / f"{title}-{digest.hexdigest()[:16]}")
