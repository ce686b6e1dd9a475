"""Fixed augmented copies for rare classes: every class is filled up to a share of the largest one.

A copy is its picture changed once, by the code that changes pictures in training; it is packed, and trains wherever its
picture does. In training it is changed again, as any picture is.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipelines.augmentation.packs import COPIES, Pixels, Rows, new_pack, open_pack
from pipelines.params.augment import AugmentParams

FIRST_EPOCH = 1 << 32
"""what stands for the epoch in the draws of copies, which no training reaches; the copy's number is added"""
BATCH = 64
"""pictures changed at a time: 40 MB as floats at 224 px"""


class CopyPlan(NamedTuple):
    """M copies, sorted by (copy, source)."""

    source: Rows
    """(M,) row of the training pack"""
    copy: Rows
    """(M,) from 1: how many copies of its picture there are up to this one"""


def plan_copies(labels: Rows, share: float) -> CopyPlan:
    """Which copies fill each class up to `share` of the largest one.

    Evenly: two pictures of a class differ by at most one copy. Where they cannot have the same number, the first ones
    have one more, which are arbitrary ones where a class is sorted by image_id.

    Args:
        labels: (N,) class of each training picture, in the order of the pack.
        share: 0 to 1.
    """
    counts = np.bincount(labels) if len(labels) else np.zeros(1, np.int64)
    wanted = round(share * int(counts.max()))
    source, copy = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for label in np.flatnonzero(counts):
        pictures = np.flatnonzero(labels == label)
        missing = np.arange(max(wanted - len(pictures), 0))
        source.append(pictures[missing % len(pictures)])
        copy.append(missing // len(pictures) + 1)
    sources, copies = np.concatenate(source), np.concatenate(copy)
    order = np.lexsort((sources, copies))
    return CopyPlan(sources[order], copies[order])


def write_copies(
    params: AugmentParams,
    *,
    plan: CopyPlan,
    image_ids: npt.NDArray[np.str_],
    out_dir: Path,
    advance: Callable[[int], None],
) -> None:
    """Write the pack of the copies of `plan`; an empty one where there are none.

    Args:
        image_ids: (N,) of the training pack.
        out_dir: with the training pack.
        advance: is told how many were made.
    """
    with new_pack(out_dir / f"{COPIES}.npy", num_images=len(plan.source), image_size=params.image_size) as pack:
        if params.copies is None or not len(plan.source):
            return
        import torch

        from pipelines.augmentation.applying import apply
        from pipelines.augmentation.random import picture_keys
        from pipelines.augmentation.sampling import sample_params

        policy, originals = params.policies[params.copies.policy], open_pack(out_dir / "train.npy")
        for number in np.unique(plan.copy).tolist():
            inside = np.flatnonzero(plan.copy == number)
            for start in range(0, len(inside), BATCH):
                rows = inside[start : start + BATCH]
                source = plan.source[rows]
                pixels: Pixels = originals[source]
                keys = picture_keys(image_ids[source])
                draws = sample_params(policy, seed=params.seed, epoch=FIRST_EPOCH + number, pictures=keys)
                images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()  # (B, 3, S, S)
                changed = apply(images, draws, policy).round().to(torch.uint8)
                pack[rows] = changed.permute(0, 2, 3, 1).numpy()  # (B, S, S, 3)
                advance(len(rows))
