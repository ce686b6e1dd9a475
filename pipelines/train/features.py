"""Features of a frozen backbone, computed once: a cache keyed by the picture and by all that touches the numbers.

One folder of `.miwake/features/` per backbone, weights, size, view and arithmetic; in it immutable segments, each
the keys (n, 32) uint8 (sha256 of a packed picture) and the features (n, D) float16 of what one run had to compute.
Features are rounded to float16 whether they come from the cache or not, and every batch has the same shape, so
deleting the cache, or part of it, changes no result.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from pipelines.core.files import whole_file
from pipelines.core.packs import PackReader, Pixels, Rows
from pipelines.train.pictures import normalise, resize, to_float

BATCH = 16
"""pictures a batch; the last one is filled up, since other shapes may run other kernels with other last digits"""
SEGMENT = 4096
"""pictures after which the features are written: what a killed run loses at most"""
PREPROCESSING_VERSION = 1
"""counted up when the path from packed pixels to the network's input changes"""

Features = npt.NDArray[np.float16]


@dataclass(frozen=True)
class FeatureKey:
    """All but the picture that its features depend on."""

    model: str
    weights: str
    """sha256 of the weights' file"""
    view: str
    image_size: int
    device: str
    num_threads: int
    torch: str
    cpu: str
    """what torch may use of the processor: other instructions, other last digits"""
    batch: int = BATCH
    preprocessing: int = PREPROCESSING_VERSION

    @property
    def folder(self) -> str:
        text = json.dumps(asdict(self), sort_keys=True)
        return f"{self.model}-{self.view}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def hash_pictures(reader: PackReader, rows: Rows) -> list[bytes]:
    """The sha256 of each packed picture."""
    return [hashlib.sha256(reader.picture(int(row)).data).digest() for row in rows]


def cached_features(
    reader: PackReader,
    rows: Rows,
    hashes: list[bytes],
    *,
    key: FeatureKey,
    compute: Callable[[torch.Tensor], torch.Tensor],
    num_features: int,
    cache_dir: Path,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    advance: Callable[[int], None],
) -> Features:
    """The features of `rows`, in their order: from the cache, or computed and added to it.

    Args:
        reader: of the packs.
        rows: N rows of the index.
        hashes: N digests, of `hash_pictures`.
        key: of the features.
        compute: (B, 3, s, s) normalised to (B, D) float32.
        num_features: D.
        cache_dir: folder of all features.
        mean, std: of the normalisation.
        advance: is told of pictures that are ready.

    Returns:
        (N, D) float16.
    """
    folder = cache_dir / key.folder
    features = np.empty((len(rows), num_features), np.float16)
    # equal pictures, in one run or in two, are one entry
    wanted: dict[bytes, list[int]] = {}
    for i, digest in enumerate(hashes):
        wanted.setdefault(digest, []).append(i)
    for keys, stored in _segments(folder, num_features):
        for j, digest in enumerate(keys):
            for i in wanted.pop(digest, ()):
                features[i] = stored[j]
                advance(1)
    missing = sorted(wanted)
    for begin in range(0, len(missing), SEGMENT):
        segment = missing[begin : begin + SEGMENT]
        first = np.array([wanted[digest][0] for digest in segment], np.int64)
        computed = np.empty((len(segment), num_features), np.float16)
        for start in range(0, len(segment), BATCH):
            here = slice(start, min(start + BATCH, len(segment)))
            computed[here] = _compute(reader.read(rows[first[here]]), key, compute, mean, std)
            for digest, line in zip(segment[here], computed[here], strict=True):
                features[wanted[digest]] = line
                advance(len(wanted[digest]))
        _write_segment(folder, segment, computed)
    return features


@torch.inference_mode()
def _compute(
    pixels: Pixels,
    key: FeatureKey,
    compute: Callable[[torch.Tensor], torch.Tensor],
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> Features:
    """(n, S, S, 3) uint8 to (n, D) float16, n up to BATCH."""
    resized = resize(pixels, key.image_size)
    batch = np.zeros((BATCH, *resized.shape[1:]), np.uint8)
    batch[: len(resized)] = resized
    images = normalise(to_float(torch.from_numpy(batch).to(key.device)), mean, std)
    if key.view == "mirror":
        images = images.flip(-1)
    images = images.contiguous(memory_format=torch.channels_last)
    found: Features = compute(images)[: len(pixels)].half().cpu().numpy()
    return found


def _segments(folder: Path, num_features: int) -> list[tuple[list[bytes], Features]]:
    """What the cache holds; a segment that cannot be read is left out, and computed anew."""
    found = []
    for path in sorted(folder.glob("*.keys")) if folder.is_dir() else []:
        try:
            raw = path.read_bytes()
            stored = np.load(path.with_suffix(".npy"), mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError):
            continue
        if stored.dtype == np.float16 and stored.shape == (len(raw) // 32, num_features):
            found.append(([raw[i : i + 32] for i in range(0, len(raw), 32)], stored))
    return found


def _write_segment(folder: Path, keys: list[bytes], features: Features) -> None:
    raw = b"".join(keys)
    name = hashlib.sha256(raw).hexdigest()[:32]
    with whole_file(folder / f"{name}.npy") as file:
        np.lib.format.write_array(file, features, version=(1, 0))
    # keys last: where they are, the features are whole
    with whole_file(folder / f"{name}.keys") as file:
        file.write(raw)
