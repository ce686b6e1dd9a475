"""The predictions of members and folds, brought together: read strictly, averaged, never guessed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.core.errors import InputError
from pipelines.core.tables import PACK_INDEX, PREDICTIONS, read_classes, read_table
from pipelines.evaluate.metrics import Floats, Ints

Names = npt.NDArray[np.object_]


@dataclass(frozen=True)
class Predictions:
    """Predicted pictures, sorted by (image_id, class_index).

    Args:
        image_ids: (N,) sha256 each; twice only where a picture stands under two labels.
        actual: (N,) true classes.
        probabilities: (N, K) float64, rows sum to 1.
    """

    image_ids: Names
    actual: Ints
    probabilities: Floats


@dataclass(frozen=True)
class Member:
    """One recipe's predictions: for test the mean of its folds, for val each picture's own fold (out of fold)."""

    name: str
    test: Predictions
    val: Predictions


def read_member(train_dir: Path, name: str, folds: Sequence[int], classes: list[str]) -> Member:
    """Read `<name>-<fold>/predictions.parquet` of each fold; other folders of `train_dir` are left alone.

    Raises:
        InputError: a file is missing, knows other classes or no probabilities, or folds disagree on the test set.
    """
    tests, vals = [], []
    for fold in folds:
        path = train_dir / f"{name}-{fold}" / "predictions.parquet"
        table = read_table(path, PREDICTIONS).sort_by([("image_id", "ascending"), ("class_index", "ascending")])
        if read_classes(path) != classes:
            raise InputError(f"{path} was predicted for other classes than the pack's: run `dvc repro train`")
        subsets = table["subset"].to_numpy(zero_copy_only=False)
        tests.append(_predictions(table.filter(pa.array(subsets == "test")), len(classes), path))
        vals.append(_predictions(table.filter(pa.array(subsets == "val")), len(classes), path))
        require_same_pictures(tests[0], f"{name}-{folds[0]}", tests[-1], f"{name}-{fold}", "test")
    return Member(name, test=average(tests), val=_join(vals, name))


def average(predictions: Sequence[Predictions]) -> Predictions:
    """Mean probabilities of the same pictures."""
    return Predictions(
        predictions[0].image_ids,
        predictions[0].actual,
        np.mean([p.probabilities for p in predictions], axis=0),
    )


def require_same_pictures(first: Predictions, first_name: str, other: Predictions, other_name: str, what: str) -> None:
    """Refuse to average predictions of different pictures.

    Raises:
        InputError: names both, how many pictures each lacks, and the remedy.
    """
    known = set(zip(first.image_ids, first.actual.tolist(), strict=True))
    found = set(zip(other.image_ids, other.actual.tolist(), strict=True))
    if known == found and len(first.actual) == len(other.actual):
        return
    raise InputError(
        f"{first_name} and {other_name} do not cover the same {what} pictures: {other_name} lacks "
        f"{len(known - found):,} of {len(known):,} and has {len(found - known):,} others. Predictions of different "
        "pictures are never averaged: run `dvc repro train` so that both are trained on the same split"
    )


@dataclass(frozen=True)
class Packed:
    """The pack index, as far as measuring needs it. `groups` maps (image_id, class_index) to its duplicate group."""

    classes: list[str]
    test: Predictions
    groups: dict[tuple[str, int], str]


def read_index(index: Path) -> Packed:
    """Read the pack index: the classes, the pictures that are the test set, the groups.

    Raises:
        InputError: there is no test picture, so nothing can be measured.
    """
    table = read_table(index, PACK_INDEX, columns=["image_id", "class_index", "group", "subset"])
    table = table.sort_by([("image_id", "ascending"), ("class_index", "ascending")])
    classes = read_classes(index)
    image_ids = table["image_id"].to_numpy(zero_copy_only=False)
    actual = table["class_index"].to_numpy().astype(np.int64)
    groups = table["group"].to_numpy(zero_copy_only=False)
    is_test = table["subset"].to_numpy(zero_copy_only=False) == "test"
    if not is_test.any():
        raise InputError(f"{index} has no test picture, so nothing can be measured: raise split.test_fraction")
    num_test = int(is_test.sum())
    test = Predictions(image_ids[is_test], actual[is_test], np.zeros((num_test, len(classes))))
    return Packed(classes, test, dict(zip(zip(image_ids, actual.tolist(), strict=True), groups, strict=True)))


def _predictions(table: pa.Table, num_classes: int, path: Path) -> Predictions:
    """The rows of one subset, checked.

    Raises:
        InputError: a row does not hold K probabilities that sum to 1.
    """
    lists = table["probabilities"].combine_chunks()
    flat = lists.flatten().to_numpy(zero_copy_only=False).astype(np.float64)
    if len(flat) != table.num_rows * num_classes or set(lists.value_lengths().to_pylist()) - {num_classes}:
        raise InputError(f"{path} does not hold {num_classes} probabilities a picture: run `dvc repro train`")
    probabilities = flat.reshape(-1, num_classes)
    # float32 softmax sums to 1 within 1e-5 even for 1,000 classes; NaN fails the comparison too
    if not (np.abs(probabilities.sum(axis=1) - 1.0) < 1e-3).all() or (probabilities < 0).any():
        raise InputError(f"{path} holds probabilities that do not sum to 1: run `dvc repro --force train`")
    actual = table["class_index"].to_numpy().astype(np.int64)
    if len(actual) and not (actual.min() >= 0 and actual.max() < num_classes):
        raise InputError(f"{path} names a class beyond the {num_classes} of the pack: run `dvc repro train`")
    return Predictions(table["image_id"].to_numpy(zero_copy_only=False), actual, probabilities)


def _join(folds: Sequence[Predictions], name: str) -> Predictions:
    """The folds' validation pictures as one sorted set.

    Raises:
        InputError: a picture validates in two folds.
    """
    image_ids = np.concatenate([p.image_ids for p in folds])
    actual = np.concatenate([p.actual for p in folds])
    probabilities = np.concatenate([p.probabilities for p in folds])
    keys = list(zip(image_ids, actual.tolist(), strict=True))
    if len(set(keys)) != len(keys):
        raise InputError(f"{name} validated a picture in two folds: run `dvc repro train` to train all folds anew")
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return Predictions(image_ids[order], actual[order], probabilities[order])
