"""A small residual network of 0.3 million weights, for laptops, small pictures and as a student of larger ones.

He et al. 2015, with one basic block of two 3x3 convolutions at each of three resolutions.
"""

from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn

from pipelines.train.models.layers import DropoutLinear

WIDTHS = (32, 64, 128)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, added to their input; where the shape changes, to a 1x1 convolution of it."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, outputs, kernel=3, stride=stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = _conv(outputs, outputs, kernel=3, stride=1)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(_conv(inputs, outputs, kernel=1, stride=stride), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(inner)) + self.shortcut(x), inplace=True)


class SmallCnn(nn.Module):
    """(B, 3, S, S) to (B, K) logits.

    Args:
        stem: the first convolution halves the resolution (standard) or keeps it (cifar); it has the same weights.
        dropout: probability before the last layer.
    """

    def __init__(self, num_classes: int, *, stem: Literal["standard", "cifar"], dropout: float) -> None:
        super().__init__()
        self.conv = _conv(3, WIDTHS[0], kernel=3, stride=2 if stem == "standard" else 1)
        self.bn = nn.BatchNorm2d(WIDTHS[0])
        blocks, inputs = [], WIDTHS[0]
        for number, width in enumerate(WIDTHS):
            blocks.append(BasicBlock(inputs, width, stride=1 if number == 0 else 2))
            inputs = width
        self.blocks = nn.ModuleList(blocks)
        self.head = DropoutLinear(inputs, num_classes, dropout=dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn(self.conv(x)), inplace=True)
        for block in self.blocks:
            x = block(x)
        logits: torch.Tensor = self.head(x.mean(dim=(2, 3)))
        return logits


def _conv(inputs: int, outputs: int, *, kernel: int, stride: int) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv
