"""Activation maps: where in a picture a network sees a class.

Grad-CAM (Selvaraju et al. 2017) on the last feature map of a convolutional network. A network that has none, such as a
transformer or a multilayer perceptron, and one whose last map is of 3 x 3 or less, gets integrated gradients
(Sundararajan et al. 2017) against grey, summed over patches. Both are captum's. What is explained is a class's logit
less the mean of all: what all classes share tells none apart.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import captum.attr
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn

from pipelines.augmentation.packs import Pixels
from pipelines.evaluate.members import Names
from pipelines.evaluate.metrics import Ints, ScoredImages
from pipelines.train.data_loader import resize
from pipelines.train.inference import to_float, to_input
from pipelines.train.member import FrozenClassifier, TrainedMember

SMALLEST_SIDE = 4
"""of a feature map that says where something is; on an earlier layer, where gradients mix, Grad-CAM misleads"""
NUM_TOKENS = 16
"""positions from which on (B, N, D) are the patches of a transformer"""
PATCHES = 14
"""along a side, that gradients are summed over"""
STEPS = 8
"""of integrated gradients"""
BATCH = 16

Maps = npt.NDArray[np.float16]


class ClassMaps(NamedTuple):
    """(M, h, w) maps, the method and the names of the layers that they come from."""

    maps: Maps
    method: str
    layer: str


def choose_maps(scored: ScoredImages, image_ids: Names, *, num_mistakes: int) -> list[tuple[int, int]]:
    """Which picture is explained for which class.

    Of the mistakes, the most confident first, the predicted and the actual class; of each class the picture that is
    right with the most confidence, for its class.

    Args:
        scored: N test pictures.
        image_ids: (N,) theirs; settles ties.
        num_mistakes: at most so many.

    Returns:
        (row, class index) for each map.
    """
    order = sorted(range(len(scored.actual)), key=lambda row: (-scored.confidence[row], image_ids[row]))
    mistakes = [row for row in order if not scored.right[row]][:num_mistakes]
    found = [(row, int(k)) for row in mistakes for k in (scored.predicted[row], scored.actual[row])]
    examples: dict[int, int] = {}
    for row in order:
        if scored.right[row]:
            examples.setdefault(int(scored.actual[row]), row)
    return found + [(row, k) for k, row in sorted(examples.items())]


def class_maps(member: TrainedMember, pixels: Pixels, rows: Ints, classes: Ints) -> ClassMaps:
    """The maps of M pairs of a picture and a class.

    Args:
        pixels: (N, S, S, 3) uint8.
        rows, classes: (M,) which picture, and a class of the member's.

    Returns:
        (M, h, w) from 0 to 1, 1 being the strongest evidence for any class of that picture that is asked about.
    """
    if len(rows) == 0:
        return ClassMaps(np.zeros((0, 1, 1), np.float16), "", "")
    layers = feature_layers(member.module, _inputs(member, pixels[:1]))
    parts = []
    for start in range(0, len(rows), BATCH):
        inputs = _inputs(member, pixels[rows[start : start + BATCH]]).requires_grad_()
        targets = torch.from_numpy(classes[start : start + BATCH]).to(member.device)
        found = (
            _grad_cam(member.module, inputs, targets, layers) if layers else _gradients(member.module, inputs, targets)
        )
        parts.append(found.float().cpu())
    evidence = torch.cat(parts).clamp_min(0.0).numpy()
    most = np.zeros(len(pixels), np.float32)
    np.maximum.at(most, rows, evidence.max(axis=(1, 2), initial=0.0))
    scaled = evidence / np.where(most > 0, most, 1.0)[rows, None, None]
    if not layers:
        return ClassMaps(scaled.astype(np.float16), "integrated gradients", "input")
    names = {layer: name for name, layer in member.module.named_modules()}
    return ClassMaps(scaled.astype(np.float16), "grad-cam", ", ".join(names[layer] for layer in layers))


def _inputs(member: TrainedMember, pixels: Pixels) -> torch.Tensor:
    """(B, C, s, s) of (B, S, S, 3)."""
    images = torch.from_numpy(resize(np.ascontiguousarray(pixels), member.image_size)).to(member.device)
    inputs = to_input(to_float(images), member.spec, member.in_chans)
    return inputs.contiguous(memory_format=torch.channels_last)


def _contrast(module: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    """A function to (B, K) logits less their mean."""

    def contrast(inputs: torch.Tensor) -> torch.Tensor:
        logits = module(inputs).float()
        centred: torch.Tensor = logits - logits.mean(dim=1, keepdim=True)
        return centred

    return contrast


def _grad_cam(
    module: nn.Module, inputs: torch.Tensor, targets: torch.Tensor, layers: Sequence[nn.Module]
) -> torch.Tensor:
    """(B, h, w) summed over the backbones, whose features the logits are a sum over; h of the largest map."""
    found = [captum.attr.LayerGradCam(_contrast(module), layer).attribute(inputs, targets) for layer in layers]
    side = max(maps.shape[-1] for maps in found)
    # a mean over positions of the gradient, so that maps of different sizes have one scale
    alike = [
        F.interpolate(maps.detach() * maps.shape[-1] ** 2, (side, side), mode="bilinear", align_corners=False)
        for maps in found
    ]
    return torch.stack(alike).sum(dim=0).squeeze(1)


def _gradients(module: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """(B, PATCHES, PATCHES), integrated; fewer patches for smaller pictures."""
    found = captum.attr.IntegratedGradients(_contrast(module)).attribute(
        inputs, torch.zeros_like(inputs), targets, n_steps=STEPS, internal_batch_size=BATCH
    )
    side = min(PATCHES, inputs.shape[-1])
    return F.adaptive_avg_pool2d(found.detach().sum(dim=1, keepdim=True).float(), side).squeeze(1)


def feature_layers(module: nn.Module, inputs: torch.Tensor) -> list[nn.Module]:
    """The layer of the last feature map, one a backbone; none where a network has no such map, or one too small.

    Args:
        inputs: (1, C, S, S).
    """
    networks = list(module.backbones) if isinstance(module, FrozenClassifier) else [module]
    found = [_last_map(network, module, inputs) for network in networks]
    return [] if None in found else cast("list[nn.Module]", found)


@torch.no_grad()
def _last_map(network: nn.Module, module: nn.Module, inputs: torch.Tensor) -> nn.Module | None:
    last: list[nn.Module | None] = [None]

    def look(layer: nn.Module, _: Any, output: Any) -> None:
        if not isinstance(output, torch.Tensor) or output.ndim not in (3, 4):
            return
        height, width = output.shape[-2:]
        if output.ndim == 4 and height == width:  # (B, C, h, w)
            if height > 1:  # what follows is pooled
                last[0] = layer if height >= SMALLEST_SIDE else None
        elif output.shape[1] >= NUM_TOKENS or output.ndim == 4:  # (B, N, D), or channels last: no map for captum
            last[0] = None

    handles = [layer.register_forward_hook(look) for layer in network.modules()]
    try:
        module(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return last[0]
