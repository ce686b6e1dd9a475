"""What changes while a network is trained, and how it is kept for a run that is killed."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from pipelines.params.recipes import EarlyStopping
from pipelines.train.averaging import Average
from pipelines.train.optimizers import Optimizer

HISTORY_HEADER = (
    "epoch",
    "train_loss",
    "val_loss",
    "train_accuracy",
    "val_accuracy",
    "val_macro_f1",
    "learning_rate",
)


@dataclass
class Run:
    """The state after `epoch` whole epochs.

    Args:
        module: the network.
        optimizer: of the phase that `epoch` is in.
        scaler: of gradients.
        average: of the weights, where the recipe wants one.
        grad_accum_steps: parts that a batch is computed in.
        lowered: factor that `plateau` has brought the learning rate down by.
        since_better: epochs without a better one, for `plateau`.
    """

    module: nn.Module
    optimizer: Optimizer
    scaler: torch.amp.GradScaler
    average: Average | None
    grad_accum_steps: int
    epoch: int = 0
    lowered: float = 1.0
    since_better: int = 0
    best_epoch: int = 0
    best_score: float = -math.inf
    best_weights: dict[str, torch.Tensor] = field(default_factory=dict)
    history: list[tuple[float, ...]] = field(default_factory=list)

    @property
    def judged(self) -> nn.Module:
        """The network that validates and is kept."""
        return self.module if self.average is None else self.average.module

    def note(self, line: tuple[float, ...], stopping: EarlyStopping) -> bool:
        """Add an epoch's line of history; whether it is the best so far, of which the weights are then kept."""
        self.history.append(line)
        figures = dict(zip(HISTORY_HEADER, line, strict=True))
        score = -figures["val_loss"] if stopping.monitor == "val_loss" else figures[stopping.monitor]
        # statistics of norms over a first few tiny batches may overflow; the next epochs mend that
        if not math.isfinite(figures["val_loss"]) or score <= self.best_score:
            self.since_better += 1
            return False
        self.best_score, self.best_epoch, self.since_better = score, self.epoch, 0
        self.best_weights = {name: t.detach().cpu().clone() for name, t in self.judged.state_dict().items()}
        return True

    def state(self) -> dict[str, Any]:
        return {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": None if self.average is None else self.average.state(),
            **{name: getattr(self, name) for name in _PLAIN},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state`; `optimizer` is already that of its phase."""
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.restore(state["average"])
        for name in _PLAIN:
            setattr(self, name, state[name])


_PLAIN = (
    *("grad_accum_steps", "epoch", "lowered", "since_better"),
    *("best_epoch", "best_score", "best_weights", "history"),
)
