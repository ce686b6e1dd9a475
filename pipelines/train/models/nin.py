"""Network in Network (Lin, Chen and Yan, 2014): convolutions followed by a small perceptron at every place.

The paper's network for CIFAR-10, about a million weights, with batch norm after every convolution, without which it
needs the paper's hand-tuned rates to learn at all. There is no large linear layer: the average over all places is
what the last one sees, so that every size of picture goes.
"""

import torch
from torch import nn

BLOCKS = (
    (5, (192, 160, 96)),
    (5, (192, 192, 192)),
    (3, (192, 192)),
)
"""kernel of the convolution; its channels, then those of the perceptron's layers. The head is the last block's third"""


class NetworkInNetwork(nn.Module):
    """(B, 3, S, S) to (B, K) logits.

    Args:
        dropout: probability after each of the first two blocks; 0.5 in the paper.
    """

    def __init__(self, num_classes: int, *, dropout: float) -> None:
        super().__init__()
        self.blocks, channels = nn.ModuleList(), 3
        for kernel, widths in BLOCKS:
            self.blocks.append(_block(channels, widths, kernel=kernel))
            channels = widths[-1]
        self.pools = nn.ModuleList([_pool(nn.MaxPool2d, dropout), _pool(nn.AvgPool2d, dropout)])
        # the paper's 1x1 convolution to K classes and the average after it, in the other order: the same, for less
        self.head = nn.Linear(channels, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pools[0](self.blocks[0](x))
        x = self.pools[1](self.blocks[1](x))
        x = self.blocks[2](x).mean(dim=(2, 3))  # (B, 192)
        logits: torch.Tensor = self.head(x)
        return logits


def _block(channels: int, widths: tuple[int, ...], *, kernel: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in widths:
        conv = nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        layers += [conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        channels, kernel = width, 1
    return nn.Sequential(*layers)


def _pool(kind: type[nn.MaxPool2d] | type[nn.AvgPool2d], dropout: float) -> nn.Sequential:
    return nn.Sequential(kind(3, stride=2, padding=1), nn.Dropout(dropout))
