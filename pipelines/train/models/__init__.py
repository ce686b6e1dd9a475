"""The networks that recipes name, each built with its own input normalisation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import nn

from pipelines.train.models.efficientnet_lite0 import EfficientNetLite0, fold_batch_norm
from pipelines.train.models.resnet18 import build_resnet18

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class ModelSpec:
    """How a network is built and fed.

    Args:
        build: called with num_classes, image_size and dropout; takes (B, 3, S, S) float to (B, K) logits.
        mean: of the input, per channel, on the scale of 0 to 255; subtracted.
        std: per channel, on that scale; divided by.
    """

    build: Callable[[int, int, float], nn.Module]
    mean: Triple
    std: Triple


MODELS: dict[Literal["efficientnet_lite0", "resnet18"], ModelSpec] = {
    # Google's own: ImageNet's mean and deviation in their place cost 5 points of accuracy
    "efficientnet_lite0": ModelSpec(
        build=lambda num_classes, _image_size, _dropout: EfficientNetLite0(num_classes),
        mean=(127.0, 127.0, 127.0),
        std=(128.0, 128.0, 128.0),
    ),
    # ImageNet's, as torchvision's weights expect
    "resnet18": ModelSpec(build=build_resnet18, mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)),
}

__all__ = ["MODELS", "EfficientNetLite0", "ModelSpec", "fold_batch_norm"]
