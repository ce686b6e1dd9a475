"""Figures of a picture's quality, for many thumbnails at once.

brightness  mean of the thumbnail, grey levels, 0 to 255
contrast    standard deviation of the thumbnail, grey levels; near 0: blank
entropy     Shannon's, of the thumbnail's grey levels, bits, 0 to 8; low: a few flat areas
sharpness   variance of the Laplacian (the four neighbours less four times the middle), the usual measure of focus
            (Pech-Pacheco and others 2000; LAP4 in Pertuz and others 2013), of the grey picture reduced until its
            shorter side is from 128 to 255 pixels (`Sketch.detail`), grey levels squared. Photographs in focus have
            some hundreds to thousands, blurred ones less than a tenth of that; smooth drawings are low too. Blur
            narrower than 1/128 of the shorter side is not seen, nor would a network at 224 pixels see it.

Sums are of whole numbers, so that no processor rounds them its own way.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipelines.images.decoding import THUMBNAIL_SIDE, Pixels

# looked at together, for memory's sake
_ROWS = 128
# of one stack of pictures
_STACK_PIXELS = 1 << 16

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


def sharpness(details: Sequence[Pixels] | Pixels) -> Figures:
    """Variance of the Laplacian of N grey pictures (H, W), each of its own size, or (N, H, W) → (N,); 0 where a side
    is below 3."""
    if isinstance(details, np.ndarray):
        return _of_one_size(details)
    found = np.zeros(len(details), np.float32)
    same_size: dict[tuple[int, ...], list[int]] = {}
    for row, detail in enumerate(details):
        same_size.setdefault(detail.shape, []).append(row)
    for shape, rows in same_size.items():
        step = _at_once(shape)
        for start in range(0, len(rows), step):
            some = rows[start : start + step]
            found[some] = _of_one_size(np.stack([details[row] for row in some]))
    return found


def _of_one_size(details: Pixels) -> Figures:
    """(N, H, W) → (N,)."""
    found = np.zeros(len(details), np.float64)
    if min(details.shape[1:]) >= 3:
        step = _at_once(details.shape[1:])
        for start in range(0, len(details), step):
            found[start : start + step] = _variance_of_laplacian(details[start : start + step])
    return found.astype(np.float32)


def _at_once(shape: tuple[int, ...]) -> int:
    """Pictures of one stack; one where they are large: a stack of them leaves the processor's cache."""
    return max(1, _STACK_PIXELS // max(1, shape[0] * shape[1]))


@lru_cache(maxsize=64)
def _ones(number: int) -> npt.NDArray[np.float64]:
    return np.ones(number)


def _variance_of_laplacian(grey: Pixels) -> npt.NDArray[np.float64]:
    """(N, H, W) → (N,)."""
    num_rows, height, width = grey.shape
    levels = grey.astype(np.int16).reshape(num_rows, height * width)
    # row after row as one line, which is twice as fast as cutting the border off first; what runs over an edge of the
    # picture is struck out after it
    edges = np.empty((num_rows, (height - 2) * width), np.int16)  # (N, (H-2) W), within ±1020
    inner = edges[:, :-2]
    np.multiply(levels[:, width + 1 : -width - 1], np.int16(-4), out=inner)
    for start in (1, 2 * width + 1, width, width + 2):  # above, below, left, right
        inner += levels[:, start : start + inner.shape[1]]
    edges.reshape(num_rows, height - 2, width)[:, :, -2:] = 0
    flat = edges.astype(np.float64)  # whole numbers, whose sums stay below 2^53, whoever adds them in which order
    total = flat @ _ones(flat.shape[1])
    squares = np.matmul(flat[:, None, :], flat[:, :, None])[:, 0, 0]
    num_pixels = (height - 2) * (width - 2)
    found: npt.NDArray[np.float64] = (squares * num_pixels - total * total) / num_pixels**2
    return found
