"""The stage train: one member on one fold."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines.augmentation.packs import FoldRows, PackReader, Rows, fold_rows, read_training_index, targets
from pipelines.core.errors import InputError, TrainingError, count
from pipelines.core.files import empty_folder
from pipelines.core.tables import PACK_INDEX, read_table
from pipelines.params.train import LinearProbeRecipe, Recipe, TrainParams
from pipelines.train.runtime import keep_freed_memory, limit_thread_spinning
from pipelines.train.temperature import fit_temperature
from pipelines.train.trackers import check_installed

if TYPE_CHECKING:
    from pipelines.train.job import TrainJob, TrainOutcome
    from pipelines.train.member import TrainedMember


@dataclass(frozen=True)
class TrainArtifact:
    """The folder of a member and fold that train wrote."""

    folder: Path
    member: str
    fold: int
    num_train: int
    num_val: int
    val_accuracy: float
    device: str

    def __str__(self) -> str:
        return (
            f"{self.member} on fold {self.fold}: learnt from {count(self.num_train, 'picture')}, "
            f"{self.val_accuracy:.1%} of {count(self.num_val, 'validation picture')} right, on {self.device}"
        )


def train(
    params: TrainParams,
    *,
    member: str,
    fold: int,
    augment_dir: Path,
    members_dir: Path,
    root: Path,
    cache_dir: Path,
    out_dir: Path,
) -> TrainArtifact:
    """Train `member` on all folds but `fold`, and predict the images of `fold` and of the test set.

    Args:
        member: one of the recipes.
        fold: whose images validate.
        augment_dir: with packs and index.parquet.
        members_dir: with the folders of members whose weights or predictions the recipe needs.
        root: folder that relative paths of params.yaml begin at.
        cache_dir: for features and checkpoints; deleting it changes no result.
        out_dir: is emptied; receives model.safetensors, history.csv, predictions.parquet and, of a frozen backbone,
            features.parquet.

    Raises:
        InputError: the member is unknown, the packs cannot train it, or a tracker's package is missing.
        TrainingError: the loss is not finite, or memory runs out.
    """
    if member not in params.recipes:
        raise InputError(f"member {member!r} is not among train.recipes: {', '.join(params.recipes)}")
    recipe = params.recipes[member]
    index = read_training_index(augment_dir)
    reader = PackReader(augment_dir, index)
    rows = fold_rows(index, fold)
    classes, labels = targets(index, recipe.target)
    _check(member, recipe, reader, rows, fold, labels, classes)
    check_installed(params.trackers)

    limit_thread_spinning()
    keep_freed_memory()
    # torch takes 2 s to import: after all checks that do not need it
    from pipelines.train.device import choose_device, configure_torch
    from pipelines.train.job import TrainJob, write_outcome
    from pipelines.train.processes import join_group

    device = choose_device(params.device)
    configure_torch(device, seed=params.seed, num_threads=params.num_threads, deterministic=params.deterministic)
    with join_group(device) as (processes, place):
        if processes.count not in (1, params.num_devices):
            raise InputError(
                f"torchrun started {processes.count} processes, but train.num_devices is {params.num_devices}: run "
                "`dvc repro train`, which starts as many as that says"
            )
        job = TrainJob(
            params=params,
            member=member,
            fold=fold,
            reader=reader,
            rows=rows,
            labels=labels,
            classes=classes,
            device=place,
            processes=processes,
            root=root,
            members_dir=members_dir,
            cache_dir=cache_dir,
        )
        outcome = _train(recipe, job, augment_dir)
        outcome.info.update(_describe(recipe, job))
        outcome.info["temperature"] = fit_temperature(outcome.val.astype(np.float64), labels[rows.val])
        if processes.is_main:
            empty_folder(out_dir)
            write_outcome(outcome, job, target=recipe.target, out_dir=out_dir)
            outcome.finish()
    accuracy = int((outcome.val.argmax(axis=1) == labels[rows.val]).sum()) / len(rows.val)
    return TrainArtifact(out_dir, member, fold, len(rows.train), len(rows.val), accuracy, device.type)


def load_member(path: Path, *, device: str = "cpu") -> "TrainedMember":
    """Read a member from the folder that `train` wrote; its method `predict` takes pictures.

    Args:
        path: the folder, or the model.safetensors in it, which is all that is needed.
        device: a torch device.

    Raises:
        InputError: the file is missing, broken, or not one of these.
    """
    from pipelines.train import member

    return member.load_member(path, device=device)


def _train(recipe: Recipe, job: "TrainJob", augment_dir: Path) -> "TrainOutcome":
    from pipelines.train.job import exported_rows

    groups = read_table(augment_dir / "index.parquet", PACK_INDEX, columns=["group"])["group"].to_pylist()
    exported = exported_rows(groups)
    if isinstance(recipe, LinearProbeRecipe):
        from pipelines.train.linear_probe import train_linear_probe

        return train_linear_probe(recipe, job, probed=exported)
    from pipelines.train.train_network import train_network

    policy = job.params.policies.get(job.member)
    if policy is None:
        raise InputError(
            f"train.policies has none for {job.member}, whose augmentation is {recipe.augmentation!r}: read params by "
            "load_params, which fills it in from augment.policies"
        )
    try:
        return train_network(recipe, policy, job, exported=exported)
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        raise TrainingError(
            f"{job.where}: a layer of its network has no repeatable arithmetic on {job.device} ({error}): set "
            "train.deterministic: false, which is recorded with the member, or take another model"
        ) from error


def _check(
    member: str,
    recipe: Recipe,
    reader: PackReader,
    rows: FoldRows,
    fold: int,
    labels: Rows,
    classes: list[str],
) -> None:
    """Refuse what would end in a model that looks trained and is not."""
    index = reader.index
    where = f"train.recipes.{member}"
    if recipe.image_size > reader.image_size:
        raise InputError(
            f"{where}.image_size {recipe.image_size} is larger than the packed pictures, {reader.image_size} px: "
            "they are never enlarged; raise augment.image_size"
        )
    if len(rows.val) == 0:
        folds = sorted(set(index.fold[index.subset != "test"].tolist()) - {-1})
        known = ", ".join(map(str, folds)) or "none"
        raise InputError(
            f"fold {fold} has no validation pictures (folds that have: {known}): "
            "list other train.folds, or raise split.val_fraction"
        )
    trained = np.unique(labels[rows.train])
    if len(trained) < 2:
        names = ", ".join(classes[i] for i in trained) or "none"
        raise InputError(
            f"fold {fold} has training pictures of {len(trained)} class ({names}); a classifier needs at least 2: "
            "add pictures of another class, or lower split.val_fraction and split.test_fraction"
        )
    missing = [label for i, label in enumerate(classes) if i not in trained]
    if missing:
        print(
            f"train: fold {fold} has no training picture of {', '.join(missing)}: never predicted; "
            "add pictures, or see split.rare_classes",
            file=sys.stderr,
        )


def _describe(recipe: Recipe, job: "TrainJob") -> dict[str, object]:
    from pipelines.train.models import spec_for

    model = recipe.backbones[0] if isinstance(recipe, LinearProbeRecipe) else recipe.model
    spec = spec_for(model)
    whole = recipe.model_dump(mode="json")
    return {
        "member": job.member,
        "fold": job.fold,
        "seed": job.params.seed,
        "tuning": recipe.tuning,
        "model": "+".join(recipe.backbones) if isinstance(recipe, LinearProbeRecipe) else whole["model"],
        "target": recipe.target,
        "classes": job.classes,
        "image_size": recipe.image_size,
        "normalisation": {"mean": list(spec.mean), "std": list(spec.std)},
        "device": job.device.type,
        "deterministic": job.params.deterministic,
        "recipe": whole,
    }
