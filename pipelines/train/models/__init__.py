"""The networks that recipes name, each with its own input normalisation."""

from dataclasses import dataclass
from typing import Literal

from torch import nn

from pipelines.core.lite0 import MEAN, STD, EfficientNetLite0, fold_batch_norm
from pipelines.core.params.train import ScratchRecipe
from pipelines.train.models.resnet18 import build_resnet18

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class ModelSpec:
    """How a network is fed.

    Args:
        mean: of the input, per channel, on the scale of 0 to 255; subtracted.
        std: per channel, on that scale; divided by.
    """

    mean: Triple
    std: Triple


MODELS: dict[Literal["efficientnet_lite0", "resnet18"], ModelSpec] = {
    "efficientnet_lite0": ModelSpec(mean=(MEAN, MEAN, MEAN), std=(STD, STD, STD)),
    # ImageNet's, as torchvision's weights expect
    "resnet18": ModelSpec(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)),
}


def build_network(recipe: ScratchRecipe, num_classes: int) -> nn.Module:
    """The network of a recipe, (B, 3, S, S) float to (B, K) logits; random weights from torch's current generator."""
    match recipe.model:
        case "resnet18":
            return build_resnet18(num_classes, stem=recipe.stem, dropout=recipe.dropout)


__all__ = ["MODELS", "EfficientNetLite0", "ModelSpec", "build_network", "fold_batch_norm"]
