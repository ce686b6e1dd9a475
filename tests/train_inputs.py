"""Small packs and recipes for the tests of train."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.augmentation.packs import new_pack
from pipelines.core.tables import PACK_INDEX, write_table
from pipelines.params.augment import policy_of
from pipelines.params.train import TrainParams
from pipelines.train import TrainArtifact, train

POLICIES = {
    "nothing": policy_of(),
    "strong": policy_of(
        **{"hflip": 0.5, "degrees": 10.0, "translate": 0.1, "scale": 0.1},
        **{"brightness": 0.1, "contrast": 0.1, "saturation": 0.1, "random_erasing": 0.2},
    ),
}
FROZEN: dict[str, Any] = {
    "tuning": "linear_probe",
    "model": "tf_efficientnet_lite0",
    "weights": "imagenet",
    "image_size": 32,
    "target": "label",
    "tta": ["original", "hflip"],
    "precision": "float32",
    "head": {"kind": "logistic_regression", "Cs": [0.01, 1.0]},
}
SCRATCH: dict[str, Any] = {
    "tuning": "scratch",
    "model": "small_cnn",
    "image_size": 16,
    "in_chans": 3,
    "stem": "standard",
    "target": "label",
    "dropout": 0.1,
    "augmentation": "strong",
    "mixup": 0.0,
    "cutmix": 0.0,
    "mixup_prob": 1.0,
    "class_balance": "none",
    "loss": {"kind": "cross_entropy", "label_smoothing": 0.1},
    "optimizer": {"kind": "adam", "learning_rate": 0.001, "weight_decay": 0.0},
    "schedule": {"kind": "cosine", "min_lr_ratio": 0.0},
    "warmup_epochs": 0,
    "epochs": 2,
    "batch_size": 8,
    "grad_accum_steps": 1,
    "clip_grad_norm": None,
    "ema_decay": None,
    "early_stopping": {"monitor": "val_loss", "patience": 10},
    "precision": "float32",
    "compile": False,
    "tta": ["original"],
    "distillation": None,
    "pseudo_labels": None,
}
SGD = {"kind": "sgd", "learning_rate": 0.01, "momentum": 0.9, "nesterov": True, "weight_decay": 0.0}
LETTERS = "rgb"


def pretrained(tuning: str, weights: object, **changes: Any) -> dict[str, Any]:
    """A recipe that begins with weights."""
    return {**SCRATCH, "tuning": tuning, "weights": weights, "layer_decay": 1.0, "freeze_norms": False, **changes}


def params(recipes: dict[str, dict[str, Any]], **changes: Any) -> TrainParams:
    """The section `train` with these recipes, all of them members unless `students` names some."""
    students = changes.pop("students", [])
    values = {
        **{"seed": 1, "num_threads": 1, "device": "cpu", "num_devices": 1, "deterministic": True},
        **{"max_device_cache_bytes": 2**30, "trackers": [], "folds": [0]},
        "members": [name for name in recipes if name not in students],
        "students": students,
        "recipes": recipes,
        "policies": {
            name: POLICIES[recipe["augmentation"]].model_dump() if recipe.get("augmentation") in POLICIES else None
            for name, recipe in recipes.items()
        },
    }
    return TrainParams.model_validate_json(json.dumps({**values, **changes}))


def colours(count: int, size: int, *, seed: int = 0) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Noisy pictures of three classes, redder, greener and bluer: (N, S, S, 3) uint8, (N,) class indices."""
    dice = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    pixels = dice.integers(0, 120, (count, size, size, 3))
    pixels[np.arange(count), :, :, labels] += 100
    return pixels.astype(np.uint8), labels


def image_id(number: int) -> str:
    """64 hex digits, spread like those of a hash."""
    return f"{(number + 1) * 0x9E3779B97F4A7C15 % 2**64:016x}" + f"{number:048x}"


def write_packs(
    folder: Path,
    subsets: list[str],
    labels: npt.NDArray[np.int64],
    pixels: npt.NDArray[np.uint8],
    folds: list[int],
    *,
    factors: list[dict[str, str]] | None = None,
) -> Path:
    """What augment writes, for N pictures in the given subsets (train, val, test, copies, unlabelled).

    A picture of copies is the copy of the one that stands N / 2 before it.
    """
    folder.mkdir(parents=True)
    rows: dict[str, list[dict[str, Any]]] = {"index": [], "copies": [], "unlabelled": []}
    for subset in ("test", "train", "val", "copies", "unlabelled"):
        here = [i for i, name in enumerate(subsets) if name == subset]
        with new_pack(folder / f"{subset}.npy", num_images=len(here), image_size=pixels.shape[1]) as pack:
            for position, i in enumerate(here):
                pack[position] = pixels[i]
                known = subset != "unlabelled"
                copied = subset == "copies"
                whose = image_id(i - len(subsets) // 2 if copied else i)
                rows[subset if subset in rows else "index"].append(
                    {
                        **{"image_id": whose, "label": LETTERS[labels[i]] if known else "unlabelled"},
                        **{"class_index": int(labels[i]) if known else -1, "copy": int(copied)},
                        **{"group": whose, "subset": subset, "fold": folds[i], "position": position},
                        "factors": json.dumps(factors[i]) if factors else "",
                    }
                )
    for name, found in rows.items():
        table = pa.Table.from_pylist(found, schema=PACK_INDEX)
        write_table(table, folder / f"{name}.parquet", classes=list(LETTERS))
    return folder


def small_packs(folder: Path, *, size: int = 16, num_train: int = 18, num_unlabelled: int = 0) -> Path:
    """`num_train` training, 6 validation and 6 test pictures of three classes."""
    count = num_train + 12 + num_unlabelled
    pixels, labels = colours(count, size)
    subsets = ["train"] * num_train + ["val"] * 6 + ["test"] * 6 + ["unlabelled"] * num_unlabelled
    return write_packs(folder, subsets, labels, pixels, [-1] * num_train + [0] * 6 + [-1] * (6 + num_unlabelled))


def run(
    root: Path,
    packs: Path,
    recipe: dict[str, Any] | None = None,
    *,
    fold: int = 0,
    member: str = "m",
    others: dict[str, dict[str, Any]] | None = None,
    **changes: Any,
) -> TrainArtifact:
    """Train `recipe` (SCRATCH, unless another is given) into `root`/out; members it needs lie in `root`/members."""
    recipes = {**(others or {}), member: recipe or SCRATCH}
    if others:
        changes["students"] = [member]
    return train(
        params(recipes, **changes),
        member=member,
        fold=fold,
        augment_dir=packs,
        members_dir=root / "members",
        root=root,
        cache_dir=root / "cache",
        out_dir=root / "out",
    )


def written(root: Path) -> dict[str, bytes]:
    """The files of a run's output."""
    return {path.name: path.read_bytes() for path in sorted((root / "out").iterdir())}


def history(root: Path) -> list[dict[str, float]]:
    """history.csv of a run."""
    with (root / "out" / "history.csv").open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
