"""The stage: reads dedupe's manifest and pairs, writes splits.parquet and its audit, says what came out."""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.core.errors import InputError, count
from pipelines.core.files import empty_folder, write_json
from pipelines.core.tables import SPLITS, write_table
from pipelines.params.split import SplitParams
from pipelines.split.assign import Assignment, assign
from pipelines.split.audit import Pairs, achieved, audit_pairs, refuse_pairs_across
from pipelines.split.links import Ints
from pipelines.split.predefined import Given, read_given, write_leaks
from pipelines.split.stratified import Bins
from pipelines.split.units import Pictures, read_pictures
from pipelines.split.unlabelled import Unlabelled, as_training, read_unlabelled, with_unlabelled


@dataclass(frozen=True)
class SplitArtifact:
    """What the split came to.

    Args:
        splits: the table, SPLITS.
        num_classes: of all pictures.
        num_groups: units that were kept whole: duplicate groups, joined by group_by.
        num_whole: of these, the groups of at least two pictures.
        subsets: pictures of each subset, in the order train, val, test; with folds, train holds every fold.
        fractions: the same, of all pictures.
        smallest: per subset the pictures of its smallest class, classes that are kept in training apart.
        largest: per subset the pictures of its largest class.
        folds: pictures of each fold, in order; empty when split.folds is 1.
        audit: audit.json: what was achieved, and that no pair of copies lies on two sides.
        train_only: labels that are too rare for every subset and stay in training.
        merged: labels that became split.merged_label.
        num_leaks: groups that lay across a given split.
        pairs_across: pairs of copies that still do, under `leaks: keep`.
        num_unlabelled: pictures without a label that stay, beside the subsets.
        num_unlabelled_left_out: those bound to a picture that something is measured on.
    """

    splits: Path
    audit: Path
    num_classes: int
    num_groups: int
    num_whole: int
    subsets: dict[str, int]
    fractions: dict[str, float]
    smallest: dict[str, int]
    largest: dict[str, int]
    folds: tuple[int, ...]
    train_only: tuple[str, ...]
    merged: tuple[str, ...]
    num_leaks: int
    pairs_across: int
    num_unlabelled: int
    num_unlabelled_left_out: int

    def __str__(self) -> str:
        what = f"{count(sum(self.subsets.values()), 'picture')} of {count(self.num_classes, 'class', 'classes')}"
        what += f", {count(self.num_whole, 'group')} kept whole" if self.num_whole else ""
        parts = [
            f"{name} {size:,} ({100 * self.fractions[name]:.1f} %, "
            f"{_ends(self.smallest[name], self.largest[name], '-')} a class)"
            for name, size in self.subsets.items()
        ]
        train_only, merged = (count(len(rare), "rare class", "rare classes") for rare in (self.train_only, self.merged))
        more = [
            f"{len(self.folds)} folds of {_ends(min(self.folds), max(self.folds), ' to ')}" if self.folds else "",
            f"{train_only} in training only" if self.train_only else "",
            f"{merged} merged" if self.merged else "",
            f"{count(self.num_leaks, 'group')} lay across the given split" if self.num_leaks else "",
            f"{count(self.pairs_across, 'PAIR LIES', 'PAIRS LIE')} ACROSS" if self.pairs_across else "",
            f"{self.num_unlabelled:,} without a label, {self.num_unlabelled_left_out:,} more left out"
            if self.num_unlabelled or self.num_unlabelled_left_out
            else "",
        ]
        return "; ".join(filter(None, [f"{what}: {', '.join(parts)}", *more]))


def _ends(low: int, high: int, between: str) -> str:
    return f"{low:,}" if low == high else f"{low:,}{between}{high:,}"


def split(params: SplitParams, *, manifest: Path, duplicates: Path, out_dir: Path) -> SplitArtifact:
    """Divide the pictures of verdict keep into train, val and test, or into folds and test.

    Equal pictures under equal params get equal subsets, in whatever order the manifest lists them.

    Args:
        manifest: dedupe's table, DEDUPED.
        duplicates: dedupe's pairs: what the audit looks up.
        out_dir: emptied; gets splits.parquet, audit.json and, under method predefined, leaks.csv.

    Raises:
        InputError: nothing to split, one class only, all pictures in one group, a class that is too rare, or a given
            split against the rules.
    """
    given: Given | None = None
    if params.method == "predefined":
        pictures, given = read_given(manifest, duplicates, params)
    else:
        pictures = read_pictures(manifest, params.group_by, unlabelled=params.unlabelled)
    bins = Bins.of(params)
    found = assign(pictures, bins, params, given)
    pictures, keeps_leaks = found.pictures, given is not None and params.leaks == "keep"
    if not keeps_leaks:
        refuse_straddling(pictures, found.bin_of)
    labelled = _splits(pictures, bins, found.bin_of)
    unlabelled = read_unlabelled(manifest, duplicates, params, labelled)
    table = with_unlabelled(labelled, unlabelled)
    pairs = audit_pairs(duplicates, as_training(table))
    if not keeps_leaks:
        refuse_pairs_across(pairs)
    for warning in (*found.warnings, *_leak_warnings(given, params, pairs)):
        print(f"split: warning: {warning}", file=sys.stderr)
    audit = {
        **_described(params, found, pairs, given, unlabelled),
        **achieved(pictures, bins, found.bin_of, found.train_only, asked=given is None),
    }
    empty_folder(out_dir)
    if given:
        write_leaks(given.leaks, table, out_dir / "leaks.csv")
    write_json(out_dir / "audit.json", audit)
    write_table(table, out_dir / "splits.parquet")
    return _artifact(out_dir, found, audit, pairs)


