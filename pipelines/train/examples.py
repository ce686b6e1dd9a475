"""The pictures that one member learns from: rows of the packs, each with a label and a weight."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipelines.augmentation.packs import PackIndex, Rows
from pipelines.augmentation.random import Keys, picture_keys
from pipelines.core.errors import InputError
from pipelines.core.tables import PREDICTIONS, read_classes, read_table
from pipelines.params.base import path_below
from pipelines.params.recipes import PseudoLabels
from pipelines.train.order import turn_keys


@dataclass(frozen=True)
class Examples:
    """N pictures.

    Args:
        rows: (N,) int64, of the packs' index.
        labels: (N,) int64, classes of the member's target.
        weights: (N,) float32, of the loss: 1 for a labelled picture.
        keys: (N,) uint64, for draws.
        classes: K labels of the target.
    """

    rows: Rows
    labels: Rows
    weights: npt.NDArray[np.float32]
    keys: Keys
    classes: list[str]

    def __len__(self) -> int:
        return len(self.rows)

    def digest(self) -> bytes:
        """Of all that training may take from here but the pixels."""
        parts = (self.rows, self.labels, self.weights, self.keys)
        return hashlib.sha256(b"".join(part.tobytes() for part in parts) + "\0".join(self.classes).encode()).digest()


def examples_of(index: PackIndex, rows: Rows, *, labels: Rows, classes: list[str]) -> Examples:
    """Labelled pictures.

    Args:
        rows: (N,) of `index`.
        labels: of every row of `index`, in its order.
    """
    keys = turn_keys(picture_keys(index.image_id[rows]), index.copy[rows])
    return Examples(rows, labels[rows], np.ones(len(rows), np.float32), keys, classes)


def add_pseudo_labels(
    examples: Examples, params: PseudoLabels, *, index: PackIndex, unlabelled: Rows, root: Path, where: str
) -> Examples:
    """`examples`, and the unlabelled pictures of which a former run was sure enough, in the order of their rows.

    Args:
        unlabelled: rows of `index`.
        root: folder that a relative path begins at.
        where: the recipe's path in params.yaml, for messages.

    Raises:
        InputError: the file is another one than the recipe says, knows other classes, or is sure of no picture.
    """
    path = path_below(root, params.path)
    where = f"{where}.pseudo_labels"
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{where}.path {params.path}: {error.strerror}; name a former run's predictions") from error
    if digest != params.sha256:
        raise InputError(
            f"{where}.sha256 is {params.sha256}, but {params.path} has {digest}: if that is the file you mean, write it"
        )
    if read_classes(path) != examples.classes:
        raise InputError(
            f"{where}.path {params.path} was predicted for the classes {', '.join(read_classes(path))}, not for "
            f"{', '.join(examples.classes)}: use predictions of a run with the same classes"
        )
    sure: dict[str, int] = {}
    for row in read_table(path, PREDICTIONS).to_pylist():
        best = int(np.argmax(row["probabilities"]))
        if row["subset"] == "unlabelled" and row["probabilities"][best] >= params.min_confidence:
            sure[row["image_id"]] = best
    rows = np.array([row for row in unlabelled if str(index.image_id[row]) in sure], np.int64)
    if len(rows) == 0:
        raise InputError(
            f"{where}: {params.path} is sure (at least {params.min_confidence:g}) of none of {len(unlabelled):,} "
            "unlabelled pictures: lower min_confidence, see split.unlabelled, or set pseudo_labels: null"
        )
    return Examples(
        rows=np.concatenate([examples.rows, rows]),
        labels=np.concatenate([examples.labels, np.array([sure[str(index.image_id[row])] for row in rows], np.int64)]),
        weights=np.concatenate([examples.weights, np.full(len(rows), params.weight, np.float32)]),
        keys=np.concatenate([examples.keys, picture_keys(index.image_id[rows])]),
        classes=examples.classes,
    )
