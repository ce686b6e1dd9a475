"""The families of networks: where each keeps its first convolution, its stages and its head.

Names are dotted paths of modules, the same for every member of a family, whatever its size.
"""

from dataclasses import dataclass

from pipelines.params.networks import NetworkName

Names = tuple[str, ...]


@dataclass(frozen=True)
class Family:
    """How the networks of one family are put together.

    Args:
        prefixes: of the names of its networks.
        head: the last layer, that of the classes.
        groups: the stages before the head, each the modules of one, from the picture on.
        chain: a sequence of modules that is cut into stages wherever the resolution halves; in place of groups.
        before: modules before the chain that belong to its first stage.
        joined: modules between the chain and the head that belong to its last stage.
        after: modules between the chain and the head that are a stage of their own.
        min_sizes: smallest side that works, pixels, with the standard and with the small stem; 0 where there is none.
        multiple: of which the side must be one.
        pool: a pooling right after the first convolution, which the small stem leaves out.
        has_dropout: layers of its own for dropout; others get it before the head.
    """

    prefixes: Names
    head: str
    groups: tuple[Names, ...] = ()
    chain: str = ""
    before: Names = ()
    joined: Names = ()
    after: Names = ()
    min_sizes: tuple[int, int] = (8, 8)
    multiple: int = 1
    pool: str = ""
    has_dropout: bool = False


FAMILIES = (
    Family(
        ("efficientnet_lite0",), "_fc", chain="_blocks", before=("_conv_stem", "_bn0"), joined=("_conv_head", "_bn1")
    ),
    Family(("nin",), "head", groups=(("blocks.0",), ("blocks.1",), ("blocks.2",))),
    Family(("small_cnn",), "head", groups=(("conv", "bn"), ("blocks.0",), ("blocks.1",), ("blocks.2",))),
    Family(
        ("resnet", "resnext", "wide_resnet"),
        "fc",
        groups=(("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",)),
        pool="maxpool",
    ),
    Family(
        ("densenet",),
        "classifier",
        groups=(
            ("features.conv0", "features.norm0"),
            ("features.denseblock1", "features.transition1"),
            ("features.denseblock2", "features.transition2"),
            ("features.denseblock3", "features.transition3"),
            ("features.denseblock4", "features.norm5"),
        ),
        min_sizes=(29, 8),
        pool="features.pool0",
    ),
    Family(
        ("vgg",),
        "classifier.6",
        chain="features",
        after=("classifier.0", "classifier.3"),
        min_sizes=(32, 32),
        has_dropout=True,
    ),
    Family(
        ("alexnet",),
        "classifier.6",
        chain="features",
        after=("classifier.1", "classifier.4"),
        min_sizes=(63, 0),
        has_dropout=True,
    ),
    Family(
        ("squeezenet1_0",), "classifier.1", chain="features", min_sizes=(21, 8), pool="features.2", has_dropout=True
    ),
    Family(
        ("squeezenet1_1",), "classifier.1", chain="features", min_sizes=(17, 8), pool="features.2", has_dropout=True
    ),
    Family(("mobilenet_v2", "efficientnet_b", "efficientnet_v2"), "classifier.1", chain="features", has_dropout=True),
    Family(("mobilenet_v3",), "classifier.3", chain="features", after=("classifier.0",), has_dropout=True),
    Family(("mnasnet",), "classifier.1", chain="layers", has_dropout=True),
    Family(("convnext",), "classifier.2", chain="features", joined=("classifier.0",), min_sizes=(32, 8)),
    Family(
        ("shufflenet",),
        "fc",
        groups=(("conv1",), ("stage2",), ("stage3",), ("stage4", "conv5")),
        pool="maxpool",
    ),
    Family(
        ("regnet",),
        "fc",
        groups=(
            ("stem",),
            ("trunk_output.block1",),
            ("trunk_output.block2",),
            ("trunk_output.block3",),
            ("trunk_output.block4",),
        ),
    ),
    Family(
        ("googlenet",),
        "fc",
        groups=(
            ("conv1", "conv2", "conv3"),
            ("inception3a", "inception3b"),
            ("inception4a", "inception4b", "inception4c", "inception4d", "inception4e"),
            ("inception5a", "inception5b"),
        ),
        min_sizes=(15, 8),
        pool="maxpool1",
        has_dropout=True,
    ),
    Family(
        ("inception_v3",),
        "fc",
        groups=(
            ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3"),
            ("Mixed_5b", "Mixed_5c", "Mixed_5d"),
            ("Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"),
            ("Mixed_7a", "Mixed_7b", "Mixed_7c"),
        ),
        min_sizes=(75, 0),
        has_dropout=True,
    ),
    Family(
        ("swin",),
        "head",
        groups=(
            ("features.0",),
            ("features.1",),
            ("features.2", "features.3"),
            ("features.4", "features.5"),
            ("features.6", "features.7", "norm"),
        ),
        min_sizes=(8, 0),
    ),
    Family(
        ("maxvit",),
        "classifier.5",
        groups=(("stem",), ("blocks.0",), ("blocks.1",), ("blocks.2",), ("blocks.3", "classifier.2", "classifier.3")),
        min_sizes=(224, 0),
        # attention within 7 x 7 places at 1/4 to 1/32 of the resolution
        multiple=224,
    ),
    # every layer of the encoder is a stage; see stages.py
    Family(("vit_b_16", "vit_l_16"), "heads.head", chain="encoder.layers", min_sizes=(16, 0), multiple=16),
    Family(("vit_b_32", "vit_l_32"), "heads.head", chain="encoder.layers", min_sizes=(32, 0), multiple=32),
    Family(("vit_h_14",), "heads.head", chain="encoder.layers", min_sizes=(14, 0), multiple=14),
)


def family_of(model: NetworkName) -> Family:
    """The family of a network that is not an mlp."""
    return next(family for family in FAMILIES if model.startswith(family.prefixes))
