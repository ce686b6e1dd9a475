"""Optimisers: which weights they move, how fast, and what may decay."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from pipelines.core.params.optimizers import Adam, AdamW, Sgd

Group = dict[str, Any]


def parameter_groups(stages: Sequence[Sequence[nn.Module]], *, weight_decay: float, layer_decay: float) -> list[Group]:
    """The parameters that learn, by stage of the network: weights, which decay; norms and biases, which do not.

    Args:
        stages: from the picture to the head.
        weight_decay: of weights.
        layer_decay: factor of the learning rate from each stage to the one before; 1 for none.

    Returns:
        Groups, each with `params`, `weight_decay` and `scale`, its factor of the learning rate.
    """
    groups: list[Group] = []
    for depth, modules in enumerate(reversed(stages)):
        trained = [p for module in modules for p in module.parameters() if p.requires_grad]
        scale = layer_decay**depth
        for vectors in (False, True):
            chosen = [p for p in trained if (p.ndim <= 1) == vectors]
            if chosen:
                groups.append({"params": chosen, "weight_decay": 0.0 if vectors else weight_decay, "scale": scale})
    return groups


def build_optimizer(params: Sgd | Adam | AdamW, groups: list[Group]) -> torch.optim.Optimizer:
    """The optimiser of a recipe; `set_learning_rate` sets its rate before every step."""
    # one kernel for all tensors, on the CPU as on a GPU
    fused = all(p.device.type in ("cpu", "cuda") for group in groups for p in group["params"])
    match params:
        case Sgd():
            return torch.optim.SGD(
                groups, lr=params.learning_rate, momentum=params.momentum, nesterov=params.nesterov, fused=fused
            )
        case Adam():
            return torch.optim.Adam(groups, lr=params.learning_rate, fused=fused)
        case AdamW():
            return torch.optim.AdamW(groups, lr=params.learning_rate, fused=fused)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its share of `rate`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]
