"""The leak audit: does any pair of copies stand on two sides of what was written, and how near is it to what was asked?

An independent check. It knows nothing of groups and units: it reads dedupe's pairs, and looks up where the two images
of each ended. A split that is sound has none across; under `method: predefined` with `leaks: keep` the count is the
finding.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.core.errors import InputError
from pipelines.split.links import Ints, encode, ends_of, pair_rows, read_pairs
from pipelines.split.stratified import ALWAYS_TRAIN, Bins
from pipelines.split.units import Pictures

NUM_EXAMPLES = 20
"""pairs across that audit.json lists"""
DIGITS = 6


@dataclass(frozen=True)
class Pairs:
    """The pairs of duplicates.csv, by where their images ended.

    Args:
        looked_at: all pairs that belong together.
        apart: pairs that only look alike, and that dedupe left in two groups; not looked at.
        left_out: pairs of which at least one image takes no part: a copy, or one held or dropped.
        together: pairs whose images both take part, on one side.
        across: pairs on two sides: of test, val and train, or of two folds.
        across_by_kind: the same, by kind.
        examples: the first of these: image_a, image_b, kind, side_a, side_b.
    """

    looked_at: int
    apart: int
    left_out: int
    together: int
    across: int
    across_by_kind: dict[str, int]
    examples: list[dict[str, str]]


def audit_pairs(duplicates: Path, splits: pa.Table) -> Pairs:
    """Look every pair of `duplicates` up in `splits`.

    Args:
        duplicates: dedupe's duplicates.csv, of pairs of any kind.
        splits: SPLITS.

    Raises:
        InputError: the file is missing, or holds no pairs of images.
    """
    pairs, num_apart = read_pairs(duplicates)
    names, side = _sides(splits)
    images, image_of = encode(splits["image_id"])  # an image under two labels has two rows
    lowest, highest = ends_of(image_of, side, len(images))
    rows = pair_rows(pairs, images)
    known = (rows >= 0).all(axis=0)
    if len(images) == 0:
        return Pairs(pairs.num_rows, num_apart, pairs.num_rows, 0, 0, {}, [])
    low, high = lowest[rows].min(axis=0), highest[rows].max(axis=0)
    astray = np.flatnonzero(known & (low < high))
    kinds = pc.value_counts(pairs["kind"].take(pa.array(astray))).to_pylist()
    shown = pairs.take(pa.array(astray[:NUM_EXAMPLES])).to_pylist()
    return Pairs(
        looked_at=pairs.num_rows,
        apart=num_apart,
        left_out=int((~known).sum()),
        together=int(known.sum()) - len(astray),
        across=len(astray),
        across_by_kind={row["values"]: row["counts"] for row in sorted(kinds, key=lambda row: str(row["values"]))},
        examples=[
            {**pair, "side_a": names[int(low[row])], "side_b": names[int(high[row])]}
            for pair, row in zip(shown, astray[:NUM_EXAMPLES].tolist(), strict=True)
        ],
    )


def refuse_pairs_across(pairs: Pairs) -> None:
    """Stop before a split is written that has copies on two sides.

    Raises:
        InputError: it cannot come to this; if it does, nothing that follows may trust the split.
    """
    if pairs.across:
        one = pairs.examples[0]
        raise InputError(
            f"{pairs.across} pairs of data/dedupe/duplicates.csv lie on two sides of the split, first {one['image_a']} "
            f"({one['side_a']} or {one['side_b']}) and {one['image_b']}, of kind {one['kind']}: this is a mistake in "
            "miwake, not in the data; please report it with data/dedupe"
        )


def achieved(pictures: Pictures, bins: Bins, bin_of: Ints, rare: tuple[str, ...], *, asked: bool) -> dict[str, Any]:
    """What every class and subset got, and how far that is from what was asked.

    Args:
        bin_of: (N,) the bin of each picture.
        rare: labels that no fraction is asked of.
        asked: whether fractions decided at all; method predefined asks for none.
    """
    num_labels, total = len(pictures.labels), len(bin_of)
    # one more column, at the end, for ALWAYS_TRAIN = -1
    counts = np.zeros((num_labels, bins.num_bins + 1), dtype=np.int64)
    np.add.at(counts, (pictures.label_of, bin_of), 1)
    train = counts[:, bins.num_bins - 1] if bins.folds == 1 else counts[:, 1:-1].sum(axis=1)
    columns = {"train": train + counts[:, ALWAYS_TRAIN], "val": counts[:, 1], "test": counts[:, 0]}
    subsets = {name: columns[name] for name in bins.subsets}
    shares = dict(zip(bins.named, bins.fractions, strict=True)) if bins.folds == 1 else {"test": bins.fractions[0]}
    shares.setdefault("train", 1.0 - bins.fractions[0])
    found: dict[str, Any] = {
        "subsets": {
            name: {
                "num_pictures": int(count.sum()),
                "fraction": round(float(count.sum()) / total, DIGITS),
                "asked": round(shares[name], DIGITS) if asked else None,
            }
            for name, count in subsets.items()
        },
        "folds": counts[:, 1:-1].sum(axis=0).tolist() if bins.folds > 1 else [],
        "worst_class": None,
        "classes": {
            label: {name: int(count[k]) for name, count in subsets.items()} for k, label in enumerate(pictures.labels)
        },
    }
    if asked:
        found["worst_class"] = _worst(pictures.labels, counts[:, :-1], bins, rare)
    return found


def _worst(labels: list[str], counts: Ints, bins: Bins, rare: tuple[str, ...]) -> dict[str, Any] | None:
    """The class and bin that are furthest from the fraction asked, in pictures."""
    off = counts - counts.sum(axis=1, keepdims=True) * np.array(bins.fractions)  # (K, B)
    off[np.isin(labels, rare)] = 0.0
    at = np.unravel_index(np.abs(off).argmax(), off.shape)
    label, bin_name = labels[int(at[0])], bins.named[int(at[1])]
    return {"label": label, "subset": bin_name, "pictures": round(float(off[at]), DIGITS)}


def _sides(splits: pa.Table) -> tuple[list[str], Ints]:
    """What each side is called, and the side of each row: its subset and fold together."""
    fold = pc.cast(splits["fold"], pa.string())
    found, side = encode(pc.binary_join_element_wise(splits["subset"], fold, " "))
    return ["val" if name == "val 0" else name.removesuffix(" -1") for name in found.to_pylist()], side
