"""Packs: the pictures of one subset as a memory-mapped uint8 array (N, S, S, 3), and which rows a fold uses.

Rows follow `index.parquet` (tables.PACK_INDEX): `position` is the row of `<subset>.npy`. Two more packs, each with a
table of its own, are for training alone: `copies`, changed for ever, of the pictures of rare classes, and `unlabelled`,
pictures that have no class. Training never opens a picture file: it reads rows of a pack, from the page cache.
"""

import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from pipelines.core.errors import InputError, count
from pipelines.core.factors import parse_column
from pipelines.core.files import TEMPORARY_SUFFIX
from pipelines.core.tables import PACK_INDEX, read_classes, read_table

Pixels = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.int64]

Texts = npt.NDArray[np.str_]

GREY = 128.0
"""what is no picture: a letterbox's border, what a move uncovers, an erased rectangle"""
SUBSETS = ("train", "val", "test")
COPIES, UNLABELLED = "copies", "unlabelled"
"""Subsets for training alone: index.parquet does not name them, and nothing is measured on them."""


@contextmanager
def new_pack(path: Path, *, num_images: int, image_size: int) -> Iterator[Pixels]:
    """A writable (N, S, S, 3) uint8 array; the file appears under its name only if the block ends without an error.

    Args:
        path: of the .npy file; its folder exists.
        num_images: N, which may be 0.
        image_size: S, pixels.
    """
    partial = path.with_name(path.name + TEMPORARY_SUFFIX)
    shape = (num_images, image_size, image_size, 3)
    try:
        if num_images == 0:
            with partial.open("wb") as file:  # nothing to map
                np.lib.format.write_array(file, np.empty(shape, np.uint8), version=(1, 0))
            yield np.empty(shape, np.uint8)
        else:
            pack = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape, version=(1, 0))
            yield pack
            pack.flush()
            del pack
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def open_pack(path: Path) -> Pixels:
    """The pack at `path` as a read-only array (N, S, S, 3) uint8; pixels are read when they are touched.

    Raises:
        InputError: the file is missing, broken, or holds something else.
    """
    try:
        pack: Pixels = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist: run `dvc repro augment`") from error
    except ValueError as error:
        raise InputError(f"{path} is no whole pack ({error}): run `dvc checkout --force`, or `dvc repro`") from error
    if pack.dtype != np.uint8 or pack.ndim != 4 or pack.shape[1] != pack.shape[2] or pack.shape[3] != 3:
        raise InputError(
            f"{path} holds {pack.dtype} {pack.shape}, not uint8 (N, S, S, 3): delete it and run `dvc repro augment`"
        )
    return pack


@dataclass(frozen=True)
class PackIndex:
    """Whose picture each packed row is; N pictures of K classes, sorted by (subset, position).

    Args:
        image_id: (N,) sha256 of the files.
        class_index: (N,) int64, 0 to K - 1; -1 for unlabelled.
        subset: (N,) train, val or test; in an index for training also copies or unlabelled.
        fold: (N,) int64: the fold in which the picture validates; -1 for never. A copy has its picture's.
        position: (N,) int64: the picture's row in its subset's pack.
        copy: (N,) int64: 0 for the picture itself, from 1 for its fixed augmented copies.
        factors: name of a label column to its values, (N,) each, "" for a picture that has none; {} where the source
            gives none.
        classes: K labels, in order of class_index.
    """

    image_id: Texts
    class_index: Rows
    subset: Texts
    fold: Rows
    position: Rows
    copy: Rows
    factors: dict[str, Texts]
    classes: list[str]


_TEXTS, _NUMBERS = ("image_id", "subset"), ("class_index", "fold", "position", "copy")


def read_index(path: Path) -> PackIndex:
    """Read index.parquet: the pictures of train, val and test.

    Raises:
        InputError: the file is missing or was written by another version.
    """
    table = read_table(path, PACK_INDEX)

    arrays: dict[str, Any] = {name: np.array(table[name].to_pylist(), np.str_) for name in _TEXTS}
    arrays |= {name: np.asarray(pc.fill_null(table[name], 0).to_numpy(), np.int64) for name in _NUMBERS}
    return PackIndex(**arrays, factors=_columns(table["factors"].to_pylist(), path), classes=read_classes(path))


def read_training_index(augment_dir: Path) -> PackIndex:
    """The rows of index.parquet, in their order, then the copies, then the unlabelled pictures.

    Raises:
        InputError: a table is missing, was written by another version, or has other classes than the rest.
    """
    index = read_index(augment_dir / "index.parquet")
    parts = [index, *(read_index(augment_dir / f"{subset}.parquet") for subset in (COPIES, UNLABELLED))]
    for part, subset in zip(parts[1:], (COPIES, UNLABELLED), strict=True):
        if part.classes != index.classes:
            raise InputError(
                f"{augment_dir / subset}.parquet has other classes than index.parquet: they are of different runs; "
                "run `dvc checkout --force`, or `dvc repro augment`"
            )
    names = sorted({name for part in parts for name in part.factors})
    return PackIndex(
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in (*_TEXTS, *_NUMBERS)},
        factors={
            name: np.concatenate([part.factors.get(name, np.full(len(part.image_id), "")) for part in parts])
            for name in names
        },
        classes=index.classes,
    )


