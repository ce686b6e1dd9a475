"""Which pictures are packed, where their bytes lie, and which part of each counts."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pipelines.augmentation.packs import UNLABELLED
from pipelines.core.decisions import Crop, read_crops
from pipelines.core.errors import DecisionError, InputError, count
from pipelines.core.tables import MANIFEST, SPLITS, read_table, rows

MAX_NAMED = 5
"""pictures that a message names"""


class _ImagePlace(NamedTuple):
    """Where the bytes of a picture lie, and which part of it counts."""

    shard: str
    offset: int
    size: int
    width: int
    height: int
    crop: Crop
    source_path: str


class Row(NamedTuple):
    """One picture to pack; from `shard` on its `_ImagePlace`."""

    image_id: str
    label: str
    group: str
    subset: str
    fold: int
    factors: str
    shard: str
    offset: int
    size: int
    width: int
    height: int
    crop: Crop
    source_path: str


def locate(splits: Path, ingest_dir: Path, decisions_dir: Path, *, every_picture: bool) -> list[Row]:
    """The pictures of the split, sorted by (label, image_id).

    Args:
        every_picture: whether each must have a row of crop.csv.

    Raises:
        InputError: the split names no picture with a label, or one that is not in the manifest.
        DecisionError: crop.csv breaks a rule, or lacks pictures that it must have.
    """
    manifest = ingest_dir / "manifest.parquet"
    sides = [f"crop_{side}" for side in Crop._fields]
    columns = ["image_id", "label", "shard", "offset", "size", "width", "height", *sides, "source_path"]
    where: dict[tuple[str, str], _ImagePlace] = {}
    for row in rows(read_table(manifest, MANIFEST, columns=columns)):
        crop = Crop(*(row[side] for side in sides))
        place = _ImagePlace(
            row["shard"], row["offset"], row["size"], row["width"], row["height"], crop, row["source_path"]
        )
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
        found.append(Row(image_id, label, row["group"], row["subset"], row["fold"], row["factors"] or "", *place))
    if all(row.subset == UNLABELLED for row in found):
        raise InputError(f"{splits} names no pictures: look at data/dedupe and the rules of split")
    found.sort(key=lambda row: (row.label, row.image_id))
    if every_picture:
        _refuse_without(found, decided, decisions_dir / "crop.csv")
    return found


def _refuse_without(found: Sequence[Row], decided: dict[str, Crop], path: Path) -> None:
    """Refuse pictures that nobody cropped, and give the lines to write."""
    without = [row for row in found if row.image_id not in decided]
    if not without:
        return
    named = [f"    {row.label}, {row.source_path}: {row.image_id},0,0,1,1" for row in without[:MAX_NAMED]]
    if len(without) > MAX_NAMED:
        named.append(f"    and {len(without) - MAX_NAMED} more")
    raise DecisionError(
        f"{path} has no row for {len(without)} of {count(len(found), 'picture')}, and ingest.crop.without is error. "
        "Add a line for each (these keep the whole picture), drop the picture in drop.csv, or set ingest.crop.without: "
        "whole\n" + "\n".join(named)
    )
