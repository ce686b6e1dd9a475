"""The bins that pictures go into, and what a split says of them."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from pipelines.params.split import SplitParams
from pipelines.split.units import Ints

ALWAYS_TRAIN = -1
"""The bin of pictures that are never tested on, nor validated on."""
TEST = 0
"""The bin of the test set."""


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

    @property
    def train(self) -> int:
        """The bin of pictures that are only trained on."""
        return self.num_bins - 1 if self.folds == 1 else ALWAYS_TRAIN

    def reached(self, bin_of: Ints, label_of: Ints, num_labels: int) -> npt.NDArray[np.bool_]:
        """(K, B) whether a class has a picture in a bin; (N,) bins and labels of pictures."""
        bin_of = np.where(bin_of == ALWAYS_TRAIN, self.train, bin_of)
        found = np.zeros((num_labels, self.num_bins), dtype=bool)
        # pictures that train in every fold are in no bin of their own
        found[label_of[bin_of >= 0], bin_of[bin_of >= 0]] = True
        return found

    def subset_and_fold(self, bin_of: Ints) -> tuple[npt.NDArray[np.object_], npt.NDArray[np.int16]]:
        """What SPLITS says of each bin number: subset and fold, (N,) each."""
        # the last entry is that of ALWAYS_TRAIN, -1
        if self.folds == 1:
            subsets, folds = ["test", "val", "train", "train"], [-1, 0, -1, -1]
        else:
            subsets, folds = ["test", *["train"] * self.folds, "train"], [-1, *range(self.folds), -1]
        return np.array(subsets, dtype=object)[bin_of], np.array(folds, dtype=np.int16)[bin_of]
