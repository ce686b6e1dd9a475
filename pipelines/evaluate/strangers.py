"""Pictures of no known class: how typical a picture's features are of the class that they are most typical of.

The score of a picture is the sum of two numbers of about the same size: the largest output of a ridge regression from
features to classes, and the largest cosine to the mean of a class. Both are fitted to all that the network learnt from.
The threshold is set by validation pictures: a stated fraction of these, which are of known classes, lies below it. How
well it works is measured by leaving out one class after the other: regression and means never see it, and its pictures
are strangers.

Mean (and least) area under the ROC curve over the classes left out, of Lite0's features, validation and test pictures:

                                    drawn (13)   clothing (10)  guitars (11)  instruments (7)
    this score                      .776 (.60)   .799 (.66)     .712 (.56)    .914 (.64)
    ridge regression alone          .756 (.50)   .758 (.55)     .721 (.47)    .873 (.46)
    cosine to a class mean alone    .748 (.55)   .817 (.71)     .633 (.53)    .936 (.77)
    cosine to the nearest picture   .745 (.58)   .752 (.59)     .656 (.50)    .943 (.78)
    energy of the regression        .696 (.06)   .748 (.59)     .678 (.24)    .907 (.61)
    the regression's softmax        .704 (.09)   .743 (.57)     .702 (.33)    .884 (.61)

Look-alikes are hardly strange to any of them. The nearest picture in place of a class mean gains .01, for features of
every training picture beside the model.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.core.errors import InputError
from pipelines.core.files import write_bytes
from pipelines.evaluate.metrics import Floats, Ints

Floats32 = npt.NDArray[np.float32]

FALSE_RATE = 0.05
"""of pictures of known classes are called strangers"""
FEWEST = 20
"""validation pictures that a threshold is set by"""
FEWEST_OF_CLASS = 3
"""pictures of a class that is left out"""
MOST_LEFT_OUT = 30
"""classes that are left out; of more, every second, third, …"""
PENALTY = 0.3
"""of the ridge, on features of length 1; with a third of it or three times it, no mean above moves by more than .02"""
METHOD = "ridge regression and cosine to class means"
KEY = "miwake"
"""the only metadata key, because safetensors writes several in random order"""
_FLAT = 1e-3
"""a standard deviation that is none"""


def unit(features: npt.NDArray[np.float16] | Floats32 | Floats) -> Floats32:
    """(N, D) of length 1; zeros stay."""
    rows = features.astype(np.float32)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    scaled: Floats32 = rows / np.maximum(lengths, 1e-9)
    return scaled


@dataclass(frozen=True)
class StrangerScorer:
    """Tells how typical a picture is of the class that it is most typical of.

    Args:
        mean, scale: (D,) of features.
        weight, bias: (K, D), (K,) of the ridge regression.
        centers: (K, D) class means, of length 1.
        threshold: pictures that score less are strangers.
        member: whose features these are, with its fold: "linear_probe-0".
    """

    mean: Floats32
    scale: Floats32
    weight: Floats32
    bias: Floats32
    centers: Floats32
    threshold: float
    member: str

    def score(self, features: npt.NDArray[np.float16] | Floats32) -> Floats:
        """(N,) scores of (N, D) features, about 1.5 for a typical picture; in four digits, on which machines agree."""
        rows = self.standardise(features)
        return self.score_standardised(rows)

    def standardise(self, features: npt.NDArray[np.float16] | Floats32) -> Floats32:
        """(N, D) of length 1, of features with mean 0 and spread 1."""
        return unit((features.astype(np.float32) - self.mean) / self.scale)

    def score_standardised(self, rows: Floats32) -> Floats:
        """`score` of what `standardise` gave."""
        found = (rows @ self.weight.T + self.bias).max(axis=1) + (rows @ self.centers.T).max(axis=1)
        return np.asarray(found.astype(np.float64).round(4))

    def save(self, path: Path) -> None:
        """Write it as safetensors; equal scorers give equal bytes."""
        tensors = {name: getattr(self, name) for name in ("bias", "centers", "mean", "scale", "weight")}
        write_tensors(path, tensors, {"member": self.member, "threshold": self.threshold, "method": METHOD})


def write_tensors(path: Path, tensors: dict[str, Floats32], about: dict[str, Any]) -> None:
    from safetensors.numpy import save

    whole = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    write_bytes(path, save(whole, metadata={KEY: json.dumps(about, sort_keys=True)}))


def read_scorer(path: Path) -> StrangerScorer | None:
    """Read strangers.safetensors; None where evaluate had too few pictures to set a threshold.

    Raises:
        InputError: the file is missing, broken, or not one of these.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError(f"{path} does not exist: run `dvc repro evaluate`")
    try:
        with safe_open(path, framework="numpy") as file:
            about = json.loads((file.metadata() or {}).get(KEY, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except SafetensorError as error:
        raise InputError(f"{path} is no whole safetensors file ({error}): run `dvc checkout --force`") from error
    if about is None:
        raise InputError(f"{path} was not written by this project: it lacks the metadata key {KEY!r}")
    return StrangerScorer(**tensors, threshold=about["threshold"], member=about["member"]) if tensors else None


class _Fitter:
    """Fits a scorer to N pictures, and again without some class.

    Args:
        features: (N, D).
        actual: (N,) classes.
    """

    def __init__(self, features: npt.NDArray[np.float16], actual: Ints) -> None:
        rows = features.astype(np.float32)
        self.mean, spread = rows.mean(axis=0), rows.std(axis=0)
        self.scale = np.where(spread > _FLAT, spread, np.float32(1.0))
        rows = unit((rows - self.mean) / self.scale)
        # of the space that N < D pictures span, which holds the solution
        self._basis = np.linalg.qr(rows.T.astype(np.float64))[0]
        self._rows = np.column_stack([rows @ self._basis, np.ones(len(rows))])
        self.actual, self.classes = actual, np.unique(actual)
        penalties = np.full(self._rows.shape[1], PENALTY)
        penalties[-1] = 1e-9  # the bias is free
        self._products = self._rows.T @ self._rows + np.diag(penalties)
        self._targets = self._rows.T @ (actual[:, None] == self.classes)
        self._centers = unit(np.stack([rows[actual == k].mean(axis=0) for k in self.classes]))

    def fit(self, *, member: str, without: int | None = None) -> StrangerScorer:
        """With a threshold of 0."""
        gone, kept = self._rows[self.actual == without], self.classes != without
        solved = np.linalg.solve(self._products - gone.T @ gone, self._targets[:, kept])
        weight = (self._basis @ solved[:-1]).T.astype(np.float32)
        bias, centers = solved[-1].astype(np.float32), self._centers[kept]
        return StrangerScorer(self.mean, self.scale, weight, bias, centers, 0.0, member)


def auroc(strange: Floats, known: Floats) -> float:
    """How often a known picture's score exceeds that of a stranger; ties count half."""
    ordered = np.sort(strange)
    below = np.searchsorted(ordered, known, side="left") + np.searchsorted(ordered, known, side="right")
    return float(below.mean() / 2 / len(strange))


def strangers(
    train: tuple[npt.NDArray[np.float16], Ints],
    val: tuple[npt.NDArray[np.float16], Ints],
    test: tuple[npt.NDArray[np.float16], Ints],
    *,
    member: str,
    leave_out: bool,
    confidence: float,
) -> tuple[dict[str, Any], StrangerScorer] | None:
    """The part `strangers` of figures.json, unrounded, and the scorer; None where too few pictures set a threshold.

    Args:
        train, val, test: features (N, D) and classes (N,).
        member: whose features these are, with its fold.
        leave_out: whether to measure by classes left out; not with a network that learnt all classes, whose features
            tell them apart even where the regression never saw them.
        confidence: of the interval, which is Student's over classes.
    """
    from dataclasses import replace

    from threadpoolctl import threadpool_limits

    if not len(train[1]) or len(val[1]) < FEWEST:
        return None
    with threadpool_limits(limits=1):  # sums over other numbers of threads differ in their last digits
        fitter = _Fitter(*train)
        scorer = fitter.fit(member=member)
    scorer = replace(scorer, threshold=float(np.quantile(scorer.score(val[0]), FALSE_RATE, method="lower")))
    rows = scorer.standardise(np.concatenate([val[0], test[0]]))
    classes = np.concatenate([val[1], test[1]])
    found = []
    every = -(-len(fitter.classes) // MOST_LEFT_OUT)
    for k in fitter.classes[::every] if leave_out and len(fitter.classes) > 2 else ():
        others = np.isin(classes, fitter.classes) & (classes != k)
        if (classes == k).sum() < FEWEST_OF_CLASS or not others.any():
            continue
        among = fitter.fit(member=member, without=int(k)).score_standardised(rows)
        found.append(auroc(among[classes == k], among[others]))
    figures = {
        "method": METHOD,
        "member": member,
        "threshold": scorer.threshold,
        "false_rate": FALSE_RATE,
        "auroc_left_out": _mean(found, confidence),
        "num_classes_left_out": len(found),
        "num_test_flagged": int((scorer.score(test[0]) < scorer.threshold).sum()),
    }
    return figures, scorer


def _mean(values: Sequence[float], confidence: float) -> dict[str, float | None] | None:
    from scipy.special import stdtrit

    if not values:
        return None
    mean = float(np.mean(values))
    if len(values) < 3:
        return {"value": mean, "low": None, "high": None}
    half = float(stdtrit(len(values) - 1, 0.5 + confidence / 2)) * float(np.std(values, ddof=1)) / len(values) ** 0.5
    return {"value": mean, "low": max(0.0, mean - half), "high": min(1.0, mean + half)}
