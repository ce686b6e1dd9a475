"""Small packs as augment writes them, for tests of what trains on them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.core.packs import new_pack
from pipelines.core.tables import PACK_INDEX, write_table

Array = np.ndarray[Any, Any]
FILES = {"copies": "copies", "unlabelled": "unlabelled"}


def colours(count: int, size: int, *, seed: int = 0) -> tuple[Array, Array]:
    """Noisy pictures of three classes, redder, greener and bluer: (N, S, S, 3) uint8, (N,) class indices."""
    dice = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    pixels = dice.integers(0, 120, (count, size, size, 3))
    pixels[np.arange(count), :, :, labels] += 100
    return pixels.astype(np.uint8), labels


def write_packs(
    folder: Path,
    subsets: Sequence[str],
    labels: Array,
    pixels: Array,
    folds: Sequence[int],
    *,
    factors: Sequence[str] | None = None,
) -> Path:
    """What augment writes, for N pictures in the given subsets; classes r, g, b.

    Args:
        labels: (N,) 0 to 2; -1 for unlabelled.
        pixels: (N, S, S, 3) uint8.
        factors: of each picture, JSON text.
    """
    folder.mkdir(parents=True)
    tables: dict[str, list[dict[str, Any]]] = {"index": [], "copies": [], "unlabelled": []}
    for subset in ("test", "train", "val", "copies", "unlabelled"):
        here = [i for i, name in enumerate(subsets) if name == subset]
        with new_pack(folder / f"{subset}.npy", num_images=len(here), image_size=pixels.shape[1]) as pack:
            for position, i in enumerate(here):
                pack[position] = pixels[i]
                image_id = f"{(i + 1) * 0x9E3779B97F4A7C15 % 2**64:016x}" + f"{i:048x}"
                row = {
                    **{"image_id": image_id, "label": "rgb"[labels[i]] if labels[i] >= 0 else "new"},
                    **{"class_index": int(labels[i]), "group": image_id, "subset": subset, "fold": folds[i]},
                    **{"position": position, "factors": factors[i] if factors else ""},
                    **{"copy": int(subset == "copies")},
                }
                tables[FILES.get(subset, "index")].append(row)
    for name, rows in tables.items():
        write_table(pa.Table.from_pylist(rows, schema=PACK_INDEX), folder / f"{name}.parquet", classes=list("rgb"))
    return folder


def small_packs(folder: Path, *, size: int = 32, num_train: int = 18) -> Path:
    """`num_train` training, 6 validation and 6 test pictures of three classes."""
    count = num_train + 12
    pixels, labels = colours(count, size)
    subsets = ["train"] * num_train + ["val"] * 6 + ["test"] * 6
    return write_packs(folder, subsets, labels, pixels, [-1] * num_train + [0] * 6 + [-1] * 6)
