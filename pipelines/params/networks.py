"""The networks that a recipe may name, and where their weights come from."""

from typing import Annotated, Literal

from pydantic import Field

from pipelines.params.base import Name, PathText, PositiveInt, Section

# A test compares the lines after the first with what the installed torchvision offers.
NetworkName = Literal[
    "efficientnet_lite0", "nin", "small_cnn",
    "alexnet", "convnext_base", "convnext_large", "convnext_small", "convnext_tiny",
    "densenet121", "densenet161", "densenet169", "densenet201",
    "efficientnet_b0", "efficientnet_b1", "efficientnet_b2", "efficientnet_b3", "efficientnet_b4", "efficientnet_b5",
    "efficientnet_b6", "efficientnet_b7", "efficientnet_v2_l", "efficientnet_v2_m", "efficientnet_v2_s",
    "googlenet", "inception_v3", "maxvit_t", "mnasnet0_5", "mnasnet0_75", "mnasnet1_0", "mnasnet1_3",
    "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small",
    "regnet_x_16gf", "regnet_x_1_6gf", "regnet_x_32gf", "regnet_x_3_2gf", "regnet_x_400mf", "regnet_x_800mf",
    "regnet_x_8gf", "regnet_y_128gf", "regnet_y_16gf", "regnet_y_1_6gf", "regnet_y_32gf", "regnet_y_3_2gf",
    "regnet_y_400mf", "regnet_y_800mf", "regnet_y_8gf",
    "resnet101", "resnet152", "resnet18", "resnet34", "resnet50", "resnext101_32x8d", "resnext101_64x4d",
    "resnext50_32x4d", "shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "shufflenet_v2_x1_5", "shufflenet_v2_x2_0",
    "squeezenet1_0", "squeezenet1_1", "swin_b", "swin_s", "swin_t", "swin_v2_b", "swin_v2_s", "swin_v2_t",
    "vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn",
    "vit_b_16", "vit_b_32", "vit_h_14", "vit_l_16", "vit_l_32", "wide_resnet101_2", "wide_resnet50_2",
]  # fmt: skip


class Mlp(Section):
    """A multilayer perceptron on the picture's pixels; the recipe's dropout follows every hidden layer."""

    kind: Literal["mlp"] = "mlp"
    hidden_sizes: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (512, 128)
    """units of each hidden layer, from the pixels on"""


Network = NetworkName | Mlp
WITHOUT_BATCH_NORM = ("alexnet", "convnext", "squeezenet", "swin", "vgg", "vit")
"""how the names of such networks begin, but for the vgg that end with _bn; a test looks at the networks"""


def has_batch_norm(model: Network) -> bool:
    """Whether the network has layers that normalise by the other pictures of a step."""
    if isinstance(model, Mlp):
        return False
    return model.endswith("_bn") or not model.startswith(WITHOUT_BATCH_NORM)


class FileWeights(Section):
    """Weights from a file, pinned by its content."""

    kind: Literal["file"] = "file"
    path: PathText
    """of a .safetensors, or of a .pth that holds tensors alone; below the folder of params.yaml, or absolute"""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """of the file: another one is refused, and the message gives what it should say"""


class MemberWeights(Section):
    """What another member of this pipeline learned on the same fold; for recipes in train.students."""

    kind: Literal["member"] = "member"
    member: Name
    """one of train.members"""


Weights = Literal["imagenet"] | Annotated[FileWeights | MemberWeights, Field(discriminator="kind")]
"""imagenet: of the package for efficientnet_lite0, torchvision's own default for its networks (downloaded once)"""
