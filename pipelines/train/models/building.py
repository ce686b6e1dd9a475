"""A network as its recipe names it, with random weights, and what the network says of itself.

Names are timm's (`timm.list_models()`), torchvision's classifiers as `torchvision/<name>`, and `mlp`, `nin`,
`small_cnn`. Both libraries are imported (4 s) where one of their networks is built, and not before.
"""

import re
from typing import Any, Literal, cast

import torch
from torch import nn

from pipelines.core.errors import InputError
from pipelines.features.backbones import PACKAGED_SPEC, ModelSpec, Triple, replace
from pipelines.params.networks import OWN_NETWORKS, PACKAGED, TORCHVISION, Mlp, Network, NetworkName
from pipelines.params.recipes import InChans
from pipelines.train.models.small_networks import DropoutLinear, MlpNetwork, NetworkInNetwork, SmallCnn

Stem = Literal["standard", "cifar"]

BATCH_NORM_MOMENTUM = 0.1
"""Of every network, as of the resnets. The mnasnets' own 0.0003 is for a million steps: after 300 their statistics in
validation would still be 91 % first guess. maxvit's 0.99 would validate by the last batch's alone."""
IMAGENET_SPEC = ModelSpec(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
HEAD_LAYERS = (nn.Linear, nn.Conv2d)


def build_network(
    model: Network, *, num_classes: int, image_size: int, stem: Stem, in_chans: InChans, dropout: float
) -> nn.Module:
    """(B, C, S, S) float, normalised, to (B, K) logits; random weights from torch's current generator.

    Args:
        num_classes: K.
        image_size: S.
        stem: first layers as published, or for small pictures at full resolution: the first convolution 3x3 with
            stride 1, no pooling after it. An mlp and nin have but one.
        in_chans: C.
        dropout: probability before the last layer, and wherever else the published network drops out; of an mlp after
            every hidden layer, of nin after its first two blocks.

    Raises:
        InputError: there is no such network, it has no such stem, or it cannot see pictures of this size.
    """
    if isinstance(model, Mlp):
        num_inputs = in_chans * image_size**2
        mlp = MlpNetwork(num_inputs, hidden_sizes=model.hidden_sizes, num_classes=num_classes, dropout=dropout)
        return _note_head(mlp)
    network = _build(model, num_classes, image_size, in_chans, stem, dropout)
    _check_size(network, model, stem=stem, channels=in_chans, image_size=image_size)
    return network


def build_backbone(model: NetworkName, *, image_size: int) -> tuple[nn.Module, int]:
    """The network up to its head, with random weights: (B, 3, S, S) to (B, D); and D. Its own weights' names."""
    # timm's own way: num_classes 0 leaves the head out, but for the layers before the classifier
    is_timm = model not in OWN_NETWORKS and not model.startswith(TORCHVISION)
    network = _build(model, 0 if is_timm else 1, image_size, 3, "standard", 0.0)
    if not is_timm:
        replace(network, head_names(network)[0], nn.Identity())
    features = _check_size(network, model, stem="standard", channels=3, image_size=image_size)
    return network, features.shape[1]


def _build(
    model: NetworkName, num_classes: int, image_size: int, channels: int, stem: Stem, dropout: float
) -> nn.Module:
    if model == "nin":
        return _note_head(NetworkInNetwork(num_classes, in_chans=channels, dropout=dropout))
    if model == "small_cnn":
        return _note_head(SmallCnn(num_classes, in_chans=channels, stem=stem, dropout=dropout))
    try:
        if model.startswith(TORCHVISION):
            network = _build_torchvision(model, num_classes, image_size, channels, dropout)
        else:
            network = _build_timm(model, num_classes, image_size, channels, dropout)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"{model} cannot be built for pictures of {image_size} px: {_first_line(error)}") from error
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = BATCH_NORM_MOMENTUM
    for head in map(_note_head(network).get_submodule, head_names(network)):
        # some begin with weights up to 1 / sqrt(K), right for 1000 classes; for 3 the loss would begin at 7, not log 3
        if isinstance(head, HEAD_LAYERS):
            head.reset_parameters()
    if stem == "cifar":
        _keep_resolution(network, model)
    return network


