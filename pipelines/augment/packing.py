"""The pictures of a split as packs: found in the shards, decoded by all processes, cropped, made square and written."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from pipelines.augmentation.packs import GREY, UNLABELLED, new_pack
from pipelines.core.decisions import Crop, read_crops
from pipelines.core.errors import DecisionError, ImageError, InputError, count
from pipelines.core.tables import MANIFEST, SPLITS, read_table, rows
from pipelines.images.decoding import Pixels, ReducedImage, decode_reduced
from pipelines.images.shards import ShardReader
from pipelines.parallel.pool import map_chunks
from pipelines.params.augment import AugmentParams

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


Fit = Literal["letterbox", "center_crop", "squash"]

SPARE = 2.0
"""how many times larger than its place in the pack a picture is decoded at least, where it is larger than that: then
what the decoder leaves out, the resize would too. On photographs of 400 px the pixels of the pack move by 0.3 of 255
on average (1.3 at 1.0, 0.15 at 3.0), in half to a third of the time"""


class Placement(NamedTuple):
    """Which part of a picture becomes which part of a square."""

    box: tuple[int, int, int, int]
    """left, top, right, bottom: pixels of the whole picture at its own size"""
    size: tuple[int, int]
    """width and height that the part takes of the square, pixels"""


def place(width: int, height: int, *, crop: Crop, fit: Fit, image_size: int) -> Placement:
    """Where a picture of `width` x `height` goes.

    Args:
        crop: the part that counts.
        fit: letterbox keeps all of it and its shape, between grey borders; center_crop keeps its shape and loses what
            stands out on the longer side; squash keeps all of it and loses its shape.
        image_size: S, pixels.
    """
    left, right = _whole_pixels(crop.left, crop.right, width)
    top, bottom = _whole_pixels(crop.top, crop.bottom, height)
    if fit == "center_crop":
        left, top, right, bottom = _middle_square(left, top, right, bottom)
    size = (image_size, image_size)
    if fit == "letterbox":
        size = _inside(right - left, bottom - top, image_size)
    return Placement((left, top, right, bottom), size)


def least_size(width: int, height: int, placement: Placement) -> tuple[float, float]:
    """Width and height at which the whole picture may be decoded, so that its part is `SPARE` times its place."""
    left, top, right, bottom = placement.box
    return (SPARE * placement.size[0] * width / (right - left), SPARE * placement.size[1] * height / (bottom - top))


def to_square(picture: ReducedImage, *, width: int, height: int, placement: Placement, image_size: int) -> Pixels:
    """The part of a picture that `placement` names, as a square.

    Args:
        picture: decoded at its own size or a smaller one.
        width, height: its own size, pixels.
        image_size: S, pixels.

    Returns:
        (S, S, 3) uint8.
    """
    across, down = picture.width / width, picture.height / height
    left, top, right, bottom = placement.box
    box = (left * across, top * down, right * across, bottom * down)
    first_x, first_y, last_x, last_y = int(box[0]), int(box[1]), math.ceil(box[2]), math.ceil(box[3])
    # cut first: Pillow's resize with a box lets pixels from beyond it bleed in
    image = Image.fromarray(np.ascontiguousarray(picture.pixels[first_y:last_y, first_x:last_x]))
    size = placement.size
    inside = (
        box[0] - first_x,
        box[1] - first_y,
        min(box[2] - first_x, image.width),
        min(box[3] - first_y, image.height),
    )
    if image.size != size:
        image = image.resize(size, Image.Resampling.BICUBIC, box=inside)
    small = np.asarray(image)
    if size == (image_size, image_size):
        return small
    square = np.full((image_size, image_size, 3), GREY, np.uint8)
    x, y = (image_size - size[0]) // 2, (image_size - size[1]) // 2
    square[y : y + size[1], x : x + size[0]] = small
    return square


def _whole_pixels(low: float, high: float, side: int) -> tuple[int, int]:
    """The range as pixels, at least one."""
    first = min(round(low * side), side - 1)
    return first, max(round(high * side), first + 1)


def _middle_square(left: int, top: int, right: int, bottom: int) -> tuple[int, int, int, int]:
    side = min(right - left, bottom - top)
    x, y = (left + right - side) // 2, (top + bottom - side) // 2
    return (x, y, x + side, y + side)


def _inside(width: int, height: int, image_size: int) -> tuple[int, int]:
    """The largest size of the same shape inside the square; at least one pixel."""
    scale = image_size / max(width, height)
    return (max(1, round(width * scale)), max(1, round(height * scale)))


CHUNK_IMAGES = 32
"""pictures a worker does at a time: about 0.1 s of work, and 5 MB of result at 224 px"""


@dataclass(frozen=True)
class _PackChunk:
    """The work of one call of `_pack_chunk`; picklable."""

    ingest_dir: Path
    rows: tuple[Row, ...]
    fit: Fit
    image_size: int


def write_pack(
    params: AugmentParams, rows: Sequence[Row], *, ingest_dir: Path, path: Path, advance: Callable[[int], None]
) -> None:
    """Write the pictures of `rows` as one pack.

    Args:
        advance: is told how many were packed.

    Raises:
        InputError: a picture no longer decodes.
    """
    with new_pack(path, num_images=len(rows), image_size=params.image_size) as pack:
        done = 0
        for pixels in map_chunks(_pack_chunk, _chunks(params, rows, ingest_dir)):
            pack[done : done + len(pixels)] = pixels
            done += len(pixels)
            advance(len(pixels))


def _chunks(params: AugmentParams, rows: Sequence[Row], ingest_dir: Path) -> list[_PackChunk]:
    return [
        _PackChunk(ingest_dir, tuple(rows[start : start + CHUNK_IMAGES]), params.resize_mode, params.image_size)
        for start in range(0, len(rows), CHUNK_IMAGES)
    ]


def _pack_chunk(chunk: _PackChunk) -> Pixels:
    """(n, S, S, 3) uint8: the pictures of one chunk, in its order."""
    packed = np.empty((len(chunk.rows), chunk.image_size, chunk.image_size, 3), np.uint8)
    with ShardReader(chunk.ingest_dir) as reader:
        for i, row in enumerate(chunk.rows):
            data = reader.read(row.shard, row.offset, row.size)
            try:
                packed[i] = _square(data, row, chunk)
            except ImageError as error:
                raise InputError(
                    f"{row.shard} at {row.offset}: picture {row.image_id} no longer decodes ({error}): "
                    "run `dvc checkout --force`, or `dvc repro`"
                ) from error
    return packed


def _square(data: bytes, row: Row, chunk: _PackChunk) -> Pixels:
    """(S, S, 3) uint8: one picture.

    Raises:
        ImageError: it does not decode.
    """
    placement = place(row.width, row.height, crop=row.crop, fit=chunk.fit, image_size=chunk.image_size)
    width, height = least_size(row.width, row.height, placement)
    # ingest accepted the picture at this size: its own size is the limit
    picture = decode_reduced(data, max_pixels=max(row.width * row.height, 1), width=width, height=height)
    return to_square(picture, width=row.width, height=row.height, placement=placement, image_size=chunk.image_size)
