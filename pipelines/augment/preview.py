"""preview.png: a sheet to judge the policies by: pictures of the training set, and below each several draws of it."""

from pathlib import Path

import numpy as np
import torch

from pipelines.augment.sheet import Block, draw_sheet
from pipelines.augmentation.applying import apply
from pipelines.augmentation.packs import PackIndex, PackReader, Pixels, Rows, fold_rows, read_index
from pipelines.augmentation.random import Keys, picture_keys
from pipelines.augmentation.sampling import sample_params
from pipelines.core.files import write_bytes
from pipelines.params.augment import AugmentParams, AugmentPolicy
from pipelines.params.base import Section

MAX_DRAWS, MIN_DRAWS, ALL_DRAWS = 6, 3, 12
"""draws of each picture: of one policy the most, of many the fewest, in between about so many of all policies"""


def write_preview(params: AugmentParams, *, augment_dir: Path, path: Path) -> None:
    """Draw the sheet of the packs in `augment_dir`: the very changes, by the very code, that training makes."""
    index = read_index(augment_dir / "index.parquet")
    reader = PackReader(augment_dir, index)
    chosen = choose(index, params.preview_images)
    pictures, keys = reader.read(chosen), picture_keys(index.image_id[chosen])
    num_draws = min(max(ALL_DRAWS // max(len(params.policies), 1), MIN_DRAWS), MAX_DRAWS)
    blocks = [
        Block(name, describe(policy), _strip(pictures, keys, policy, seed=params.seed, num_draws=num_draws))
        for name, policy in params.policies.items()
    ]
    if not blocks:
        blocks = [Block("no policy", "the pictures as they are packed", pictures[:, None])]
    labels = [index.classes[i] for i in index.class_index[chosen]]
    write_bytes(path, draw_sheet(blocks, labels))


def choose(index: PackIndex, count: int) -> Rows:
    """Rows of `count` training pictures, from as many classes as possible, in order of class.

    Fewer where there are fewer. The first picture of each class, then the second of each, and so on.
    """
    train = fold_rows(index, -2).train  # in no fold: all that ever train
    turn = np.empty(len(train), np.int64)
    for label in np.unique(index.class_index[train]):
        here = index.class_index[train] == label
        turn[here] = np.arange(here.sum())
    order = np.lexsort((index.class_index[train], turn))
    picked = train[_spread(order, turn, count)]
    return picked[np.argsort(index.class_index[picked], kind="stable")]


def _spread(order: Rows, turn: Rows, count: int) -> Rows:
    """The first `count` of `order`; of the last, incomplete turn, spread over the classes."""
    if len(order) <= count:
        return order
    last = turn[order[count - 1]]
    whole = order[turn[order] < last]
    partial = order[turn[order] == last]
    wanted = count - len(whole)
    return np.concatenate([whole, partial[np.arange(wanted) * len(partial) // wanted]])


def describe(policy: AugmentPolicy) -> str:
    """The policy's changes; those switched off are left out."""
    changes = [f"{name} {_value(value)}" for name, value in policy.changes.items()]
    return " · ".join(changes) if changes else "nothing changes"


def _value(value: float | Section) -> str:
    if isinstance(value, Section):
        return " ".join(part if isinstance(part, str) else f"{name.replace('_', ' ')} {part:g}" for name, part in value)
    return f"{value:g}"


def _strip(pictures: Pixels, keys: Keys, policy: AugmentPolicy, *, seed: int, num_draws: int) -> Pixels:
    """(N, 1 + num_draws, S, S, 3) uint8: the originals, then their draws."""
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()  # (N, 3, S, S)
    columns = [pictures]
    for epoch in range(num_draws):
        draws = sample_params(policy, seed=seed, epoch=epoch, pictures=keys)
        changed = apply(images, draws, policy).round().to(torch.uint8)
        columns.append(changed.permute(0, 2, 3, 1).contiguous().numpy())
    return np.stack(columns, axis=1)
