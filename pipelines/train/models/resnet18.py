"""ResNet-18 (He et al., "Deep Residual Learning for Image Recognition", 2015), torchvision's, for any picture size."""

from torch import nn

SMALL_SIDE = 64
"""up to this side the first layers keep the resolution: the usual ones would leave 2 x 2 places of a 64 px picture"""


def build_resnet18(num_classes: int, image_size: int, dropout: float) -> nn.Module:
    """Random weights from torch's current generator; state-dict keys are torchvision's, but for `fc.1` with dropout."""
    from torchvision.models import resnet18  # 3 s, for the recipes that need it alone

    model: nn.Module = resnet18(weights=None, num_classes=num_classes)
    if image_size <= SMALL_SIDE:
        stem = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
        nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
        model.conv1 = stem
        model.maxpool = nn.Identity()
    if dropout > 0.0:
        model.fc = nn.Sequential(nn.Dropout(dropout), model.get_submodule("fc"))
    return model
