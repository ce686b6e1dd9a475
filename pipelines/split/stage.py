"""The stage: reads dedupe's manifest, writes splits.parquet, says what came out."""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.core.errors import InputError
from pipelines.core.files import empty_folder
from pipelines.core.params.split import SplitParams
from pipelines.core.tables import SPLITS, write_table
from pipelines.split.bins import ALWAYS_TRAIN, Bins, assign_units
from pipelines.split.units import Ints, Pictures, read_pictures


@dataclass(frozen=True)
class SplitArtifact:
    """What the split came to.

    Args:
        splits: the table, SPLITS.
        num_classes: of all pictures.
        num_groups: units that were kept whole: duplicate groups, joined by group_by.
        subsets: pictures of each subset, in the order train, val, test; with folds, train holds every fold.
        fractions: the same, of all pictures.
        smallest: per subset the pictures of its smallest class, classes that are kept in training apart.
        largest: per subset the pictures of its largest class.
        folds: pictures of each fold, in order; empty when split.folds is 1.
        train_only: labels that are too rare for every subset and stay in training.
    """

    splits: Path
    num_classes: int
    num_groups: int
    subsets: dict[str, int]
    fractions: dict[str, float]
    smallest: dict[str, int]
    largest: dict[str, int]
    folds: tuple[int, ...]
    train_only: tuple[str, ...]

    def __str__(self) -> str:
        total = sum(self.subsets.values())
        parts = [
            f"{name} {count} ({100 * self.fractions[name]:.1f} %, {self.smallest[name]}-{self.largest[name]} a class)"
            for name, count in self.subsets.items()
        ]
        folds = f"; {len(self.folds)} folds of {min(self.folds)} to {max(self.folds)}" if self.folds else ""
        rare = f"; {len(self.train_only)} rare in training only" if self.train_only else ""
        what = f"{total} pictures of {self.num_classes} classes in {self.num_groups} groups"
        return f"{what}: {', '.join(parts)}{folds}{rare}"


def split(params: SplitParams, *, manifest: Path, out_dir: Path) -> SplitArtifact:
    """Divide the pictures of verdict keep into train, val and test, or into folds and test.

    Equal pictures under equal params get equal subsets, in whatever order the manifest lists them.

    Args:
        manifest: dedupe's table, DEDUPED.
        out_dir: emptied; gets splits.parquet.

    Raises:
        InputError: nothing to split, one class only, all pictures in one group, or a class that is too rare.
    """
    pictures = read_pictures(manifest, params.group_by)
    bins = Bins.of(params)
    assignment = assign_units(pictures, bins, params)
    if assignment.train_only:
        print(f"split: warning: {assignment.warning}", file=sys.stderr)
    bin_of = assignment.bin_of_unit[pictures.unit_of]  # (N,)
    refuse_straddling(pictures, bin_of)
    subset, fold = bins.subset_and_fold(bin_of)
    # one name a unit: the group that the later stages see is the unit of this split
    group = pa.array(pictures.units).take(pa.array(pictures.unit_of))
    out = empty_folder(out_dir) / "splits.parquet"
    columns = [pictures.table["image_id"], pictures.table["label"], group, pa.array(subset), pa.array(fold)]
    write_table(pa.table(columns, schema=SPLITS), out)
    return _artifact(out, pictures, bins, bin_of, assignment.train_only)


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


def _artifact(out: Path, pictures: Pictures, bins: Bins, bin_of: Ints, train_only: tuple[str, ...]) -> SplitArtifact:
    subset, _ = bins.subset_and_fold(bin_of)
    total = len(bin_of)
    everywhere = np.array([label not in train_only for label in pictures.labels])
    counts: dict[str, npt.NDArray[np.int64]] = {
        name: np.bincount(pictures.label_of[subset == name], minlength=len(pictures.labels)) for name in bins.subsets
    }
    per_bin = np.bincount(bin_of[bin_of != ALWAYS_TRAIN], minlength=bins.num_bins)
    return SplitArtifact(
        splits=out,
        num_classes=len(pictures.labels),
        num_groups=len(pictures.units),
        subsets={name: int(count.sum()) for name, count in counts.items()},
        fractions={name: float(count.sum()) / total for name, count in counts.items()},
        smallest={name: int(count[everywhere].min()) for name, count in counts.items()},
        largest={name: int(count[everywhere].max()) for name, count in counts.items()},
        folds=tuple(int(count) for count in per_bin[1:]) if bins.folds > 1 else (),
        train_only=train_only,
    )
