"""The leak premium: how much better accuracy would look had copies been split like any other file.

A linear probe (ridge regression on the features of a frozen backbone) is scored twice by five-fold cross-validation
over the same files, those that dedupe kept and their copies: once with every file in a random fold, as a naive split
does it, and once with whole groups. The premium is the difference in accuracy. The two differ only in the files of
groups, and both test every file once, so the difference is the leak alone. Its interval is that of a paired difference,
over groups.

No copy is decoded for this: one of equal bytes has the features of its image, and a near one is replaced by the mirror
image, an edit of about the size of those that dedupe finds. With 2,500 planted copies of 10,000 CIFAR-10 images the
premium is 2.5 points, as with the copies' own features; the originals' features give 3.6. Thumbnails in place of
features would overstate it two to ten times, as they tell copies better than classes.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.core.errors import InputError, count
from pipelines.core.tables import DEDUPED, FEATURES, read_table
from pipelines.evaluate.intervals import paired_interval
from pipelines.evaluate.members import EvaluationIndex
from pipelines.evaluate.metrics import Floats, Ints
from pipelines.params.evaluate import EvaluateParams

NUM_FOLDS = 5
PENALTY = 1.0
"""of the ridge, per feature of variance 1: from a third of it to three times it, the premium on photographs of guitars
stays within its interval"""
MAX_FILES = 5000
"""of more, whole groups are sampled: 200 MB, and 5 s of one core. A sample overstates the premium, as fewer images are
memorised more easily: for 12,500 files of CIFAR-10 it is 2.5 points, for 5,000 of these 4.7. The report says so."""
_FLAT = 1e-3
"""a feature that varies less than this is not scaled up"""

UNKNOWN: dict[str, float | int | None] = dict.fromkeys(
    ("value", "low", "high", "by_file", "by_group", "num_files", "num_in_groups", "sampled")
)
"""the premium where no member leaves features, or params.leak_repeats is 0"""


def leak_premium(
    params: EvaluateParams, *, features: Path | None, packed: EvaluationIndex, manifest: Path | None
) -> dict[str, float | int | None]:
    """Measure the premium with its interval, and the two accuracies that it is the difference of; not rounded.

    Args:
        params: leak_repeats, seed and confidence.
        features: a member's features.parquet, or None.
        packed: for the groups.
        manifest: dedupe's, for the copies, or None.

    Raises:
        InputError: the features are of other pictures than the index.
    """
    if not params.leak_repeats or features is None or manifest is None:
        return UNKNOWN
    files = _read_files(features, packed, manifest)
    num_groups = int(files.group.max(initial=-1)) + 1
    if num_groups < 2 * NUM_FOLDS:
        return UNKNOWN
    sizes = np.bincount(files.group)
    in_groups = int((sizes[files.group] > 1).sum())
    probe = RidgeProbe(files.features, files.actual, len(packed.classes))
    naive, whole = np.zeros(len(files.group)), np.zeros(len(files.group))
    for repeat in range(params.leak_repeats):
        by_file, by_group = naive_and_group_folds(files.group, np.random.default_rng([params.seed, repeat]))
        right = probe.right(by_group)
        whole += right
        naive += right if (by_file == by_group).all() else probe.right(by_file)
    gain = (naive - whole) / params.leak_repeats
    # without a group the two sets of folds are one
    low, high = paired_interval(gain, files.group, params.confidence, of_fractions=True) if in_groups else (0.0, 0.0)
    return {
        "value": float(gain.mean()),
        "low": low,
        "high": high,
        "by_file": float(naive.mean()) / params.leak_repeats,
        "by_group": float(whole.mean()) / params.leak_repeats,
        "num_files": len(files.group),
        "num_in_groups": in_groups,
        "sampled": files.sampled,
    }


def naive_and_group_folds(group: Ints, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """(N,) folds by file and (N,) folds by whole groups; the first file of each group has the same fold in both."""
    of_group = rng.permutation(int(group.max()) + 1) % NUM_FOLDS
    by_group = of_group[group]
    by_file = rng.integers(NUM_FOLDS, size=len(group))
    first = np.unique(group, return_index=True)[1]
    by_file[first] = by_group[first]
    return by_file, by_group


class RidgeProbe:
    """Ridge regression from features to K classes, cross-validated without a fit from scratch for each fold.

    With R the matrix that maps targets to the residuals of the fit to all files, the residuals of files S under a fit
    to the others are R[S, S]^-1 (R Y)[S], exactly. With more files than features, S is taken out of the products of
    features instead. Either serves every set of folds and any targets.

    Args:
        features: (N, D), any scale.
        actual: (N,) true classes.
        num_classes: K.
    """

    def __init__(self, features: Floats, actual: Ints, num_classes: int) -> None:
        num_files, num_features = features.shape
        spread = features.std(axis=0)
        # double precision: a last digit never decides between two classes
        self.rows = (features - features.mean(axis=0)) / np.where(spread > _FLAT, spread, 1.0)
        self.actual, self.num_classes = actual, num_classes
        penalty = PENALTY * num_features
        self.residual: Floats | None = None
        if num_files <= num_features:
            self.residual = penalty * np.linalg.inv(self.rows @ self.rows.T + penalty * np.eye(num_files))
        else:
            self.products = self.rows.T @ self.rows + penalty * np.eye(num_features)

    def scores(self, fold: Ints, labels: Sequence[Ints]) -> list[Floats]:
        """(N, K) out-of-fold scores for each (N,) of `labels`, near 1 for the class of a file."""
        targets = np.concatenate([np.eye(self.num_classes)[one] for one in labels], axis=1)
        mean = targets.mean(axis=0)
        targets -= mean
        found = np.empty_like(targets)
        left = targets if self.residual is None else self.residual @ targets
        summed = self.rows.T @ targets if self.residual is None else left
        for k in range(NUM_FOLDS):
            tests = np.flatnonzero(fold == k)
            if self.residual is None:
                rows = self.rows[tests]
                fitted = np.linalg.solve(self.products - rows.T @ rows, summed - rows.T @ targets[tests])
                found[tests] = rows @ fitted + mean
            else:
                missed = np.linalg.solve(self.residual[np.ix_(tests, tests)], left[tests])
                found[tests] = targets[tests] - missed + mean
        return np.split(found, len(labels), axis=1)

    def right(self, fold: Ints) -> Floats:
        """(N,) 1 where the out-of-fold prediction is right, else 0."""
        return np.asarray(self.scores(fold, [self.actual])[0].argmax(axis=1) == self.actual, np.float64)


@dataclass(frozen=True)
class _ProbeFiles:
    """N files of verdict keep or copy: (N, D) features, (N,) classes and group numbers, and whether there are more."""

    features: Floats
    actual: Ints
    group: Ints
    sampled: bool


def _read_files(path: Path, packed: EvaluationIndex, manifest: Path) -> _ProbeFiles:
    table = read_table(path, FEATURES)
    # the features of an image depend neither on its label nor on the target of the member that wrote them
    row_of = {image_id: row for row, image_id in enumerate(table["image_id"].to_pylist())}
    strangers = [image_id for image_id in row_of if image_id not in packed.classes_of]
    if strangers:
        raise InputError(
            f"{path} holds features of {count(len(strangers), 'picture')} that the pack index does not name: "
            "run `dvc repro train`"
        )
    keys = [(image_id, k) for image_id in row_of for k in packed.classes_of[image_id]]
    pictures = _images_of_files(keys, packed, manifest)
    num_all = len(pictures)
    pictures = _whole_groups(pictures, [packed.groups[key] for key in keys])
    numbers = {group: number for number, group in enumerate(sorted({packed.groups[keys[row]] for row, _ in pictures}))}
    rows = np.array([row for row, _ in pictures], np.int64)
    edited = np.array([is_edited for _, is_edited in pictures], bool)
    plain, other = (matrix(table[name]) for name in ("plain", "edited"))
    places = np.array([row_of[keys[row][0]] for row in rows], np.int64)
    return _ProbeFiles(
        features=np.where(edited[:, None], other[places], plain[places]).astype(np.float64),
        actual=np.array([keys[row][1] for row in rows], np.int64),
        group=np.array([numbers[packed.groups[keys[row]]] for row in rows], np.int64),
        sampled=len(pictures) < num_all or len(keys) < len(packed.groups),
    )


def _images_of_files(keys: list[tuple[str, int]], packed: EvaluationIndex, manifest: Path) -> list[tuple[int, bool]]:
    """For each file of verdict keep or copy: the row of the image that it shows, and whether it is a near copy."""
    rows_of: dict[str, list[int]] = {}
    for row, (image_id, _) in enumerate(keys):
        rows_of.setdefault(image_id, []).append(row)
    table = read_table(manifest, DEDUPED, columns=["image_id", "label", "verdict", "best_id"])
    columns = (table[name].to_pylist() for name in ("image_id", "label", "verdict", "best_id"))
    files = [file for file in zip(*columns, strict=True) if file[2] in ("keep", "copy")]

    def row_under(image_id: str, label: str) -> int | None:
        rows = rows_of.get(image_id, [])
        # a label that split merged into another is no class: its image has one row
        same = [row for row in rows if packed.classes[keys[row][1]] == label]
        return same[0] if same else rows[0] if len(rows) == 1 else None

    own = [row_under(image_id, label) for image_id, label, _, _ in files]
    standing: dict[tuple[str, str], int] = {}
    for (_, label, _, best_id), at in zip(files, own, strict=True):
        if at is not None:
            standing.setdefault((best_id, label), at)
    found = []
    for (_, label, _, best_id), at in zip(files, own, strict=True):
        picture = standing.get((best_id, label)) if at is None else at
        if picture is not None:
            found.append((picture, at is None))
    return found


def _whole_groups(files: list[tuple[int, bool]], group_of: list[str]) -> list[tuple[int, bool]]:
    """At most MAX_FILES of `files`, by whole groups in the order of the hash of their names; `group_of` is by row."""
    if len(files) <= MAX_FILES:
        return files
    sizes = Counter(group_of[row] for row, _ in files)
    room, drawn = MAX_FILES, set()
    for group in sorted(sizes, key=lambda name: hashlib.sha256(name.encode()).digest()):
        if sizes[group] <= room:
            drawn.add(group)
            room -= sizes[group]
    return [file for file in files if group_of[file[0]] in drawn]


def matrix(column: pa.ChunkedArray) -> npt.NDArray[np.float16]:
    """(N, D) of N values of D half-precision numbers."""
    lines = [np.frombuffer(value, "<f2") for value in column.to_pylist()]
    return np.stack(lines) if lines else np.zeros((0, 0), np.float16)
