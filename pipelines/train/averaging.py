"""An exponential moving average of the weights, which validates and is kept in place of the last ones."""

import copy
from typing import Any

import torch
from torch import nn

WARMUP = 10
"""the decay at step n is at most (1 + n) / (WARMUP + n): a short training would else mostly average its beginning"""


class Average:
    """The moving average of a module's parameters; its buffers (statistics of batch norms) are the module's own.

    Args:
        module: whose weights are averaged; begins as its copy.
        decay: per step.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self.num_steps = 0
        self._decay = decay

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move towards `module`, as it is after a step."""
        self.num_steps += 1
        decay = min(self._decay, (1 + self.num_steps) / (WARMUP + self.num_steps))
        torch._foreach_lerp_(list(self.module.parameters()), [p.detach() for p in module.parameters()], 1.0 - decay)

    @torch.no_grad()
    def copy_buffers(self, module: nn.Module) -> None:
        """Take over the statistics, before validating."""
        for mine, its in zip(self.module.buffers(), module.buffers(), strict=True):
            mine.copy_(its)

    def state(self) -> dict[str, Any]:
        return {"module": self.module.state_dict(), "num_steps": self.num_steps}

    def restore(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["module"])
        self.num_steps = state["num_steps"]
