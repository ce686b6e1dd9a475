"""A network as its recipe asks for it, with random weights."""

import math
from typing import Literal, cast

from torch import nn

from pipelines.core.errors import InputError
from pipelines.features.lite0 import EfficientNetLite0
from pipelines.params.networks import Mlp, Network, NetworkName
from pipelines.params.recipes import InChans
from pipelines.train.models.families import Family, family_of
from pipelines.train.models.layers import first_conv, make_grey, replace, with_dropout
from pipelines.train.models.mlp import MlpNetwork
from pipelines.train.models.nin import NetworkInNetwork
from pipelines.train.models.small_cnn import SmallCnn

Stem = Literal["standard", "cifar"]

BATCH_NORM_MOMENTUM = 0.1
"""Of every network, as of the resnets. The mnasnets' own 0.0003 is for a million steps: after 300 their statistics in
validation would still be 91 % first guess. maxvit's 0.99 would validate by the last batch's alone."""


def min_image_size(model: Network, *, stem: Stem = "standard") -> int:
    """The smallest side that `model` works on, pixels; of none below 8, which no recipe may ask for."""
    if isinstance(model, Mlp):
        return 8
    sizes = family_of(model).min_sizes
    return sizes[0] if stem == "standard" else sizes[1]


def build_network(
    model: Network, *, num_classes: int, image_size: int, stem: Stem, in_chans: InChans, dropout: float
) -> nn.Module:
    """(B, C, S, S) float, normalised, to (B, K) logits; random weights from torch's current generator.

    Args:
        num_classes: K.
        image_size: S.
        stem: first layers as published; or for small pictures, at full resolution (see `_make_small`). An mlp, nin
            and the vgg have but one.
        in_chans: C.
        dropout: probability before the last layer; where the published network drops out in several places before
            it (alexnet, vgg), in each of them; of an mlp after every hidden layer, of nin after its first two blocks.

    Raises:
        InputError: the network has no such stem, or cannot see pictures of this size.
    """
    if isinstance(model, Mlp):
        num_inputs = in_chans * image_size**2
        return MlpNetwork(num_inputs, hidden_sizes=model.hidden_sizes, num_classes=num_classes, dropout=dropout)
    _check(model, image_size, stem)
    network = _build(model, num_classes, image_size, stem, dropout)
    if in_chans == 1:
        make_grey(first_conv(network)[1])
    return network


def _check(model: NetworkName, image_size: int, stem: Stem) -> None:
    family = family_of(model)
    smallest = min_image_size(model, stem=stem)
    if not smallest:
        raise InputError(
            f"stem {stem} of {model}: there is none, only stem: standard; "
            "for small pictures take small_cnn, nin, or a network of the resnet family"
        )
    if image_size < smallest or image_size % family.multiple:
        rule = f"a multiple of {family.multiple}" if family.multiple > 1 else f"at least {smallest}"
        raise InputError(
            f"image_size {image_size} for {model} with stem {stem}: it must be {rule}; "
            "change image_size, or take another network (small_cnn, nin and the resnets work from 8 px)"
        )


def _build(model: NetworkName, num_classes: int, image_size: int, stem: Stem, dropout: float) -> nn.Module:
    match model:
        case "nin":
            return NetworkInNetwork(num_classes, dropout=dropout)
        case "small_cnn":
            return SmallCnn(num_classes, stem=stem, dropout=dropout)
        case "efficientnet_lite0":
            network: nn.Module = EfficientNetLite0(num_classes)
            _initialise(network)
        case _:
            from pipelines.train.models.torchvision_networks import build_torchvision

            network = build_torchvision(model, num_classes=num_classes, image_size=image_size)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = BATCH_NORM_MOMENTUM
    family = family_of(model)
    if stem == "cifar":
        _make_small(network, family)
    _set_dropout(network, family, dropout)
    return network


def _initialise(network: nn.Module) -> None:
    """Begin as Google's EfficientNets do: convolutions that keep the variance of what flows back."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            fan_out = layer.kernel_size[0] * layer.kernel_size[1] * layer.out_channels // layer.groups
            nn.init.normal_(layer.weight, std=math.sqrt(2.0 / fan_out))


def _make_small(network: nn.Module, family: Family) -> None:
    """Keep the full resolution: the first convolution in steps of 1, with no pooling after it.

    Larger kernels than 3x3 become 3x3, with new weights.
    """
    name, conv = first_conv(network)
    if conv.kernel_size == (3, 3):
        conv.stride, conv.padding = (1, 1), (1, 1)
    else:
        small = nn.Conv2d(3, conv.out_channels, 3, padding=1, bias=conv.bias is not None)
        nn.init.kaiming_normal_(small.weight, mode="fan_out", nonlinearity="relu")
        if small.bias is not None:
            nn.init.zeros_(small.bias)
        replace(network, name, small)
    if family.pool:
        replace(network, family.pool, nn.Identity())


def _set_dropout(network: nn.Module, family: Family, dropout: float) -> None:
    if family.has_dropout:
        for layer in network.modules():
            if isinstance(layer, nn.Dropout):
                layer.p = dropout
    else:
        replace(network, family.head, with_dropout(cast("nn.Linear", network.get_submodule(family.head)), dropout))