def _build_timm(model: NetworkName, num_classes: int, image_size: int, channels: int, dropout: float) -> nn.Module:
    import timm

    name, _, tag = model.partition(".")
    tags = timm.list_pretrained(f"{name}.*")
    if tag and model not in tags:
        raise InputError(f"model {model}: timm has no weights {tag!r} for it, but: {', '.join(tags) or 'none'}")
    options: dict[str, Any] = {"num_classes": num_classes, "in_chans": channels, "drop_rate": dropout}
    if timm.models.get_pretrained_cfg(model).fixed_input_size:
        options["img_size"] = image_size
    network: nn.Module = timm.create_model(model, **options)
    side = max(getattr(getattr(network, "patch_embed", None), "patch_size", (1,)))
    if image_size % side:
        raise ValueError(f"the side must be a multiple of its patches', {side} px")
    return network


def _build_torchvision(
    model: NetworkName, num_classes: int, image_size: int, channels: int, dropout: float
) -> nn.Module:
    from torchvision import models

    name = model.removeprefix(TORCHVISION)
    options: dict[str, Any] = {}
    if name.startswith("vit"):
        options = {"image_size": image_size}
    elif name.startswith("maxvit"):
        options = {"input_size": (image_size, image_size)}
    elif name in ("googlenet", "inception_v3"):
        options = {"aux_logits": False, "init_weights": True, "transform_input": channels == 3}
    if name.startswith("mnasnet"):
        network = _build_mnasnet(float(name.removeprefix("mnasnet").replace("_", ".")), num_classes)
    else:
        network = models.get_model(name, weights=None, num_classes=num_classes, **options)
    if name.startswith("squeezenet"):
        # its ReLU after the last layer cuts logits off at 0, where a class that never fires never learns
        replace(network, "classifier.2", nn.Identity())
    drops = [layer for layer in network.modules() if isinstance(layer, nn.Dropout) and layer.p > 0.0]
    for layer in drops:
        layer.p = dropout
    if not drops and dropout:
        (head,) = head_names(_note_head(network))
        inputs = cast("nn.Linear", network.get_submodule(head)).in_features
        replace(network, head, DropoutLinear(inputs, num_classes, dropout=dropout))
    if channels == 1:
        conv = first_conv(network)[1]
        conv.in_channels = 1
        conv.weight = nn.Parameter(conv.weight.detach().sum(dim=1, keepdim=True))  # (O, 1, k, k)
    return network


def _build_mnasnet(width: float, num_classes: int) -> nn.Module:
    """torchvision's, but for asking weights for a version, which safetensors does not keep."""
    from torchvision.models import MNASNet

    class Mnasnet(MNASNet):  # type: ignore[misc]
        def _load_from_state_dict(self, tensors: Any, prefix: str, metadata: dict[str, Any], *rest: Any) -> None:
            super()._load_from_state_dict(tensors, prefix, {"version": 2, **metadata}, *rest)

    return Mnasnet(width, num_classes=num_classes)


def _keep_resolution(network: nn.Module, model: NetworkName) -> None:
    """The first convolution 3x3 with stride 1, and no pooling right after it."""
    name, conv = first_conv(network)
    if (conv.kernel_size == conv.stride and conv.stride[0] > 4) or "patch_embed" in name:
        raise InputError(
            f"stem cifar of {model}: there is none, only stem: standard; "
            "for small pictures take small_cnn, nin, or a network of the resnet family"
        )
    if conv.kernel_size == (3, 3):
        conv.stride, conv.padding = (1, 1), (1, 1)
    else:
        small = nn.Conv2d(conv.in_channels, conv.out_channels, 3, padding=1, bias=conv.bias is not None)
        nn.init.kaiming_normal_(small.weight, mode="fan_out", nonlinearity="relu")
        if small.bias is not None:
            nn.init.zeros_(small.bias)
        replace(network, name, small)
    names = [name for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d | nn.MaxPool2d)]
    if isinstance(network.get_submodule(names[1]), nn.MaxPool2d):
        replace(network, names[1], nn.Identity())


@torch.inference_mode()
def _check_size(network: nn.Module, model: NetworkName, *, stem: Stem, channels: int, image_size: int) -> torch.Tensor:
    """What the network makes of one black picture; the network stays in training mode.

    Raises:
        InputError: it cannot see pictures of this size.
    """
    try:
        return cast("torch.Tensor", network.eval()(torch.zeros(1, channels, image_size, image_size)))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise InputError(
            f"image_size {image_size} for {model} with stem {stem}: the network cannot see pictures of this size "
            f"({_first_line(error)}); change image_size (multiples of 32, or the size that the network was published "
            "with, are safe), or take another network (small_cnn, nin and the resnets work from 8 px)"
        ) from error
    finally:
        network.train()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def first_conv(network: nn.Module) -> tuple[str, nn.Conv2d]:
    """The dotted name of the convolution that sees the picture, and that layer; of any network but an mlp."""
    return next((name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d))


