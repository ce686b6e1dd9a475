"""A second opinion for heavier edits: pictures whose features, as a network sees them, are nearly the same.

Features are those of EfficientNet-Lite0 before its last layer, of the picture stretched to 224 pixels. They forgive
larger crops, other backgrounds of text, filters; and they take two photographs of one thing for alike, so such pairs
never drop a picture: both stay, in one group.

Features are cached by image_id, since they cost about 10 ms a picture; deleting the cache changes no result, because
they are rounded to float16 whether they come from it or not, and every batch has the same shape.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from pipelines.core.files import code_digest, whole_file
from pipelines.core.progress import progress
from pipelines.dedupe.find_pairs import DuplicatePair, FoundPairs
from pipelines.dedupe.inputs import ImageSet, ManifestRows
from pipelines.features.lite0 import (
    MEAN,
    NUM_FEATURES,
    STD,
    EfficientNetLite0,
    fold_batch_norm,
    load_backbone,
    weights_path,
)
from pipelines.params.dedupe import EmbeddingParams

Features = npt.NDArray[np.float16]

_IMAGE_SIDE = 224
# pictures a batch; the last one is filled up, since other shapes may run other kernels with other last digits
_BATCH = 16
# pictures after which the features are written: what a killed run loses at most
_SEGMENT = 2048
# rows of the matrix of cosines at a time, against as many columns: 64 MB of float32
_BLOCK = 4096
# each picture has at most so many such pairs, the most alike: a thousand product shots make no million of them
_MOST = 5


@dataclass(frozen=True)
class _Key:
    """All but the picture that its features depend on."""

    weights: str
    image_side: int
    batch: int
    num_threads: int
    torch: str
    cpu: str
    code: str

    @property
    def folder(self) -> str:
        text = json.dumps(asdict(self), sort_keys=True)
        return f"lite0-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def add_embedding_pairs(
    params: EmbeddingParams,
    rows: ManifestRows,
    standing: Sequence[int],
    pictures: ImageSet,
    found: FoundPairs,
    *,
    cache: Path,
) -> None:
    """Add to `found` the pairs of leaders that no other way has found.

    Args:
        standing: the row of each item.
        cache: folder of all features.
    """
    leaders = [standing[item] for item in found.leaders]
    known = {frozenset(pair) for edges in found.edges.values() for pair in edges}
    threads = torch.get_num_threads()
    torch.set_num_threads(params.num_threads)
    try:
        features = _features(params, rows, leaders, pictures, cache)
        near = alike_pairs(features, min_cosine=params.min_cosine)
    finally:
        torch.set_num_threads(threads)
    for one, other, cosine in near:
        if frozenset((one, other)) not in known:
            found.edges["embedding"].append((one, other))
            found.pairs.append(DuplicatePair(leaders[one], leaders[other], "embedding", cosine))


def alike_pairs(features: npt.NDArray[np.float32], *, min_cosine: float) -> list[tuple[int, int, float]]:
    """Pairs of rows of (N, D) unit vectors with at least this cosine, the most alike first; at most 5 of each row.

    The cosine has four decimals: no processor's last digits decide.
    """
    tensor = torch.from_numpy(features)
    every: list[tuple[int, int, float]] = []
    for start in range(0, len(tensor), _BLOCK):
        for beside in range(start, len(tensor), _BLOCK):
            cosines = tensor[start : start + _BLOCK] @ tensor[beside : beside + _BLOCK].T
            first, second = torch.nonzero(cosines >= min_cosine - 1e-4, as_tuple=True)
            values = np.round(cosines[first, second].double().numpy(), 4)
            for one, other, value in zip(first.tolist(), second.tolist(), values.tolist(), strict=True):
                if start + one < beside + other and value >= min_cosine:
                    every.append((start + one, beside + other, min(value, 1.0)))
    every.sort(key=lambda pair: (-pair[2], pair[0], pair[1]))
    count = [0] * len(tensor)
    chosen = []
    for one, other, value in every:
        if count[one] < _MOST and count[other] < _MOST:
            count[one] += 1
            count[other] += 1
            chosen.append((one, other, value))
    return chosen


def _features(
    params: EmbeddingParams, rows: ManifestRows, leaders: Sequence[int], pictures: ImageSet, cache: Path
) -> npt.NDArray[np.float32]:
    """(N, D) unit vectors of the leaders' pictures."""
    key = _Key(
        weights=hashlib.sha256(weights_path().read_bytes()).hexdigest(),
        image_side=_IMAGE_SIDE,
        batch=_BATCH,
        num_threads=params.num_threads,
        torch=torch.__version__,
        cpu=torch.backends.cpu.get_cpu_capability(),
        code=code_digest("core", "dedupe"),
    )
    features = np.empty((len(leaders), NUM_FEATURES), np.float16)
    wanted = {bytes.fromhex(rows.image_id[row]): place for place, row in enumerate(leaders)}
    for digests, stored in _segments(cache / key.folder):
        for digest, line in zip(digests, stored, strict=True):
            if (place := wanted.pop(digest, None)) is not None:
                features[place] = line
    missing = sorted(wanted)
    if missing:
        network = fold_batch_norm(load_backbone())
        with progress("dedupe", len(missing), unit="pictures") as advance:
            for start in range(0, len(missing), _SEGMENT):
                segment = missing[start : start + _SEGMENT]
                places = [wanted[digest] for digest in segment]
                for begin in range(0, len(places), _BATCH):
                    few = places[begin : begin + _BATCH]
                    features[few] = _compute(network, [pictures.pixels(leaders[place]) for place in few])
                    advance(len(few))
                _write_segment(cache / key.folder, segment, features[places])
    full = features.astype(np.float32)
    unit: npt.NDArray[np.float32] = full / np.maximum(np.linalg.norm(full, axis=1, keepdims=True), 1e-6)
    return unit


@torch.inference_mode()
def _compute(network: EfficientNetLite0, pixels: Sequence[npt.NDArray[np.uint8]]) -> Features:
    """(n, D) of n decoded pictures, n up to the batch."""
    batch = np.zeros((_BATCH, _IMAGE_SIDE, _IMAGE_SIDE, 3), np.uint8)
    for place, one in enumerate(pixels):
        resized = Image.fromarray(one).resize((_IMAGE_SIDE, _IMAGE_SIDE), Image.Resampling.BICUBIC)
        batch[place] = np.asarray(resized)
    images = (torch.from_numpy(batch).permute(0, 3, 1, 2).float() - MEAN) / STD  # (B, 3, S, S)
    found: Features = network.features(images)[: len(pixels)].half().numpy()
    return found


def _segments(folder: Path) -> Iterator[tuple[list[bytes], Features]]:
    """What the cache holds; a segment that cannot be read is left out, and computed anew."""
    for path in sorted(folder.glob("*.keys")) if folder.is_dir() else []:
        try:
            raw = path.read_bytes()
            stored = np.load(path.with_suffix(".npy"), mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            continue
        if stored.dtype == np.float16 and stored.shape == (len(raw) // 32, NUM_FEATURES):
            yield [raw[start : start + 32] for start in range(0, len(raw), 32)], stored


def _write_segment(folder: Path, digests: Sequence[bytes], features: Features) -> None:
    raw = b"".join(digests)
    name = hashlib.sha256(raw).hexdigest()[:32]
    with whole_file(folder / f"{name}.npy") as file:
        np.lib.format.write_array(file, features, version=(1, 0))
    # keys last: where they are, the features are whole
    with whole_file(folder / f"{name}.keys") as file:
        file.write(raw)
