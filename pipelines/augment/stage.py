"""The stage: every picture of the split decoded once, and packed at training size."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pipelines.augment.fitting import Fit, to_square
from pipelines.core.crops import WHOLE, Crop, read_crops
from pipelines.core.errors import DecisionError, ImageError, InputError
from pipelines.core.executor import map_chunks
from pipelines.core.files import empty_folder, write_json
from pipelines.core.images import Pixels, decode
from pipelines.core.packs import SUBSETS, new_pack
from pipelines.core.params.augment import AugmentParams
from pipelines.core.progress import progress
from pipelines.core.shards import ShardReader
from pipelines.core.tables import MANIFEST, PACK_INDEX, SPLITS, read_table, rows, write_table

CHUNK_IMAGES = 32
"""pictures a worker does at a time: about 0.1 s of work, and 5 MB of result at 224 px"""


@dataclass(frozen=True)
class AugmentArtifact:
    """What augment wrote."""

    folder: Path
    num_images: int
    num_classes: int
    image_size: int

    def __str__(self) -> str:
        return f"{self.num_images} pictures of {self.num_classes} classes at {self.image_size} px"


class _Row(NamedTuple):
    """One picture to pack, and where its bytes lie."""

    image_id: str
    label: str
    group: str
    subset: str
    fold: int
    shard: str
    offset: int
    size: int
    num_pixels: int


@dataclass(frozen=True)
class _Chunk:
    """The work of one call of `_pack_chunk`; picklable."""

    ingest_dir: Path
    rows: tuple[_Row, ...]
    crops: tuple[Crop, ...]
    fit: Fit
    image_size: int


def augment(
    params: AugmentParams, *, splits: Path, ingest_dir: Path, decisions_dir: Path, out_dir: Path
) -> AugmentArtifact:
    """Decode, crop, resize and pack every picture of `splits`, once.

    Args:
        splits: split's table (tables.SPLITS).
        ingest_dir: ingest's manifest and shards.
        decisions_dir: with crop.csv.
        out_dir: is emptied; receives {train,val,test}.npy, index.parquet, pack.json and preview.png.

    Raises:
        InputError: an input is missing, or a picture of the split is not in the shards.
        DecisionError: crop.csv breaks a rule.
    """
    found = _locate(splits, ingest_dir)
    crops = read_crops(decisions_dir / "crop.csv")
    _check_crops(crops, ingest_dir, decisions_dir / "crop.csv")
    classes = sorted({row.label for row in found})
    empty_folder(out_dir)
    packed: list[_Row] = []
    with progress("augment", len(found), unit="pictures") as advance:
        for subset in SUBSETS:
            members = [row for row in found if row.subset == subset]
            packed += members
            with new_pack(out_dir / f"{subset}.npy", num_images=len(members), image_size=params.image_size) as pack:
                done = 0
                for pixels in map_chunks(_pack_chunk, _chunks(params, members, crops, ingest_dir)):
                    pack[done : done + len(pixels)] = pixels
                    done += len(pixels)
                    advance(len(pixels))
    _write_index(packed, classes, out_dir / "index.parquet")
    # what a person's own picture needs to become like these
    write_json(out_dir / "pack.json", {"image_size": params.image_size, "fit": params.fit})

    from pipelines.augment.preview import write_preview  # imports torch, since it runs what training runs

    write_preview(params, augment_dir=out_dir, path=out_dir / "preview.png")
    return AugmentArtifact(out_dir, len(packed), len(classes), params.image_size)


def _locate(splits: Path, ingest_dir: Path) -> list[_Row]:
    """The pictures of the split, sorted by (label, image_id), and where their bytes lie."""
    where: dict[str, tuple[str, int, int, int]] = {}
    columns = ["image_id", "shard", "offset", "size", "width", "height"]
    for row in rows(read_table(ingest_dir / "manifest.parquet", MANIFEST, columns=columns)):
        # a picture that came under two labels is packed twice; any of the copies serves
        where.setdefault(row["image_id"], (row["shard"], row["offset"], row["size"], row["width"] * row["height"]))
    found = []
    for row in rows(read_table(splits, SPLITS)):
        if row["image_id"] not in where:
            raise InputError(
                f"{splits} names picture {row['image_id']}, which {ingest_dir / 'manifest.parquet'} does not: "
                "they are of different runs; run `dvc repro`"
            )
        place = where[row["image_id"]]
        found.append(_Row(row["image_id"], row["label"], row["group"], row["subset"], row["fold"], *place))
    if not found:
        raise InputError(f"{splits} names no pictures: look at data/dedupe and the rules of split")
    return sorted(found, key=lambda row: (row.label, row.image_id))


def _check_crops(crops: dict[str, Crop], ingest_dir: Path, path: Path) -> None:
    """A crop of a picture that never was is a slip of the pen; one that dedupe dropped is none."""
    if not crops:
        return
    table = read_table(ingest_dir / "manifest.parquet", MANIFEST, columns=["image_id"])
    unknown = sorted(set(crops) - set(table["image_id"].to_pylist()))
    if unknown:
        raise DecisionError(
            f"{path}: {len(unknown)} image_id that no picture has, first {unknown[0]}; "
            "correct it, or delete the row if the picture has left the source"
        )


def _chunks(params: AugmentParams, members: Sequence[_Row], crops: dict[str, Crop], ingest_dir: Path) -> list[_Chunk]:
    chunks = []
    for start in range(0, len(members), CHUNK_IMAGES):
        part = tuple(members[start : start + CHUNK_IMAGES])
        parts = tuple(crops.get(row.image_id, WHOLE) for row in part)
        chunks.append(_Chunk(ingest_dir, part, parts, params.fit, params.image_size))
    return chunks


def _pack_chunk(chunk: _Chunk) -> Pixels:
    """(n, S, S, 3) uint8: the pictures of one chunk, in its order."""
    packed = np.empty((len(chunk.rows), chunk.image_size, chunk.image_size, 3), np.uint8)
    with ShardReader(chunk.ingest_dir) as reader:
        for i, (row, crop) in enumerate(zip(chunk.rows, chunk.crops, strict=True)):
            data = reader.read(row.shard, row.offset, row.size)
            try:
                # ingest accepted the picture at this size: its own size is the limit
                picture = decode(data, max_pixels=max(row.num_pixels, 1))
            except ImageError as error:
                raise InputError(
                    f"{row.shard} at {row.offset}: picture {row.image_id} no longer decodes ({error}): "
                    "run `dvc checkout --force`, or `dvc repro`"
                ) from error
            packed[i] = to_square(picture.pixels, crop=crop, fit=chunk.fit, image_size=chunk.image_size)
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
