"""Inference: from packed images to class probabilities."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from pipelines.augmentation.packs import Rows
from pipelines.augmentation.photometric import to_grey
from pipelines.features.backbones import ModelSpec, normalise
from pipelines.params.recipes import InChans, TtaView
from pipelines.train.data_loader import BatchLoader
from pipelines.train.device import Arithmetic, autocast
from pipelines.train.processes import ProcessGroup
from pipelines.train.tta import view

BATCH_PIXELS = 1 << 19
"""pixels of a batch, which is 128 images of 64 px; larger ones are no faster"""


@dataclass(frozen=True)
class InputSpec:
    """How a network takes its images.

    Args:
        normalisation: mean and standard deviation.
        in_chans: number of channels.
        precision, device: of the arithmetic.
    """

    normalisation: ModelSpec
    in_chans: InChans
    precision: Arithmetic
    device: torch.device

    def prepare(self, images: torch.Tensor) -> torch.Tensor:
        """`to_input` of (B, 3, S, S) images, 0 to 255."""
        return to_input(images, self.normalisation, self.in_chans)


def to_float(pixels: torch.Tensor) -> torch.Tensor:
    """(B, S, S, 3) uint8 to (B, 3, S, S) float32, 0 to 255; channels stay last in memory."""
    return pixels.permute(0, 3, 1, 2).float()


def to_input(images: torch.Tensor, spec: ModelSpec, in_chans: InChans) -> torch.Tensor:
    """Normalise (B, 3, S, S) images, 0 to 255, to (B, C, S, S): C is `in_chans`, 1 for luma."""
    if in_chans == 3:
        return normalise(images, spec)
    return (to_grey(images) - sum(spec.mean) / 3.0) / (sum(spec.std) / 3.0)


@torch.inference_mode()
def penultimate_features(
    module: nn.Module,
    loader: BatchLoader,
    num_images: int,
    *,
    spec: InputSpec,
    image_size: int,
    processes: ProcessGroup,
) -> torch.Tensor:
    """What the last linear layer of `module` is given, pooled and before dropout; logits where there is no such layer.

    Arguments as `predict_proba`.

    Returns:
        (N, D) float16 on the CPU.
    """
    module.eval()
    linear = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    seen: list[torch.Tensor] = []
    hook = linear[-1].register_forward_pre_hook(lambda _, given: seen.append(given[0])) if linear else None
    mine = processes.shard(np.arange(num_images))
    size = max(16, min(256, BATCH_PIXELS // image_size**2))
    parts: list[Rows] = [mine[start : start + size] for start in range(0, len(mine), size)]
    found: torch.Tensor | None = None
    try:
        for part, pixels in zip(parts, loader.batches(parts), strict=True):
            seen.clear()
            with autocast(spec.precision, spec.device):
                logits = module(spec.prepare(to_float(pixels)))
            features = (seen[-1] if seen else logits).flatten(1).float().cpu()
            if found is None:
                found = torch.zeros((num_images, features.shape[1]))
            found[torch.from_numpy(part)] = features
    finally:
        if hook is not None:
            hook.remove()
    if found is None:
        return torch.zeros((num_images, 0), dtype=torch.float16)
    if processes.count > 1:
        found = processes.all_reduce(found.to(spec.device)).cpu()
    # float16 ends at 65,504
    return found.clamp(-6e4, 6e4).half()


@torch.inference_mode()
def predict_proba(
    module: nn.Module,
    loader: BatchLoader,
    num_images: int,
    *,
    spec: InputSpec,
    views: Sequence[TtaView],
    image_size: int,
    num_classes: int,
    processes: ProcessGroup,
) -> torch.Tensor:
    """Predict all images of `loader`; each process predicts its share, and all get the whole.

    Args:
        module: gives (B, K) logits; is put into eval mode.
        loader: of N = `num_images` images of side `image_size`.
        views: test-time augmentation; the probabilities are the mean over them.

    Returns:
        (N, K) float64 on the CPU.
    """
    module.eval()
    found = torch.zeros((num_images, num_classes), dtype=torch.float64)
    mine = processes.shard(np.arange(num_images))
    size = max(16, min(256, BATCH_PIXELS // image_size**2))
    parts: list[Rows] = [mine[start : start + size] for start in range(0, len(mine), size)]
    kept = []
    for pixels in loader.batches(parts):
        images = to_float(pixels)
        of_views = []
        for name in views:
            with autocast(spec.precision, spec.device):
                logits = module(spec.prepare(view(images, name)))
            of_views.append(logits.float().softmax(dim=1))
        # copied to the CPU at the end, so that the device never waits
        kept.append(torch.stack(of_views).mean(dim=0))
    for part, batch in zip(parts, kept, strict=True):
        found[torch.from_numpy(part)] = batch.cpu().double()
    if processes.count > 1:
        found = processes.all_reduce(found.to(spec.device)).cpu()
    return found
