"""What is known of a network without building it: how its input is normalised, and what slows it on a CPU."""

from dataclasses import dataclass

from pipelines.params.networks import Mlp, Network, Weights

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
