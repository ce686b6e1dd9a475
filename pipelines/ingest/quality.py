"""Figures of a picture's quality, for many thumbnails at once.

brightness  mean of the thumbnail, grey levels, 0 to 255
contrast    standard deviation of the thumbnail, grey levels; near 0: blank
entropy     Shannon's, of the thumbnail's grey levels, bits, 0 to 8; low: a few flat areas
sharpness   variance of the Laplacian (the four neighbours less four times the middle), the usual measure of focus
            (Pech-Pacheco and others 2000; LAP4 in Pertuz and others 2013), of the grey picture reduced until its
            shorter side is from 128 to 255 pixels (`ImageSummary.downscaled`), grey levels squared. Photographs in
            focus have some hundreds to thousands, blurred ones less than a tenth of that; smooth drawings are low too.
            Blur narrower than 1/128 of the shorter side is not seen, nor would a network at 224 pixels see it.

Sums are of whole numbers, so that no processor rounds them its own way.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipelines.images.decoding import THUMBNAIL_SIDE, Pixels

# looked at together, for memory's sake
_ROWS = 128

Figures = npt.NDArray[np.float32]


class Quality(NamedTuple):
    """(N,) float32 each."""

    brightness: Figures
    contrast: Figures
    entropy: Figures


def quality(thumbnails: Pixels) -> Quality:
    """The figures of (N, 32, 32) thumbnails."""
    parts = [_quality(thumbnails[start : start + _ROWS]) for start in range(0, len(thumbnails), _ROWS)]
    if not parts:
        return Quality(*[np.zeros(0, np.float32)] * 3)
    return Quality(*map(np.concatenate, zip(*parts, strict=True)))


def _quality(thumbnails: Pixels) -> Quality:
    num_rows, num_pixels = len(thumbnails), THUMBNAIL_SIDE**2
    first = 256 * np.arange(num_rows, dtype=np.uint16)  # up to 256 rows
    places = thumbnails.reshape(num_rows, num_pixels) + first[:, None]  # (N, 1024)
    counts = np.bincount(places.ravel(), minlength=256 * num_rows).reshape(num_rows, 256)  # of each grey level
    # products of whole numbers whose sums stay below 2^53: float64 rounds none
    levels = np.arange(256.0)
    sums = counts.astype(np.float64) @ np.stack([levels, levels * levels], axis=1)  # (N, 2)
    total, squares = sums[:, 0], sums[:, 1]
    mean = total / num_pixels
    deviation = np.sqrt(squares * num_pixels - total * total) / num_pixels
    bits = np.round(_entropy_terms().take(counts).sum(axis=1), 4)
    return Quality(mean.astype(np.float32), deviation.astype(np.float32), bits.astype(np.float32))


@lru_cache(maxsize=1)
def _entropy_terms() -> npt.NDArray[np.float64]:
    """What a grey level adds to the entropy, by the number of its pixels: the same on any processor."""
    num_pixels = THUMBNAIL_SIDE**2
    counts = range(1, num_pixels + 1)
    return np.array([0.0, *(count / num_pixels * math.log2(num_pixels / count) for count in counts)])


def sharpness(grey: Pixels) -> float:
    """Variance of the Laplacian of a grey picture (H, W); 0 where a side is below 3."""
    if min(grey.shape) < 3:
        return 0.0
    levels = grey.astype(np.int16)
    edges = levels[:-2, 1:-1] + levels[2:, 1:-1] + levels[1:-1, :-2] + levels[1:-1, 2:] - 4 * levels[1:-1, 1:-1]
    flat = edges.ravel().astype(np.float64)  # whole numbers within ±1020, whose sums stay below 2^53
    total, squares = float(flat.sum()), float(flat @ flat)
    return (squares * flat.size - total * total) / flat.size**2
