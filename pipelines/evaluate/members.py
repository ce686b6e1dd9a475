"""The predictions of members and folds, brought together: read strictly, never guessed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.core.errors import InputError
from pipelines.core.tables import LABEL, PACK_INDEX, PREDICTIONS, read_classes, read_table, read_target
from pipelines.evaluate.calibration import fit_temperature, temper
from pipelines.evaluate.intervals import group_numbers
from pipelines.evaluate.metrics import Floats, Ints

Names = npt.NDArray[np.object_]


@dataclass(frozen=True)
class Predictions:
    """Predicted pictures, sorted by (image_id, class_index).

    Args:
        image_ids: (N,) sha256 each; twice only where a picture stands under two labels.
        actual: (N,) true classes, of the target.
        probabilities: (N, K) float64, rows sum to 1.
    """

    image_ids: Names
    actual: Ints
    probabilities: Floats


@dataclass(frozen=True)
class Member:
    """One recipe's predictions: for test the mean of its folds, for val each picture's own fold (out of fold).

    Args:
        name: of the recipe.
        target: what it tells apart: label, or one of the factors that labels are joined from.
        classes: its K classes: labels, or values of the factor.
        temperature: that the probabilities were divided by; see `calibrated`.
    """

    name: str
    target: str
    classes: list[str]
    test: Predictions
    val: Predictions
    temperature: float = 1.0

    def calibrated(self) -> "Member":
        """The same member with probabilities by the temperature that suits its validation pictures."""
        temperature = fit_temperature(self.val.probabilities, self.val.actual)
        test, val = (
            replace(one, probabilities=temper(one.probabilities, temperature)) for one in (self.test, self.val)
        )
        return replace(self, test=test, val=val, temperature=temperature)


def read_members(folders: Mapping[tuple[str, int], Path], labels: list[str]) -> list[Member]:
    """Every member in the order of `folders`: (member, fold) to the folder that its training wrote.

    Raises:
        InputError: a file is missing, knows other classes or no probabilities, or folds disagree on the test set.
    """
    by_name: dict[str, dict[int, Path]] = {}
    for (name, fold), folder in folders.items():
        by_name.setdefault(name, {})[fold] = folder
    return [_read_member(name, of_folds, labels) for name, of_folds in by_name.items()]


def _read_member(name: str, folders: Mapping[int, Path], labels: list[str]) -> Member:
    paths = {fold: folder / "predictions.parquet" for fold, folder in folders.items()}
    first = next(iter(paths.values()))
    tables = {fold: read_table(path, PREDICTIONS) for fold, path in paths.items()}
    target = read_target(first)
    classes = labels if target == LABEL else read_classes(first)
    tests, vals = [], []
    for fold, path in paths.items():
        if read_classes(path) != classes or read_target(path) != target:
            other = "the pack's" if target == LABEL else f"{first} was"
            raise InputError(f"{path} was predicted for other classes than {other}: run `dvc repro train`")
        # pictures without a label are predicted too, for others to learn from; nothing can be measured on them
        table = tables[fold].sort_by([("image_id", "ascending"), ("class_index", "ascending")])
        subsets = table["subset"].to_numpy(zero_copy_only=False)
        tests.append(_predictions(table.filter(pa.array(subsets == "test")), len(classes), path))
        vals.append(_predictions(table.filter(pa.array(subsets == "val")), len(classes), path))
        require_same_pictures(tests[0], f"{name}-{next(iter(paths))}", tests[-1], f"{name}-{fold}", "test")
    return Member(name, target, classes, test=average(tests), val=_join(vals, name))


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
    """The pack index, as far as measuring needs it.

    Args:
        classes: the labels.
        test: the test pictures, their probabilities 0.
        groups: (image_id, class_index) to the duplicate group.
        subsets: the same to train, val or test.
    """

    classes: list[str]
    test: Predictions
    groups: dict[tuple[str, int], str]
    subsets: dict[tuple[str, int], str]

    @cached_property
    def classes_of(self) -> dict[str, list[int]]:
        """Picture to the classes it stands under; more than one where its label is disputed."""
        found: dict[str, list[int]] = {}
        for image_id, class_index in self.groups:
            found.setdefault(image_id, []).append(class_index)
        return found

    def group_numbers(self, image_ids: Names) -> Ints:
        """(N,) the group of each picture, as numbers 0 to G - 1 in the order of the groups' names.

        Raises:
            InputError: a picture is not in the pack index.
        """
        self.require_known(image_ids)
        names = [self.groups[image_id, self.classes_of[image_id][0]] for image_id in image_ids]
        return group_numbers(np.asarray(names, np.str_))

    def require_known(self, image_ids: Names) -> None:
        """Refuse predictions of pictures that are not in the pack index.

        Raises:
            InputError: says how many, and names the first.
        """
        strangers = [image_id for image_id in image_ids if image_id not in self.classes_of]
        if strangers:
            raise InputError(
                f"the pack index lacks {len(strangers):,} of the pictures that were predicted, the first "
                f"{strangers[0]}: run `dvc repro train`"
            )


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
    subsets = table["subset"].to_numpy(zero_copy_only=False)
    is_test = subsets == "test"
    if not is_test.any():
        raise InputError(f"{index} has no test picture, so nothing can be measured: raise split.test_fraction")
    num_test = int(is_test.sum())
    test = Predictions(image_ids[is_test], actual[is_test], np.zeros((num_test, len(classes))))
    keys = list(zip(image_ids.tolist(), actual.tolist(), strict=True))
    return Packed(classes, test, dict(zip(keys, groups, strict=True)), dict(zip(keys, subsets.tolist(), strict=True)))


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
    if sum(len(set(p.image_ids)) for p in folds) != len(set(image_ids)):
        raise InputError(f"{name} validated a picture in two folds: run `dvc repro train` to train all folds anew")
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return Predictions(image_ids[order], actual[order], probabilities[order])
