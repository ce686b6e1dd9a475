"""A multilayer perceptron on pixels: no idea of neighbourhood, but a baseline that everyone understands."""

import torch
from torch import nn


class MlpNetwork(nn.Module):
    """(B, C, S, S) to (B, K) logits: linear, ReLU and dropout for every hidden layer, then a linear one.

    Args:
        num_inputs: C * S * S. The first layer has that many weights for each of its units: 256 px in colour and 512
            units are 100 million.
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
        x = x.flatten(1)  # (B, C * S * S), colour by colour
        for layer in self.hidden:
            x = layer(x)
        logits: torch.Tensor = self.head(x)
        return logits
