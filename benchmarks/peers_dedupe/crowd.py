"""An ingest folder of very many small pictures, written directly: blends of two pictures, 1 % of them saved twice.

    python benchmarks/peers_dedupe/crowd.py CIFAR/test OUT --count 1000000

Each picture is half of one and half of another picture of the folder, mirrored or not and shifted round, so all are
different, and all look like photographs. The copies are 2 pixels narrower or of low quality. Writes the shard, the
thumbnails and the manifest that ingest would.
"""

import argparse
import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import simplejpeg
from plant import pictures_of

from pipelines.core.tables import MANIFEST, write_table

Pictures = npt.NDArray[np.uint8]

SIDE = 32
CHUNK = 10_000
EVERY = 100
"""one picture in so many has a copy right after it"""


def blends(base: Pictures, count: int, rng: np.random.Generator) -> Pictures:
    """(count, 32, 32, 3) uint8."""
    one, other = base[rng.integers(0, len(base), count)], base[rng.integers(0, len(base), count)]
    mirrored = rng.random(count) < 0.5
    other[mirrored] = other[mirrored][:, :, ::-1]
    other = np.roll(other, tuple(rng.integers(0, SIDE, 2)), axis=(1, 2))
    mixed: Pictures = ((one.astype(np.uint16) + other) // 2).astype(np.uint8)
    return mixed


def main() -> None:
    """Write what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=1_000_000)
    options = parser.parse_args()
    names = pictures_of(options.pictures)
    base = np.stack([simplejpeg.decode_jpeg((options.pictures / name).read_bytes()) for name in names])
    options.out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    thumbnails = np.lib.format.open_memmap(options.out / "thumbnails.npy", "w+", np.uint8, (options.count, SIDE, SIDE))
    ids: list[str] = []
    offsets = np.zeros(options.count, np.int64)
    sizes = np.zeros(options.count, np.int64)
    with (options.out / "images-00000.tar").open("wb") as shard:
        for start in range(0, options.count, CHUNK):
            pictures = blends(base, min(CHUNK, options.count - start), rng)
            for place, picture in enumerate(pictures, start):
                quality, shown = 90, picture
                if place % EVERY == 1:
                    before = pictures[place - start - 1]
                    quality, shown = (90, before[:, 1:-1]) if place % (2 * EVERY) == 1 else (60, before)
                data = simplejpeg.encode_jpeg(np.ascontiguousarray(shown), quality)
                grey = simplejpeg.decode_jpeg(data, "GRAY")[:, :, 0]
                if grey.shape[1] != SIDE:  # as wide as ever, linearly
                    at = np.linspace(0, grey.shape[1] - 1, SIDE)
                    low = np.minimum(at.astype(int), grey.shape[1] - 2)
                    grey = grey[:, low] * (1 - (at - low)) + grey[:, low + 1] * (at - low)
                thumbnails[place] = grey
                ids.append(hashlib.sha256(data).hexdigest())
                offsets[place], sizes[place] = shard.tell(), len(data)
                shard.write(data)
    widths = np.where(np.arange(options.count) % (2 * EVERY) == 1, SIDE - 2, SIDE).astype(np.int32)
    count = options.count
    known = {
        "image_id": ids,
        "label": np.char.add("class-", (np.arange(count) // EVERY % 100).astype(str)),
        "shard": pa.repeat("images-00000.tar", count),
        "offset": offsets,
        "size": sizes,
        "width": widths,
        "height": pa.repeat(pa.scalar(SIDE, pa.int32()), count),
        "source_path": np.char.add(np.arange(count).astype(str), ".jpg"),
    }
    columns = []
    for field in MANIFEST:
        if field.name in known:
            columns.append(
                pa.array(known[field.name], field.type)
                if not isinstance(known[field.name], pa.Array)
                else known[field.name]
            )
        elif field.type == pa.string():
            columns.append(pa.repeat("", count))
        else:
            columns.append(pa.repeat(pa.scalar(0 if field.type != pa.bool_() else False, field.type), count))
    write_table(pa.Table.from_arrays(columns, schema=MANIFEST), options.out / "manifest.parquet")


if __name__ == "__main__":
    main()
