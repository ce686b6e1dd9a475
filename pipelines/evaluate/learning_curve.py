"""More pictures or a better model: accuracy against the number of pictures learnt from, and its forecast.

Ridge regression on the features of a frozen backbone learns from nested subsets of whole duplicate groups, and is
tested on the groups of a fold that it did not see. The error follows (1 - a) + b n^-c (Hestness et al., arXiv
1712.00409): for each c of a grid, a ≤ 1 and b ≥ 0 are least squares, and c is drawn towards .5, near which most curves
lie. The uncertainty is that of the fit to resampled groups of test pictures.

What more pictures of one class bring is measured apart: its own pictures are thinned, and all others stay.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.evaluate.intervals import effective_number, wilson_interval
from pipelines.evaluate.leaks import PENALTY
from pipelines.evaluate.metrics import Floats, Ints

NUM_FOLDS = 5
FRACTIONS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 1.0)
"""of the pictures of four folds that are learnt from"""
FEWEST_A_CLASS = 3
"""pictures learnt from, on average over classes: a smaller subset says nothing of the curve"""
FEWEST_GROUPS = 50
"""of pictures in all; with fewer there is no curve"""
FEWEST_OF_CLASS = 12
"""groups of a class that a curve is shown of"""
MAX_LEARNT = 20_000
"""pictures that the divisions into folds hold together: of more pictures fewer folds are tested, one at least"""
GROWTHS = (1.5, 2.0)
"""times the pictures learnt from that are forecast"""
MORE = 100
"""pictures of the weakest class that are forecast"""
NUM_DRAWS = 300
"""resamples of groups; of a forecast's ends, 20 draws of seeds differ by .2 points"""
EXPONENTS = np.linspace(0.05, 1.5, 30)
TYPICAL, SPREAD = 0.5, 0.25
"""of the exponent"""


@dataclass(frozen=True)
class PowerLaw:
    """B fits of accuracy a - b n^-c: each (B,)."""

    a: Floats
    b: Floats
    c: Floats

    def accuracy(self, num_images: float) -> Floats:
        """(B,) accuracies after learning from so many pictures, 0 to 1."""
        return np.clip(self.a - self.b * num_images**-self.c, 0.0, 1.0)


def fit_power_law(num_images: Floats, accuracy: Floats, noise: float) -> PowerLaw:
    """Fit a curve to each line of accuracies.

    Args:
        num_images: (S,) pictures learnt from, S ≥ 2.
        accuracy: (B, S).
        noise: standard deviation of an accuracy.
    """
    error = 1.0 - accuracy
    best = np.full(len(error), np.inf)
    a, b, c = (np.zeros(len(error)) for _ in range(3))
    for exponent in EXPONENTS:
        x = num_images**-exponent
        apart = x - x.mean()
        slope = np.maximum((error - error.mean(axis=1, keepdims=True)) @ apart / (apart @ apart), 0.0)
        floor = error.mean(axis=1) - slope * x.mean()
        through_zero = floor < 0
        slope = np.where(through_zero, error @ x / (x @ x), slope)
        floor = np.maximum(floor, 0.0)
        missed = ((error - floor[:, None] - slope[:, None] * x) ** 2).sum(axis=1)
        cost = missed / noise**2 + ((exponent - TYPICAL) / SPREAD) ** 2
        better = cost < best
        best = np.where(better, cost, best)
        a, b, c = np.where(better, 1 - floor, a), np.where(better, slope, b), np.where(better, exponent, c)
    return PowerLaw(a, b, c)


class SubsetProbe:
    """Ridge regression on any subset of N pictures, tested on any other.

    Args:
        features: (N, D), any scale; each feature is scaled to variance 1 over all.
        actual: (N,) classes.
        num_classes: K.
    """

    def __init__(self, features: npt.NDArray[np.float16] | Floats, actual: Ints, num_classes: int) -> None:
        rows = features.astype(np.float64)
        spread = rows.std(axis=0)
        rows -= rows.mean(axis=0)
        rows /= np.where(spread > 1e-3, spread, 1.0)
        self.rows, self.actual, self.targets = rows, actual, np.eye(num_classes)[actual]
        self.penalty = PENALTY * rows.shape[1]
        self.kernel = rows @ rows.T if len(rows) <= rows.shape[1] else None

    def right(self, nested: Sequence[Ints], tests: Ints) -> npt.NDArray[np.bool_]:
        """(S, n) whether each of n pictures is told right after learning from each of S subsets.

        Args:
            nested: rows of each subset, each the beginning of the next.
            tests: (n,) rows.
        """
        found = []
        done, products = 0, np.zeros((0, 0))
        for learnt in nested:
            mean = self.targets[learnt].mean(axis=0)
            targets = self.targets[learnt] - mean
            if self.kernel is not None:
                inner = self.kernel[np.ix_(learnt, learnt)] + self.penalty * np.eye(len(learnt))
                scores = self.kernel[np.ix_(tests, learnt)] @ np.linalg.solve(inner, targets)
            else:
                fresh = self.rows[learnt[done:]]
                products = fresh.T @ fresh if not done else products + fresh.T @ fresh
                done = len(learnt)
                inner = products + self.penalty * np.eye(len(products))
                scores = self.rows[tests] @ np.linalg.solve(inner, self.rows[learnt].T @ targets)
            found.append((scores + mean).argmax(axis=1) == self.actual[tests])
        return np.array(found)


