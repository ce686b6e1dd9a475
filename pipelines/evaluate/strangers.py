"""Pictures of no known class: how far a picture lies from what was learnt from.

The score is the cosine distance of features to the nearest training picture. Its threshold is set by validation
pictures: a stated fraction of these, which are of known classes, lies beyond it. How well it works is measured by
leaving out one class after the other: no picture of it counts as known, and its pictures are strangers.

With Lite0's features, mean area under the ROC curve over the classes left out: this score, energy of a ridge probe
(softmax of scores / 0.1), Mahalanobis distance to the class means: instruments (7 classes) .948, .865, .863; clothing
(10) .702, .713, .651; drawn guitars (13) .678, .675, .638. The 3rd and 10th nearest are worse by .01 to .07.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.evaluate.metrics import Floats, Ints

FALSE_RATE = 0.05
"""of pictures of known classes are called strangers"""
FEWEST = 20
"""validation pictures that a threshold is set by"""
FEWEST_OF_CLASS = 3
"""pictures of a class that is left out"""
METHOD = "cosine distance to the nearest training picture"


def unit(features: npt.NDArray[np.float16] | Floats) -> npt.NDArray[np.float32]:
    """(N, D) of length 1; zeros stay."""
    rows = features.astype(np.float32)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    scaled: npt.NDArray[np.float32] = rows / np.maximum(lengths, 1e-9)
    return scaled


def distance(cosines: npt.NDArray[np.float32]) -> Floats:
    """(M,) scores, 0 to 2, of (M, N) cosines to training pictures; in four digits, on which machines agree."""
    return np.asarray((1.0 - cosines.max(axis=1).astype(np.float64)).round(4))


def auroc(strange: Floats, known: Floats) -> float:
    """How often a stranger's score exceeds that of a known picture; ties count half."""
    ordered = np.sort(known)
    below = np.searchsorted(ordered, strange, side="left") + np.searchsorted(ordered, strange, side="right")
    return float(below.mean() / 2 / len(known))


def strangers(
    train: npt.NDArray[np.float32],
    train_classes: Ints,
    val: npt.NDArray[np.float32],
    val_classes: Ints,
    test: npt.NDArray[np.float32],
    test_classes: Ints,
    *,
    leave_out: bool,
    confidence: float,
) -> tuple[dict[str, Any] | None, Floats]:
    """The part `strangers` of figures.json, unrounded, and the (T,) scores of test pictures.

    Args:
        train, val, test: (N, D), (V, D), (T, D) features of length 1.
        train_classes, val_classes, test_classes: (N,), (V,), (T,).
        leave_out: whether to measure by classes left out; not with a network that learnt all classes, whose features
            tell them apart even where their pictures do not count.
        confidence: of the interval, which is Student's over classes.
    """
    if not len(train) or len(val) < FEWEST:
        return None, np.zeros(0)
    asked, classes = np.concatenate([val, test]), np.concatenate([val_classes, test_classes])
    cosines = asked @ train.T
    scores = distance(cosines)
    threshold = float(np.quantile(scores[: len(val)], 1 - FALSE_RATE, method="higher"))
    found = []
    for k in np.unique(classes) if leave_out else ():
        known = train_classes != k
        if (classes == k).sum() < FEWEST_OF_CLASS or not known.any() or (classes != k).sum() == 0:
            continue
        among = distance(cosines[:, known])
        found.append(auroc(among[classes == k], among[classes != k]))
    return {
        "method": METHOD,
        "threshold": threshold,
        "false_rate": FALSE_RATE,
        "auroc_left_out": _mean(found, confidence),
        "num_classes_left_out": len(found),
        "num_test_flagged": int((scores[len(val) :] > threshold).sum()),
    }, scores[len(val) :]


def _mean(values: Sequence[float], confidence: float) -> dict[str, float | None] | None:
    from scipy.special import stdtrit

    if not values:
        return None
    mean = float(np.mean(values))
    if len(values) < 3:
        return {"value": mean, "low": None, "high": None}
    half = float(stdtrit(len(values) - 1, 0.5 + confidence / 2)) * float(np.std(values, ddof=1)) / len(values) ** 0.5
    return {"value": mean, "low": max(0.0, mean - half), "high": min(1.0, mean + half)}
