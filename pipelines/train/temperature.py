"""The temperature of probabilities: what makes a model as sure as it is right (Guo et al. 2017)."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

SPREAD = 0.5
"""standard deviation of the prior of log T, as members usually have: T of .6 to 1.6"""
FEWEST = 20
"""images to fit a temperature to; for fewer it is 1"""
HOTTEST = 10.0
_LEAST = 1e-12
"""probability: 0 has no logarithm"""


def fit_temperature(
    probabilities: Floats, actual: npt.NDArray[np.int64], *, spread: float = SPREAD, hottest: float = HOTTEST
) -> float:
    """The temperature T by which softmax(log p / T) has the least log loss, drawn towards 1.

    Args:
        probabilities: (N, K) of images that the model did not learn from.
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