@dataclass(frozen=True)
class _Measured:
    """Curve of one kind of subset: (S,) mean numbers of pictures, and (S, N) how often each of N is told right."""

    num_images: Floats
    right: Floats

    def law(self, rows: Ints, draws: Floats, group: Ints) -> PowerLaw:
        """The curve over `rows`, and over resamples of groups, first the former: draws is (B, G) counts."""
        one = self.right[:, rows]
        of_group = np.stack([np.bincount(group[rows], line, draws.shape[1]) for line in one], axis=1)  # (G, S)
        sizes = np.bincount(group[rows], minlength=draws.shape[1]).astype(np.float64)
        resampled = (draws @ of_group) / np.maximum(draws @ sizes, 1.0)[:, None]
        mean = one.mean(axis=1)
        noise = float(np.sqrt(np.maximum(mean * (1 - mean), 0.01).mean() / len(rows)))
        # draws without a picture of the class say nothing
        known = (draws @ sizes) > 0
        return fit_power_law(self.num_images, np.concatenate([mean[None], resampled[known]]), max(noise, 1e-3))


def learning_curve(
    features: npt.NDArray[np.float16] | Floats,
    actual: Ints,
    groups: Ints,
    *,
    classes: Sequence[str],
    num_train: Sequence[int],
    repeats: int,
    confidence: float,
    seed: int,
) -> dict[str, Any] | None:
    """The part `learning_curve` of figures.json, unrounded; None for too few pictures.

    Args:
        features: (N, D) of all pictures, by a network that never learnt their labels.
        actual: (N,) classes.
        groups: (N,) duplicate group, 0 to G - 1.
        classes: K labels.
        num_train: (K,) pictures of each class that the members learn from: forecasts are for so many times more.
        repeats: divisions into folds, at most; 0 for none.
        confidence: of the intervals.
        seed: of the divisions and of the resamples.
    """
    num_groups = int(groups.max(initial=-1)) + 1
    if not repeats or len(classes) < 2 or num_groups < FEWEST_GROUPS:
        return None
    num_units = max(1, min(NUM_FOLDS * repeats, MAX_LEARNT // len(actual)))
    divisions = [np.random.default_rng([seed, i]).permutation(num_groups) for i in range(-(-num_units // NUM_FOLDS))]
    units = [(order, fold) for order in divisions for fold in range(NUM_FOLDS)][:num_units]
    probe = SubsetProbe(features, actual, len(classes))
    whole = _measure(probe, units, groups, None, fewest=FEWEST_A_CLASS * len(classes))
    if whole is None:
        return None
    tested = np.flatnonzero(~np.isnan(whole.right[0]))
    draws = np.random.default_rng([seed, NUM_DRAWS]).multinomial(
        num_groups, np.full(num_groups, 1 / num_groups), NUM_DRAWS
    )
    draws = draws.astype(np.float64)
    law = whole.law(tested, draws, groups)
    total = sum(num_train)
    per_class = {}
    for k, label in enumerate(classes):
        rows = tested[actual[tested] == k]
        if len(np.unique(groups[rows])) < FEWEST_OF_CLASS:
            continue
        share = len(rows) / len(tested)
        of_class = _Measured(whole.num_images * share, whole.right)
        per_class[label] = {
            "points": _points(of_class, rows, groups, confidence),
            "forecast": _forecast(of_class.law(rows, draws, groups), num_train[k], confidence),
        }
    return {
        "method": "ridge regression on frozen features",
        "num_pictures": len(actual),
        "points": _points(whole, tested, groups, confidence),
        "fit": {"a": float(law.a[0]), "b": float(law.b[0]), "c": float(law.c[0])},
        "forecast": _forecast(law, total, confidence),
        "per_class": per_class,
        "advice": _advice(probe, units, groups, per_class, classes, num_train, draws, confidence),
    }


def _measure(
    probe: SubsetProbe, units: Sequence[tuple[Ints, int]], groups: Ints, of_class: int | None, *, fewest: int
) -> _Measured | None:
    """Learn from nested subsets; None where fewer than three are large enough.

    Args:
        units: an order of the groups, and the fold of it that is tested.
        of_class: whose pictures are thinned; None for all.
        fewest: pictures in the smallest subset.
    """
    sizes: list[list[int]] = []
    sums = counts = None
    for order, fold in units:
        place = order[groups]
        tests = np.flatnonzero(place % NUM_FOLDS == fold)
        pool = np.flatnonzero(place % NUM_FOLDS != fold)
        pool = pool[np.argsort(place[pool], kind="stable")]
        thinned = pool if of_class is None else pool[probe.actual[pool] == of_class]
        rest = pool[:0] if of_class is None else pool[probe.actual[pool] != of_class]
        ends = [_group_end(place[thinned], round(part * len(thinned))) for part in FRACTIONS]
        # the others come first, so that each subset begins the next
        subsets = [np.concatenate([rest, thinned[:end]]) for end in ends]
        right = probe.right(subsets, tests)
        sizes.append(ends)
        if sums is None or counts is None:
            sums, counts = np.zeros((len(FRACTIONS), len(groups))), np.zeros(len(groups))
        sums[:, tests] += right
        counts[tests] += 1
    if sums is None or counts is None:
        return None
    mean_sizes = np.mean(sizes, axis=0)
    enough = mean_sizes >= fewest
    if enough.sum() < 3:
        return None
    with np.errstate(invalid="ignore"):
        return _Measured(mean_sizes[enough], sums[enough] / np.where(counts > 0, counts, np.nan))


def _group_end(places: Ints, wanted: int) -> int:
    """The least end ≥ `wanted` of a group in (n,) sorted places, so that no group is cut."""
    if wanted >= len(places):
        return len(places)
    return int(np.searchsorted(places, places[max(wanted, 1) - 1], side="right"))


def _points(measured: _Measured, rows: Ints, groups: Ints, confidence: float) -> list[dict[str, float]]:
    own = np.unique(groups[rows], return_inverse=True)[1].astype(np.int64)
    found = []
    for number, right in zip(measured.num_images, measured.right[:, rows], strict=True):
        value, size = float(right.mean()), effective_number(right >= 0.5, own)
        low, high = wilson_interval(np.array([value * size]), np.array([size]), confidence)
        found.append({"num_images": round(float(number)), **_ends(value, float(low[0]), float(high[0]))})
    return found


def _forecast(law: PowerLaw, num_images: int, confidence: float) -> list[dict[str, float]]:
    found = []
    for growth in GROWTHS if num_images else ():
        accuracy = law.accuracy(growth * num_images)
        found.append({"num_images": round(growth * num_images), **_ends(*_quantiles(accuracy, confidence))})
    return found


def _quantiles(values: Floats, confidence: float) -> tuple[float, float, float]:
    """The first value, and the ends of the interval of the others, which holds it."""
    low, high = np.quantile(values[1:], [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(values[0]), min(float(low), float(values[0])), max(float(high), float(values[0]))


def _ends(value: float, low: float, high: float) -> dict[str, float]:
    return {"accuracy": value, "low": low, "high": high}


def _advice(
    probe: SubsetProbe,
    units: Sequence[tuple[Ints, int]],
    groups: Ints,
    per_class: dict[str, dict[str, Any]],
    classes: Sequence[str],
    num_train: Sequence[int],
    draws: Floats,
    confidence: float,
) -> dict[str, Any] | None:
    """What MORE pictures of the class of lowest recall bring: to its recall, and to accuracy over all classes."""
    if not per_class:
        return None
    label = min(per_class, key=lambda name: (per_class[name]["points"][-1]["accuracy"], name))
    k = classes.index(label)
    measured = _measure(probe, units, groups, k, fewest=2)
    if measured is None or not num_train[k]:
        return None
    tested = np.flatnonzero(~np.isnan(measured.right[0]))
    gains = []
    for rows in (tested, tested[probe.actual[tested] == k]):
        law = measured.law(rows, draws, groups)
        gains.append(_quantiles(law.accuracy(num_train[k] + MORE) - law.accuracy(num_train[k]), confidence))
    (gain, low, high), (recall_gain, recall_low, recall_high) = gains
    return {
        "class": label,
        "more_images": MORE,
        "expected_gain": gain,
        "low": low,
        "high": high,
        "recall_gain": {"value": recall_gain, "low": recall_low, "high": recall_high},
    }
