"""Weights of one network fitted to another: other classes, another stem, another colour, another size."""

import math
import re
import sys
from collections import OrderedDict
from pathlib import Path

import torch
from torch import nn

from pipelines.core.errors import InputError
from pipelines.params.networks import FileWeights, Mlp, Network, Weights
from pipelines.train.models.families import family_of
from pipelines.train.models.layers import first_conv
from pipelines.train.models.sources import Tensors, read_tensors, weights_file

# torchvision's densenet weights are older than its names for them: denselayer1.norm.1 for denselayer1.norm1
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
NAMES_SHOWN = 3


def load_weights(module: nn.Module, weights: Weights, *, model: Network, member_path: Path | None, root: Path) -> str:
    """Put `weights` into a network that `build_network` made; says on stderr what keeps its random values instead.

    The head is left out where it has other classes, and the first layer where it has another kernel. They are fitted
    to another number of colours, and those of a vit to another size.

    Args:
        member_path: model.safetensors of the member, for weights of kind member.
        root: folder that relative paths begin at: that of params.yaml.

    Returns:
        sha256 of the file that the weights came from.

    Raises:
        InputError: the weights cannot be had, or are those of another network.
    """
    path, digest = weights_file(weights, model=model, member_path=member_path, root=root)
    what = _describe(weights)
    tensors, kept = fit_tensors(read_tensors(path), module, model=model, what=what)
    if kept:
        print(f"train: {what}: {', '.join(kept)} does not fit, and begins with random weights", file=sys.stderr)
    module.load_state_dict({**module.state_dict(), **tensors}, strict=True)
    return digest


def fit_tensors(tensors: Tensors, module: nn.Module, *, model: Network, what: str) -> tuple[Tensors, list[str]]:
    """Those of `tensors` that `module` takes, in its shapes; and what of its first layer found none that fits.

    Args:
        what: the weights' name for a message.

    Raises:
        InputError: the tensors are those of another network.
    """
    wanted = module.state_dict()
    found = {name: tensor for name, tensor in _renamed(tensors, model).items() if not _is_counter(name)}
    first = "hidden.0.0.weight" if isinstance(model, Mlp) else f"{first_conv(module)[0]}.weight"
    head = "head." if isinstance(model, Mlp) else f"{family_of(model).head}."
    kept = []
    if first in found and found[first].shape != wanted[first].shape:
        found[first] = _in_colours(found[first], wanted[first].shape)
        if found[first].shape[:2] == wanted[first].shape[:2] and found[first].shape != wanted[first].shape:
            kept.append(first)  # another kernel, and nothing else
            del found[first]
    if "encoder.pos_embedding" in found and "encoder.pos_embedding" in wanted:
        _fit_places(found, wanted, module)
    of_head = [name for name in wanted if name.startswith(head)]
    if not of_head or any(name not in found or found[name].shape != wanted[name].shape for name in of_head):
        found = {name: tensor for name, tensor in found.items() if not name.startswith(head)}
    _check(found, wanted, optional={*kept, *of_head}, model=model, what=what)
    return found, kept


def _renamed(tensors: Tensors, model: Network) -> Tensors:
    """By the names of `build_network`: a frozen member's backbone alone, without heads that only help in training."""
    if any(name.startswith("backbone.") for name in tensors):
        return {name.removeprefix("backbone."): t for name, t in tensors.items() if name.startswith("backbone.")}
    if isinstance(model, Mlp):
        return dict(tensors)
    if model.startswith("densenet"):
        return {_OLD_DENSENET.sub(r"\1\2", name): tensor for name, tensor in tensors.items()}
    if model in ("googlenet", "inception_v3"):
        return {name: tensor for name, tensor in tensors.items() if not name.startswith(_AUXILIARY)}
    return dict(tensors)


def _in_colours(weight: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """The first layer's weights for three colours, summed for one; those for one, shared out among three.

    Of a convolution (O, C, k, k); of an mlp (O, C * S * S). Unchanged where that is not what differs.
    """
    if weight.dim() != len(shape) or weight.shape[0] != shape[0]:
        return weight
    if weight.shape[1] == 3 * shape[1]:
        return weight.reshape(shape[0], 3, shape[1], *weight.shape[2:]).sum(dim=1)
    if 3 * weight.shape[1] == shape[1]:
        return torch.cat([weight / 3] * 3, dim=1)
    return weight


def _fit_places(found: Tensors, wanted: Tensors, module: nn.Module) -> None:
    """Position embeddings of a vit for pictures of another size, between those there are."""
    name = "encoder.pos_embedding"
    shape = found[name].shape
    # a class token and a square of places, for a vit of this width; anything else is refused with the rest
    if len(shape) != 3 or shape[::2] != wanted[name].shape[::2] or math.isqrt(shape[1] - 1) ** 2 != shape[1] - 1:
        return
    from torchvision.models.vision_transformer import interpolate_embeddings

    places = interpolate_embeddings(module.image_size, module.patch_size, OrderedDict({name: found[name].float()}))
    found[name] = places[name]


def _check(found: Tensors, wanted: Tensors, *, optional: set[str], model: Network, what: str) -> None:
    missing = [name for name in wanted if name not in found and name not in optional and not _is_counter(name)]
    needless = [name for name in found if name not in wanted]
    differing = [
        f"{name} {tuple(found[name].shape)}, not {tuple(wanted[name].shape)}"
        for name in wanted
        if name in found and found[name].shape != wanted[name].shape
    ]
    faults = [
        f"{len(names)} {kind} ({', '.join(names[:NAMES_SHOWN])}{', …' if len(names) > NAMES_SHOWN else ''})"
        for kind, names in (("missing", missing), ("of no use", needless), ("of another shape", differing))
        if names
    ]
    if faults:
        name = "this mlp" if isinstance(model, Mlp) else model
        raise InputError(
            f"{what} are those of another network than {name}: tensors {'; '.join(faults)}. "
            "Name the model that they were trained with, or weights of this one"
        )


def _is_counter(name: str) -> bool:
    """Whether it counts a batch norm's batches, which older files lack and nothing here reads."""
    return name.endswith(".num_batches_tracked")


def _describe(weights: Weights) -> str:
    if weights == "imagenet":
        return "weights imagenet"
    return f"weights {weights.path}" if isinstance(weights, FileWeights) else f"weights of member {weights.member}"
