"""What a network makes of pictures, and how good that is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from pipelines.augmentation.packs import Rows
from pipelines.features.backbones import ModelSpec
from pipelines.params.recipes import InChans, TtaView
from pipelines.train.feeding import Feed
from pipelines.train.pictures import to_float, to_input
from pipelines.train.precision import Arithmetic, arithmetic
from pipelines.train.processes import Processes
from pipelines.train.views import view

BATCH_PIXELS = 1 << 19
"""of the pictures that are judged at a time: 128 of 64 px; more gains nothing, and costs memory"""


@dataclass(frozen=True)
class Eye:
    """How pictures reach a network.

    Args:
        spec, in_chans: of its input.
        precision, device: of its arithmetic.
    """

    spec: ModelSpec
    in_chans: InChans
    precision: Arithmetic
    device: torch.device


@torch.inference_mode()
def probabilities(
    module: nn.Module,
    feed: Feed,
    count: int,
    *,
    eye: Eye,
    views: Sequence[TtaView],
    image_size: int,
    num_classes: int,
    processes: Processes,
) -> torch.Tensor:
    """(N, K) float64 on the CPU: the mean over `views`; each process looks at its share, and all get the whole.

    Args:
        module: to (B, K) logits; put into eval mode.
        feed: of N = `count` pictures, of side `image_size`.
    """
    module.eval()
    found = torch.zeros((count, num_classes), dtype=torch.float64)
    mine = processes.share(np.arange(count))
    size = max(16, min(256, BATCH_PIXELS // image_size**2))
    parts: list[Rows] = [mine[start : start + size] for start in range(0, len(mine), size)]
    kept = []
    for pixels in feed.batches(parts):
        images = to_float(pixels)
        seen = []
        for name in views:
            with arithmetic(eye.precision, eye.device):
                logits = module(to_input(view(images, name), eye.spec, eye.in_chans))
            seen.append(logits.float().softmax(dim=1))
        # read once at the end, so that the device never waits
        kept.append(torch.stack(seen).mean(dim=0))
    for part, batch in zip(parts, kept, strict=True):
        found[torch.from_numpy(part)] = batch.cpu().double()
    if processes.count > 1:
        on_device = found.to(eye.device)
        found = processes.add(on_device).cpu()
    return found


@dataclass(frozen=True)
class Figures:
    """Of N pictures; NaN where there are none."""

    loss: float
    accuracy: float
    macro_f1: float


def figures(found: torch.Tensor, labels: Rows) -> Figures:
    """Cross-entropy, accuracy, and the mean F1 over the classes that are there.

    Args:
        found: (N, K) probabilities.
        labels: (N,) int64.
    """
    if len(labels) == 0:
        return Figures(float("nan"), float("nan"), float("nan"))
    actual = torch.from_numpy(labels)
    loss = -found[torch.arange(len(labels)), actual].clamp_min(1e-12).log().mean()
    predicted = found.argmax(dim=1)
    num_classes = found.shape[1]
    right = torch.bincount(actual[predicted == actual], minlength=num_classes).double()
    both = torch.bincount(actual, minlength=num_classes) + torch.bincount(predicted, minlength=num_classes)
    present = torch.bincount(actual, minlength=num_classes) > 0
    f1 = (2.0 * right / both.clamp_min(1))[present].mean()
    return Figures(float(loss), float(right.sum()) / len(labels), float(f1))
