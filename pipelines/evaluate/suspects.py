"""Find images whose label is probably wrong: candidates for data/decisions/relabel.csv, drop.csv or keep.csv.

Every kept image is judged by out-of-sample probabilities: of a linear probe on the features of a frozen member,
cross-validated by duplicate group, or of the members for validation and test images where no member writes features.
Confident learning (Northcutt et al., JAIR 70, 2021; cleanlab) names the labels that these dispute.

How many of them are really wrong is estimated from labels that are wrong for certain: a few undisputed ones are
flipped, and the search is repeated. Flipped labels show how far below the suggested class a wrong label's probability
lies; hard images with the right label crowd at the other end. With j suspects below a margin m, and a fraction F(m) of
the found flipped labels below it, at most about j / F(m) suspects are wrong; the least of these over all m is the
estimate. It is spread over the suspects as the flipped labels lie among them, and made to fall with the rank: the
probability that a suspect is wrong. Flips are too few for an estimate of each class: a class has the mean over its
suspects.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipelines.core.tables import FEATURES, read_table
from pipelines.evaluate.intervals import group_numbers
from pipelines.evaluate.leaks import NUM_FOLDS, RidgeProbe, matrix, naive_and_group_folds
from pipelines.evaluate.members import EvaluationIndex, Predictions
from pipelines.evaluate.metrics import Floats, Ints
from pipelines.train.temperature import fit_temperature, temper

HEADER = (
    "image_id",
    "label",
    "suggested",
    "probability_label",
    "probability_suggested",
    "probability_wrong",
    "subset",
    "source_path",
)
NUM_DIVISIONS = 3
"""into folds, whose probabilities are averaged: with one, 22 to 32 images of the drawn sample are suspects, with three
20 to 21, with the same 7 of 8 planted labels among them"""
NUM_FLIPPED, FLIPPED_FRACTION = 3, 0.05
"""sets of labels, and the part of each that is flipped"""
ENOUGH_FLIPPED = 20
"""flipped labels found; with fewer, precision is not known"""
_LOWEST = 0.2
"""of F(m): a smaller fraction is too noisy to divide by"""

LabelModel = Callable[[Sequence[Ints]], list[Floats]]
"""several sets of labels (N,) to probabilities (N, K) under each"""


@dataclass(frozen=True)
class Suspect:
    """An image whose label the probabilities dispute; a row of suspects.csv.

    Args:
        probability_wrong: that the label is; None where too little is known.
    """

    image_id: str
    label: str
    suggested: str
    probability_label: float
    probability_suggested: float
    probability_wrong: float | None
    subset: str


@dataclass(frozen=True)
class Suspects:
    """All suspects.

    Args:
        found: the most suspicious first, by how much the suggested class exceeds the label.
        num_pictures: judged.
        expected_precision: expected fraction of wrong labels among `found`; None where too little is known.
        method: probe, members, or probe and members: where the probabilities are from.
    """

    found: list[Suspect]
    num_pictures: int
    expected_precision: float | None
    method: str


def find_suspects(
    predictions: Sequence[Predictions],
    packed: EvaluationIndex,
    *,
    features: Path | None,
    settled: Mapping[str, str],
    seed: int,
) -> Suspects:
    """Check every image with features or predictions.

    Args:
        predictions: of the ensemble, for images that it did not learn from.
        features: a member's features.parquet, or None.
        settled: image_id to decision, where a person has looked at the label: no suspect.
        seed: of the folds, and of the labels that are flipped.

    Raises:
        InputError: the features are of other images than the index.
    """
    keys, known, probe = _evidence(predictions, packed, features)
    method = " and ".join(["probe"] * (probe is not None) + ["members"] * bool(known))
    if len(packed.classes) < 2 or not keys:
        return Suspects([], 0, None, method)
    actual = np.array([k for _, k in keys], np.int64)
    judge = _label_model(keys, known, probe, packed, seed)
    (probabilities,) = judge([actual])
    open_ = np.array([image_id not in settled for image_id, _ in keys])
    rows = [i for i in disputed(actual, probabilities) if open_[i]]
    margins, suggested = label_margins(actual, probabilities)
    rows.sort(key=lambda i: (round(float(margins[i]), 6), keys[i]))
    chosen = np.setdiff1d(np.flatnonzero(open_), rows)
    precision = expected_precision(margins[rows], chosen, actual, probabilities, judge, seed) if rows else None
    found = [
        Suspect(
            image_id=keys[i][0],
            label=packed.classes[actual[i]],
            suggested=packed.classes[suggested[i]],
            probability_label=float(probabilities[i, actual[i]]),
            probability_suggested=float(probabilities[i, suggested[i]]),
            probability_wrong=None if precision is None else float(precision.of_each[rank]),
            subset=packed.subsets[keys[i]],
        )
        for rank, i in enumerate(rows)
    ]
    return Suspects(found, len(keys), None if precision is None else precision.value, method)


def disputed(actual: Ints, probabilities: Floats) -> list[int]:
    """Rows of (N,) labels and (N, K) probabilities where confident learning prefers another class to the label."""
    from cleanlab.filter import find_label_issues  # brings scikit-learn and pandas

    # a class without an image has no threshold
    present, labels = np.unique(actual, return_inverse=True)
    if len(present) < 2:
        return []
    among = np.maximum(probabilities[:, present], 1e-12)
    among /= among.sum(axis=1, keepdims=True)
    is_issue = find_label_issues(labels, among, filter_by="confident_learning", n_jobs=1)
    return [int(i) for i in np.flatnonzero(is_issue & (label_margins(actual, probabilities)[0] < 0))]


def _evidence(
    predictions: Sequence[Predictions], packed: EvaluationIndex, features: Path | None
) -> tuple[list[tuple[str, int]], dict[tuple[str, int], Floats], Floats | None]:
    """The (image_id, class) to judge, those with features first; the predictions of the others; the features."""
    keys: list[tuple[str, int]] = []
    rows: Floats | None = None
    if features is not None:
        table = read_table(features, FEATURES, columns=["image_id", "plain"])
        plain, image_ids = matrix(table["plain"]), table["image_id"].to_pylist()
        packed.require_known(np.array(image_ids, object))
        first = {image_id: row for row, image_id in enumerate(image_ids)}
        keys = sorted((image_id, k) for image_id in first for k in packed.classes_of[image_id])
        groups = {packed.groups[key] for key in keys}
        if len(groups) < 2 * NUM_FOLDS:
            keys = []
        else:
            rows = plain[[first[image_id] for image_id, _ in keys]].astype(np.float64)
    has_features = set(keys)
    known = {
        (image_id, int(k)): line
        for one in predictions
        for image_id, k, line in zip(one.image_ids, one.actual, one.probabilities, strict=True)
        if (image_id, int(k)) not in has_features
    }
    return [*keys, *sorted(known)], known, rows


def _label_model(
    keys: list[tuple[str, int]],
    known: Mapping[tuple[str, int], Floats],
    features: Floats | None,
    packed: EvaluationIndex,
    seed: int,
) -> LabelModel:
    """A function from labels to probabilities: the probe is fitted anew, predictions of members stay."""
    num_classes = len(packed.classes)
    rest = np.array([known[key] for key in sorted(known)]).reshape(-1, num_classes)
    if features is None:
        return lambda labels: [rest for _ in labels]
    num_probed = len(features)
    probe = RidgeProbe(features, np.array([k for _, k in keys[:num_probed]], np.int64), num_classes)
    group = group_numbers(np.array([packed.groups[key] for key in keys[:num_probed]], np.str_))
    folds = [naive_and_group_folds(group, np.random.default_rng([seed, i]))[1] for i in range(NUM_DIVISIONS)]

    def judge(labels: Sequence[Ints]) -> list[Floats]:
        probed = [one[:num_probed] for one in labels]
        scores = np.mean([probe.scores(fold, probed) for fold in folds], axis=0)
        found = []
        for one, learnt in zip(scores, probed, strict=True):
            likely = np.exp(one)
            likely /= likely.sum(axis=1, keepdims=True)
            # scores of a ridge lie between 0 and 1: the temperature sets the scale, and is far below 1
            likely = temper(likely, fit_temperature(likely, learnt, spread=10.0, hottest=100.0))
            found.append(np.concatenate([likely, rest]))
        return found

    return judge


class Precision(NamedTuple):
    """The expected fraction of wrong labels among n suspects, and (n,) the probability that each is wrong."""

    value: float
    of_each: Floats


def expected_precision(
    margins: Floats, chosen: Ints, actual: Ints, probabilities: Floats, judge: LabelModel, seed: int
) -> Precision | None:
    """Estimate precision as the head of this file explains.

    Args:
        margins: (n,) of the suspects, sorted, below 0.
        chosen: rows with undisputed labels, which may be flipped.
        actual: (N,) labels.
        probabilities: (N, K): a label is flipped to what it would be mistaken for.
    """
    rng = np.random.default_rng([seed, NUM_DIVISIONS])
    num_flipped = min(round(FLIPPED_FRACTION * len(actual)), len(chosen))
    picked, labels = [], []
    for _ in range(NUM_FLIPPED):
        rows = np.sort(rng.choice(chosen, num_flipped, replace=False))
        others = probabilities[rows].copy()
        others[np.arange(num_flipped), actual[rows]] = 0.0
        reach = np.maximum(others, 1e-12).cumsum(axis=1)
        flipped = actual.copy()
        flipped[rows] = (reach > rng.random((num_flipped, 1)) * reach[:, -1:]).argmax(axis=1)
        picked.append(rows)
        labels.append(flipped)
    below = []
    for rows, flipped, judged in zip(picked, labels, judge(labels), strict=True):
        again = np.intersect1d(rows, disputed(flipped, judged))
        below.append(label_margins(flipped, judged)[0][again])
    wrong = np.sort(np.concatenate(below))
    if len(wrong) < ENOUGH_FLIPPED:
        return None
    fractions = np.searchsorted(wrong, margins, side="right") / len(wrong)
    numbers = np.arange(1, len(margins) + 1)[fractions >= _LOWEST] / fractions[fractions >= _LOWEST]
    num_wrong = float(numbers.min(initial=len(margins)))
    from sklearn.isotonic import isotonic_regression

    shares = num_wrong * np.diff(fractions, prepend=0.0) / max(fractions[-1], _LOWEST)
    of_each = np.asarray(isotonic_regression(shares, increasing=False)).clip(0.0, 1.0)
    return Precision(min(1.0, num_wrong / len(margins)), of_each)


def label_margins(actual: Ints, probabilities: Floats) -> tuple[Floats, Ints]:
    """(N,) the label's probability minus the best other class's, and that class."""
    rows = np.arange(len(actual))
    others = probabilities.copy()
    others[rows, actual] = -1.0
    best = others.argmax(axis=1)
    return probabilities[rows, actual] - others[rows, best], best
