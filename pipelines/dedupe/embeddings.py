"""Pairs of images whose features, as a network computes them, are nearly the same: a second opinion for heavy edits.

Features are those of EfficientNet-Lite0 before its last layer, of the image stretched to 224 pixels. They match through
larger crops, other backgrounds of text and filters; they also match two photographs of one thing, so such pairs never
drop an image: both stay, in one group. Features cost about 10 ms an image and are cached (`features/cache.py`).
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from pipelines.core.files import code_digest
from pipelines.core.progress import progress
from pipelines.dedupe.find_pairs import DuplicatePair, FoundPairs
from pipelines.dedupe.inputs import ImageSet, ManifestRows
from pipelines.features.backbones import PACKAGED_SPEC, FrozenBackbone, packaged_backbone, packaged_weights
from pipelines.features.cache import Features, cache_folder, cached_features, processor_name
from pipelines.params.dedupe import EmbeddingParams

_MODEL = "tf_efficientnet_lite0"
_NUM_FEATURES = 1280
_IMAGE_SIDE = 224
# pictures a batch; the last one is filled up, since other shapes may run other kernels with other last digits
_BATCH = 16
# rows of the matrix of cosines at a time, against as many columns: 64 MB of float32
_BLOCK = 4096
# each picture has at most so many such pairs, the most alike: a thousand product shots make no million of them
_MOST = 5


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
    """(N, D) unit vectors of the leaders' pictures.

    The cache's key leaves `core` out: it reads and writes bytes and tables, and computes no pixel.
    """
    settings = {
        "weights": hashlib.sha256(packaged_weights(_MODEL).read_bytes()).hexdigest(),
        "image_side": _IMAGE_SIDE,
        "batch": _BATCH,
        "num_threads": params.num_threads,
        "torch": torch.__version__,
        "processor": processor_name(torch.device("cpu")),
        "code": code_digest("features", "images", "dedupe"),
    }

    def compute(positions: npt.NDArray[np.int64]) -> Iterator[Features]:
        backbone = FrozenBackbone(packaged_backbone(_MODEL), PACKAGED_SPEC, name=_MODEL, batch=_BATCH)
        for start in range(0, len(positions), _BATCH):
            yield backbone(_stretched([pictures.pixels(leaders[place]) for place in positions[start : start + _BATCH]]))

    with progress("dedupe", len(leaders), unit="pictures") as advance:
        stored = cached_features(
            cache_folder(cache, f"{_MODEL}-dedupe", settings),
            [bytes.fromhex(rows.image_id[row]) for row in leaders],
            num_features=_NUM_FEATURES,
            compute=compute,
            advance=advance,
        )
    features = stored.read(np.arange(len(leaders)))
    full = features.astype(np.float32)
    unit: npt.NDArray[np.float32] = full / np.maximum(np.linalg.norm(full, axis=1, keepdims=True), 1e-6)
    return unit


def _stretched(pixels: Sequence[npt.NDArray[np.uint8]]) -> torch.Tensor:
    """Decoded pictures to (n, 3, S, S) float, 0 to 255."""
    side = (_IMAGE_SIDE, _IMAGE_SIDE)
    resized = [np.asarray(Image.fromarray(one).resize(side, Image.Resampling.BICUBIC)) for one in pixels]
    return torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).float()
