"""Mixup and CutMix: each picture of a batch with the next one, and their labels in the same proportion.

How much is drawn for each picture by (seed, epoch, picture), as all augmentation; with which depends on the batch.
"""

from dataclasses import dataclass

import numpy as np
import torch

from pipelines.augmentation.random import Floats, Keys, uniform
from pipelines.params.recipes import NetworkRecipe

MIXED, KIND, SHARE, CENTRE_X, CENTRE_Y = range(110, 115)
"""streams of random numbers, see pipelines.augmentation"""


@dataclass(frozen=True)
class Mixture:
    """What happens to B pictures; every array is (B,).

    Args:
        share: of the other picture in a Mixup; 0 for none.
        left, top, right, bottom: the rectangle that the other picture fills, fractions of the side; empty for none.
    """

    share: Floats
    left: Floats
    top: Floats
    right: Floats
    bottom: Floats


def draw_mixture(recipe: NetworkRecipe, *, seed: int, epoch: int, pictures: Keys) -> Mixture:
    """Draw what `recipe` mixes to each of `pictures` in `epoch`."""
    from scipy.special import betaincinv

    def numbers(stream: int) -> Floats:
        return uniform(seed, epoch, pictures, stream)

    mixed = numbers(MIXED) < recipe.mixup_prob
    # with both on, as often one as the other
    cut = numbers(KIND) < (0.0 if recipe.cutmix == 0.0 else 1.0 if recipe.mixup == 0.0 else 0.5)
    share = numbers(SHARE)
    blended = mixed & ~cut
    pasted = mixed & cut
    # by the inverse of its distribution, so that one number a picture is enough
    alpha = recipe.mixup or 1.0
    # min: which of the two is called the first does not matter, and the label of most of the picture comes first
    lam = np.asarray(betaincinv(alpha, alpha, share), np.float64)
    area = np.asarray(betaincinv(recipe.cutmix or 1.0, recipe.cutmix or 1.0, share), np.float64)
    side = np.where(pasted, np.sqrt(area), 0.0)
    x, y = numbers(CENTRE_X), numbers(CENTRE_Y)
    return Mixture(
        share=np.where(blended, np.minimum(lam, 1.0 - lam), 0.0),
        left=np.clip(x - side / 2, 0.0, 1.0),
        top=np.clip(y - side / 2, 0.0, 1.0),
        right=np.clip(x + side / 2, 0.0, 1.0),
        bottom=np.clip(y + side / 2, 0.0, 1.0),
    )


def mix(images: torch.Tensor, mixture: Mixture) -> tuple[torch.Tensor, torch.Tensor]:
    """Each picture with the next one; the last one with the first.

    Args:
        images: (B, 3, H, W) float.
        mixture: for these B pictures.

    Returns:
        (B, 3, H, W) mixed, and (B,) float32: the share of the other picture in each, to weigh its label by.
    """
    height, width = images.shape[2:]
    other = images.roll(-1, dims=0)

    def column(values: Floats) -> torch.Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(images.device, non_blocking=True).view(-1, 1, 1, 1)

    share = column(mixture.share)
    images = torch.lerp(images, other, share.to(images.dtype))
    x = ((torch.arange(width, device=images.device) + 0.5) / width).view(1, 1, 1, width)
    y = ((torch.arange(height, device=images.device) + 0.5) / height).view(1, 1, height, 1)
    inside_x = (x >= column(mixture.left)) & (x < column(mixture.right))  # (B, 1, 1, W)
    inside_y = (y >= column(mixture.top)) & (y < column(mixture.bottom))  # (B, 1, H, 1)
    # of the pixels that were pasted, not of the rectangle drawn: what counts is what is seen
    pasted = inside_x.float().mean(dim=(1, 2, 3)) * inside_y.float().mean(dim=(1, 2, 3))
    return torch.where(inside_x & inside_y, other, images), share.flatten() + pasted


def mix_labels(first: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """(B, …) numbers of each picture, such as probabilities or weights, mixed with those of the next one."""
    weight = share.view(-1, *[1] * (first.ndim - 1))
    return torch.lerp(first, first.roll(-1, dims=0), weight)
