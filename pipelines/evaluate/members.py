"""Read the predictions of members and folds, and join members that predict factors into one that predicts labels."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.core.errors import InputError
from pipelines.core.factors import parse_column
from pipelines.core.tables import LABEL, PACK_INDEX, PREDICTIONS, read_classes, read_table, read_target
from pipelines.evaluate.intervals import group_numbers
from pipelines.evaluate.metrics import Floats, Ints

Names = npt.NDArray[np.object_]

_SMALLEST = 1e-12
"""least probability of a value: one certain factor must not make every label impossible"""


@dataclass(frozen=True)
class Predictions:
    """Predictions for N images, sorted by (image_id, class_index).

    Args:
        image_ids: (N,) sha256 each; twice only where an image has two labels.
        actual: (N,) true classes, of the target.
        probabilities: (N, K) float64, rows sum to 1.
    """

    image_ids: Names
    actual: Ints
    probabilities: Floats


@dataclass(frozen=True)
class MemberPredictions:
    """Predictions of one recipe: for test the mean of its folds, for val out of fold.

    Args:
        name: of the recipe.
        target: what it predicts: label, or one of the factors that labels are joined from.
        classes: its K classes: labels, or values of the factor.
        temperature: of the probabilities.
        folds: by fold its part of val, as predicted.
    """

    name: str
    target: str
    classes: list[str]
    test: Predictions
    val: Predictions
    temperature: float = 1.0
    folds: dict[int, Predictions] = field(default_factory=dict)


def val_accuracy(member: MemberPredictions) -> float:
    """The fraction of validation pictures that it tells right; 0 where there are none."""
    right = member.val.probabilities.argmax(axis=1) == member.val.actual
    return float(right.sum()) / max(len(right), 1)


def read_members(folders: Mapping[tuple[str, int], Path], labels: list[str]) -> list[MemberPredictions]:
    """Read every member, in the order of `folders`: (member, fold) to the folder that its training wrote.

    Raises:
        InputError: a file is missing, knows other classes or no probabilities, or folds disagree on the test set.
    """
    by_name: dict[str, dict[int, Path]] = {}
    for (name, fold), folder in folders.items():
        by_name.setdefault(name, {})[fold] = folder
    return [_read_member(name, of_folds, labels) for name, of_folds in by_name.items()]


def _read_member(name: str, folders: Mapping[int, Path], labels: list[str]) -> MemberPredictions:
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
        # unlabelled images are predicted too, for students to learn from; here they are left out
        table = tables[fold].sort_by([("image_id", "ascending"), ("class_index", "ascending")])
        subsets = table["subset"].to_numpy(zero_copy_only=False)
        tests.append(_predictions(table.filter(pa.array(subsets == "test")), len(classes), path))
        vals.append(_predictions(table.filter(pa.array(subsets == "val")), len(classes), path))
        require_same_pictures(tests[0], f"{name}-{next(iter(paths))}", tests[-1], f"{name}-{fold}", "test")
    by_fold = dict(zip(paths, vals, strict=True))
    return MemberPredictions(name, target, classes, test=average(tests), val=_join(vals, name), folds=by_fold)


def average(predictions: Sequence[Predictions]) -> Predictions:
    """Mean probabilities for the same images."""
    return replace(predictions[0], probabilities=np.mean([p.probabilities for p in predictions], axis=0))


def require_same_pictures(first: Predictions, first_name: str, other: Predictions, other_name: str, what: str) -> None:
    """Raise InputError where two predictions that are to be averaged are of different images."""
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
class EvaluationIndex:
    """The classes and images of the pack index.

    Args:
        classes: the labels.
        test: the test images, their probabilities 0.
        groups: (image_id, class_index) to the duplicate group.
        subsets: (image_id, class_index) to train, val or test.
    """

    classes: list[str]
    test: Predictions
    groups: dict[tuple[str, int], str]
    subsets: dict[tuple[str, int], str]

    @cached_property
    def classes_of(self) -> dict[str, list[int]]:
        """By image_id its classes; more than one where its label is disputed."""
        found: dict[str, list[int]] = {}
        for image_id, class_index in self.groups:
            found.setdefault(image_id, []).append(class_index)
        return found

    def group_numbers(self, image_ids: Names) -> Ints:
        """(N,) the group of each image, numbered 0 to G - 1 by name; InputError as `require_known`."""
        self.require_known(image_ids)
        names = [self.groups[image_id, self.classes_of[image_id][0]] for image_id in image_ids]
        return group_numbers(np.asarray(names, np.str_))

    def require_known(self, image_ids: Names) -> None:
        """Raise InputError where an image is not in the pack index: how many are not, and the first."""
        strangers = [image_id for image_id in image_ids if image_id not in self.classes_of]
        if strangers:
            raise InputError(
                f"the pack index lacks {len(strangers):,} of the pictures that were predicted, the first "
                f"{strangers[0]}: run `dvc repro train`"
            )


def read_index(index: Path) -> EvaluationIndex:
    """Read the pack index; InputError where it has no test image."""
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
    return EvaluationIndex(
        classes, test, dict(zip(keys, groups, strict=True)), dict(zip(keys, subsets.tolist(), strict=True))
    )


def _predictions(table: pa.Table, num_classes: int, path: Path) -> Predictions:
    """The rows of one subset; InputError unless each holds K probabilities that sum to 1."""
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
    """The validation images of all folds, sorted; InputError where one validates in two folds."""
    image_ids = np.concatenate([p.image_ids for p in folds])
    actual = np.concatenate([p.actual for p in folds])
    probabilities = np.concatenate([p.probabilities for p in folds])
    keys = list(zip(image_ids, actual.tolist(), strict=True))
    if sum(len(set(p.image_ids)) for p in folds) != len(set(image_ids)):
        raise InputError(f"{name} validated a picture in two folds: run `dvc repro train` to train all folds anew")
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return Predictions(image_ids[order], actual[order], probabilities[order])


@dataclass(frozen=True)
class LabelFactors:
    """How labels are joined from factors.

    Args:
        names: F factors, in the order in which labels join them.
        labels: combinations of values, (F,) each, to the class of the label that they make.
    """

    names: list[str]
    labels: dict[tuple[str, ...], int]


def read_factors(index: Path, classes: list[str]) -> LabelFactors:
    """Read which combination of factors makes which label; InputError where no image has factors, or a label none.

    A label may come from several combinations (rare ones that split merged); a combination with several labels, as
    after a relabelling, belongs to the one with the most of its images.
    """
    table = read_table(index, PACK_INDEX, columns=["class_index", "factors"])
    found = Counter(zip(table["factors"].to_pylist(), table["class_index"].to_pylist(), strict=True))
    parsed = parse_column((text for text, _ in found), index)
    names = list(dict.fromkeys(name for text in sorted(parsed, key=str) for name in parsed[text]))
    if not names:
        raise InputError(
            f"{index} knows no factors of its labels, but a member was trained on one: run `dvc repro`, or set the "
            "recipe's target: label"
        )
    votes: dict[tuple[str, ...], Counter[int]] = {}
    for (text, class_index), count in found.items():
        if all(name in parsed[text] for name in names):
            votes.setdefault(tuple(parsed[text][name] for name in names), Counter())[class_index] += count
    labels = {values: min(v, key=lambda k: (-v[k], k)) for values, v in sorted(votes.items())}
    lacking = [classes[k] for k in sorted(set(range(len(classes))) - set(labels.values()))]
    if lacking:
        raise InputError(
            f"no picture of {', '.join(lacking)} says which {' and which '.join(names)} it is: members that tell these "
            "apart cannot tell that label; take every picture from a table with label columns, or use members with "
            "target: label"
        )
    return LabelFactors(names, labels)


def join_factors(
    members: Sequence[MemberPredictions], factors: LabelFactors, packed: EvaluationIndex
) -> MemberPredictions:
    """Join members that predict factors into one that predicts labels.

    P(label) is the product over factors of P(the label's value), renormalised over the combinations that exist as
    labels. Several members of one factor are averaged first.

    Args:
        members: those whose target is a factor, at least one.
        packed: for the labels of the images.

    Raises:
        InputError: a factor has no member, is unknown, or its members disagree on images or values.
    """
    for member in members:
        if member.target not in factors.names:
            raise InputError(
                f"{member.name} tells {member.target} apart, which is not among the factors of the labels "
                f"({', '.join(factors.names)}): change its recipe's target"
            )
    by_factor = {name: [m for m in members if m.target == name] for name in factors.names}
    missing = [name for name, found in by_factor.items() if not found]
    if missing:
        raise InputError(
            f"members tell {' and '.join(dict.fromkeys(m.target for m in members))} apart, but none tells "
            f"{' or '.join(missing)}, without which no label is known: add a recipe with target: {missing[0]} to "
            "train.members, or give these target: label"
        )
    joined = {}
    for subset in ("test", "val"):
        told = [_of_images(found, subset) for found in by_factor.values()]
        for name, (image_ids, _) in zip(factors.names[1:], told[1:], strict=True):
            if list(image_ids) != list(told[0][0]):
                raise InputError(
                    f"members of {factors.names[0]} and of {name} predicted different {subset} pictures: "
                    "run `dvc repro train` so that all are trained on the same split"
                )
        likely = np.zeros((len(told[0][0]), len(packed.classes)))
        for values, label in factors.labels.items():
            columns = [_column(found[0], value) for found, value in zip(by_factor.values(), values, strict=True)]
            likely[:, label] += np.prod([told[f][1][:, c] for f, c in enumerate(columns)], axis=0)
        joined[subset] = _under_labels(told[0][0], likely / likely.sum(axis=1, keepdims=True), packed)
    # no recipe has a space in its name
    name = " × ".join(factors.names) if len(factors.names) > 1 else f"label by {factors.names[0]}"
    return MemberPredictions(name, LABEL, packed.classes, test=joined["test"], val=joined["val"])


def _of_images(members: Sequence[MemberPredictions], subset: str) -> tuple[Names, Floats]:
    """(N,) images, each once, and (N, V) the mean probabilities of the members of one factor."""
    found: list[Predictions] = [member.test if subset == "test" else member.val for member in members]
    for member, one in zip(members, found, strict=True):
        if member.classes != members[0].classes:
            raise InputError(
                f"{members[0].name} and {member.name} know different values of {member.target}: run `dvc repro train`"
            )
        require_same_pictures(found[0], members[0].name, one, member.name, subset)
    mean = average(found)
    image_ids, rows = np.unique(mean.image_ids.astype(np.str_), return_index=True)
    return image_ids.astype(object), np.maximum(mean.probabilities[rows], _SMALLEST)


def _column(member: MemberPredictions, value: str) -> int:
    if value not in member.classes:
        raise InputError(
            f"{member.name} does not know the {member.target} {value!r}, which a label has: run `dvc repro train`"
        )
    return member.classes.index(value)


def _under_labels(image_ids: Names, probabilities: Floats, packed: EvaluationIndex) -> Predictions:
    """Predictions once for every label of an image, as the pack index lists them."""
    packed.require_known(image_ids)
    keys = [(row, k) for row, image_id in enumerate(image_ids) for k in packed.classes_of[image_id]]
    rows = np.array([row for row, _ in keys], np.int64)
    return Predictions(image_ids[rows], np.array([k for _, k in keys], np.int64), probabilities[rows])
