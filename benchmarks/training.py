"""What the training benchmarks share: CIFAR pictures as a pipeline of their own, and recipes."""

import csv
import json
import os
import shutil
import sys
import tarfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from watching import Watched, watch

SUFFIXES = {".jpg", ".jpeg", ".png"}
STAGES = ("params", "ingest", "dedupe", "split", "augment")
Json = dict[str, Any]


# Pictures ------------------------------------------------------------------------------------------------------


def cifar_folder(given: Path, scratch: Path) -> Path:
    """The folder that holds train/<class>/ and test/<class>/: of `given`, or of what it unpacks to.

    Args:
        given: such a folder, or a tar that holds one.

    Raises:
        SystemExit: it is neither.
    """
    if given.is_file():
        with tarfile.open(given) as archive:
            archive.extractall(scratch / "unpacked", filter="data")
        given = scratch / "unpacked"
    for folder in (given, *sorted(given.glob("*/"))):
        if (folder / "train").is_dir() and (folder / "test").is_dir():
            return folder.resolve()
    raise SystemExit(f"{given} holds no train/<class>/ and test/<class>/: give CIFAR-10 as JPEGs, or a tar of them")


def draw_pictures(out: Path, *, train: int = 6, test: int = 2) -> Path:
    """Drawn pictures laid out as CIFAR-10's, so many of each class: for trying things out."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for subset, count in (("train", train), ("test", test)):
        for label in range(10):
            folder = out / subset / f"class-{label}"
            folder.mkdir(parents=True)
            for number in range(count):
                coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
                coarse[label % 4, label // 4] = 255
                Image.fromarray(coarse).resize((32, 32)).save(folder / f"{number}.jpg", quality=95)
    return out


def choose(cifar: Path, out: Path, *, train: int | None, val: int, test: int | None) -> int:
    """Lay out/{train,val,test}/<class>/ and the table out/pictures.csv of them; hard links, or copies.

    Args:
        cifar: with train/<class>/ and test/<class>/.
        train, val, test: pictures of each class, the first by name; None for all. val is taken from the end of train.

    Returns:
        The number of training pictures.
    """
    rows = []
    for label in sorted(folder.name for folder in (cifar / "train").iterdir() if folder.is_dir()):
        known = _pictures(cifar / "train" / label)
        parts = {
            "train": known[: len(known) - val][:train],
            "val": known[len(known) - val :],
            "test": _pictures(cifar / "test" / label)[:test],
        }
        for subset, pictures in parts.items():
            for picture in pictures:
                target = out / subset / label / picture.name
                target.parent.mkdir(parents=True, exist_ok=True)
                _link(picture, target)
                rows.append((target.relative_to(out).as_posix(), label, subset))
    with (out / "pictures.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "label", "subset"), *rows])
    return sum(subset == "train" for _, _, subset in rows)


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copyfile(source, target)


# The pipeline --------------------------------------------------------------------------------------------------


def recipe(**changes: object) -> Json:
    """A network trained from scratch with nothing extra: what `changes` leave of it."""
    plain = {
        "tuning": "scratch",
        "model": "resnet18",
        "image_size": 32,
        "augmentation": "moves",
        "optimizer": sgd(0.05),
        "schedule": {"kind": "one_cycle", "pct_start": 0.3, "div_factor": 25.0},
        "epochs": 10,
        "batch_size": 64,
        "early_stopping": {"patience": 10_000},
        "tta": ["original"],
    }
    return plain | changes


def sgd(learning_rate: float, *, nesterov: bool = False, weight_decay: float = 5e-4) -> Json:
    """An optimiser."""
    return {
        "kind": "sgd",
        "learning_rate": learning_rate,
        "momentum": 0.9,
        "nesterov": nesterov,
        "weight_decay": weight_decay,
    }


@dataclass(frozen=True)
class Project:
    """A folder with params.yaml, and the pictures that it names."""

    root: Path

    @property
    def pictures(self) -> Path:
        return self.root.with_name(f"{self.root.name}-pictures")

    @property
    def num_train(self) -> int:
        with (self.pictures / "pictures.csv").open(newline="", encoding="utf-8") as file:
            return sum(row["subset"] == "train" for row in csv.DictReader(file))


def write_project(
    root: Path,
    pictures: Path,
    *,
    image_size: int,
    policies: Mapping[str, Json],
    recipes: Mapping[str, Json],
    **train: object,
) -> None:
    """A pipeline's folder: params.yaml, for the pictures that `choose` laid out, with every one of them kept.

    Args:
        root: is made where it is not there.
        image_size: of the packs, pixels.
        train: keys of the section train to change.
    """
    params = {
        "ingest": {"sources": [_table(pictures)]},
        "dedupe": {"near": False, "duplicates": "keep", "label_conflicts": "keep"},
        "split": {"method": "predefined", "leaks": "keep"},
        "augment": {"image_size": image_size, "policies": dict(policies)},
        "train": {"members": list(recipes), "students": [], "folds": [0], "recipes": dict(recipes)} | train,
    }
    root.mkdir(parents=True, exist_ok=True)
    with (root / "params.yaml").open("w", encoding="utf-8") as file:
        YAML().dump(json.loads(json.dumps(params)), file)


def _table(pictures: Path) -> Json:
    return {
        "kind": "table",
        "path": str(pictures / "pictures.csv"),
        "image_column": "path",
        "root": str(pictures),
        "label_columns": ["label"],
        "subset_column": "subset",
    }


def prepare(root: Path) -> float:
    """Run the stages before train; returns their seconds, whole processes."""
    started = time.perf_counter()
    for stage in STAGES:
        watch([sys.executable, "-m", f"pipelines.{stage}"], cwd=root)
    return time.perf_counter() - started


def train(root: Path, member: str, **env: str) -> Watched:
    """Train one member on fold 0, as the pipeline does."""
    watch([sys.executable, "-m", "pipelines.params"], cwd=root)  # recipes may be other ones than of the packs
    return watch([sys.executable, "-m", "pipelines.train", member, "0"], cwd=root, env=env)


def history(root: Path, member: str, column: str) -> list[float]:
    """A column of a trained member's history.csv."""
    with (root / "data" / "train" / f"{member}-0" / "history.csv").open(newline="", encoding="utf-8") as file:
        return [float(row[column]) for row in csv.DictReader(file)]


def test_accuracy(root: Path, member: str) -> tuple[float, int]:
    """Share of the test pictures that a trained member names rightly, and their number."""
    import numpy as np
    import pyarrow.parquet as pq

    table = pq.read_table(root / "data" / "train" / f"{member}-0" / "predictions.parquet")
    rows = [row for row in table.to_pylist() if row["subset"] == "test"]
    right = [int(np.argmax(row["probabilities"])) == row["class_index"] for row in rows]
    return sum(right) / len(right), len(right)
