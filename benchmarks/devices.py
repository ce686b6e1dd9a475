"""The same draws of augmentation computed on the CPU and on the GPU: how fast each is, and how far they lie apart."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pipelines.augmentation.applying import apply
from pipelines.augmentation.sampling import sample_params
from pipelines.params.augment import AugmentPolicy


@dataclass(frozen=True)
class Line:
    """One policy at one size.

    Args:
        cpu, gpu: pictures a second, draws included.
        difference: largest, of any channel of any pixel, grey levels.
        share: of channels that differ by more than one grey level. Where a place falls on the border of an erased
            rectangle or between two levels, the last digit decides: a few do.
    """

    policy: str
    image_size: int
    cpu: float
    gpu: float
    difference: float
    share: float


def compare(
    policies: Mapping[str, AugmentPolicy], *, image_sizes: Sequence[int], batch_size: int, seconds: float
) -> list[Line]:
    """Each policy at each size; without a GPU the CPU is compared with itself.

    Args:
        image_sizes: pixels.
        batch_size: pictures drawn at a time.
        seconds: of each measurement.
    """
    gpu = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    keys = np.arange(batch_size).astype(np.uint64)
    lines = []
    for image_size in image_sizes:
        pixels = _pictures(batch_size, image_size)
        for name, policy in policies.items():
            found = []
            for device in (torch.device("cpu"), gpu):
                images = pixels.to(device).contiguous(memory_format=torch.channels_last)
                changed = apply(images, sample_params(policy, seed=0, epoch=0, pictures=keys), policy).cpu()
                found.append((changed, _rate(images, policy, keys, seconds)))
            (one, cpu_rate), (other, gpu_rate) = found
            apart = (one - other).abs()
            lines.append(
                Line(name, image_size, cpu_rate, gpu_rate, float(apart.max()), float((apart > 1.0).float().mean()))
            )
    return lines


def _pictures(count: int, image_size: int) -> torch.Tensor:
    """(N, 3, S, S) float32, 0 to 255: smooth, as photographs are, with a little noise."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand((count, 3, 8, 8), generator=generator) * 255.0
    smooth = torch.nn.functional.interpolate(coarse, (image_size, image_size), mode="bicubic", align_corners=False)
    noise = torch.randn((count, 3, image_size, image_size), generator=generator) * 4.0
    return (smooth + noise).clamp(0.0, 255.0)


def _rate(images: torch.Tensor, policy: AugmentPolicy, keys: np.ndarray, seconds: float) -> float:
    """Pictures a second, after a batch that warms up."""
    _wait(images)
    started, epoch = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        epoch += 1
        apply(images, sample_params(policy, seed=0, epoch=epoch, pictures=keys), policy)
        # each batch is waited for: a queue of unfinished ones would count as done
        _wait(images)
    return epoch * len(images) / (time.perf_counter() - started)


def _wait(images: torch.Tensor) -> None:
    if images.device.type == "cuda":
        torch.cuda.synchronize()


def show(lines: Sequence[Line]) -> None:
    """The table."""
    header = f"{'CPU img/s':>10} {'GPU img/s':>10} {'times':>6} {'largest':>8} {'> 1 level':>9}"
    print(f"\n{'augmentation':20} {'px':>4} {header}")
    for line in lines:
        print(
            f"{line.policy:20} {line.image_size:4} {line.cpu:10,.0f} {line.gpu:10,.0f} {line.gpu / line.cpu:6.1f} "
            f"{line.difference:8.3f} {line.share:9.2%}"
        )
