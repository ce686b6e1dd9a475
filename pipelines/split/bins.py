"""The bins that units go into, what happens to classes that are too rare for all of them, and who decides."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from pipelines.core.errors import InputError
from pipelines.core.params.split import SplitParams
from pipelines.split.exact import exact_bins
from pipelines.split.stable import stable_bins
from pipelines.split.units import Ints, Pictures

ALWAYS_TRAIN = -1
"""The bin of units that are never tested on, nor validated on."""

NAMED = 20
"""Classes that a message lists before it only counts the rest."""


@dataclass(frozen=True)
class Bins:
    """The B bins of a split: test first; then val and train, or one bin a fold.

    Args:
        fractions: (B,) what each bin should get of every class; sums to 1.
        folds: split.folds.
    """

    fractions: tuple[float, ...]
    folds: int

    @classmethod
    def of(cls, params: SplitParams) -> Self:
        test = params.test_fraction
        if params.folds == 1:
            return cls((test, params.val_fraction, 1.0 - test - params.val_fraction), folds=1)
        return cls((test, *[(1.0 - test) / params.folds] * params.folds), folds=params.folds)

    @property
    def num_bins(self) -> int:
        return len(self.fractions)

    @property
    def subsets(self) -> tuple[str, ...]:
        return ("train", "val", "test") if self.folds == 1 else ("train", "test")

    @property
    def named(self) -> list[str]:
        """What a message calls each bin."""
        return ["test", "val", "train"] if self.folds == 1 else ["test", *(f"fold {k}" for k in range(self.folds))]

    @property
    def summary(self) -> str:
        """All bins in a few words."""
        return "test, val, train" if self.folds == 1 else f"test and {self.folds} folds"

    def subset_and_fold(self, bin_of: Ints) -> tuple[npt.NDArray[np.object_], npt.NDArray[np.int16]]:
        """What SPLITS says of each bin number: subset and fold, (N,) each."""
        # the last entry is that of ALWAYS_TRAIN, -1
        if self.folds == 1:
            subsets, folds = ["test", "val", "train", "train"], [-1, 0, -1, -1]
        else:
            subsets, folds = ["test", *["train"] * self.folds, "train"], [-1, *range(self.folds), -1]
        return np.array(subsets, dtype=object)[bin_of], np.array(folds, dtype=np.int16)[bin_of]


@dataclass(frozen=True)
class Assignment:
    """Which bin each unit got.

    Args:
        bin_of_unit: (U,) 0 to B - 1, or ALWAYS_TRAIN.
        train_only: labels that are too rare for every bin.
        warning: what to tell about these.
    """

    bin_of_unit: Ints
    train_only: tuple[str, ...]
    warning: str


def assign_units(pictures: Pictures, bins: Bins, params: SplitParams) -> Assignment:
    """Give every unit a bin, so that every class that is not rare has pictures in every bin.

    A class is rare when fewer units hold it than there are bins, or when no choice was found that gives every bin
    some of it. Under `train_only` the units of a rare class never leave training; that may leave too few units to
    another class, which is then rare too.

    Raises:
        InputError: one class only, all pictures in one unit, or a rare class under `rare_classes: refuse`.
    """
    _refuse_hopeless(pictures, params)
    unit, label, count = unit_label_counts(pictures)
    num_units, num_labels = len(pictures.units), len(pictures.labels)
    rare = np.bincount(label, minlength=num_labels) < bins.num_bins
    empty = np.zeros((num_labels, bins.num_bins), dtype=bool)
    while True:
        if rare.any() and params.rare_classes == "refuse":
            raise InputError(_refusal(pictures, bins, params, rare, label, count, empty))
        if rare.all():
            raise InputError(
                f"split.rare_classes is train_only, and every class is too rare: none has {bins.num_bins} groups that "
                f"can be divided ({bins.summary}), so nothing would be left to test on; add pictures"
                + (" or lower split.folds" if bins.folds > 1 else "")
            )
        forced = np.zeros(num_units, dtype=bool)
        forced[unit[rare[label]]] = True
        assign = exact_bins if params.method == "exact" else stable_bins
        bin_of_unit = assign(pictures, (unit, label, count), bins.fractions, forced, params.seed)
        filled = np.zeros((num_labels, bins.num_bins), dtype=bool)
        counted = (bin_of_unit if bins.folds > 1 else np.where(forced, bins.num_bins - 1, bin_of_unit))[unit]
        filled[label[counted >= 0], counted[counted >= 0]] = True
        empty = ~filled & ~rare[:, None]
        if not empty.any():
            break
        rare = rare | empty.any(axis=1)
    names = tuple(name for name, is_rare in zip(pictures.labels, rare, strict=True) if is_rare)
    warning = (
        f"{len(names)} of {num_labels} classes are too rare for every subset and stay in training only, "
        f"never validated or tested: {_listed([repr(name) for name in names])}"
    )
    return Assignment(np.where(forced, ALWAYS_TRAIN, bin_of_unit), names, warning)


def unit_label_counts(pictures: Pictures) -> tuple[Ints, Ints, Ints]:
    """How many pictures of which class each unit holds: (unit, label, count), (P,) each, sorted by unit, then label."""
    num_labels = len(pictures.labels)
    pair, count = np.unique(pictures.unit_of * num_labels + pictures.label_of, return_counts=True)
    return pair // num_labels, pair % num_labels, count.astype(np.int64)


def _refuse_hopeless(pictures: Pictures, params: SplitParams) -> None:
    total, where = len(pictures.label_of), "data/dedupe/manifest.parquet"
    if len(pictures.labels) == 1:
        raise InputError(
            f"all {total} pictures of {where} have the label {pictures.labels[0]!r}: a classifier needs two classes; "
            "add pictures of another class, or check ingest's label_from"
        )
    if len(pictures.units) == 1:
        cause = (
            f"split.group_by {params.group_by} links them; choose another column, or null"
            if params.group_by
            else "dedupe takes them all for copies of each other; raise dedupe.min_score, or add pictures"
        )
        raise InputError(f"all {total} pictures of {where} are one group, which no split can divide: {cause}")


def _refusal(
    pictures: Pictures,
    bins: Bins,
    params: SplitParams,
    rare: npt.NDArray[np.bool_],
    label: Ints,
    count: Ints,
    empty: npt.NDArray[np.bool_],
) -> str:
    """Names each rare class, what it has, what it needs, and what can be done."""
    num_units = np.bincount(label, minlength=len(pictures.labels))
    num_images = np.bincount(label, weights=count, minlength=len(pictures.labels)).astype(int)
    lines = []
    for index in np.flatnonzero(rare):
        have = f"{_many(num_images[index], 'picture')} in {_many(num_units[index], 'group')}"
        lacks = ""
        if num_units[index] >= bins.num_bins:
            missing = [name for name, is_empty in zip(bins.named, empty[index], strict=True) if is_empty]
            lacks = f"; none of them falls into {' or '.join(missing)}"
        lines.append(f"{pictures.labels[index]!r}: {have}, needs {bins.num_bins} groups{lacks}")
    remedies = ["add pictures", "merge the label into another one in data/decisions/relabel.csv"]
    remedies += ["lower split.folds"] if bins.folds > 1 else []
    if empty.any():
        remedies += ["set split.method: exact"] if params.method == "stable" else ["choose another split.group_by"]
        remedies += ["try another split.seed"]
    remedies += ["set split.rare_classes: train_only"]
    return (
        f"{_many(len(lines), 'class', 'classes')} cannot be in every subset ({bins.summary}):\n  "
        + "\n  ".join(_clipped(lines))
        + f"\nWhat helps: {'; or '.join(remedies)}"
    )


def _many(count: int, one: str, more: str = "") -> str:
    return f"{count} {one if count == 1 else more or one + 's'}"


def _clipped(names: list[str]) -> list[str]:
    return names if len(names) <= NAMED else [*names[:NAMED], f"and {len(names) - NAMED} more"]


def _listed(names: list[str]) -> str:
    return ", ".join(_clipped(names))
