"""The figures of a classifier, from counts: sum first, divide once. No evidence is NaN, never 0.

Everything here is pure and takes K, the number of classes, from its caller: a class without a picture still counts.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

NUM_BINS = 15
"""bins of confidence for the calibration error, as in Guo et al., On Calibration of Modern Neural Networks (2017)"""


_EPSILON = float(np.finfo(np.float64).eps)


def confusion_counts(actual: Ints, predicted: Ints, num_classes: int) -> Ints:
    """Count every combination of true and predicted class.

    Args:
        actual: (N,) true classes, 0 to K - 1.
        predicted: (N,) predicted classes, 0 to K - 1.
        num_classes: K.

    Returns:
        (K, K): rows are the truth, columns the prediction.
    """
    return np.bincount(actual * num_classes + predicted, minlength=num_classes**2).reshape(num_classes, num_classes)


@dataclass(frozen=True)
class Scored:
    """N pictures with what was predicted for them: all that any figure needs.

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


def score(actual: Ints, probabilities: Floats) -> Scored:
    """Reduce probabilities to what the figures need.

    Args:
        actual: (N,) true classes.
        probabilities: (N, K), rows sum to 1.
    """
    rows = np.arange(len(actual))
    predicted = probabilities.argmax(axis=1).astype(np.int64)
    # a probability of 0 for the truth would be an infinite loss; scikit-learn stops at the same smallest step
    of_truth = np.clip(probabilities[rows, actual], _EPSILON, 1.0)
    others = np.clip(probabilities, _EPSILON, 1.0)
    others[rows, predicted] = 0.0
    shares = others / np.maximum(others.sum(axis=1, keepdims=True), _EPSILON)
    return Scored(
        num_classes=probabilities.shape[1],
        actual=actual,
        predicted=predicted,
        confidence=probabilities[rows, predicted],
        loss=-np.log(of_truth),
        loss_if_wrong=-(shares * np.log(np.where(others > 0, others, 1.0))).sum(axis=1),
    )


@dataclass(frozen=True)
class Tallies:
    """Sums over pictures, from which every figure follows.

    Args:
        right: (K,) pictures of a class that were told right.
        actual: (K,) pictures of a class.
        predicted: (K,) pictures told to be of a class.
        loss: () sum of the losses.
        gap: (15,) sum of confidence minus right, per bin of confidence.
    """

    right: Floats
    actual: Floats
    predicted: Floats
    loss: Floats
    gap: Floats


def tally(scored: Scored) -> Tallies:
    """Sum up pictures."""
    right = scored.right.astype(np.float64)
    bins = calibration_bins(scored.confidence)
    num_classes = scored.num_classes
    return Tallies(
        right=np.bincount(scored.actual, right, num_classes).astype(np.float64),
        actual=np.bincount(scored.actual, minlength=num_classes).astype(np.float64),
        predicted=np.bincount(scored.predicted, minlength=num_classes).astype(np.float64),
        loss=np.asarray(scored.loss.sum()),
        gap=np.bincount(bins, scored.confidence - right, NUM_BINS).astype(np.float64),
    )


def calibration_bins(confidence: Floats) -> Ints:
    """(N,) the bin of each confidence: 15 of equal width, each holding its upper end."""
    return np.clip(np.ceil(confidence * NUM_BINS).astype(np.int64) - 1, 0, NUM_BINS - 1)


def recall(tallies: Tallies) -> Floats:
    """(K,) of the pictures of a class, the fraction told right; NaN for a class without pictures."""
    return _divide(tallies.right, tallies.actual)


def precision(tallies: Tallies) -> Floats:
    """(K,) of the pictures told to be of a class, the fraction that is; NaN for a class never told."""
    return _divide(tallies.right, tallies.predicted)


def f1(tallies: Tallies) -> Floats:
    """(K,) harmonic mean of precision and recall; NaN for a class with neither pictures nor predictions."""
    return _divide(2 * tallies.right, tallies.actual + tallies.predicted)


def accuracy(tallies: Tallies) -> Floats:
    """() the fraction of all pictures told right."""
    return _divide(tallies.right.sum(-1), tallies.actual.sum(-1))


def balanced_accuracy(tallies: Tallies) -> Floats:
    """() mean recall of the classes that have pictures: every class counts the same."""
    return _mean_of_known(recall(tallies))


def macro_f1(tallies: Tallies) -> Floats:
    """() mean F1 of the classes that have pictures or predictions."""
    return _mean_of_known(f1(tallies))


def log_loss(tallies: Tallies) -> Floats:
    """() mean of minus the natural log of the true class's probability; 0 is perfect."""
    return _divide(tallies.loss, tallies.actual.sum(-1))


def expected_calibration_error(tallies: Tallies) -> Floats:
    """() how far confidence lies from accuracy, averaged over pictures; 0 is perfect, 1 the worst."""
    return _divide(np.abs(tallies.gap).sum(-1), tallies.actual.sum(-1))


FIGURES = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "macro_f1": macro_f1,
    "log_loss": log_loss,
    "expected_calibration_error": expected_calibration_error,
}


def _divide(numerator: Floats, denominator: Floats) -> Floats:
    """Elementwise; NaN where there is nothing to divide by."""
    unknown = np.full(np.shape(denominator), np.nan)
    return np.asarray(np.divide(numerator, denominator, out=unknown, where=denominator > 0))


def _mean_of_known(values: Floats) -> Floats:
    """Mean over the last axis of what is not NaN; NaN where all of it is."""
    known = ~np.isnan(values)
    return _divide(np.where(known, values, 0.0).sum(-1), known.sum(-1).astype(np.float64))
