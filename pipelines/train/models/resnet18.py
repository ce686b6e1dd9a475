"""ResNet-18 (He et al., "Deep Residual Learning for Image Recognition", 2015), torchvision's, with two stems."""

from typing import Literal

from torch import nn


def build_resnet18(num_classes: int, *, stem: Literal["standard", "small"], dropout: float) -> nn.Module:
    """Random weights from torch's current generator; state-dict keys are torchvision's, but for `fc.1` with dropout.

    Args:
        stem: standard divides the resolution by 4 before the first block (7x7 stride 2, then pooling); small keeps
            it (3x3), so that a 32 px picture still has 4 x 4 places at the end.
        dropout: probability before the last layer; 0 leaves the layer out.
    """
    from torchvision.models import resnet18  # 3 s, for the recipes that need it alone

    model: nn.Module = resnet18(weights=None, num_classes=num_classes)
    if stem == "small":
        conv = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")  # as the rest of the network
        model.conv1 = conv
        model.maxpool = nn.Identity()
    if dropout > 0.0:
        model.fc = nn.Sequential(nn.Dropout(dropout), model.get_submodule("fc"))
    return model
