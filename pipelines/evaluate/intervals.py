"""Confidence intervals of metrics, for images that come in groups of copies.

No interval is resampled: the percentile bootstrap says "100 to 100" where all of 18 images are right, and covers the
truth in 85 % of samples in place of 95 %. `benchmarks/intervals.py` measures the coverage of these.
"""

from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipelines.evaluate.metrics import Floats, Ints, ScoredImages, confusion_counts

Interval = tuple[float, float]

PRIOR_ERRORS = 20.0
"""mistakes worth of belief that copies are classified alike: few mistakes do not show how they cluster"""
PRIOR_IMAGES = 4.0
"""images worth of belief that a class is classified right as often as all are: three images say little"""
PRIOR_LOSS = 0.5
"""of an image classified right and of one classified wrong, with the loss that the probabilities themselves expect:
where no mistake was seen, the loss of one would be left out. .5 covers best at 20 to 150 images"""


def wilson_interval(num_right: Floats, num_all: Floats, confidence: float) -> tuple[Floats, Floats]:
    """Wilson's score interval of fractions (Wilson 1927): sensible for few images, and at 0 and 1.

    Args:
        num_right: (K,) successes.
        num_all: (K,) trials; 0 gives NaN. Neither need be whole: effective numbers are not.
        confidence: of the interval, 0 to 1.

    Returns:
        lower and upper ends, each (K,) in [0, 1].
    """
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    n = np.where(num_all > 0, num_all, np.nan)
    fraction = num_right / n
    centre = (fraction + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(fraction * (1 - fraction) / n + z**2 / (4 * n**2))
    # at none and all the end is 0 and 1 by algebra, and off by 1e-17 by rounding
    low = np.where(fraction <= 0, 0.0, centre - half)
    high = np.where(fraction >= 1, 1.0, centre + half)
    return low, high


def effective_numbers(scored: ScoredImages, groups: Ints) -> Floats:
    """(K,) effective sample size of each class: the images that would say as much were none a copy; 0 for no images.

    With groups of m images classified alike, a class of n images is worth n² / sum m² (Kish). Where the mistakes spread
    more evenly over groups than that, the number is larger, by the estimated design effect.

    Args:
        scored: N images.
        groups: (N,) group of each, 0 to G - 1.
    """
    return _effective_numbers(scored.right, scored.actual, scored.num_classes, groups)


def _effective_numbers(right_of: npt.NDArray[np.bool_], actual: Ints, num_classes: int, groups: Ints) -> Floats:
    sizes = np.bincount(groups)
    sizes, right = sizes[sizes > 0], np.bincount(groups, right_of)[sizes > 0]
    accuracy, num_images = right.sum() / sizes.sum(), sizes.sum()
    alike = (sizes**2).sum() / num_images**2
    evidence = min((right / sizes).sum(), (1 - right / sizes).sum())
    design = 1.0
    if evidence > 0:
        seen = ((right - accuracy * sizes) ** 2).sum() / num_images**2 / (accuracy * (1 - accuracy))
        design = min((evidence * seen / alike + PRIOR_ERRORS) / (evidence + PRIOR_ERRORS), 1.0)
    # by class and group: some groups hold pictures of two classes
    pairs, counts = np.unique(actual * (int(groups.max()) + 1) + groups, return_counts=True)
    of_class = np.bincount(actual, minlength=num_classes).astype(np.float64)
    squares = np.bincount(pairs // (int(groups.max()) + 1), counts.astype(np.float64) ** 2, num_classes)
    return np.asarray(of_class**2 / np.maximum(design * squares, 1e-12))


class Fraction(NamedTuple):
    """A fraction of images and its interval."""

    value: float
    low: float
    high: float


def effective_number(right: npt.NDArray[np.bool_], groups: Ints) -> float:
    """The images that would say as much of the fraction `right`, (N,), N ≥ 1, were none a copy of another."""
    return float(_effective_numbers(right, np.zeros(len(right), np.int64), 1, groups)[0])


def fraction_interval(right: npt.NDArray[np.bool_], groups: Ints, confidence: float) -> Fraction:
    """The fraction of (N,) images, N ≥ 1, and its Wilson interval on the effective sample size."""
    number, value = effective_number(right, groups), float(right.mean())
    low, high = wilson_interval(np.array([value * number]), np.array([number]), confidence)
    return Fraction(value, min(float(low[0]), value), max(float(high[0]), value))


def metric_intervals(scored: ScoredImages, groups: Ints, confidence: float) -> dict[str, Interval]:
    """The intervals of accuracy, balanced accuracy, macro F1 and log loss.

    The first three are Wilson's: the effective sample size is the one whose fraction would vary as much as the metric
    does, by its derivatives at the confusion counts (delta method). Each row of the counts is shrunk towards the mean
    of all, so that a class of three images, all right, is not certain.

    Args:
        scored: N images, at least one.
        groups: (N,) group of each, 0 to G - 1.
        confidence: of the intervals, 0 to 1.
    """
    num_images, num_classes = len(scored.actual), scored.num_classes
    counts = confusion_counts(scored.actual, scored.predicted, num_classes).astype(np.float64)
    rows, columns, diagonal = counts.sum(1), counts.sum(0), np.eye(num_classes)
    common = (counts.trace() + 0.5) / (num_images + 1)
    elsewhere = np.tile(columns + 0.5, (num_classes, 1)) * (1 - diagonal)
    prior = common * diagonal + (1 - common) * elsewhere / np.maximum(elsewhere.sum(1, keepdims=True), 1e-12)
    drawn = (counts + PRIOR_IMAGES * prior) * (rows / (rows + PRIOR_IMAGES))[:, None]
    is_known, shown = rows > 0, (rows + columns) > 0
    part = rows / num_images
    # the variance of a metric is the sum over cells of spread times the square of its derivative
    spread = np.divide(drawn * rows[:, None], num_images**2, out=np.zeros_like(drawn))
    spread /= np.maximum(effective_numbers(scored, groups), 1e-12)[:, None]

    def wilson(value: float, of_drawn: float, derivative: Floats) -> Interval:
        variance = (spread * derivative**2).sum()
        number = of_drawn * (1 - of_drawn) / variance if variance > 0 else float(num_images)
        low, high = wilson_interval(np.array([value * number]), np.array([number]), confidence)
        # rounding may put an end a last digit beside a value of 0 or 1
        return min(float(low[0]), value), max(float(high[0]), value)

    right = drawn.diagonal()
    accuracy = right.sum() / num_images
    found = {"accuracy": wilson(counts.trace() / num_images, accuracy, diagonal - accuracy)}
    recall = np.divide(right, rows, out=np.zeros(num_classes), where=is_known)
    of_class = np.divide(1.0, part * is_known.sum(), out=np.zeros(num_classes), where=is_known)
    value = (counts.diagonal()[is_known] / rows[is_known]).mean()
    derivative = (diagonal - recall[:, None]) * of_class[:, None]
    found["balanced_accuracy"] = wilson(float(value), float(recall[is_known].mean()), derivative)
    both = rows + drawn.sum(0)
    f1 = np.divide(2 * right, both, out=np.zeros(num_classes), where=shown)
    per = np.divide(num_images / shown.sum(), both, out=np.zeros(num_classes), where=shown)
    value = (2 * counts.diagonal()[shown] / (rows + columns)[shown]).mean()
    derivative = 2 * diagonal * per[:, None] - (f1 * per)[:, None] - (f1 * per)[None, :]
    found["macro_f1"] = wilson(float(value), float(f1[shown].mean()), derivative)
    found["log_loss"] = _log_loss_interval(scored, groups, confidence)
    return found


def paired_interval(gain: Floats, groups: Ints, confidence: float, *, of_fractions: bool) -> Interval:
    """The interval of the mean gain of one model over another on the same images: Student's, over groups.

    Between fractions with half an image more in each of the four ways that two models can be right and wrong (Agresti &
    Min, Biometrics 61, 2005): two models that agree on 20 images need not be equal.

    Args:
        gain: (N,) of each image; from -1 to 1 between fractions.
        groups: (N,) group of each, 0 to G - 1.
        of_fractions: whether each gain is that of being right.
    """
    sizes = np.bincount(groups).astype(np.float64)
    typical = (sizes**2).sum() / len(gain) if of_fractions else 0.0  # of a group: its images count together
    num_images = len(gain) + 2 * typical
    mean = gain.sum() / num_images
    variance = ((np.bincount(groups, gain) - mean * sizes) ** 2).sum() + typical**2
    half = _student(sizes, confidence) * float(np.sqrt(variance)) / num_images
    value = float(gain.mean())
    return min(value, float(mean) - half), max(value, float(mean) + half)


def _log_loss_interval(scored: ScoredImages, groups: Ints, confidence: float) -> Interval:
    """Student's, over groups, on the scale of logarithms, which its skew asks for; with PRIOR_LOSS."""
    sure = np.clip(scored.confidence, 1e-12, 1 - 1e-12)
    sizes = np.bincount(groups).astype(np.float64)
    typical = (sizes**2).sum() / len(sure)  # of a group: its images count together
    weights = np.concatenate([sure / sure.sum(), (1 - sure) / (1 - sure).sum()]) * PRIOR_LOSS * typical
    losses = np.concatenate([-np.log(sure), scored.loss_if_wrong])
    num_images = len(sure) + weights.sum()
    value, mean = float(scored.loss.mean()), float((scored.loss.sum() + weights @ losses) / num_images)
    if mean < 1e-9:  # one class alone: nothing can be lost
        return value, value
    apart = np.bincount(groups, scored.loss) - mean * sizes
    variance = (apart**2).sum() + typical * (weights @ (losses - mean) ** 2)
    ratio = np.exp(_student(sizes, confidence) * np.sqrt(variance) / num_images / mean)
    return min(value, float(mean / ratio)), max(value, float(mean * ratio))


def _student(sizes: Floats, confidence: float) -> float:
    """Student's quantile for as many groups as are not empty."""
    from scipy.special import stdtrit

    return float(stdtrit(max(np.count_nonzero(sizes) - 1, 1), 0.5 + confidence / 2))


def group_numbers(groups: npt.NDArray[np.str_]) -> Ints:
    """(N,) names of groups as numbers 0 to G - 1, in the order of the names."""
    return np.unique(groups, return_inverse=True)[1].astype(np.int64)
