"""Networks of this project's own: a multilayer perceptron, Network in Network, and a small residual network."""

from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn

NIN_BLOCKS = ((5, (192, 160, 96)), (5, (192, 192, 192)), (3, (192, 192)))
"""kernel of the convolution; its channels, then those of the 1x1 layers. The head is the last block's third layer"""
CNN_WIDTHS = (32, 64, 128)


class DropoutLinear(nn.Linear):
    """A linear layer with dropout before it; names of weights are those of the layer alone."""

    def __init__(self, inputs: int, outputs: int, *, dropout: float, bias: bool = True) -> None:
        super().__init__(inputs, outputs, bias=bias)
        self.dropout = dropout

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(F.dropout(x, self.dropout, self.training))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, dropout={self.dropout}"


class MlpNetwork(nn.Module):
    """(B, C, S, S) to (B, K) logits: linear, ReLU and dropout for every hidden layer, then a linear one.

    Args:
        num_inputs: C * S * S; the first layer has that many weights a unit.
        hidden_sizes: units of each hidden layer.
        dropout: probability after every hidden layer.
    """

    def __init__(self, num_inputs: int, *, hidden_sizes: tuple[int, ...], num_classes: int, dropout: float) -> None:
        super().__init__()
        self.hidden = nn.ModuleList()
        for size in hidden_sizes:
            linear = nn.Linear(num_inputs, size)
            nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
            nn.init.zeros_(linear.bias)
            self.hidden.append(nn.Sequential(linear, nn.ReLU(inplace=True), nn.Dropout(dropout)))
            num_inputs = size
        self.head = nn.Linear(num_inputs, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(1)  # (B, C * S * S), channel by channel
        for layer in self.hidden:
            x = layer(x)
        logits: torch.Tensor = self.head(x)
        return logits


class NetworkInNetwork(nn.Module):
    """(B, C, S, S) to (B, K) logits: Lin, Chen and Yan, 2014, for CIFAR-10; about a million weights, any S.

    Batch norm follows every convolution, without which the network needs the paper's hand-tuned rates. The paper's
    last 1x1 convolution and the average after it stand in the other order: the same function, for less.

    Args:
        dropout: probability after each of the first two blocks; 0.5 in the paper.
    """

    def __init__(self, num_classes: int, *, in_chans: int, dropout: float) -> None:
        super().__init__()
        self.blocks, channels = nn.ModuleList(), in_chans
        for kernel, widths in NIN_BLOCKS:
            self.blocks.append(_nin_block(channels, widths, kernel=kernel))
            channels = widths[-1]
        pools: tuple[nn.Module, ...] = (nn.MaxPool2d(3, stride=2, padding=1), nn.AvgPool2d(3, stride=2, padding=1))
        self.pools = nn.ModuleList(nn.Sequential(pool, nn.Dropout(dropout)) for pool in pools)
        self.head = nn.Linear(channels, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pools[0](self.blocks[0](x))
        x = self.pools[1](self.blocks[1](x))
        x = self.blocks[2](x).mean(dim=(2, 3))  # (B, 192)
        logits: torch.Tensor = self.head(x)
        return logits


def _nin_block(channels: int, widths: tuple[int, ...], *, kernel: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in widths:
        layers += [_conv(channels, width, kernel=kernel), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        channels, kernel = width, 1
    return nn.Sequential(*layers)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, added to their input; where the shape changes, to a 1x1 convolution of it."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, outputs, kernel=3, stride=stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = _conv(outputs, outputs, kernel=3)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(_conv(inputs, outputs, kernel=1, stride=stride), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(inner)) + self.shortcut(x), inplace=True)


class SmallCnn(nn.Module):
    """(B, C, S, S) to (B, K) logits: He et al. 2015 with one block at each of three resolutions; 0.3 million weights.

    Args:
        stem: the first convolution halves the resolution (standard) or keeps it; it has the same weights.
        dropout: probability before the last layer.
    """

    def __init__(self, num_classes: int, *, in_chans: int, stem: Literal["standard", "cifar"], dropout: float) -> None:
        super().__init__()
        self.conv = _conv(in_chans, CNN_WIDTHS[0], kernel=3, stride=2 if stem == "standard" else 1)
        self.bn = nn.BatchNorm2d(CNN_WIDTHS[0])
        blocks, inputs = [], CNN_WIDTHS[0]
        for number, width in enumerate(CNN_WIDTHS):
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


def _conv(inputs: int, outputs: int, *, kernel: int, stride: int = 1) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv
