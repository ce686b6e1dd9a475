"""What dedupe reads: the rows of ingest's manifest after human decisions, its images, and reference sets.

A reference set holds images that this data set shall not repeat, such as last month's test set.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.core.decisions import Decisions
from pipelines.core.errors import ImageError, InputError, count
from pipelines.core.layout import repro_of
from pipelines.core.tables import MANIFEST, read_table
from pipelines.dedupe.hashes import Thumbnails
from pipelines.images.decoding import THUMBNAIL_SIDE, Pixels, decode, summarize
from pipelines.images.shards import ShardReader
from pipelines.params.base import path_below
from pipelines.params.dedupe import ReferenceParams

# a reference folder is read as ingest reads one by its usual params
_MAX_FILE_BYTES, _MAX_PIXELS, _MIN_SIDE = 2**26, 100_000_000, 8
_COLUMNS = ["image_id", "label", "shard", "offset", "size", "width", "height", "source_path"]

Extents = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ManifestRows:
    """The columns of a manifest that dedupe decides by, N values each.

    Args:
        image_id: sha256 of the file.
        label: after decisions.
        original_label: as ingested.
        note: the column `decision` of DEDUPED.
        size: bytes.
        path: source_path.
        extent: (N, 2) width and height, pixels.
        different: by image_id, the others that a person called different, each with the place of the row that says so.
    """

    image_id: list[str]
    label: list[str]
    original_label: list[str]
    note: list[str]
    size: list[int]
    path: list[str]
    extent: Extents
    different: Mapping[str, Mapping[str, str]]

    @cached_property
    def decided(self) -> list[bool]:
        """(N,) whether a person gave or confirmed the label."""
        return [one.startswith(("keep: ", "relabel: ")) for one in self.note]

    @cached_property
    def dropped(self) -> list[bool]:
        """(N,) whether a decision drops the image."""
        return [one.startswith("drop: ") for one in self.note]

    @cached_property
    def area(self) -> list[int]:
        """(N,) pixels."""
        found: list[int] = self.extent.prod(axis=1).tolist()
        return found

    def rank(self, row: int) -> tuple[int, int, str, str]:
        """Sort key, the best image first: resolution, then bytes, then id."""
        return (-self.area[row], -self.size[row], self.image_id[row], self.label[row])

    def first_rows(self, *, dropped: bool = False) -> dict[tuple[str, str], int]:
        """The first row of each (image_id, label), which stands for all of them; `dropped` includes dropped images."""
        found: dict[tuple[str, str], int] = {}
        for row, key in enumerate(zip(self.image_id, self.label, strict=True)):
            if dropped or not self.dropped[row]:
                found.setdefault(key, row)
        return found


def apply_decisions(manifest: pa.Table, decisions: Decisions) -> ManifestRows:
    """The rows of `manifest` after decisions on the images themselves."""
    image_id: list[str] = manifest["image_id"].to_pylist()
    original: list[str] = manifest["label"].to_pylist()
    label = [decisions.relabels.get(one, (old,))[0] for one, old in zip(image_id, original, strict=True)]
    notes = {one: f"relabel: {reason}" for one, (_, reason) in decisions.relabels.items()}
    notes |= {one: f"drop: {reason}" for one, reason in decisions.drops.items()}
    labels_of: dict[str, set[str]] = {}
    for one, given in zip(image_id, label, strict=True):
        if one in decisions.keeps:
            labels_of.setdefault(one, set()).add(given)
    # keep.csv does not say which of two labels is right
    notes = {one: f"keep: {decisions.keeps[one]}" for one, some in labels_of.items() if len(some) == 1} | notes
    return ManifestRows(
        image_id=image_id,
        label=label,
        original_label=original,
        note=[notes.get(one, "") for one in image_id],
        size=manifest["size"].to_pylist(),
        path=manifest["source_path"].to_pylist(),
        extent=_extents(manifest),
        different=decisions.different,
    )


@dataclass(frozen=True)
class ImageSet:
    """N images, with a way to their pixels.

    Args:
        image_id: (N,) sha256 of the files.
        extent: (N, 2) width and height, pixels.
        thumbnails: (N, 32, 32) uint8; may be memory-mapped.
        pixels: decodes a row to (H, W, 3) RGB; may be called from several threads.
    """

    image_id: list[str]
    extent: Extents
    thumbnails: Thumbnails
    pixels: Callable[[int], Pixels]


def manifest_images(manifest: pa.Table, thumbnails: Thumbnails, shards: ShardReader) -> ImageSet:
    """The images of a manifest, in its order."""
    shard, offset, size = manifest["shard"], manifest["offset"].to_numpy(), manifest["size"].to_numpy()
    extent = _extents(manifest)

    def pixels(row: int) -> Pixels:
        data = shards.read(shard[row].as_py(), int(offset[row]), int(size[row]))
        # ingest decoded it within the limits of its params: no second limit is needed
        return decode(data, max_pixels=int(extent[row].prod())).pixels

    return ImageSet(manifest["image_id"].to_pylist(), extent, thumbnails, pixels)


def open_thumbnails(path: Path, num_rows: int) -> Thumbnails:
    """Memory-map the thumbnails of a manifest with `num_rows` rows.

    Raises:
        InputError: they are missing, or of another manifest.
    """
    try:
        thumbnails: Thumbnails = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist: run the stage that writes it (`{repro_of(path)}`)") from error
    except (ValueError, EOFError) as error:
        raise InputError(f"{path} is no NumPy file ({error}): delete it and run `dvc repro`") from error
    shape = (num_rows, THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    if thumbnails.shape != shape or thumbnails.dtype != np.uint8:
        raise InputError(
            f"{path} holds {thumbnails.dtype} {thumbnails.shape}, but the manifest beside it has {num_rows} rows, "
            f"so it must be uint8 {shape}: run `dvc repro --force ingest`"
        )
    # still mapped, but without the np.memmap class, whose every row costs as much as hashing it
    return np.asarray(thumbnails)


def _extents(manifest: pa.Table) -> Extents:
    found: Extents = np.stack([manifest["width"].to_numpy(), manifest["height"].to_numpy()], axis=1).astype(np.int64)
    return found


@dataclass(frozen=True)
class ReferenceSet:
    """One reference set of R images.

    Args:
        label: (R,) labels; in a folder, the folder of the image.
        path: (R,) source paths; in a folder, the path below it.
        num_skipped: files of a folder that are no images, or broken ones.
    """

    params: ReferenceParams
    images: ImageSet
    label: list[str]
    path: list[str]
    num_skipped: int = 0


def read_reference_set(params: ReferenceParams, *, root: Path, stack: ExitStack) -> ReferenceSet:
    """Read a reference set: a manifest of ingest, or any folder of images.

    Args:
        root: start of relative paths.
        stack: closes the shards.

    Raises:
        InputError: it is not there, or neither a manifest nor a folder of images.
    """
    path = path_below(root, params.path)
    manifest = path / "manifest.parquet" if path.is_dir() else path
    if manifest.is_file():
        table = read_table(manifest, MANIFEST, columns=_COLUMNS)
        thumbnails = open_thumbnails(manifest.with_name("thumbnails.npy"), table.num_rows)
        images = manifest_images(table, thumbnails, stack.enter_context(ShardReader(manifest.parent)))
        return ReferenceSet(params, images, table["label"].to_pylist(), table["source_path"].to_pylist())
    if not path.is_dir():
        raise InputError(
            f"dedupe.reference_sets {params.name!r}: {params.path} is no file and no folder; give a manifest.parquet "
            "that ingest wrote, or a folder of pictures, as a path from params.yaml"
        )
    reference = _read_folder(params, path)
    if not reference.path:
        raise InputError(
            f"dedupe.reference_sets {params.name!r}: none of the {count(reference.num_skipped, 'file')} below "
            f"{params.path} is a picture; correct the path, or take the entry out"
        )
    return reference


def _read_folder(params: ReferenceParams, folder: Path) -> ReferenceSet:
    ids: list[str] = []
    paths: list[str] = []
    extent: list[tuple[int, int]] = []
    thumbnails: list[Pixels] = []
    num_skipped = 0
    for path in _files(folder):
        try:
            if path.stat().st_size > _MAX_FILE_BYTES:
                raise ImageError("too-large")
            data = path.read_bytes()
            drawn = summarize(data, max_pixels=_MAX_PIXELS, min_side=_MIN_SIDE)
        except ImageError:
            num_skipped += 1
            continue
        ids.append(hashlib.sha256(data).hexdigest())
        paths.append(path.relative_to(folder).as_posix())
        extent.append((drawn.width, drawn.height))
        thumbnails.append(drawn.thumbnail)

    def pixels(row: int) -> Pixels:
        return decode((folder / paths[row]).read_bytes(), max_pixels=_MAX_PIXELS).pixels

    stacked = np.array(thumbnails, np.uint8).reshape(-1, THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    images = ImageSet(ids, np.array(extent, np.int64).reshape(-1, 2), stacked, pixels)
    return ReferenceSet(params, images, [path.rpartition("/")[0] for path in paths], paths, num_skipped)


def _files(folder: Path) -> Iterator[Path]:
    """Plain files below `folder`, sorted, without links and hidden ones."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(place) / name
            if not name.startswith(".") and path.is_file() and not path.is_symlink():
                yield path


def join_reference_sets(references: list[ReferenceSet]) -> tuple[ImageSet, list[tuple[int, int]]]:
    """All images of several sets as one, and of each its set and its row there."""
    place = [(number, row) for number, one in enumerate(references) for row in range(len(one.path))]
    sets = [one.images for one in references]

    def pixels(row: int) -> Pixels:
        number, inside = place[row]
        return sets[number].pixels(inside)

    every = ImageSet(
        [image_id for one in sets for image_id in one.image_id],
        np.concatenate([np.zeros((0, 2), np.int64), *(one.extent for one in sets)]),
        np.concatenate([np.zeros((0, THUMBNAIL_SIDE, THUMBNAIL_SIDE), np.uint8), *(one.thumbnails for one in sets)]),
        pixels,
    )
    return every, place
