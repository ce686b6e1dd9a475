"""The stage: one member trained on one fold."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines.core.errors import InputError
from pipelines.core.files import empty_folder
from pipelines.core.packs import FoldRows, PackIndex, PackReader, Rows, fold_rows, read_index
from pipelines.core.params.augment import AugmentPolicy
from pipelines.core.params.train import FrozenRecipe, Recipe, TrainParams
from pipelines.core.tables import PACK_INDEX, read_table
from pipelines.train.probe import probe_rows

if TYPE_CHECKING:
    import torch

    from pipelines.train.member import Member
    from pipelines.train.outcome import Outcome


@dataclass(frozen=True)
class TrainArtifact:
    """What train wrote."""

    folder: Path
    member: str
    fold: int
    num_train: int
    num_val: int
    val_accuracy: float
    device: str

    def __str__(self) -> str:
        return (
            f"{self.member} on fold {self.fold}: {self.num_train} pictures trained, "
            f"{self.val_accuracy:.1%} of {self.num_val} validation pictures right, on {self.device}"
        )


def train(
    params: TrainParams,
    policies: Mapping[str, AugmentPolicy],
    *,
    member: str,
    fold: int,
    augment_dir: Path,
    cache_dir: Path,
    out_dir: Path,
) -> TrainArtifact:
    """Train `member` on all but `fold`, and predict the pictures of `fold` and of the test set.

    Args:
        policies: augment.policies.
        member: one of the recipes.
        fold: whose pictures validate.
        augment_dir: with packs and index.parquet.
        cache_dir: for features and checkpoints; deleting it changes no result.
        out_dir: is emptied; receives model.safetensors, history.csv, predictions.parquet and, of a frozen backbone,
            features.parquet.

    Raises:
        InputError: the member is unknown, or the packs cannot train it.
        TrainingError: the loss is no longer a number.
    """
    if member not in params.recipes:
        raise InputError(f"member {member!r} is not among train.recipes: {', '.join(params.recipes)}")
    recipe = params.recipes[member]
    index = read_index(augment_dir / "index.parquet")
    reader = PackReader(augment_dir, index)
    rows = fold_rows(index, fold)
    _check(member, recipe, policies, reader, rows, fold)

    # before torch starts its threads: by default they spin while they wait, which on a machine that has other work
    # left 2 threads half to a fifth of their speed (28 to 70 in place of 134 pictures a second)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # torch costs 2 s: after everything that can be refused without it
    from pipelines.train.devices import choose_device, keep_memory, make_deterministic
    from pipelines.train.outcome import write_outcome

    keep_memory()
    make_deterministic(seed=params.seed, num_threads=params.num_threads)
    device = choose_device(params.device)
    groups = read_table(augment_dir / "index.parquet", PACK_INDEX, columns=["group"])["group"].to_pylist()
    outcome = _train(params, policies, member, fold, reader, rows, probe_rows(groups), device, cache_dir)
    outcome.info.update(_describe(recipe, member=member, fold=fold, seed=params.seed, index=index, device=device.type))
    empty_folder(out_dir)
    write_outcome(outcome, index=index, rows=rows, out_dir=out_dir)
    outcome.finish()
    right = int((outcome.val.argmax(axis=1) == index.class_index[rows.val]).sum())
    accuracy = right / len(rows.val)
    return TrainArtifact(out_dir, member, fold, len(rows.train), len(rows.val), accuracy, device.type)


def load_member(path: Path, *, device: str = "cpu") -> "Member":
    """Read a model.safetensors that `train` wrote; see `pipelines.train.member.Member.predict`.

    Raises:
        InputError: the file is missing, broken, or not one of these.
    """
    from pipelines.train import member

    return member.load_member(path, device=device)


def _train(
    params: TrainParams,
    policies: Mapping[str, AugmentPolicy],
    member: str,
    fold: int,
    reader: PackReader,
    rows: FoldRows,
    probed: Rows,
    device: "torch.device",
    cache_dir: Path,
) -> "Outcome":
    recipe = params.recipes[member]
    if isinstance(recipe, FrozenRecipe):
        from pipelines.train.frozen import train_frozen

        return train_frozen(
            recipe,
            reader=reader,
            rows=rows,
            probed=probed,
            device=device,
            num_threads=params.num_threads,
            cache_dir=cache_dir,
        )
    from pipelines.train.scratch import train_scratch

    return train_scratch(
        recipe,
        policies[recipe.augmentation],
        reader=reader,
        rows=rows,
        device=device,
        seed=params.seed,
        num_threads=params.num_threads,
        title=f"{member}-{fold}",
        cache_dir=cache_dir,
    )


def _check(
    member: str,
    recipe: Recipe,
    policies: Mapping[str, AugmentPolicy],
    reader: PackReader,
    rows: FoldRows,
    fold: int,
) -> None:
    """Refuse what could only end in a model that looks trained and is not."""
    index = reader.index
    where = f"train.recipes.{member}"
    if recipe.image_size > reader.image_size:
        raise InputError(
            f"{where}.image_size {recipe.image_size} is larger than the packed pictures, {reader.image_size} px: "
            "they are never enlarged; raise augment.image_size"
        )
    if not isinstance(recipe, FrozenRecipe) and recipe.augmentation not in policies:
        raise InputError(
            f"{where}.augmentation {recipe.augmentation!r} is not among augment.policies ({', '.join(policies)})"
        )
    if len(rows.val) == 0:
        folds = sorted(set(index.fold[index.subset != "test"].tolist()) - {-1})
        known = ", ".join(map(str, folds)) or "none"
        raise InputError(
            f"fold {fold} has no validation pictures (folds that have: {known}): "
            "list other train.folds, or raise split.val_fraction"
        )
    trained = np.unique(index.class_index[rows.train])
    if len(trained) < 2:
        names = ", ".join(index.classes[i] for i in trained) or "none"
        raise InputError(
            f"fold {fold} has training pictures of {len(trained)} class ({names}); a classifier needs at least 2: "
            "add pictures of another class, or lower split.val_fraction and split.test_fraction"
        )
    missing = [label for i, label in enumerate(index.classes) if i not in trained]
    if missing:
        print(
            f"train: fold {fold} has no training picture of {', '.join(missing)}: never predicted; "
            "add pictures, or see split.rare_classes",
            file=sys.stderr,
        )


def _describe(recipe: Recipe, *, member: str, fold: int, seed: int, index: PackIndex, device: str) -> dict[str, object]:
    from pipelines.train.models import MODELS

    spec = MODELS[recipe.model]
    return {
        "member": member,
        "fold": fold,
        "seed": seed,
        "tuning": recipe.tuning,
        "model": recipe.model,
        "classes": index.classes,
        "image_size": recipe.image_size,
        "normalisation": {"mean": list(spec.mean), "std": list(spec.std)},
        "device": device,
        "recipe": recipe.model_dump(mode="json"),
    }