def _splits(pictures: Pictures, bins: Bins, bin_of: Ints) -> pa.Table:
    """The table SPLITS."""
    subset, fold = bins.subset_and_fold(bin_of)
    # one name a unit: the group that the later stages see is the unit of this split
    group = pa.array(pictures.units).take(pa.array(pictures.unit_of))
    own = pictures.table
    columns = [own["image_id"], own["label"], group, pa.array(subset), pa.array(fold), own["factors"]]
    return pa.table(columns, schema=SPLITS)


def _described(
    params: SplitParams, found: Assignment, pairs: Pairs, given: Given | None, unlabelled: Unlabelled
) -> dict[str, Any]:
    """What audit.json says of the method and of leaks."""
    pictures = found.pictures
    sizes = np.bincount(pictures.unit_of, minlength=len(pictures.units))
    largest = int(sizes.argmax())
    return {
        "method": params.method,
        "seed": params.seed,
        "group_by": params.group_by,
        "num_pictures": len(found.bin_of),
        "num_groups": int((sizes > 0).sum()),
        "largest_group": {"group": pictures.units[largest], "num_pictures": int(sizes[largest])},
        "pairs": asdict(pairs),
        "given": {"leaks": params.leaks, "unassigned": params.unassigned, **given.leaks.summary} if given else None,
        "train_only": list(found.train_only),
        "merged": {"label": params.merged_label, "of": list(found.merged)} if found.merged else None,
        "unlabelled": {"num_pictures": unlabelled.rows.num_rows, "num_left_out": unlabelled.num_left_out}
        if params.unlabelled is not None
        else None,
    }


def _leak_warnings(given: Given | None, params: SplitParams, pairs: Pairs) -> list[str]:
    if given is None or not given.leaks.num_groups:
        return []
    fate = {
        "keep_test": "their files outside the test set (or outside val) take no part",
        "keep_train": "their files outside the training set (or outside val) take no part",
        "keep": f"they stay, and {count(pairs.across, 'pair lies', 'pairs lie')} across: scores are better than the "
        "model is",
    }
    groups = count(given.leaks.num_groups, "group lies", "groups lie")
    return [
        f"{groups} across the given split; split.leaks is {params.leaks}: {fate[params.leaks]}; "
        "all are listed in data/split/leaks.csv"
    ]


def refuse_straddling(pictures: Pictures, bin_of: Ints) -> None:
    """Stop before a split is written that has an image, a duplicate group or a unit on two sides.

    Args:
        bin_of: (N,) the bin of each picture.

    Raises:
        InputError: it cannot come to this; if it does, nothing that follows may trust the split.
    """
    for what, number in (
        ("image", pictures.image_of),
        ("duplicate group", pictures.group_of),
        ("unit", pictures.unit_of),
    ):
        side = np.empty(int(number.max()) + 1, dtype=np.int64)
        side[number] = bin_of
        astray = np.flatnonzero(side[number] != bin_of)
        if len(astray):
            image_id = pictures.table["image_id"][int(astray[0])].as_py()
            raise InputError(
                f"the {what} of picture {image_id} lies on two sides of the split: this is a mistake in miwake, "
                "not in the data; please report it with data/dedupe/manifest.parquet"
            )


def _artifact(out_dir: Path, found: Assignment, audit: dict[str, Any], pairs: Pairs) -> SplitArtifact:
    sizes = {name: subset["num_pictures"] for name, subset in audit["subsets"].items()}
    total, everywhere = sum(sizes.values()), audit["classes"].keys() - found.train_only
    per_class = {name: [audit["classes"][label][name] for label in everywhere] for name in sizes}
    unlabelled = audit["unlabelled"] or {"num_pictures": 0, "num_left_out": 0}
    return SplitArtifact(
        splits=out_dir / "splits.parquet",
        audit=out_dir / "audit.json",
        num_classes=len(found.pictures.labels),
        num_groups=audit["num_groups"],
        num_whole=int((np.bincount(found.pictures.unit_of) > 1).sum()),
        subsets=sizes,
        fractions={name: size / total for name, size in sizes.items()},
        smallest={name: min(numbers, default=total) for name, numbers in per_class.items()},
        largest={name: max(numbers, default=0) for name, numbers in per_class.items()},
        folds=tuple(audit["folds"]),
        train_only=found.train_only,
        merged=found.merged,
        num_leaks=audit["given"]["num_groups"] if audit["given"] else 0,
        pairs_across=pairs.across,
        num_unlabelled=unlabelled["num_pictures"],
        num_unlabelled_left_out=unlabelled["num_left_out"],
    )
