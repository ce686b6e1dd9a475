"""Metrics of a classifier, from counts: sum first, divide once. No evidence is NaN, never 0.

All functions are pure and take K, the number of classes, from their caller: a class without an image still counts.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

NUM_BINS = 15
"""bins of confidence for the calibration error, as in Guo et al., On Calibration of Modern Neural Networks (2017)"""

_EPSILON = float(np.finfo(np.float64).eps)


def confusion_counts(actual: Ints, predicted: Ints, num_classes: int) -> Ints:
    """(K, K) counts from (N,) true and (N,) predicted classes: rows are the truth, columns the prediction."""
    return np.bincount(actual * num_classes + predicted, minlength=num_classes**2).reshape(num_classes, num_classes)


@dataclass(frozen=True)
class ScoredImages:
    """N images with what was predicted for them: all that any metric needs.

    Args:
        num_classes: K.
        actual: (N,) true classes.
        predicted: (N,) most probable classes; the first of equals.
        confidence: (N,) probability of the predicted class.
        loss: (N,) minus the natural log of the true class's probability.
        loss_if_wrong: (N,) the mean loss, by the probabilities themselves, were the predicted class not the true one.
    """

    num_classes: int
    actual: Ints
    predicted: Ints
    confidence: Floats
    loss: Floats
    loss_if_wrong: Floats

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        return np.equal(self.actual, self.predicted)


def score(actual: Ints, probabilities: Floats) -> ScoredImages:
    """Reduce (N, K) probabilities, rows sum to 1, and (N,) true classes to what the metrics need."""
    rows = np.arange(len(actual))
    predicted = probabilities.argmax(axis=1).astype(np.int64)
    # a probability of 0 for the truth would be an infinite loss; scikit-learn clips at the same smallest step
    of_truth = np.clip(probabilities[rows, actual], _EPSILON, 1.0)
    others = np.clip(probabilities, _EPSILON, 1.0)
    others[rows, predicted] = 0.0
    shares = others / np.maximum(others.sum(axis=1, keepdims=True), _EPSILON)
    return ScoredImages(
        num_classes=probabilities.shape[1],
        actual=actual,
        predicted=predicted,
        confidence=probabilities[rows, predicted],
        loss=-np.log(of_truth),
        loss_if_wrong=-(shares * np.log(np.where(others > 0, others, 1.0))).sum(axis=1),
    )


def take(scored: ScoredImages, some: npt.NDArray[np.bool_]) -> ScoredImages:
    """Those of the images where `some`, (N,), is true."""
    columns = ("actual", "predicted", "confidence", "loss", "loss_if_wrong")
    return replace(scored, **{name: getattr(scored, name)[some] for name in columns})


def average_precision(probabilities: Floats, actual: Ints) -> Floats:
    """(K,) average precision of each class against the rest, as scikit-learn has it; NaN for a class without images.

    The sum over its images of precision at their probability, times the recall that they add; images of one probability
    count together.
    """
    found = np.full(probabilities.shape[1], np.nan)
    for k in range(probabilities.shape[1]):
        is_class = actual == k
        if not is_class.any():
            continue
        order = np.argsort(-probabilities[:, k], kind="stable")
        levels, hits = probabilities[order, k], np.cumsum(is_class[order])
        ends = np.flatnonzero(np.r_[levels[1:] < levels[:-1], True])
        gained = np.diff(np.r_[0, hits[ends]])
        found[k] = float((gained * hits[ends] / (ends + 1)).sum() / hits[-1])
    return found


@dataclass(frozen=True)
class MetricSums:
    """Sums over images, from which every metric follows.

    Args:
        right: (K,) images of a class that were classified right.
        actual: (K,) images of a class.
        predicted: (K,) images classified as a class.
        loss: () sum of the losses.
        gap: (15,) sum of confidence minus right, per bin of confidence.
    """

    right: Floats
    actual: Floats
    predicted: Floats
    loss: Floats
    gap: Floats


def metric_sums(scored: ScoredImages) -> MetricSums:
    """Sum up images."""
    right, num_classes = scored.right.astype(np.float64), scored.num_classes
    bins = calibration_bins(scored.confidence)
    return MetricSums(
        right=np.bincount(scored.actual, right, num_classes).astype(np.float64),
        actual=np.bincount(scored.actual, minlength=num_classes).astype(np.float64),
        predicted=np.bincount(scored.predicted, minlength=num_classes).astype(np.float64),
        loss=np.asarray(scored.loss.sum()),
        gap=np.bincount(bins, scored.confidence - right, NUM_BINS).astype(np.float64),
    )


def calibration_bins(confidence: Floats) -> Ints:
    """(N,) the bin of each confidence: 15 of equal width, each including its upper end."""
    return np.clip(np.ceil(confidence * NUM_BINS).astype(np.int64) - 1, 0, NUM_BINS - 1)


def recall(sums: MetricSums) -> Floats:
    """(K,) fraction of a class's images that are classified right; NaN for a class without images."""
    return _divide(sums.right, sums.actual)


def precision(sums: MetricSums) -> Floats:
    """(K,) fraction of the images classified as a class that are of it; NaN for a class never predicted."""
    return _divide(sums.right, sums.predicted)


def f1(sums: MetricSums) -> Floats:
    """(K,) harmonic mean of precision and recall; NaN for a class with neither images nor predictions."""
    return _divide(2 * sums.right, sums.actual + sums.predicted)


def metric_of(name: str, scored: ScoredImages) -> float:
    """One of METRICS; NaN without evidence."""
    return float(METRICS[name](metric_sums(scored)))


def _divide(numerator: Floats, denominator: Floats) -> Floats:
    """Elementwise; NaN where there is nothing to divide by."""
    unknown = np.full(np.shape(denominator), np.nan)
    return np.asarray(np.divide(numerator, denominator, out=unknown, where=denominator > 0))


def _mean_of_known(values: Floats) -> Floats:
    """Mean of what is not NaN; NaN where all of it is."""
    known = ~np.isnan(values)
    return _divide(np.where(known, values, 0.0).sum(), known.sum().astype(np.float64))


METRICS: dict[str, Callable[[MetricSums], Floats]] = {
    "accuracy": lambda sums: _divide(sums.right.sum(), sums.actual.sum()),
    "balanced_accuracy": lambda sums: _mean_of_known(recall(sums)),
    "macro_f1": lambda sums: _mean_of_known(f1(sums)),
    "log_loss": lambda sums: _divide(sums.loss, sums.actual.sum()),
    "expected_calibration_error": lambda sums: _divide(np.abs(sums.gap).sum(), sums.actual.sum()),
}
"""by name, a () array each; means over classes leave out those without evidence"""
