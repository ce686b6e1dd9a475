"""Classes that are too rare for every subset: the messages that name them, and merging them into one."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.core.errors import InputError, count
from pipelines.params.split import SplitParams
from pipelines.split.stratified import Bins
from pipelines.split.units import Ints, Pictures, image_numbers, label_numbers, unit_label_counts

NAMED = 20
"""Classes that a message lists before it only counts the rest."""


def merge(pictures: Pictures, rare: npt.NDArray[np.bool_], into: str) -> tuple[Pictures, Ints]:
    """The pictures with every rare label replaced by `into`, sorted again, and the rows that they were.

    An image under two labels that become one is one picture from then on.

    Args:
        rare: (K,) classes to merge.
    """
    names = np.array([into if is_rare else name for name, is_rare in zip(pictures.labels, rare, strict=True)], object)
    label = pa.array(names[pictures.label_of], pa.string())
    table = pictures.table.set_column(pictures.table.schema.get_field_index("label"), "label", label)
    _, label_of = label_numbers(table["label"])
    order = np.lexsort((pictures.image_of, label_of))
    number = pictures.image_of[order]
    label_of = label_of[order]
    if pictures.may_repeat:
        kept = order
    else:
        new = np.ones(len(order), dtype=bool)
        new[1:] = (number[1:] != number[:-1]) | (label_of[1:] != label_of[:-1])
        kept = order[new]
    table = table.take(pa.array(kept))
    labels, label_of = label_numbers(table["label"])
    merged = replace(
        pictures,
        table=table,
        labels=labels,
        label_of=label_of,
        image_of=image_numbers(table["image_id"]),
        group_of=pictures.group_of[kept],
        unit_of=pictures.unit_of[kept],
    )
    return merged, kept


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
    rare: npt.NDArray[np.bool_],
    empty: npt.NDArray[np.bool_],
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
    _, label, num_pictures = unit_label_counts(pictures)
    num_units = np.bincount(label, minlength=len(pictures.labels))
    num_images = np.bincount(label, weights=num_pictures, minlength=len(pictures.labels)).astype(int)
    lines = []
    for index in np.flatnonzero(rare):
        have = f"{count(num_images[index], 'picture')} in {count(num_units[index], 'group')}"
        lacks = ""
        if num_units[index] >= bins.num_bins or params.method == "predefined":
            missing = [name for name, is_empty in zip(bins.named, empty[index], strict=True) if is_empty]
            lacks = f"; none of them falls into {' or '.join(missing)}"
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
