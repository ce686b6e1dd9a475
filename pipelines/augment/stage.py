"""The stage: every picture of the split decoded once, and packed at training size."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pipelines.augment.fitting import Fit, to_square
from pipelines.core.crops import Crop
from pipelines.core.decisions import read_crops
from pipelines.core.errors import DecisionError, ImageError, InputError
from pipelines.core.executor import map_chunks
from pipelines.core.files import empty_folder, write_json
from pipelines.core.images import Pixels, decode
from pipelines.core.packs import SUBSETS, new_pack
from pipelines.core.params.augment import AugmentParams
from pipelines.core.params.ingest import CropParams, FileCrop
from pipelines.core.progress import progress
from pipelines.core.shards import ShardReader
from pipelines.core.tables import MANIFEST, PACK_INDEX, SPLITS, read_table, rows, write_table

CHUNK_IMAGES = 32
"""pictures a worker does at a time: about 0.1 s of work, and 5 MB of result at 224 px"""
MAX_NAMED = 5
"""pictures that a message names"""


@dataclass(frozen=True)
class AugmentArtifact:
    """What augment wrote."""

    folder: Path
    num_images: int
    num_classes: int
    image_size: int

    def __str__(self) -> str:
        return f"{self.num_images} pictures of {self.num_classes} classes at {self.image_size} px"


class _Place(NamedTuple):
    """Where the bytes of a picture lie, and which part of it counts."""

    shard: str
    offset: int
    size: int
    num_pixels: int
    crop: Crop
    source_path: str


class _Row(NamedTuple):
    """One picture to pack; from `shard` on its `_Place`."""

    image_id: str
    label: str
    group: str
    subset: str
    fold: int
    shard: str
    offset: int
    size: int
    num_pixels: int
    crop: Crop
    source_path: str


@dataclass(frozen=True)
class _Chunk:
    """The work of one call of `_pack_chunk`; picklable."""

    ingest_dir: Path
    rows: tuple[_Row, ...]
    fit: Fit
    image_size: int


def augment(
    params: AugmentParams, *, crop: CropParams, splits: Path, ingest_dir: Path, decisions_dir: Path, out_dir: Path
) -> AugmentArtifact:
    """Decode, crop, resize and pack every picture of `splits`, once.

    The part of a picture that counts stands in ingest's manifest; a row of crop.csv overrides it.

    Args:
        crop: `ingest.crop`, which says whether a picture may lack a row of crop.csv.
        splits: split's table (tables.SPLITS).
        ingest_dir: ingest's manifest and shards.
        decisions_dir: with crop.csv.
        out_dir: is emptied; receives {train,val,test}.npy, index.parquet, pack.json and preview.png.

    Raises:
        InputError: an input is missing, or a picture of the split is not in the shards.
        DecisionError: crop.csv breaks a rule, or lacks pictures that it must have.
    """
    found = _locate(
        splits, ingest_dir, decisions_dir, every_picture=isinstance(crop, FileCrop) and crop.without == "error"
    )
    classes = sorted({row.label for row in found})
    empty_folder(out_dir)
    packed: list[_Row] = []
    with progress("augment", len(found), unit="pictures") as advance:
        for subset in SUBSETS:
            members = [row for row in found if row.subset == subset]
            packed += members
            with new_pack(out_dir / f"{subset}.npy", num_images=len(members), image_size=params.image_size) as pack:
                done = 0
                for pixels in map_chunks(_pack_chunk, _chunks(params, members, ingest_dir)):
                    pack[done : done + len(pixels)] = pixels
                    done += len(pixels)
                    advance(len(pixels))
    _write_index(packed, classes, out_dir / "index.parquet")
    # what a person's own picture needs to become like these
    write_json(out_dir / "pack.json", {"image_size": params.image_size, "fit": params.fit})

    from pipelines.augment.preview import write_preview  # imports torch, since it runs what training runs

    write_preview(params, augment_dir=out_dir, path=out_dir / "preview.png")
    return AugmentArtifact(out_dir, len(packed), len(classes), params.image_size)


def _locate(splits: Path, ingest_dir: Path, decisions_dir: Path, *, every_picture: bool) -> list[_Row]:
    """The pictures of the split, sorted by (label, image_id), where their bytes lie, and which part of them counts.

    Args:
        every_picture: whether each must have a row of crop.csv.
    """
    manifest = ingest_dir / "manifest.parquet"
    sides = [f"crop_{side}" for side in Crop._fields]
    columns = ["image_id", "label", "shard", "offset", "size", "width", "height", *sides, "source_path"]
    where: dict[tuple[str, str], _Place] = {}
    for row in rows(read_table(manifest, MANIFEST, columns=columns)):
        crop = Crop(*(row[side] for side in sides))
        place = _Place(row["shard"], row["offset"], row["size"], row["width"] * row["height"], crop, row["source_path"])
        where.setdefault((row["image_id"], row["label"]), place)
        # for a picture with another label now: relabelled, or come under two, of which any copy serves
        where.setdefault((row["image_id"], ""), place)
    decided = read_crops(decisions_dir, (image_id for image_id, _ in where))
    found = []
    for row in rows(read_table(splits, SPLITS)):
        image_id, label = row["image_id"], row["label"]
        if (image_id, "") not in where:
            raise InputError(
                f"{splits} names picture {image_id}, which {manifest} does not: they are of different runs; run "
                "`dvc repro`"
            )
        place = where.get((image_id, label)) or where[image_id, ""]
        place = place._replace(crop=decided.get(image_id, place.crop))
        found.append(_Row(image_id, label, row["group"], row["subset"], row["fold"], *place))
    if not found:
        raise InputError(f"{splits} names no pictures: look at data/dedupe and the rules of split")
    found.sort(key=lambda row: (row.label, row.image_id))
    if every_picture:
        _refuse_without(found, decided, decisions_dir / "crop.csv")
    return found


def _refuse_without(found: Sequence[_Row], decided: dict[str, Crop], path: Path) -> None:
    """Refuse pictures that nobody cropped, and give the lines to write."""
    without = [row for row in found if row.image_id not in decided]
    if not without:
        return
    named = [f"    {row.label}, {row.source_path}: {row.image_id},0,0,1,1" for row in without[:MAX_NAMED]]
    if len(without) > MAX_NAMED:
        named.append(f"    and {len(without) - MAX_NAMED} more")
    raise DecisionError(
        f"{path} has no row for {len(without)} of {len(found)} pictures, and ingest.crop.without is error. Add a line "
        "for each (these keep the whole picture), drop the picture in drop.csv, or set ingest.crop.without: whole\n"
        + "\n".join(named)
    )


def _chunks(params: AugmentParams, members: Sequence[_Row], ingest_dir: Path) -> list[_Chunk]:
    return [
        _Chunk(ingest_dir, tuple(members[start : start + CHUNK_IMAGES]), params.fit, params.image_size)
        for start in range(0, len(members), CHUNK_IMAGES)
    ]


def _pack_chunk(chunk: _Chunk) -> Pixels:
    """(n, S, S, 3) uint8: the pictures of one chunk, in its order."""
    packed = np.empty((len(chunk.rows), chunk.image_size, chunk.image_size, 3), np.uint8)
    with ShardReader(chunk.ingest_dir) as reader:
        for i, row in enumerate(chunk.rows):
            data = reader.read(row.shard, row.offset, row.size)
            try:
                # ingest accepted the picture at this size: its own size is the limit
                picture = decode(data, max_pixels=max(row.num_pixels, 1))
            except ImageError as error:
                raise InputError(
                    f"{row.shard} at {row.offset}: picture {row.image_id} no longer decodes ({error}): "
                    "run `dvc checkout --force`, or `dvc repro`"
                ) from error
            packed[i] = to_square(picture.pixels, crop=row.crop, fit=chunk.fit, image_size=chunk.image_size)
    return packed


def _write_index(packed: Sequence[_Row], classes: list[str], path: Path) -> None:
    positions: dict[str, int] = dict.fromkeys(SUBSETS, 0)
    table = []
    class_index = {label: i for i, label in enumerate(classes)}
    for row in packed:
        table.append(
            {
                "image_id": row.image_id,
                "label": row.label,
                "class_index": class_index[row.label],
                "group": row.group,
                "subset": row.subset,
                "fold": row.fold,
                "position": positions[row.subset],
            }
        )
        positions[row.subset] += 1
    table.sort(key=lambda row: (row["subset"], row["position"]))
    write_table(pa.Table.from_pylist(table, schema=PACK_INDEX), path, classes=classes)
