"""Layers that several networks share, and surgery on the layers of a finished one."""

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn


class DropoutLinear(nn.Linear):
    """A linear layer with dropout before it; names of weights are those of the layer alone."""

    def __init__(self, inputs: int, outputs: int, *, dropout: float, bias: bool = True) -> None:
        super().__init__(inputs, outputs, bias=bias)
        self.dropout = dropout

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(F.dropout(x, self.dropout, self.training))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, dropout={self.dropout}"


def with_dropout(linear: nn.Linear, dropout: float) -> nn.Linear:
    """`linear` with dropout before it and the same weights; as it is where dropout is 0."""
    if dropout == 0.0:
        return linear
    layer = DropoutLinear(linear.in_features, linear.out_features, dropout=dropout, bias=linear.bias is not None)
    layer.weight, layer.bias = linear.weight, linear.bias
    return layer


def replace(module: nn.Module, name: str, layer: nn.Module) -> None:
    """Put `layer` in the place of the submodule with this dotted name."""
    parent, _, last = name.rpartition(".")
    setattr(module.get_submodule(parent), last, layer)


def first_conv(module: nn.Module) -> tuple[str, nn.Conv2d]:
    """The dotted name of the convolution that sees the picture, and that layer; of any network but an mlp."""
    return next((name, layer) for name, layer in module.named_modules() if isinstance(layer, nn.Conv2d))


def make_grey(conv: nn.Conv2d) -> None:
    """Let a convolution of three colours take one: what it made of three equal ones, it makes of that one."""
    conv.in_channels = 1
    conv.weight = nn.Parameter(conv.weight.detach().sum(dim=1, keepdim=True))  # (O, 1, k, k)
