"""Optimisers, what they may decay, and the learning rate of every step."""

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import nn

from pipelines.core.params.train import Adam, Sgd


def decay_groups(module: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Two groups: weights of convolutions and linear layers decay; norms and biases do not."""

    def trained(vectors: bool) -> list[nn.Parameter]:
        return [p for p in module.parameters() if p.requires_grad and (p.ndim <= 1) == vectors]

    return [
        {"params": trained(vectors=False), "weight_decay": weight_decay},
        {"params": trained(vectors=True), "weight_decay": 0.0},
    ]


def build_optimizer(params: Sgd | Adam, groups: Iterable[dict[str, object]]) -> torch.optim.Optimizer:
    """The optimiser of a recipe; its learning rate is set before every step."""
    match params:
        case Sgd():
            return torch.optim.SGD(groups, lr=params.learning_rate, momentum=params.momentum, nesterov=params.nesterov)
        case Adam():
            return torch.optim.Adam(groups, lr=params.learning_rate)


def learning_rate_at(
    step: int, *, peak: float, schedule: Literal["constant", "cosine"], warmup_steps: int, num_steps: int
) -> float:
    """The learning rate of one step.

    It rises in a straight line to `peak`, reached at step `warmup_steps`, then stays, or falls along half a cosine
    that would reach 0 at `num_steps`.

    Args:
        step: from 0 to num_steps - 1.
    """
    if step < warmup_steps:
        return peak * (step + 1) / (warmup_steps + 1)
    if schedule == "constant":
        return peak
    done = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    return peak * 0.5 * (1.0 + math.cos(math.pi * done))
