"""A network without its head: pooled features, for a head that is fitted elsewhere."""

from pathlib import Path
from typing import cast

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pipelines.features.lite0 import NUM_FEATURES, EfficientNetLite0, fold_batch_norm
from pipelines.params.networks import NetworkName, Weights
from pipelines.train.models.building import build_network
from pipelines.train.models.families import family_of
from pipelines.train.models.layers import replace
from pipelines.train.models.loading import load_weights


def backbone(
    model: NetworkName, weights: Weights, *, image_size: int, member_path: Path | None, root: Path
) -> tuple[nn.Module, int]:
    """(B, 3, S, S) float, normalised, to (B, D) features; and D. In eval mode, for inference alone.

    Batch norms are in the convolutions before them, and memory is laid out for pictures (channels_last): the same
    function, faster.

    Args:
        weights, member_path, root: as `load_weights` takes them.

    Raises:
        InputError: as `build_network` and `load_weights`.
    """
    module, num_features = build_backbone(model, image_size=image_size)
    load_weights(module, weights, model=model, member_path=member_path, root=root)
    return fold_batch_norms(module.eval()), num_features


def build_backbone(model: NetworkName, *, image_size: int) -> tuple[nn.Module, int]:
    """The network up to its head, with random weights: (B, 3, S, S) to (B, D); and D. Its own weights' names."""
    if model == "efficientnet_lite0":
        return EfficientNetLite0(0), NUM_FEATURES
    module = build_network(model, num_classes=1, image_size=image_size, stem="standard", in_chans=3, dropout=0.0)
    name = family_of(model).head
    head = cast("nn.Linear | nn.Conv2d", module.get_submodule(name))
    replace(module, name, nn.Identity())
    return module, head.in_features if isinstance(head, nn.Linear) else head.in_channels


def fold_batch_norms(module: nn.Module) -> nn.Module:
    """Put every batch norm that follows a convolution into it, and lay memory out for pictures.

    Args:
        module: a backbone or a network, in eval mode; is used up.

    Returns:
        the same function within rounding; it can no longer be trained.
    """
    if isinstance(module, EfficientNetLite0):
        module = fold_batch_norm(module)
    elif any(isinstance(layer, nn.BatchNorm2d) for layer in module.modules()):
        module = _fold_traced(module)
    module.requires_grad_(False)
    return module.to(memory_format=torch.channels_last)


def _fold_traced(module: nn.Module) -> nn.Module:
    traced = fx.symbolic_trace(module)
    layers = dict(traced.named_modules())
    for node in list(traced.graph.nodes):
        if node.op != "call_module" or not isinstance(layers[node.target], nn.BatchNorm2d):
            continue
        before = node.args[0]
        conv = layers.get(before.target) if before.op == "call_module" else None
        # what others read too must stay as it was
        if isinstance(conv, nn.Conv2d) and len(before.users) == 1:
            replace(traced, before.target, fuse_conv_bn_eval(conv, layers[node.target]))
            node.replace_all_uses_with(before)
            traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced
