"""Features of a frozen backbone, computed once: a cache keyed by the picture and by all that touches the numbers.

One folder of `.miwake/features/` per backbone, weights, size, view and arithmetic; in it immutable segments, each
the keys (n, 32) uint8 (sha256 of a packed picture) and the features (n, D) float16 of what one run had to compute.
Features are rounded to float16 and read from the cache whether this run computed them or not, and every batch has the
same shape, so deleting the cache, or part of it, changes no result. Segments are memory-mapped: of a set whose
features outgrow the memory, only what is asked for is there.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn

from pipelines.augmentation.packs import PackReader, Rows
from pipelines.core.errors import TrainingError
from pipelines.core.files import code_digest, whole_file
from pipelines.params.recipes import TtaView
from pipelines.train.feeding import StreamedFeed
from pipelines.train.models import ModelSpec
from pipelines.train.pictures import normalise, to_float
from pipelines.train.precision import Arithmetic, arithmetic
from pipelines.train.views import view

BATCH = {"cpu": 32, "mps": 64, "cuda": 256}
"""pictures a batch on each device; the last one is filled up, since other shapes may run other kernels with other last
digits. On two cores Lite0 at 224 px makes 277, 291, 325 pictures a second with 16, 32, 64 in bfloat16; in float32 64
are slower than 32"""
SEGMENT = 4096
"""pictures after which the features are written: what a killed run loses at most"""

Features = npt.NDArray[np.float16]


@dataclass(frozen=True)
class FeatureKey:
    """All but the picture that its features depend on."""

    model: str
    weights: str
    """sha256 of where they come from"""
    view: TtaView
    image_size: int
    precision: Arithmetic
    device: str
    num_threads: int
    torch: str
    processor: str
    """what does the arithmetic: other instructions, other last digits"""
    batch: int
    code: str = field(default_factory=lambda: code_digest("core", "train"))

    @property
    def folder(self) -> str:
        text = json.dumps(asdict(self), sort_keys=True)
        return f"{self.model}-{self.view}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def processor_name(device: torch.device) -> str:
    """What torch may use of the processor, or which GPU it is."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return torch.backends.cpu.get_cpu_capability()


@dataclass(frozen=True)
class Stored:
    """Features of N pictures in one view, on the disk.

    Args:
        segments: (n, D) float16 each, memory-mapped.
        segment: (N,) which one a picture's features lie in.
        line: (N,) and where in it.
        num_features: D.
    """

    segments: list[Features]
    segment: Rows
    line: Rows
    num_features: int

    def read(self, pictures: Rows) -> Features:
        """(n, D) of n of the N pictures, a copy in memory."""
        found = np.empty((len(pictures), self.num_features), np.float16)
        segment, line = self.segment[pictures], self.line[pictures]
        for i in np.unique(segment):
            here = np.flatnonzero(segment == i)
            found[here] = self.segments[i][line[here]]
        return found


def hash_pictures(reader: PackReader, rows: Rows) -> list[bytes]:
    """The sha256 of each packed picture."""
    return [hashlib.sha256(reader.read(rows[i : i + 1]).data).digest() for i in range(len(rows))]


def cached_features(
    reader: PackReader,
    rows: Rows,
    hashes: Sequence[bytes],
    *,
    key: FeatureKey,
    backbone: nn.Module,
    num_features: int,
    spec: ModelSpec,
    device: torch.device,
    cache_dir: Path,
    advance: Callable[[int], None],
) -> Stored:
    """The features of `rows`, in their order: found in the cache, or computed and added to it.

    Args:
        reader: of the packs.
        rows: N rows of the index.
        hashes: N digests, of `hash_pictures`.
        key: of the features.
        backbone: (B, 3, s, s) normalised, channels last, on the device, to (B, D).
        num_features: D.
        spec: how the backbone is fed.
        cache_dir: folder of all features.
        advance: is told of pictures that are ready.

    Raises:
        TrainingError: a feature is no number of float16.
    """
    folder = cache_dir / key.folder
    segments = _segments(folder, num_features)
    # equal pictures, in one run or in two, are one entry
    wanted: dict[bytes, list[int]] = {}
    for i, digest in enumerate(hashes):
        wanted.setdefault(digest, []).append(i)
    segment, line = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)

    def place(number: int) -> None:
        for j, digest in enumerate(segments[number][0]):
            if (here := wanted.pop(digest, None)) is not None:
                segment[here], line[here] = number, j

    for number in range(len(segments)):
        place(number)
    advance(len(rows) - sum(map(len, wanted.values())))
    missing = sorted(wanted)
    for start in range(0, len(missing), SEGMENT):
        part = missing[start : start + SEGMENT]
        first = np.array([wanted[digest][0] for digest in part], np.int64)
        parts = np.split(np.arange(len(part)), range(key.batch, len(part), key.batch))
        computed = np.empty((len(part), num_features), np.float16)
        pictures = StreamedFeed(reader, rows[first], image_size=key.image_size, device=device)
        for batch, pixels in zip(parts, pictures.batches(parts), strict=True):
            computed[batch] = _compute(pixels, key, backbone, spec)
            advance(sum(len(wanted[part[i]]) for i in batch))
        segments.append((part, _write_segment(folder, part, computed)))
        place(len(segments) - 1)
    return Stored([features for _, features in segments], segment, line, num_features)


@torch.inference_mode()
def _compute(pixels: torch.Tensor, key: FeatureKey, backbone: nn.Module, spec: ModelSpec) -> Features:
    """(n, s, s, 3) uint8 to (n, D) float16, n up to the key's batch.

    Raises:
        TrainingError: a feature is no number of float16.
    """
    count = len(pixels)
    images = to_float(F.pad(pixels, (0, 0, 0, 0, 0, 0, 0, key.batch - count)))  # (B, 3, s, s)
    images = normalise(view(images, key.view), spec.mean, spec.std).contiguous(memory_format=torch.channels_last)
    with arithmetic(key.precision, images.device):
        found = backbone(images)[:count].half()
    if not bool(found.isfinite().all()):
        raise TrainingError(
            f"{key.model} gives features beyond 65,504, or no numbers, in {key.precision}: set the recipe's "
            "precision: float32, or another model or weights"
        )
    features: Features = found.cpu().numpy()
    return features


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


def _write_segment(folder: Path, keys: list[bytes], features: Features) -> Features:
    """The features as they lie on the disk now."""
    raw = b"".join(keys)
    name = hashlib.sha256(raw).hexdigest()[:32]
    with whole_file(folder / f"{name}.npy") as file:
        np.lib.format.write_array(file, features, version=(1, 0))
    # keys last: where they are, the features are whole
    with whole_file(folder / f"{name}.keys") as file:
        file.write(raw)
    stored: Features = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
    return stored