def _note_head(network: nn.Module) -> nn.Module:
    """Keep the dotted names of the layer of the classes with the network; some of timm's have two such layers."""
    if hasattr(network, "pretrained_cfg"):
        names = network.pretrained_cfg["classifier"]  # type: ignore[index]
        names = (names,) if isinstance(names, str) else tuple(names or ())
    else:
        names = tuple(name for name, layer in network.named_modules() if isinstance(layer, HEAD_LAYERS))[-1:]
    network.head_names = names  # type: ignore[assignment]
    return network


def head_names(network: nn.Module) -> tuple[str, ...]:
    """The dotted names of the layers of the classes of a network that was built here, a backbone's too."""
    return cast("tuple[str, ...]", network.head_names)


def spec_for(model: Network) -> ModelSpec:
    """How `model` is fed: as its ImageNet weights were, whatever the weights, so that weights may change hands."""
    if isinstance(model, Mlp) or model in OWN_NETWORKS:
        return IMAGENET_SPEC
    if model in PACKAGED:
        return PACKAGED_SPEC
    if model.startswith(TORCHVISION):
        from torchvision.models import get_model_weights

        config = get_model_weights(model.removeprefix(TORCHVISION)).DEFAULT.transforms()
    else:
        from timm.models import get_pretrained_cfg

        config = get_pretrained_cfg(model)
    return ModelSpec(*(cast("Triple", tuple(255.0 * v for v in values)) for values in (config.mean, config.std)))


def stages(network: nn.Module, model: Network) -> list[list[nn.Module]]:  # noqa: ARG001
    """The stages of a network that `build_network` made, from the picture to the head, each its modules.

    Every parameter is in exactly one of them; the last is the head. timm's networks say themselves what a stage is
    (`group_matcher(coarse=True)`: where the resolution halves, in a vit each block); of others, each numbered module.
    """
    heads = head_names(network)
    names = [name for name, _ in network.named_parameters()]
    body = [name for name in names if not name.startswith(tuple(f"{head}." for head in heads))]
    if hasattr(network, "group_matcher"):
        from timm.models._manipulate import group_with_matcher

        found = group_with_matcher(((name, None) for name in names), cast("Any", network).group_matcher(coarse=True))
        groups = [[name for name in group if name in body] for group in found.values()]
    else:
        groups = _numbered_groups(network, body)
    groups = [group for group in groups if group] + [[name for name in names if name not in body]]
    stage_of = {name: number for number, group in enumerate(groups) for name in group}
    cut: list[list[nn.Module]] = [[] for _ in groups]
    _collect(network, "", stage_of, cut)
    return cut


def _numbered_groups(network: nn.Module, names: list[str]) -> list[list[str]]:
    """Names of parameters by their path up to the first number; norms and biases alone join what is before them."""
    groups: dict[str, list[str]] = {}
    for name in names:
        path = name.rpartition(".")[0].split(".")
        end = next((i for i, part in enumerate(path) if re.search(r"\d", part)), len(path) - 1)
        groups.setdefault(".".join(path[: end + 1]), []).append(name)
    found: list[list[str]] = []
    for group in groups.values():
        if found and all(network.get_parameter(name).ndim < 2 for name in group):
            found[-1] += group
        else:
            found.append(group)
    return found


def _collect(module: nn.Module, prefix: str, stage_of: dict[str, int], cut: list[list[nn.Module]]) -> None:
    """Put the largest modules whose parameters are all of one stage into that stage."""
    found = {stage_of[prefix + name] for name, _ in module.named_parameters()}
    if len(found) == 1:
        cut[found.pop()].append(module)
        return
    for name, parameter in module.named_parameters(recurse=False):
        # these belong to no smaller module: a list makes one, which shares them with the network
        cut[stage_of[prefix + name]].append(nn.ParameterList([parameter]))
    for name, child in module.named_children():
        _collect(child, f"{prefix}{name}.", stage_of, cut)
