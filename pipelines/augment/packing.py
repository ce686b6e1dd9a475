"""The pictures of a split as packs: found in the shards, decoded by all processes, cropped, made square, written."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from pipelines.augmentation.packs import GREY, UNLABELLED, new_pack
from pipelines.core.decisions import Crop, read_crops
from pipelines.core.errors import DecisionError, ImageError, InputError, count
from pipelines.core.tables import MANIFEST, SPLITS, read_table, rows
from pipelines.images.decoding import Pixels, ReducedImage, decode_reduced
from pipelines.images.shards import ShardReader
from pipelines.parallel.pool import map_chunks
from pipelines.params.augment import AugmentParams, ResizeMode

MAX_NAMED = 5
"""pictures that a message names"""
SPARE = 2.0
"""how many times larger than its place in the pack a picture is decoded at least, where it is larger than that: then
what the decoder leaves out, the resize would too. On photographs of 400 px the pixels of the pack move by 0.3 of 255
on average (1.3 at 1.0, 0.15 at 3.0), in half to a third of the time"""
CHUNK_IMAGES = 32
"""pictures a worker does at a time: about 0.1 s of work, and 5 MB of result at 224 px"""


class Row(NamedTuple):
    """One picture to pack: what the split says of it, where its bytes lie, and which part of it counts."""

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
    files: dict[tuple[str, str], dict[str, Any]] = {}
    for file in rows(read_table(manifest, MANIFEST, columns=columns)):
        files.setdefault((file["image_id"], file["label"]), file)
        # for a picture with another label now: relabelled, or come under two, of which any copy serves
        files.setdefault((file["image_id"], ""), file)
    decided = read_crops(decisions_dir, (image_id for image_id, _ in files))
    found = []
    for row in rows(read_table(splits, SPLITS)):
        image_id, label = row["image_id"], row["label"]
        if (image_id, "") not in files:
            raise InputError(
                f"{splits} names picture {image_id}, which {manifest} does not: they are of different runs; run "
                "`dvc repro`"
            )
        file = files.get((image_id, label)) or files[image_id, ""]
        crop = decided.get(image_id) or Crop(*(file[side] for side in sides))
        known = {**file, **row, "factors": row["factors"] or "", "crop": crop}
        found.append(Row(*(known[name] for name in Row._fields)))
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


class Placement(NamedTuple):
    """Which part of a picture becomes which part of a square."""

    box: tuple[int, int, int, int]
    """left, top, right, bottom: pixels of the whole picture at its own size"""
    size: tuple[int, int]
    """width and height that the part takes of the square, pixels"""


def place(width: int, height: int, *, crop: Crop, resize_mode: ResizeMode, image_size: int) -> Placement:
    """Where a picture of `width` x `height` goes.

    Args:
        crop: the part that counts.
        resize_mode: letterbox keeps all of it and its shape, between grey borders; center_crop keeps its shape and
            loses what stands out on the longer side; squash keeps all of it and loses its shape.
        image_size: S, pixels.
    """
    left, right = _whole_pixels(crop.left, crop.right, width)
    top, bottom = _whole_pixels(crop.top, crop.bottom, height)
    if resize_mode == "center_crop":
        side = min(right - left, bottom - top)
        left, top = (left + right - side) // 2, (top + bottom - side) // 2
        right, bottom = left + side, top + side
    size = (image_size, image_size)
    if resize_mode == "letterbox":
        scale = image_size / max(right - left, bottom - top)
        size = (max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale)))
    return Placement((left, top, right, bottom), size)


def _whole_pixels(low: float, high: float, side: int) -> tuple[int, int]:
    """The range as pixels, at least one."""
    first = min(round(low * side), side - 1)
    return first, max(round(high * side), first + 1)


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
    x, y = int(box[0]), int(box[1])
    # cut first: Pillow's resize with a box lets pixels from beyond it bleed in
    image = Image.fromarray(np.ascontiguousarray(picture.pixels[y : math.ceil(box[3]), x : math.ceil(box[2])]))
    inside = (box[0] - x, box[1] - y, min(box[2] - x, image.width), min(box[3] - y, image.height))
    size = placement.size
    if image.size != size:
        image = image.resize(size, Image.Resampling.BICUBIC, box=inside)
    small = np.asarray(image)
    if size == (image_size, image_size):
        return small
    square = np.full((image_size, image_size, 3), GREY, np.uint8)
    x, y = (image_size - size[0]) // 2, (image_size - size[1]) // 2
    square[y : y + size[1], x : x + size[0]] = small
    return square


@dataclass(frozen=True)
class _PackChunk:
    """The work of one call of `_pack_chunk`; picklable."""

    ingest_dir: Path
    rows: tuple[Row, ...]
    resize_mode: ResizeMode
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
    chunks = [
        _PackChunk(ingest_dir, tuple(rows[start : start + CHUNK_IMAGES]), params.resize_mode, params.image_size)
        for start in range(0, len(rows), CHUNK_IMAGES)
    ]
    with new_pack(path, num_images=len(rows), image_size=params.image_size) as pack:
        done = 0
        for pixels in map_chunks(_pack_chunk, chunks):
            pack[done : done + len(pixels)] = pixels
            done += len(pixels)
            advance(len(pixels))


def _pack_chunk(chunk: _PackChunk) -> Pixels:
    """(n, S, S, 3) uint8: the pictures of one chunk, in its order."""
    side = chunk.image_size
    packed = np.empty((len(chunk.rows), side, side, 3), np.uint8)
    with ShardReader(chunk.ingest_dir) as reader:
        for i, row in enumerate(chunk.rows):
            width, height = row.width, row.height
            data = reader.read(row.shard, row.offset, row.size)
            placement = place(width, height, crop=row.crop, resize_mode=chunk.resize_mode, image_size=side)
            across, down = least_size(width, height, placement)
            try:
                # ingest accepted the picture at this size: its own size is the limit
                picture = decode_reduced(data, max_pixels=max(width * height, 1), width=across, height=down)
            except ImageError as error:
                raise InputError(
                    f"{row.shard} at {row.offset}: picture {row.image_id} no longer decodes ({error}): "
                    "run `dvc checkout --force`, or `dvc repro`"
                ) from error
            packed[i] = to_square(picture, width=width, height=height, placement=placement, image_size=side)
    return packed
