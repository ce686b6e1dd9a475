"""Pictures and draws for tests of what training does to pictures."""

from typing import Any

import numpy as np
import torch
from PIL import Image

from pipelines.augmentation.applying import apply
from pipelines.augmentation.random import picture_keys
from pipelines.augmentation.sampling import Op, SampledParams, sample_params
from pipelines.params.augment import AugmentPolicy, policy_of

KEYS = picture_keys(np.array([f"{i * 7919:064x}"[::-1] for i in range(1000)]))
TRIVIAL = policy_of(hflip=0.5, auto_augment={"kind": "trivialaugment"})


def photo(size: int = 48, count: int = 1) -> torch.Tensor:
    """(count, 3, size, size): smooth, without symmetry, 0 to 255."""
    y, x = torch.meshgrid(torch.linspace(0, 1, size), torch.linspace(0, 1, size), indexing="ij")
    planes = [x * 200 + 20, y * y * 220, (x * y) * 180 + 40]
    pictures = [torch.stack(planes) * (1.0 - 0.1 * i / max(1, count)) for i in range(count)]
    return torch.stack(pictures).round()


def scene(height: int = 48, width: int = 48, count: int = 2) -> torch.Tensor:
    """(count, 3, H, W): patches of colour with soft edges, and some grain; whole numbers."""
    random = np.random.default_rng(5)
    pictures = []
    for _ in range(count):
        patches = Image.fromarray(random.integers(0, 256, (6, 6, 3), np.uint8)).resize((width, height))
        pictures.append(np.asarray(patches) + random.integers(-3, 4, (height, width, 3)))
    return torch.from_numpy(np.stack(pictures).clip(0, 255)).permute(0, 3, 1, 2).contiguous().float()


def fixed(count: int, **values: Any) -> SampledParams:
    """Sampled parameters of nothing but `values`, the same for all pictures, or one each."""
    draws = vars(sample_params(policy_of(), seed=0, epoch=0, pictures=KEYS[:count]))
    for name, value in values.items():
        array = np.asarray(value)
        draws[name] = array if array.ndim else np.full(count, value)
    return SampledParams(**draws)


def change(images: torch.Tensor, chosen: AugmentPolicy, **values: Any) -> torch.Tensor:
    """Apply one known draw to all of `images`."""
    return apply(images, fixed(len(images), **values), chosen)


def one_op(images: torch.Tensor, op: Op, value: float) -> torch.Tensor:
    shape = (len(images), 1)
    return change(images, TRIVIAL, auto_op=np.full(shape, int(op)), auto_value=np.full(shape, value))


def distance(found: torch.Tensor, expected: torch.Tensor, *, border: int = 0) -> float:
    """The largest difference, but for so many pixels at each border."""
    inside = (found - expected)[..., border : found.shape[-2] - border, border : found.shape[-1] - border]
    return inside.abs().max().item()
