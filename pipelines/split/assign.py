"""Who goes where, whatever the method, and what becomes of classes that are too rare to be everywhere."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipelines.core.errors import InputError
from pipelines.params.split import SplitParams
from pipelines.split.bins import ALWAYS_TRAIN, Bins
from pipelines.split.exact import exact_bins
from pipelines.split.given import Given, given_bins, refuse_untrained
from pipelines.split.rare import merge, merging_warning, rare_warning, refuse_rare
from pipelines.split.stable import stable_bins
from pipelines.split.units import Ints, Pictures, unit_label_counts

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Assignment:
    """Which bin each picture got.

    Args:
        pictures: those that were divided; classes may have been merged.
        bin_of: (N,) 0 to B - 1, or ALWAYS_TRAIN.
        train_only: labels that are too rare for every bin and stay in training.
        merged: labels that became split.merged_label.
        warnings: what to tell about these.
    """

    pictures: Pictures
    bin_of: Ints
    train_only: tuple[str, ...]
    merged: tuple[str, ...]
    warnings: tuple[str, ...]


def assign(pictures: Pictures, bins: Bins, params: SplitParams, given: Given | None = None) -> Assignment:
    """Give every picture a bin, so that every class that is not rare has pictures in every bin.

    A class is rare when fewer units hold it than there are bins, or when no choice was found that gives every bin
    some of it. Under `train_only` the units of a rare class never leave training; that may leave too few units to
    another class, which is then rare too. Under `merge` rare classes become one, which must not be rare itself.

    Args:
        given: what the source says, for method predefined; the rare classes of a given split are those that lack a bin.

    Raises:
        InputError: one class only, all pictures in one unit, or rare classes that the rule does not allow.
    """
    sizes: dict[str, int] = {}
    while True:
        _refuse_hopeless(pictures, params, given, tuple(sizes))
        rare = np.zeros(len(pictures.labels), dtype=bool) if given else _too_few_units(pictures, bins)
        bin_of, rare, empty = _attempts(pictures, bins, params, given, rare)
        if params.rare_classes != "merge" or not rare.any():
            break
        too_rare = [label for label, is_rare in zip(pictures.labels, rare, strict=True) if is_rare]
        if too_rare == [params.merged_label]:
            refuse_rare(pictures, bins, params, rare, empty, merged=tuple(sizes))
        counts = np.bincount(pictures.label_of, minlength=len(rare)).tolist()
        sizes |= {n: c for n, c, r in zip(pictures.labels, counts, rare, strict=True) if r and n != params.merged_label}
        pictures, kept = merge(pictures, rare, str(params.merged_label))
        given = given.of(kept) if given else None
    if given:
        refuse_untrained(pictures, bin_of, bins)
    names = tuple(name for name, is_rare in zip(pictures.labels, rare, strict=True) if is_rare)
    warnings = [merging_warning(sizes, str(params.merged_label), len(pictures.labels))] if sizes else []
    warnings += [rare_warning(pictures, names, given is not None)] if names else []
    return Assignment(pictures, bin_of, names, tuple(sorted(sizes)), tuple(warnings))


def _attempts(
    pictures: Pictures, bins: Bins, params: SplitParams, given: Given | None, rare: Bools
) -> tuple[Ints, Bools, Bools]:
    """The bin of each picture, (N,), which classes are rare, (K,), and which bins they lack, (K, B).

    Under `train_only` it tries again with what turned out rare in training, until the rest is everywhere.
    """
    num_labels = len(pictures.labels)
    counts = unit_label_counts(pictures)
    empty = np.zeros((num_labels, bins.num_bins), dtype=bool)
    while True:
        if rare.any() and params.rare_classes == "refuse":
            refuse_rare(pictures, bins, params, rare, empty)
        if rare.all() and params.rare_classes == "train_only":
            raise InputError(
                f"split.rare_classes is train_only, and every class is too rare: none has {bins.num_bins} groups that "
                f"can be divided ({bins.summary}), so nothing would be left to test on; add pictures"
                + (" or lower split.folds" if bins.folds > 1 else "")
            )
        if rare.any() and params.rare_classes == "merge":
            return np.zeros(0, np.int64), rare, empty
        if given:
            bin_of = given_bins(pictures, given, bins, params, rare)
        else:
            forced = np.zeros(len(pictures.units), dtype=bool)
            forced[counts[0][rare[counts[1]]]] = True
            method = exact_bins if params.method == "stratified" else stable_bins
            bin_of_unit = method(pictures, counts, bins.fractions, forced, params.seed)
            bin_of = np.where(forced, ALWAYS_TRAIN, bin_of_unit)[pictures.unit_of]
        empty = ~bins.reached(bin_of, pictures.label_of, num_labels) & ~rare[:, None]
        if not empty.any():
            return bin_of, rare, empty
        rare = rare | empty.any(axis=1)


def _too_few_units(pictures: Pictures, bins: Bins) -> Bools:
    """(K,) classes with fewer units than there are bins."""
    _, label, _ = unit_label_counts(pictures)
    return np.asarray(np.bincount(label, minlength=len(pictures.labels)) < bins.num_bins)


def _refuse_hopeless(pictures: Pictures, params: SplitParams, given: Given | None, merged: tuple[str, ...]) -> None:
    total, where = len(pictures.label_of), "data/dedupe/manifest.parquet"
    if len(pictures.labels) == 1:
        raise InputError(
            f"all {total} pictures of {where} have the label {pictures.labels[0]!r}: a classifier needs two classes; "
            + (
                "split.rare_classes: merge left no other; add pictures, or choose train_only"
                if merged
                else "add pictures of another class, or check ingest's label_from"
            )
        )
    if len(pictures.units) == 1 and given is None:
        cause = (
            f"split.group_by {params.group_by} links them; choose another column, or null"
            if params.group_by
            else "dedupe takes them all for copies of each other; raise dedupe.min_score, or add pictures"
        )
        raise InputError(f"all {total} pictures of {where} are one group, which no split can divide: {cause}")
