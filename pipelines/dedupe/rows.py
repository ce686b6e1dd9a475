"""What dedupe looks at: the rows of ingest's manifest, with human decisions, and how their pictures are read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.core.decisions import Decisions
from pipelines.core.errors import InputError
from pipelines.core.layout import repro_of
from pipelines.dedupe.hashes import SIDE, Thumbnails
from pipelines.images.decoding import Pixels, decode
from pipelines.images.shards import ShardReader

Sizes2 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """The columns of a manifest that decide, (N,) each; `label` is after decisions."""

    image_id: list[str]
    label: list[str]
    came: list[str]
    """the label as ingested"""
    note: list[str]
    """the column `decision` of DEDUPED"""
    decided: list[bool]
    """a person gave the label, or confirmed it"""
    dropped: list[bool]
    size: list[int]
    """bytes"""
    path: list[str]
    extent: Sizes2
    """(N, 2) width and height, pixels"""
    different: Mapping[str, Mapping[str, str]]
    """of some image_ids the others that are no copies of it, each with the place of the row that says so"""

    @cached_property
    def area(self) -> list[int]:
        """(N,) pixels."""
        found: list[int] = self.extent.prod(axis=1).tolist()
        return found

    def rank(self, row: int) -> tuple[int, int, str, str]:
        """Sorts the best picture first: resolution, then bytes, then id."""
        return (-self.area[row], -self.size[row], self.image_id[row], self.label[row])


@dataclass(frozen=True)
class Pictures:
    """Pictures with their thumbnails, and the way to their pixels.

    Args:
        image_id: (N,) sha256 of the files.
        extent: (N, 2) width and height, pixels.
        thumbnails: (N, 32, 32) uint8; may be memory-mapped.
        pixels: decodes the picture of a row, (H, W, 3) RGB; may be called from several threads.
    """

    image_id: list[str]
    extent: Sizes2
    thumbnails: Thumbnails
    pixels: Callable[[int], Pixels]


def rows_of(manifest: pa.Table, decisions: Decisions) -> Rows:
    """The rows of `manifest` after human decisions."""
    image_id: list[str] = manifest["image_id"].to_pylist()
    came: list[str] = manifest["label"].to_pylist()
    label = [decisions.relabels.get(one, (old,))[0] for one, old in zip(image_id, came, strict=True)]
    notes = {one: f"relabel: {reason}" for one, (_, reason) in decisions.relabels.items()}
    notes |= {one: f"drop: {reason}" for one, reason in decisions.drops.items()}
    if decisions.keeps:
        labels_of: dict[str, set[str]] = {}
        for one, given in zip(image_id, label, strict=True):
            if one in decisions.keeps:
                labels_of.setdefault(one, set()).add(given)
        # which of two labels is right, keep.csv does not say
        notes = {one: f"keep: {decisions.keeps[one]}" for one, some in labels_of.items() if len(some) == 1} | notes
    note = [notes.get(one, "") for one in image_id]
    return Rows(
        image_id=image_id,
        label=label,
        came=came,
        note=note,
        decided=[one.startswith(("keep: ", "relabel: ")) for one in note],
        dropped=[one.startswith("drop: ") for one in note],
        size=manifest["size"].to_pylist(),
        path=manifest["source_path"].to_pylist(),
        extent=extent_of(manifest),
        different=decisions.different,
    )


def first_rows(rows: Rows, *, dropped: bool = False) -> dict[tuple[str, str], int]:
    """The first row of each (image_id, label), which stands for it.

    Args:
        dropped: of pictures that are dropped too; else these take no part.
    """
    found: dict[tuple[str, str], int] = {}
    for row, key in enumerate(zip(rows.image_id, rows.label, strict=True)):
        if dropped or not rows.dropped[row]:
            found.setdefault(key, row)
    return found


def extent_of(manifest: pa.Table) -> Sizes2:
    """(N, 2) width and height."""
    found: Sizes2 = np.stack([manifest["width"].to_numpy(), manifest["height"].to_numpy()], axis=1).astype(np.int64)
    return found


def pictures_of(manifest: pa.Table, thumbnails: Thumbnails, shards: ShardReader) -> Pictures:
    """The pictures of a manifest, in its order."""
    shard, offset, size = manifest["shard"], manifest["offset"].to_numpy(), manifest["size"].to_numpy()
    extent = extent_of(manifest)

    def pixels(row: int) -> Pixels:
        data = shards.read(shard[row].as_py(), int(offset[row]), int(size[row]))
        # ingest decoded it within the limits of its params: no second limit is needed
        return decode(data, max_pixels=int(extent[row].prod())).pixels

    return Pictures(manifest["image_id"].to_pylist(), extent, thumbnails, pixels)


def open_thumbnails(path: Path, num_rows: int) -> Thumbnails:
    """The thumbnails beside a manifest of `num_rows` rows, memory-mapped.

    Raises:
        InputError: they are missing, or of another manifest.
    """
    try:
        thumbnails: Thumbnails = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist: run the stage that writes it (`{repro_of(path)}`)") from error
    except (ValueError, EOFError) as error:
        raise InputError(f"{path} is no NumPy file ({error}): delete it and run `dvc repro`") from error
    if thumbnails.shape != (num_rows, SIDE, SIDE) or thumbnails.dtype != np.uint8:
        raise InputError(
            f"{path} holds {thumbnails.dtype} {thumbnails.shape}, but the manifest beside it has {num_rows} rows, "
            f"so it must be uint8 {(num_rows, SIDE, SIDE)}: run `dvc repro --force ingest`"
        )
    # still mapped, but without the wrapper, whose every row costs as much as hashing it
    return np.asarray(thumbnails)
