"""Who goes where, whatever the method, and what becomes of classes that are too rare to be everywhere.

`method: hash`: each unit's own hash decides, so that growth never moves an old picture. Fractions are then met on
average only: a class of n units gets n·f ± sqrt(n·f·(1 - f)) of them into a bin of fraction f.

A unit has members: its images, or, with group_by, the values that it holds (a person who gains pictures stays one
member). Each has a priority and a choice, both hashed from the seed and the member's name; the unit takes the choice of
the member of lowest priority. So a unit's chance of a bin is the bin's fraction, however large the unit.

An old picture moves only where a new copy that links to it, or joins its unit with another one, has a lower priority
than all m old members (in 1 of m + 1 cases) and another choice: without a memory, no rule knows which copy came first.
And a class that `rare_classes: train_only` held in training takes up its own choices once it is large enough.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from typing import NoReturn

import numpy as np
import pyarrow as pa

from pipelines.core.errors import InputError, count
from pipelines.params.split import SplitParams
from pipelines.split.links import Bools, Ints
from pipelines.split.predefined import Given, predefined_bins, refuse_untrained
from pipelines.split.stratified import Bins, draw_bins
from pipelines.split.units import Pictures, seeded_hashes, unit_label_counts, without_repeats


def hash_bins(
    pictures: Pictures,
    counts: tuple[Ints, Ints, Ints],  # noqa: ARG001 - both methods are called alike
    fractions: tuple[float, ...],
    forced: Bools,  # noqa: ARG001 - forced units are overruled by the caller
    seed: int,
) -> Ints:
    """The bin of each unit, (U,), 0 to B - 1.

    Args:
        fractions: (B,) of each bin, sums to 1.
    """
    priority, choice = seeded_hashes(seed, pictures.linked.keys)
    # the first key of each unit in (unit, priority) order is the one that decides
    unit_of_key = pictures.linked.unit_of_key
    order = np.lexsort((priority, unit_of_key))
    _, first = np.unique(unit_of_key[order], return_index=True)
    share = choice[order[first]] / 2.0**64  # (U,) in [0, 1]
    edges = np.cumsum(fractions)[:-1]  # the last bin is all that is left
    return np.searchsorted(edges, share, side="right").astype(np.int64)


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
        num_units = np.bincount(unit_label_counts(pictures)[1], minlength=len(pictures.labels))
        rare = np.zeros(len(pictures.labels), dtype=bool) if given else num_units < bins.num_bins
        bin_of, rare, empty = _attempts(pictures, bins, params, given, rare)
        if params.rare_classes != "merge" or not rare.any():
            break
        too_rare = list(compress(pictures.labels, rare))
        if too_rare == [params.merged_label]:
            refuse_rare(pictures, bins, params, rare, empty, merged=tuple(sizes))
        counts = np.bincount(pictures.label_of, minlength=len(rare)).tolist()
        sizes |= {n: c for n, c, r in zip(pictures.labels, counts, rare, strict=True) if r and n != params.merged_label}
        pictures, kept = merge(pictures, rare, str(params.merged_label))
        given = given.of(kept) if given else None
    if given:
        refuse_untrained(pictures, bin_of, bins)
    names = tuple(compress(pictures.labels, rare))
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
            bin_of = predefined_bins(pictures, given, bins, params, rare)
        else:
            method = hash_bins if params.method == "hash" else None
            bin_of = draw_bins(pictures, bins.fractions, params.seed, rare=rare, method=method)
        empty = ~bins.reached(bin_of, pictures.label_of, num_labels) & ~rare[:, None]
        if not empty.any():
            return bin_of, rare, empty
        rare = rare | empty.any(axis=1)


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


NAMED = 20
"""Classes that a message lists before it only counts the rest."""


def merge(pictures: Pictures, rare: Bools, into: str) -> tuple[Pictures, Ints]:
    """The pictures with every rare label replaced by `into`, sorted again, and the rows that they were.

    An image under two labels that become one is one picture from then on.

    Args:
        rare: (K,) classes to merge.
    """
    names = np.array([into if is_rare else name for name, is_rare in zip(pictures.labels, rare, strict=True)], object)
    label = pa.array(names[pictures.label_of], pa.string())
    table = pictures.table.set_column(pictures.table.schema.get_field_index("label"), "label", label)
    table = table.append_column("row", pa.array(np.arange(len(label))))
    table = table.sort_by([(name, "ascending") for name in ("label", "image_id", "row")])
    if not pictures.may_repeat:
        table = without_repeats(table, "label", "image_id")
    return Pictures(table, pictures.linked, may_repeat=pictures.may_repeat), table["row"].to_numpy()


def merging_warning(sizes: dict[str, int], into: str, num_labels: int) -> str:
    """What to tell of classes that were merged, by label the pictures of each."""
    named = [f"{label!r} ({count(size, 'picture')})" for label, size in sorted(sizes.items())]
    return (
        f"{count(len(sizes), 'class is', 'classes are')} too rare for every subset and became {into!r}, "
        f"which leaves {count(num_labels, 'class', 'classes')}: {', '.join(_clipped(named))}"
    )


def rare_warning(pictures: Pictures, names: Sequence[str], is_given: bool) -> str:
    """What to tell of classes that stay in training."""
    fate = (
        "have no picture in at least one subset of the given split"
        if is_given
        else "are too rare for every subset and stay in training only, never validated or tested"
    )
    return f"{len(names)} of {len(pictures.labels)} classes {fate}: {', '.join(_clipped([repr(n) for n in names]))}"


def refuse_rare(
    pictures: Pictures,
    bins: Bins,
    params: SplitParams,
    rare: Bools,
    empty: Bools,
    *,
    merged: tuple[str, ...] = (),
) -> NoReturn:
    """Name each rare class, what it has, what it needs, and what can be done.

    Args:
        rare: (K,) classes.
        empty: (K, B) bins that an attempt left without a class.
        merged: labels that became split.merged_label, which is rare all the same.

    Raises:
        InputError: always.
    """
    num_units = np.bincount(unit_label_counts(pictures)[1], minlength=len(pictures.labels))
    num_images = np.bincount(pictures.label_of, minlength=len(pictures.labels))
    lines = []
    for index in np.flatnonzero(rare):
        have = f"{count(num_images[index], 'picture')} in {count(num_units[index], 'group')}"
        lacks = ""
        if num_units[index] >= bins.num_bins or params.method == "predefined":
            lacks = f"; none of them falls into {' or '.join(compress(bins.named, empty[index]))}"
        lines.append(f"{pictures.labels[index]!r}: {have}, needs {bins.num_bins} groups{lacks}")
    what = f"{count(len(lines), 'class', 'classes')} cannot be in every subset ({bins.summary})"
    if merged:
        what += f", though split.rare_classes: merge made it of {', '.join(_clipped([repr(name) for name in merged]))}"
    raise InputError(
        f"{what}:\n  "
        + "\n  ".join(_clipped(lines))
        + f"\nWhat helps: {'; or '.join(_remedies(bins, params, by_chance=bool(empty.any())))}"
    )


def _remedies(bins: Bins, params: SplitParams, *, by_chance: bool) -> list[str]:
    found = ["add pictures", "merge the label into another one in data/decisions/relabel.csv"]
    found += ["lower split.folds"] if bins.folds > 1 else []
    if params.method == "predefined":
        found += ["set split.method: stratified, which divides all pictures anew"]
    elif by_chance:
        found += ["set split.method: stratified"] if params.method == "hash" else ["choose another split.group_by"]
        found += ["try another split.seed"]
    if params.rare_classes == "refuse":
        found += ["set split.rare_classes: merge, and name split.merged_label"]
    return [*found, "set split.rare_classes: train_only"]


def _clipped(names: list[str]) -> list[str]:
    return names if len(names) <= NAMED else [*names[:NAMED], f"and {len(names) - NAMED} more"]
