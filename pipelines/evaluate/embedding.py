"""A map of the pictures: those that the network finds alike lie close together (PCA, then t-SNE of scikit-learn)."""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipelines.evaluate.metrics import Floats, Ints

HEADER = ("image_id", "x", "y", "label", "subset", "is_mistake")
MAX_PICTURES = 3000
"""on the map: all mistakes, and others in the order of their hashes"""
COMPONENTS = 50
PERPLEXITY = 30.0
MAX_ITERATIONS = 300
"""of t-SNE, whose last 50 alone spread the clusters; 1,000 take three times as long"""
METHOD = f"PCA ({COMPONENTS}), t-SNE"


def choose_pictures(image_ids: Sequence[str], is_mistake: npt.NDArray[np.bool_], *, most: int = MAX_PICTURES) -> Ints:
    """Rows of the pictures on the map, sorted."""
    hashes = [hashlib.sha256(image_id.encode()).digest() for image_id in image_ids]
    order = sorted(range(len(image_ids)), key=lambda row: (not is_mistake[row], hashes[row]))
    return np.array(sorted(order[:most]), np.int64)


def embed(features: npt.NDArray[np.float16] | Floats) -> Floats | None:
    """(N, 2) places of N pictures, in [0, 1], two digits of a percent; None for fewer than five.

    One thread computes, whatever the environment says: sums over other numbers of threads differ in their last digits,
    and t-SNE makes much of these.

    Args:
        features: (N, D).
    """
    if len(features) < 5:
        return None
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    rows = features.astype(np.float64)
    with threadpool_limits(limits=1):
        components = min(COMPONENTS, *rows.shape)
        reduced = PCA(components, svd_solver="randomized", random_state=0).fit_transform(rows)
        perplexity = min(PERPLEXITY, (len(rows) - 1) / 3)
        tsne = TSNE(2, init="pca", random_state=0, perplexity=perplexity, max_iter=MAX_ITERATIONS)
        places = tsne.fit_transform(reduced)
    low, high = places.min(axis=0), places.max(axis=0)
    return np.asarray(((places - low) / np.maximum(high - low, 1e-9)).astype(np.float64).round(4))
