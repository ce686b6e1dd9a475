"""Answer only where the model is sure: accuracy by the share of images answered, and a threshold that val chose."""

from typing import Any

import numpy as np

from pipelines.evaluate.intervals import fraction_interval
from pipelines.evaluate.metrics import Floats, Ints, ScoredImages

NUM_POINTS = 20
"""shares of images that the curve has: 1, .95, … .05"""
FEWEST_ANSWERED = 20
"""validation images above a threshold; with fewer its precision is not known"""


def coverage(
    test: ScoredImages, groups: Ints, val: ScoredImages, *, wished_precision: float, confidence: float
) -> dict[str, Any]:
    """The part `coverage` of figures.json, unrounded.

    Args:
        test: N images, of which the curve and the figures at the threshold are.
        groups: (N,) group of each, 0 to G - 1.
        val: images that choose the threshold.
        wished_precision: fraction of the answers that should be right.
        confidence: of the intervals, 0 to 1.
    """
    threshold = fit_threshold(val.confidence, val.right, wished_precision)
    found: dict[str, Any] = {
        "wished_precision": wished_precision,
        "threshold": threshold,
        "at_threshold": None,
        "curve": accuracy_curve(test, groups, confidence),
    }
    if threshold is not None:
        answered = test.confidence >= threshold
        found["at_threshold"] = {
            "num_answered": int(answered.sum()),
            "coverage": fraction_interval(answered, groups, confidence)._asdict(),
            "accuracy": fraction_interval(test.right[answered], groups[answered], confidence)._asdict()
            if answered.any()
            else None,
        }
    return found


def fit_threshold(sure: Floats, right: "np.typing.NDArray[np.bool_]", wished_precision: float) -> float | None:
    """The lowest confidence from which on at least `wished_precision` of the images are right, in six digits.

    Args:
        sure: (N,) confidence of validation images.
        right: (N,).

    Returns:
        0.0 where all images together reach it; None where no FEWEST_ANSWERED images do.
    """
    order = np.argsort(-sure, kind="stable")
    levels, precision = sure[order], np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    # images of one confidence are answered together
    is_end = np.r_[levels[1:] < levels[:-1], True] if len(levels) else np.zeros(0, bool)
    good = np.flatnonzero(is_end & (precision >= wished_precision) & (np.arange(1, len(order) + 1) >= FEWEST_ANSWERED))
    if not len(good):
        return None
    # rounded down, so that the image that set it is answered
    return 0.0 if good[-1] == len(order) - 1 else float(np.floor(levels[good[-1]] * 1e6) / 1e6)


def accuracy_curve(test: ScoredImages, groups: Ints, confidence: float) -> list[dict[str, float]]:
    """Accuracy of the surest images, by their share; images of one confidence are answered together."""
    order = np.argsort(-test.confidence, kind="stable")
    found: list[dict[str, float]] = []
    for part in np.arange(NUM_POINTS, 0, -1) / NUM_POINTS:
        last = order[max(int(np.ceil(part * len(order))), 1) - 1]
        answered = test.confidence >= test.confidence[last]
        share = float(answered.mean())
        if found and share == found[-1]["coverage"]:
            continue
        accuracy = fraction_interval(test.right[answered], groups[answered], confidence)
        found.append(
            {
                "coverage": share,
                "threshold": float(test.confidence[last]),
                "accuracy": accuracy.value,
                "low": accuracy.low,
                "high": accuracy.high,
            }
        )
    return found


def top_k(
    probabilities: Floats, actual: Ints, groups: Ints, confidence: float, ks: tuple[int, ...] = (1, 2, 3, 5)
) -> dict[str, dict[str, float]]:
    """How often the true class is among the k most probable ones, for each k below the number of classes.

    Args:
        probabilities: (N, K).
        actual: (N,) true classes.
        groups: (N,) group of each.
    """
    of_truth = probabilities[np.arange(len(actual)), actual][:, None]
    before = np.arange(probabilities.shape[1])[None, :] < actual[:, None]
    # of equally probable classes the first counts as more probable, as in argmax
    rank = ((probabilities > of_truth) | ((probabilities == of_truth) & before)).sum(axis=1)
    return {str(k): fraction_interval(rank < k, groups, confidence)._asdict() for k in ks if k < probabilities.shape[1]}
