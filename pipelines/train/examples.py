"""The images that one training uses, with labels and weights, and their order in each epoch.

Order and repeats are functions of (seed, epoch, image), so a resumed run sees what an unbroken one sees.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipelines.augmentation.packs import PackIndex, Rows
from pipelines.augmentation.random import ORDER, Keys, picture_keys, uniform
from pipelines.core.errors import InputError
from pipelines.core.tables import PREDICTIONS, read_classes, read_table
from pipelines.params.base import path_below
from pipelines.params.recipes import PseudoLabels

SAMPLE, SAMPLE_START = 120, 121
"""streams of random numbers, see pipelines.augmentation.random"""
_ODD = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class TrainExamples:
    """N training images of K classes.

    Args:
        rows: (N,) int64, of the packs' index.
        labels: (N,) int64, class indices of the member's target.
        weights: (N,) float32, factor of each image's loss: 1 for a labelled image.
        keys: (N,) uint64, keys of the random draws.
        classes: K labels of the target.
    """

    rows: Rows
    labels: Rows
    weights: npt.NDArray[np.float32]
    keys: Keys
    classes: list[str]

    def __len__(self) -> int:
        return len(self.rows)

    def of_epoch(self, epoch: int, *, seed: int, oversampled: bool) -> tuple[Rows, Keys]:
        """(N,) positions of the examples that `epoch` uses, before shuffling, and their keys."""
        if not oversampled:
            return np.arange(len(self)), self.keys
        chosen = oversample(self.labels, self.keys, seed=seed, epoch=epoch)
        return chosen, repeat_keys(self.keys[chosen], count_repeats(chosen))

    def digest(self) -> bytes:
        """Sha256 of everything but the pixels that a training takes from here."""
        parts = (self.rows, self.labels, self.weights, self.keys)
        return hashlib.sha256(b"".join(part.tobytes() for part in parts) + "\0".join(self.classes).encode()).digest()


def labelled_examples(index: PackIndex, rows: Rows, *, labels: Rows, classes: list[str]) -> TrainExamples:
    """Return the images of `rows` with their labels.

    Args:
        rows: (N,) of `index`.
        labels: class index of every row of `index`.
    """
    keys = repeat_keys(picture_keys(index.image_id[rows]), index.copy[rows])
    return TrainExamples(rows, labels[rows], np.ones(len(rows), np.float32), keys, classes)


def add_pseudo_labels(
    examples: TrainExamples, params: PseudoLabels, *, index: PackIndex, unlabelled: Rows, root: Path, where: str
) -> TrainExamples:
    """Append the unlabelled images that a former run predicted with enough confidence, in the order of their rows.

    Args:
        unlabelled: rows of `index`.
        root: folder that a relative path begins at.
        where: the recipe's path in params.yaml, for messages.

    Raises:
        InputError: the file's sha256 or classes differ, or no prediction is confident enough.
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
    confident: dict[str, int] = {}
    for row in read_table(path, PREDICTIONS).to_pylist():
        best = int(np.argmax(row["probabilities"]))
        if row["subset"] == "unlabelled" and row["probabilities"][best] >= params.min_confidence:
            confident[row["image_id"]] = best
    rows = np.array([row for row in unlabelled if str(index.image_id[row]) in confident], np.int64)
    if len(rows) == 0:
        raise InputError(
            f"{where}: {params.path} is sure (at least {params.min_confidence:g}) of none of {len(unlabelled):,} "
            "unlabelled pictures: lower min_confidence, see split.unlabelled, or set pseudo_labels: null"
        )
    labels = np.array([confident[str(index.image_id[row])] for row in rows], np.int64)
    return TrainExamples(
        rows=np.concatenate([examples.rows, rows]),
        labels=np.concatenate([examples.labels, labels]),
        weights=np.concatenate([examples.weights, np.full(len(rows), params.weight, np.float32)]),
        keys=np.concatenate([examples.keys, picture_keys(index.image_id[rows])]),
        classes=examples.classes,
    )


def epoch_batches(keys: Keys, *, seed: int, epoch: int, batch_size: int, smallest: int) -> list[Rows]:
    """Shuffle N images and cut them into batches of nearly equal size.

    Args:
        keys: (N,) of the images.
        smallest: size that no batch falls below, unless N does.

    Returns:
        Positions in `keys`, each in one batch.
    """
    order = np.argsort(uniform(seed, epoch, keys, ORDER), kind="stable")
    return np.array_split(order, num_batches(len(keys), batch_size=batch_size, smallest=smallest))


def num_batches(num_examples: int, *, batch_size: int, smallest: int) -> int:
    """Number of batches that `epoch_batches` makes."""
    number = -(-num_examples // batch_size)
    if number > 1 and num_examples // number < smallest:
        number = max(1, num_examples // smallest)
    return number


def oversample(labels: Rows, keys: Keys, *, seed: int, epoch: int) -> Rows:
    """Draw N of N images with repeats so that every class is equally frequent.

    Systematic sampling: a class or an image whose expected count is r is drawn floor(r) or ceil(r) times.

    Args:
        labels: (N,) int64.
        keys: (N,).

    Returns:
        (N,) positions in `labels`.
    """
    # sorted by class, so that a class's share is exact; shuffled within it, so that each epoch repeats other images
    shuffled = np.lexsort((uniform(seed, epoch, keys, SAMPLE), labels))
    share = 1.0 / np.bincount(labels)[labels[shuffled]]
    edges = np.cumsum(share) / share.sum()
    start = uniform(seed, epoch, np.zeros(1, np.uint64), SAMPLE_START)[0]
    points = (np.arange(len(labels)) + start) / len(labels)
    return np.asarray(shuffled[np.minimum(np.searchsorted(edges, points, side="right"), len(labels) - 1)], np.int64)


def repeat_keys(keys: Keys, repeats: npt.NDArray[np.int64]) -> Keys:
    """Return keys that differ for each repeat of an image, so that repeats are augmented differently; 0 keeps the key.

    Args:
        keys: (N,).
        repeats: (N,) number of each repeat, from 0.
    """
    found: Keys = keys ^ (repeats.astype(np.uint64) * _ODD)
    return found


def count_repeats(chosen: Rows) -> Rows:
    """(N,): how often each entry of `chosen` occurs before its own position."""
    order = np.argsort(chosen, kind="stable")
    ordered = chosen[order]
    first = np.flatnonzero(np.diff(ordered, prepend=-1))
    lengths = np.diff(np.append(first, len(chosen)))
    repeats = np.empty(len(chosen), np.int64)
    repeats[order] = np.arange(len(chosen)) - np.repeat(first, lengths)
    return repeats
