"""Reference sets: pictures that this data set shall not repeat."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.core.errors import ImageError, InputError, count
from pipelines.core.tables import MANIFEST, read_table
from pipelines.dedupe.hashes import SIDE
from pipelines.dedupe.rows import Pictures, open_thumbnails, pictures_of
from pipelines.images.decoding import Pixels, decode, summarize
from pipelines.images.shards import ShardReader
from pipelines.params.base import path_below
from pipelines.params.dedupe import ReferenceParams

# a folder is read as ingest reads one by its usual params
_MAX_FILE_BYTES, _MAX_PIXELS, _MIN_SIDE = 2**26, 100_000_000, 8
_COLUMNS = ["image_id", "label", "shard", "offset", "size", "width", "height", "source_path"]


@dataclass(frozen=True)
class Reference:
    """One reference set.

    Args:
        params: of the set.
        pictures: its pictures.
        label: (R,) its labels: of a folder, the folder of the picture.
        path: (R,) where its pictures came from, or lie below its folder.
        num_skipped: files of a folder that are no pictures, or broken ones.
    """

    params: ReferenceParams
    pictures: Pictures
    label: list[str]
    path: list[str]
    num_skipped: int = 0


def read_reference(params: ReferenceParams, *, root: Path, stack: ExitStack) -> Reference:
    """Read a reference set.

    Args:
        root: where a relative path starts.
        stack: closes its shards.

    Raises:
        InputError: it is not there, or neither a manifest nor a folder of pictures.
    """
    path = path_below(root, params.path)
    manifest = path / "manifest.parquet" if path.is_dir() else path
    if manifest.is_file():
        table = read_table(manifest, MANIFEST, columns=_COLUMNS)
        thumbnails = open_thumbnails(manifest.with_name("thumbnails.npy"), table.num_rows)
        shards = stack.enter_context(ShardReader(manifest.parent))
        pictures = pictures_of(table, thumbnails, shards)
        return Reference(params, pictures, table["label"].to_pylist(), table["source_path"].to_pylist())
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


def _read_folder(params: ReferenceParams, folder: Path) -> Reference:
    ids: list[str] = []
    paths: list[str] = []
    extent: list[tuple[int, int]] = []
    thumbnails: list[Pixels] = []
    num_skipped = 0
    for path in _files(folder):
        if path.stat().st_size > _MAX_FILE_BYTES:
            num_skipped += 1
            continue
        data = path.read_bytes()
        try:
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

    stacked = np.stack(thumbnails) if thumbnails else np.zeros((0, SIDE, SIDE), np.uint8)
    pictures = Pictures(ids, np.array(extent, np.int64).reshape(-1, 2), stacked, pixels)
    return Reference(params, pictures, [path.rpartition("/")[0] for path in paths], paths, num_skipped)


def _files(folder: Path) -> Iterator[Path]:
    """Every plain file below `folder`, sorted; links and hidden files are none."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(place) / name
            if not name.startswith(".") and path.is_file() and not path.is_symlink():
                yield path


def joined(references: list[Reference]) -> tuple[Pictures, list[tuple[int, int]]]:
    """All pictures of several sets, and of each its set and its row there."""
    place = [(number, row) for number, one in enumerate(references) for row in range(len(one.path))]
    sets = [one.pictures for one in references]
    nothing = np.zeros((0, SIDE, SIDE), np.uint8)

    def pixels(row: int) -> Pixels:
        number, inside = place[row]
        return sets[number].pixels(inside)

    every = Pictures(
        [image_id for one in sets for image_id in one.image_id],
        np.concatenate([np.zeros((0, 2), np.int64), *(one.extent for one in sets)]),
        np.concatenate([nothing, *(one.thumbnails for one in sets)]),
        pixels,
    )
    return every, place
