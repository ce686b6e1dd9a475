"""Probabilities that mean what they say: one temperature, and the calibration error that chance alone would leave."""

from dataclasses import dataclass

import numpy as np

from pipelines.evaluate.metrics import NUM_BINS, Floats, Ints, Scored, calibration_bins

SPREAD = 0.5
"""of the logarithm of temperatures, as members usually have them: .6 to 1.6. Draws towards 1 what few pictures say"""
FEWEST = 20
"""pictures to fit a temperature to; of fewer it stays 1"""
HOTTEST = 10.0
_LEAST = 1e-12
"""probability: 0 has no logarithm"""


def fit_temperature(probabilities: Floats, actual: Ints, *, spread: float = SPREAD, hottest: float = HOTTEST) -> float:
    """The temperature T by which softmax(log p / T) has the least log loss (Guo et al. 2017), drawn towards 1.

    Args:
        probabilities: (N, K) of pictures that were not learnt from; of fewer than FEWEST, T is 1.
        actual: (N,) their true classes.
        spread: standard deviation of the prior of log T.
        hottest: T lies between 1 / hottest and hottest.

    Returns:
        T in six digits, so that machines agree; below 1 where the probabilities are too cautious.
    """
    from scipy.optimize import minimize_scalar

    if len(actual) < FEWEST or probabilities.shape[1] < 2:
        return 1.0
    logits = np.log(np.maximum(probabilities, _LEAST))
    rows = np.arange(len(actual))

    def cost(log_temperature: float) -> float:
        scaled = logits * np.exp(-log_temperature)
        top = scaled.max(axis=1)
        losses = np.log(np.exp(scaled - top[:, None]).sum(axis=1)) + top - scaled[rows, actual]
        return float(losses.sum() + (log_temperature / spread) ** 2 / 2)

    bound = float(np.log(hottest))
    found = minimize_scalar(cost, bounds=(-bound, bound), method="bounded", options={"xatol": 1e-7})
    return round(float(np.exp(found.x)), 6)


def temper(probabilities: Floats, temperature: float) -> Floats:
    """(N, K) of (N, K): softmax(log p / T); the order of classes stays."""
    if temperature == 1.0 or not probabilities.size:
        return probabilities
    scaled = np.log(np.maximum(probabilities, _LEAST)) / temperature
    exponents = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True))


@dataclass(frozen=True)
class Calibrated:
    """The calibration errors of a model whose probabilities are exact, on these pictures: their mean and range."""

    mean: float
    low: float
    high: float


def calibrated_errors(scored: Scored, groups: Ints, *, confidence: float, draws: int, seed: int) -> Calibrated:
    """What the binned calibration error is by chance alone: it is never negative, so that chance never averages out.

    Labels are drawn from the probabilities themselves; pictures of a group are right and wrong together.

    Args:
        scored: N pictures.
        groups: (N,) group of each, 0 to G - 1.
        confidence: of the range, 0 to 1.
        draws: B, sets of labels.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    bins = calibration_bins(scored.confidence)
    errors = np.empty(draws)
    num_groups = int(groups.max()) + 1
    for i in range(draws):
        right = rng.random(num_groups)[groups] < scored.confidence
        errors[i] = np.abs(np.bincount(bins, scored.confidence - right, NUM_BINS)).sum() / len(bins)
    tail = (1 - confidence) / 2
    low, high = np.quantile(errors, [tail, 1 - tail])
    return Calibrated(float(errors.mean()), float(low), float(high))
