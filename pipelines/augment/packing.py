"""Pictures decoded, cut and resized by all processes, and packed in their order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.augment.fitting import Fit, least_size, place, to_square
from pipelines.augment.places import Row
from pipelines.augmentation.packs import new_pack
from pipelines.core.errors import ImageError, InputError
from pipelines.images.decoding import Pixels, decode_reduced
from pipelines.images.shards import ShardReader
from pipelines.parallel.pool import map_chunks
from pipelines.params.augment import AugmentParams

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
