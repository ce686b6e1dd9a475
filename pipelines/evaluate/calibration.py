"""Whether probabilities can be believed: the calibration error, and the reliability diagram with its band.

Both are held against chance: labels are drawn from the probabilities themselves, as if these were exact. The binned
error is never negative, so chance does not average out of it; a bin of few images strays far from the diagonal.
"""

from typing import Any

import numpy as np

from pipelines.evaluate.metrics import NUM_BINS, Floats, Ints, ScoredImages, calibration_bins, metric_of

MAX_DRAWN = 50_000
"""images whose labels are drawn one by one; of more, the sums over bins are drawn from their normal distribution"""
FEWEST_IN_BIN = 10
"""images in a bin of the reliability diagram; a bin with fewer joins the next"""


def calibration(
    scored: ScoredImages, groups: Ints, *, temperature: float, confidence: float, draws: int, seed: int
) -> dict[str, Any]:
    """The part `calibration` of figures.json, unrounded.

    Args:
        scored: N images.
        groups: (N,) group of each, 0 to G - 1: its images are right and wrong together.
        temperature: by which the probabilities were made.
        confidence: of the band and of the error's interval, 0 to 1.
        draws: sets of labels.
        seed: of the draws.
    """
    bins = calibration_bins(scored.confidence)
    sums = draw_right(scored.confidence, bins, groups, draws=draws, seed=seed)
    of_bin = np.bincount(bins, scored.confidence, NUM_BINS)
    errors = np.abs(of_bin - sums).sum(axis=1) / len(bins)
    tail = (1 - confidence) / 2
    low, high = np.quantile(errors, [tail, 1 - tail])
    error = metric_of("expected_calibration_error", scored)
    return {
        "error": error,
        "calibrated_mean": float(errors.mean()),
        "calibrated_low": float(low),
        "calibrated_high": float(high),
        "is_calibrated": bool(error <= high),
        "temperature": temperature,
        "bins": _reliability(scored, bins, sums, tail),
    }


def draw_right(probabilities: Floats, bins: Ints, groups: Ints, *, draws: int, seed: int) -> Floats:
    """(draws, 15) images right in each bin, were each right with its probability; a group's images go together.

    Args:
        probabilities: (N,).
        bins: (N,) 0 to 14.
        groups: (N,) 0 to G - 1.
    """
    rng = np.random.default_rng(seed)
    if len(probabilities) > MAX_DRAWN:
        mean = np.bincount(bins, probabilities, NUM_BINS)
        deviation = np.sqrt(np.bincount(bins, _variance_parts(probabilities, bins, groups), NUM_BINS))
        return np.asarray(mean + deviation * rng.standard_normal((draws, NUM_BINS)))
    num_groups = int(groups.max()) + 1
    sums = np.empty((draws, NUM_BINS))
    for i in range(draws):
        right = rng.random(num_groups)[groups] < probabilities
        sums[i] = np.bincount(bins, right, NUM_BINS)
    return sums


def _variance_parts(probabilities: Floats, bins: Ints, groups: Ints) -> Floats:
    """(N,) that sum to the variance of the images right: of two in one group and bin, the covariance is that of
    one number below both probabilities, min(p, q) - p q."""
    order = np.lexsort((-probabilities, bins, groups))
    p, key = probabilities[order], groups[order] * NUM_BINS + bins[order]
    starts = np.flatnonzero(np.r_[True, key[1:] != key[:-1]])
    cell = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(key)]))
    rank = np.arange(len(key)) - starts[cell]
    totals = np.bincount(cell, p)
    parts = np.empty(len(p))
    parts[order] = (2 * rank + 1) * p - p * totals[cell]
    return parts


def _reliability(scored: ScoredImages, bins: Ints, sums: Floats, tail: float) -> list[dict[str, float | int]]:
    """One point a bin, joined until each has FEWEST_IN_BIN images: mean confidence, accuracy, and the band."""
    counts = np.bincount(bins, minlength=NUM_BINS)
    right = np.bincount(bins, scored.right, NUM_BINS)
    sure = np.bincount(bins, scored.confidence, NUM_BINS)
    parts: list[list[int]] = [[]]
    for k in np.flatnonzero(counts)[::-1]:
        parts[-1].append(int(k))
        if counts[parts[-1]].sum() >= FEWEST_IN_BIN:
            parts.append([])
    last = parts.pop()
    if last and parts:
        parts[-1] += last
    elif last:
        parts = [last]
    found = []
    for part in reversed(parts):
        num = int(counts[part].sum())
        low, high = np.quantile(sums[:, part].sum(axis=1) / num, [tail, 1 - tail])
        found.append(
            {
                "confidence": float(sure[part].sum() / num),
                "accuracy": float(right[part].sum() / num),
                "num": num,
                "low": float(np.clip(low, 0, 1)),
                "high": float(np.clip(high, 0, 1)),
            }
        )
    return found
