"""Packs: the pictures of one subset as a memory-mapped uint8 array (N, S, S, 3), and which rows a fold uses.

Rows follow `index.parquet` (tables.PACK_INDEX): `position` is the row of `<subset>.npy`. Training never opens a
picture file: it reads rows of a pack, from the page cache, without a copy.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipelines.core.errors import InputError
from pipelines.core.files import TEMPORARY_SUFFIX
from pipelines.core.tables import PACK_INDEX, read_classes, read_table

Pixels = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.int64]

SUBSETS = ("train", "val", "test")


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
        class_index: (N,) int64, 0 to K - 1.
        subset: (N,) train, val or test.
        fold: (N,) int64: the fold in which the picture validates; -1 for never.
        position: (N,) int64: the picture's row in its subset's pack.
        classes: K labels, in order of class_index.
    """

    image_id: npt.NDArray[np.str_]
    class_index: Rows
    subset: npt.NDArray[np.str_]
    fold: Rows
    position: Rows
    classes: list[str]


def read_index(path: Path) -> PackIndex:
    """Read index.parquet.

    Raises:
        InputError: the file is missing or was written by another version.
    """
    table = read_table(path, PACK_INDEX)

    def numbers(name: str) -> Rows:
        return np.asarray(table[name].to_numpy(), np.int64)

    return PackIndex(
        image_id=np.array(table["image_id"].to_pylist(), np.str_),
        class_index=numbers("class_index"),
        subset=np.array(table["subset"].to_pylist(), np.str_),
        fold=numbers("fold"),
        position=numbers("position"),
        classes=read_classes(path),
    )


@dataclass(frozen=True)
class FoldRows:
    """Rows of a PackIndex by what they do in one fold, each sorted."""

    train: Rows
    val: Rows
    test: Rows


def fold_rows(index: PackIndex, fold: int) -> FoldRows:
    """Which pictures train, validate and test in `fold`.

    A picture validates in its own fold and trains in every other; the test pictures are the same in all folds, and
    a validation picture of a single split never trains.
    """
    test = index.subset == "test"
    validates = ~test & (index.fold == fold)
    trains = (index.subset == "train") & ~validates
    return FoldRows(np.flatnonzero(trains), np.flatnonzero(validates), np.flatnonzero(test))


class PackReader:
    """Reads pictures by their row of the index, whichever pack they lie in.

    Args:
        folder: with the packs (data/augment).
        index: of these packs.

    Raises:
        InputError: a pack is missing, broken, or does not fit the index.
    """

    def __init__(self, folder: Path, index: PackIndex) -> None:
        self.index = index
        self._packs = {subset: open_pack(folder / f"{subset}.npy") for subset in SUBSETS}
        for subset, pack in self._packs.items():
            expected = int((index.subset == subset).sum())
            if len(pack) != expected:
                raise InputError(
                    f"{folder / subset}.npy holds {len(pack)} pictures, but index.parquet names {expected}: "
                    "run `dvc checkout --force`, or `dvc repro augment`"
                )
        sizes = {pack.shape[1] for pack in self._packs.values()}
        if len(sizes) > 1:
            raise InputError(
                f"{folder}: the packs have different sides ({', '.join(map(str, sorted(sizes)))} pixels): "
                "run `dvc checkout --force`, or `dvc repro augment`"
            )
        self.image_size = sizes.pop()

    def picture(self, row: int) -> Pixels:
        """(S, S, 3) uint8, a view into the pack."""
        found: Pixels = self._packs[str(self.index.subset[row])][self.index.position[row]]
        return found

    def read(self, rows: Rows) -> Pixels:
        """(B, S, S, 3) uint8, a copy in memory, in the order of `rows`."""
        batch = np.empty((len(rows), self.image_size, self.image_size, 3), np.uint8)
        for subset, pack in self._packs.items():
            here = np.flatnonzero(self.index.subset[rows] == subset)
            batch[here] = pack[self.index.position[rows[here]]]
        return batch
