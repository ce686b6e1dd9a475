"""How far a figure may be trusted: intervals from resampled groups, and Wilson's for a single fraction."""

from collections.abc import Iterator
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from pipelines.evaluate.metrics import FIGURES, Floats, Ints, Scored, Tallies, tally

_RESAMPLES_AT_ONCE = 500
"""tallies kept at once: 1,000 classes and 500 resamples are 12 MB"""


def bootstrap_figures(scored: Scored, groups: Ints, *, resamples: int, seed: int) -> dict[str, Floats]:
    """Every figure of FIGURES on resampled test sets.

    Whole duplicate groups are drawn with replacement, not pictures (the cluster bootstrap: Davison and Hinkley,
    Bootstrap Methods and their Application, 1997, 3.8): copies of one picture are one piece of evidence.

    Args:
        scored: N pictures.
        groups: (N,) group of each picture, 0 to G - 1.
        resamples: B, number of test sets drawn.
        seed: equal seeds and groups draw equal sets, so figures of several models are paired.

    Returns:
        per figure (B,), NaN where a drawn set has no evidence.
    """
    chunks = list(_resampled_tallies(scored, groups, resamples=resamples, seed=seed))
    return {name: np.concatenate([figure(chunk) for chunk in chunks]) for name, figure in FIGURES.items()}


def _resampled_tallies(scored: Scored, groups: Ints, *, resamples: int, seed: int) -> Iterator[Tallies]:
    rng = np.random.default_rng(seed)
    num_groups = int(groups.max()) + 1
    for start in range(0, resamples, _RESAMPLES_AT_ONCE):
        drawn = []
        for _ in range(min(_RESAMPLES_AT_ONCE, resamples - start)):
            times = np.bincount(rng.integers(num_groups, size=num_groups, dtype=np.int32), minlength=num_groups)
            drawn.append(tally(scored, times[groups].astype(np.float64)))
        yield Tallies(
            right=np.stack([t.right for t in drawn]),
            actual=np.stack([t.actual for t in drawn]),
            predicted=np.stack([t.predicted for t in drawn]),
            loss=np.stack([t.loss for t in drawn]),
            gap=np.stack([t.gap for t in drawn]),
        )


def percentile_interval(resampled: Floats, confidence: float) -> tuple[float, float]:
    """The middle `confidence` of resampled values; NaN, NaN where none is known."""
    known = resampled[~np.isnan(resampled)]
    if not len(known):
        return float("nan"), float("nan")
    tail = (1.0 - confidence) / 2
    low, high = np.quantile(known, [tail, 1.0 - tail])
    return float(low), float(high)


def wilson_interval(num_right: Floats, num_all: Floats, confidence: float) -> tuple[Floats, Floats]:
    """Wilson's score interval of fractions (Wilson 1927): sensible for few pictures, and at 0 and 1.

    Args:
        num_right: (K,) successes.
        num_all: (K,) trials; 0 gives NaN.
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
    low = np.where(fraction == 0, 0.0, centre - half)
    high = np.where(fraction == 1, 1.0, centre + half)
    return low, high


def group_numbers(groups: npt.NDArray[np.str_]) -> Ints:
    """(N,) names of groups as numbers 0 to G - 1, in the order of the names."""
    return np.unique(groups, return_inverse=True)[1].astype(np.int64)
