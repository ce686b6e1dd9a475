"""What is known of a network without building it: how its input is normalised, and what slows it on a CPU."""

from dataclasses import dataclass

from pipelines.core.params.networks import Mlp, Network, Weights

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class ModelSpec:
    """How a network is fed.

    Args:
        mean: of the input, per colour, on the scale of 0 to 255; subtracted.
        std: per colour, on that scale; divided by.
    """

    mean: Triple
    std: Triple


_IMAGENET = ModelSpec(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
_HALF = ModelSpec(mean=(127.5, 127.5, 127.5), std=(127.5, 127.5, 127.5))
_LITE0 = ModelSpec(mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0))
_SPECS = {
    "efficientnet_lite0": _LITE0,
    # as published; torchvision's own wrapping of these two feeds ImageNet's scale and turns it into this one inside
    "googlenet": _HALF,
    "inception_v3": _HALF,
    "efficientnet_v2_l": _HALF,
}


def spec_for(model: Network, weights: Weights | None = None) -> ModelSpec:  # noqa: ARG001  (one of them for all weights)
    """How `model` is fed: as its ImageNet weights were, whatever the weights, so that weights may change hands."""
    return _IMAGENET if isinstance(model, Mlp) else _SPECS.get(model, _IMAGENET)


# A step in bfloat16 against float32, one thread of an AMD EPYC with AVX512-BF16, torch 2.15, 8 pictures of 96 px (2 of
# 224 px for maxvit), best of 4 in turn. Slower: mobilenet_v3_small 2.3 times, efficientnet_b0 2.2, lite0 1.8,
# mnasnet1_0 1.7, shufflenet_v2 1.5, mobilenet_v2 1.2; vgg11 and vgg11_bn the same. Faster: convnext_tiny 0.59,
# maxvit_t 0.57, efficientnet_v2_s 0.70, regnet_x 0.63, resnet18 0.71, resnet50 0.50, densenet121 0.58, googlenet 0.70,
# swin_t 0.36, vit_b_32 0.54, nin 0.33, small_cnn 0.62. For inference alone it pays for nearly all (0.3 to 0.9), but
# not for mobilenet_v3_small (1.7) and vgg11 (1.2).
_DEPTHWISE = ("efficientnet_b", "efficientnet_lite0", "mobilenet", "mnasnet", "shufflenet")


def is_depthwise_heavy(model: Network) -> bool:
    """Whether convolutions of single channels take so much of its time that bfloat16 slows its training on a CPU."""
    return not isinstance(model, Mlp) and model.startswith(_DEPTHWISE)
