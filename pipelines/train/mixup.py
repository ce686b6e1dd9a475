"""Mixup and CutMix: each image of a batch is mixed with the next one, and their labels in the same proportion.

Whether and how strongly an image is mixed is drawn by (seed, epoch, image), unlike in timm.data.Mixup, which draws by
batch from a global generator; the partner depends on the batch.
"""

from dataclasses import dataclass

import numpy as np
import torch

from pipelines.augmentation.random import Floats, Keys, uniform
from pipelines.params.recipes import NetworkRecipe

MIXED, KIND, SHARE, CENTER_X, CENTER_Y = range(110, 115)
"""streams of random numbers, see pipelines.augmentation.random"""


@dataclass(frozen=True)
class MixupParams:
    """Sampled parameters for B images; every array is (B,).

    Args:
        share: weight of the partner in a Mixup; 0 for none.
        left, top, right, bottom: rectangle of a CutMix that the partner fills, fractions of the side; empty for none.
    """

    share: Floats
    left: Floats
    top: Floats
    right: Floats
    bottom: Floats


def sample_mixup(recipe: NetworkRecipe, *, seed: int, epoch: int, keys: Keys) -> MixupParams:
    """Draw how `recipe` mixes each of the images `keys` in `epoch`."""
    from scipy.special import betaincinv

    def numbers(stream: int) -> Floats:
        return uniform(seed, epoch, keys, stream)

    mixed = numbers(MIXED) < recipe.mixup_prob
    # with both alphas given, half of the mixed images each
    cut = numbers(KIND) < (0.0 if recipe.cutmix == 0.0 else 1.0 if recipe.mixup == 0.0 else 0.5)
    share = numbers(SHARE)
    blended = mixed & ~cut
    pasted = mixed & cut
    # Beta(alpha, alpha) by the inverse of its distribution, so that one uniform number an image is enough
    alpha = recipe.mixup or 1.0
    lam = np.asarray(betaincinv(alpha, alpha, share), np.float64)
    area = np.asarray(betaincinv(recipe.cutmix or 1.0, recipe.cutmix or 1.0, share), np.float64)
    side = np.where(pasted, np.sqrt(area), 0.0)
    x, y = numbers(CENTER_X), numbers(CENTER_Y)
    return MixupParams(
        # at most a half: the image's own label keeps the larger weight
        share=np.where(blended, np.minimum(lam, 1.0 - lam), 0.0),
        left=np.clip(x - side / 2, 0.0, 1.0),
        top=np.clip(y - side / 2, 0.0, 1.0),
        right=np.clip(x + side / 2, 0.0, 1.0),
        bottom=np.clip(y + side / 2, 0.0, 1.0),
    )


def mix_images(images: torch.Tensor, params: MixupParams) -> tuple[torch.Tensor, torch.Tensor]:
    """Mix each image with the next one, the last with the first.

    Args:
        images: (B, 3, H, W) float.

    Returns:
        (B, 3, H, W) mixed images, and (B,) float32, the partner's share of each, by which its label is weighted.
    """
    height, width = images.shape[2:]
    partners = images.roll(-1, dims=0)

    def column(values: Floats) -> torch.Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(images.device, non_blocking=True).view(-1, 1, 1, 1)

    share = column(params.share)
    images = torch.lerp(images, partners, share.to(images.dtype))
    x = ((torch.arange(width, device=images.device) + 0.5) / width).view(1, 1, 1, width)
    y = ((torch.arange(height, device=images.device) + 0.5) / height).view(1, 1, height, 1)
    inside_x = (x >= column(params.left)) & (x < column(params.right))  # (B, 1, 1, W)
    inside_y = (y >= column(params.top)) & (y < column(params.bottom))  # (B, 1, H, 1)
    # the share of pasted pixels, which may differ from the rectangle's area
    pasted = inside_x.float().mean(dim=(1, 2, 3)) * inside_y.float().mean(dim=(1, 2, 3))
    return torch.where(inside_x & inside_y, partners, images), share.flatten() + pasted


def mix_targets(targets: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Mix (B, …) values of each image, such as probabilities or weights, with those of the next one.

    Args:
        share: (B,) of the partner.
    """
    weight = share.view(-1, *[1] * (targets.ndim - 1))
    return torch.lerp(targets, targets.roll(-1, dims=0), weight)
