"""Figures of a picture's quality, for many thumbnails at once.

brightness  mean of the thumbnail, grey levels, 0 to 255
contrast    standard deviation of the thumbnail, grey levels; near 0: blank
entropy     Shannon's, of the thumbnail's grey levels, bits, 0 to 8; low: a few flat areas
sharpness   standard deviation of the Laplacian (the four neighbours against the middle) of the grey picture, reduced
            by a whole number until its shorter side is from 128 to 255 pixels, grey levels; low: blurred. It comes
            with the sketch (`pipelines.core.images`), while the picture is at hand.

Sums are of whole numbers, so that no processor rounds them its own way.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipelines.core.images import Pixels

Figures = npt.NDArray[np.float32]


class Quality(NamedTuple):
    """(N,) float32 each."""

    brightness: Figures
    contrast: Figures
    entropy: Figures


def quality(thumbnails: Pixels) -> Quality:
    """The figures of (N, 32, 32) thumbnails."""
    grey = thumbnails.reshape(len(thumbnails), -1).astype(np.int32)  # (N, 1024)
    total = grey.sum(axis=1, dtype=np.int64)  # (N,)
    squares = np.einsum("np,np->n", grey, grey).astype(np.int64)  # (N,); at most 1024 x 255², which int32 holds
    num_pixels = grey.shape[1]
    mean = total / num_pixels
    deviation = np.sqrt(squares * num_pixels - total * total) / num_pixels
    return Quality(mean.astype(np.float32), deviation.astype(np.float32), _entropy(grey))


def _entropy(grey: npt.NDArray[np.int32]) -> Figures:
    """Entropy of each row of (N, P) grey levels, bits."""
    num_rows, num_pixels = grey.shape
    places = grey + 256 * np.arange(num_rows, dtype=np.int32)[:, None]  # (N, P)
    counts = np.bincount(places.ravel(), minlength=256 * num_rows).reshape(num_rows, 256)
    # one value for each possible count: the sum over 256 levels is then the same on any processor
    terms = np.zeros(num_pixels + 1)
    terms[1:] = [count / num_pixels * np.log2(num_pixels / count) for count in range(1, num_pixels + 1)]
    bits: Figures = np.round(terms[counts].sum(axis=1), 4).astype(np.float32)
    return bits