def _columns(texts: list[str | None], path: Path) -> dict[str, Texts]:
    """Factors as one column for each of their names; "" where a picture lacks one."""
    parsed = parse_column(texts, path)
    names = sorted({name for found in parsed.values() for name in found})
    return {name: np.array([parsed[text].get(name, "") for text in texts], np.str_) for name in names}


def targets(index: PackIndex, target: str) -> tuple[list[str], Rows]:
    """What a member learns: its K classes, and the class of each picture, (N,) int64, -1 for unlabelled.

    Args:
        index: of `read_index` or `read_training_index`.
        target: `label`, or the name of one of the index's factors.

    Raises:
        InputError: there is no such factor, a picture lacks it, or all pictures have the same value of it.
    """
    if target == "label":
        return index.classes, index.class_index
    if target not in index.factors:
        known = ", ".join(sorted(index.factors))
        raise InputError(
            f"the target {target!r} is no factor of these pictures: "
            + (f"there are {known}" if known else "they have none; only tables with several label columns give factors")
            + "; name another one in train.recipes, or `label`"
        )
    values, labelled = index.factors[target], index.subset != UNLABELLED
    without = np.flatnonzero(labelled & (values == ""))
    if len(without):
        raise InputError(
            f"{count(len(without), 'picture has', 'pictures have')} no factor {target!r}, first "
            f"{index.image_id[without[0]]} of the class "
            f"{index.classes[index.class_index[without[0]]]!r}: give it a label of the table in "
            "data/decisions/relabel.csv, drop it in drop.csv, or train on the target label"
        )
    classes = np.unique(values[labelled])
    if len(classes) < 2:
        raise InputError(
            f"the factor {target!r} has the one value {', '.join(classes)!r}: a classifier needs two; "
            "name another target in train.recipes"
        )
    return classes.tolist(), np.where(labelled, np.searchsorted(classes, values), -1)


@dataclass(frozen=True)
class FoldRows:
    """Rows of a PackIndex by what they do in one fold, each sorted."""

    train: Rows
    val: Rows
    test: Rows
    unlabelled: Rows


def fold_rows(index: PackIndex, fold: int) -> FoldRows:
    """Which pictures train, validate and test in `fold`, and which have no class.

    A picture validates in its own fold and trains in every other, and so do its copies, which never validate; the test
    pictures are the same in all folds, and a validation picture of a single split never trains.
    """
    here = index.fold == fold
    return FoldRows(
        train=np.flatnonzero(np.isin(index.subset, ("train", COPIES)) & ~here),
        val=np.flatnonzero(np.isin(index.subset, ("train", "val")) & here),
        test=np.flatnonzero(index.subset == "test"),
        unlabelled=np.flatnonzero(index.subset == UNLABELLED),
    )


class PackReader:
    """Reads pictures by their row of the index, whichever pack they lie in; the packs of its subsets alone are opened.

    Args:
        folder: with the packs (data/augment).
        index: of these packs.

    Raises:
        InputError: a pack is missing, broken, or does not fit the index.
    """

    def __init__(self, folder: Path, index: PackIndex) -> None:
        self.index = index
        present = set(np.unique(index.subset).tolist())
        subsets = [*SUBSETS, *(subset for subset in (COPIES, UNLABELLED) if subset in present)]
        self._packs = {subset: open_pack(folder / f"{subset}.npy") for subset in subsets}
        for subset, pack in self._packs.items():
            expected = int((index.subset == subset).sum())
            if len(pack) != expected:
                table = "index" if subset in SUBSETS else subset
                raise InputError(
                    f"{folder / subset}.npy holds {count(len(pack), 'picture')}, but {table}.parquet names {expected}: "
                    "run `dvc checkout --force`, or `dvc repro augment`"
                )
        sizes = {pack.shape[1] for pack in self._packs.values()}
        if len(sizes) > 1:
            raise InputError(
                f"{folder}: the packs have different sides ({', '.join(map(str, sorted(sizes)))} pixels): "
                "run `dvc checkout --force`, or `dvc repro augment`"
            )
        self.image_size = sizes.pop()
        # subset to descriptor, and where in the file the pixels begin
        self._files: dict[str, tuple[int, int]] = {}
        if hasattr(os, "preadv"):
            for subset, pack in self._packs.items():
                path = folder / f"{subset}.npy"
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                weakref.finalize(self, os.close, descriptor)
                self._files[subset] = descriptor, path.stat().st_size - pack.nbytes

    def picture(self, row: int) -> Pixels:
        """(S, S, 3) uint8, a view into the pack."""
        found: Pixels = self._packs[str(self.index.subset[row])][self.index.position[row]]
        return found

    def read(self, rows: Rows) -> Pixels:
        """(B, S, S, 3) uint8, a copy in memory, in the order of `rows`."""
        batch = np.empty((len(rows), self.image_size, self.image_size, 3), np.uint8)
        for subset, pack in self._packs.items():
            here = np.flatnonzero(self.index.subset[rows] == subset)
            positions = self.index.position[rows[here]]
            if subset not in self._files:
                batch[here] = pack[positions]
                continue
            # pages that are mapped would count as memory of this process: the whole pack, after an epoch
            descriptor, begin = self._files[subset]
            for row, position in zip(here.tolist(), positions.tolist(), strict=True):
                picture = batch[row].data
                if os.preadv(descriptor, [picture], begin + position * picture.nbytes) != picture.nbytes:
                    raise InputError(f"{subset}.npy became shorter while it was read: run `dvc repro augment` again")
        return batch
