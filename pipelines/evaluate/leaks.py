"""The leak premium: how much better the score would look had copies been divided like any other file.

A linear probe (ridge regression to the classes, on the features of a frozen backbone) is scored twice by five-fold
cross-validation over the same files, those that dedupe kept and their copies: once with every file in a fold of its
own choice, as a naive split does it, and once with whole groups. The premium is the difference in accuracy. Both
divisions agree but for the files of groups, and both test every file once, so that what differs is the leak alone. Its
interval is that of a paired difference, over groups.

Nobody decodes a copy for this: one of equal bytes has the features of its picture, and a near one is stood in for by
the picture's mirror image, which is an edit of about the size of those that dedupe finds. Measured: with 2,500 planted
copies of 10,000 CIFAR-10 pictures the premium is 2.5 points, and 2.5 with the copies' own features too; their pictures'
plain ones give 3.6. Thumbnails in place of features would say two to ten times too much, as they tell copies better
than classes.
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
from pipelines.evaluate.members import Packed
from pipelines.evaluate.metrics import Floats, Ints
from pipelines.params.evaluate import EvaluateParams

NUM_FOLDS = 5
PENALTY = 1.0
"""of the ridge, per feature of variance 1: within a third of it and three times it, the premium on photographs of
guitars stays within its interval"""
MAX_FILES = 5000
"""of more, whole groups are drawn: 200 MB, and 5 s of one core. A sample overstates the premium, since fewer pictures
are learnt by heart more easily: of 12,500 files of CIFAR-10 it is 2.5 points, of 5,000 of these 4.7. So the report
names a sample as one."""
FLAT = 1e-3
"""a feature that varies less than this is not scaled up"""

UNKNOWN: dict[str, float | int | None] = dict.fromkeys(
    ("value", "low", "high", "by_file", "by_group", "num_files", "num_in_groups", "sampled")
)
"""the premium where no member leaves features, or params.leak_repeats is 0"""


def leak_premium(
    params: EvaluateParams, *, features: Path | None, packed: Packed, manifest: Path | None
) -> dict[str, float | int | None]:
    """The premium with its interval, in accuracy, and the two scores that it is the difference of; not rounded.

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
    probe = Probe(files.features, files.actual, len(packed.classes))
    naive, whole = np.zeros(len(files.group)), np.zeros(len(files.group))
    for repeat in range(params.leak_repeats):
        by_file, by_group = divisions(files.group, np.random.default_rng([params.seed, repeat]))
        right = probe.right(by_group)
        whole += right
        naive += right if (by_file == by_group).all() else probe.right(by_file)
    gain = (naive - whole) / params.leak_repeats
    # without a group the two divisions are one, and nothing is left to chance
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


def divisions(group: Ints, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """The fold of each of N files, (N,) each: a naive one, by file, and one by whole groups.

    The first file of each group is in the same fold in both.
    """
    of_group = rng.permutation(int(group.max()) + 1) % NUM_FOLDS
    by_group = of_group[group]
    by_file = rng.integers(NUM_FOLDS, size=len(group))
    first = np.unique(group, return_index=True)[1]
    by_file[first] = by_group[first]
    return by_file, by_group


class Probe:
    """Ridge regression from features to one of K classes, cross-validated without a fit from scratch for each fold.

    Of few files: with R the matrix that maps targets to the residuals of the fit to all files, the residuals of files S
    under a fit to the others are R[S, S]^-1 (R Y)[S], exactly. Of more files than features, S is taken out of the
    products of features instead. Either serves every fold of every division, whatever the targets are.

    Args:
        features: (N, D), any scale.
        actual: (N,) true classes.
        num_classes: K.
    """

    def __init__(self, features: Floats, actual: Ints, num_classes: int) -> None:
        num_files, num_features = features.shape
        spread = features.std(axis=0)
        # double precision: a last digit never decides between two classes
        self.rows = (features - features.mean(axis=0)) / np.where(spread > FLAT, spread, 1.0)
        self.actual, self.num_classes = actual, num_classes
        penalty = PENALTY * num_features
        self.residual: Floats | None = None
        if num_files <= num_features:
            self.residual = penalty * np.linalg.inv(self.rows @ self.rows.T + penalty * np.eye(num_files))
        else:
            self.products = self.rows.T @ self.rows + penalty * np.eye(num_features)

    def scores(self, fold: Ints, labels: Sequence[Ints]) -> list[Floats]:
        """(N, K) for each (N,) of `labels`: what the probe of the other folds makes of a file, near 1 for its class."""
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
        """(N,) 1 where the probe of the other folds tells a file right, else 0."""
        return np.asarray(self.scores(fold, [self.actual])[0].argmax(axis=1) == self.actual, np.float64)


@dataclass(frozen=True)
class _Files:
    """The N files of verdict keep or copy whose picture has features.

    Args:
        features: (N, D).
        actual: (N,) true classes.
        group: (N,) number of the unit that the split kept whole.
        sampled: whether there are more.
    """

    features: Floats
    actual: Ints
    group: Ints
    sampled: bool


def _read_files(path: Path, packed: Packed, manifest: Path) -> _Files:
    table = read_table(path, FEATURES)
    # a picture has the same features whatever it is called, and whatever the member that left them tells apart
    row_of = {image_id: row for row, image_id in enumerate(table["image_id"].to_pylist())}
    strangers = [image_id for image_id in row_of if image_id not in packed.classes_of]
    if strangers:
        raise InputError(
            f"{path} holds features of {count(len(strangers), 'picture')} that the pack index does not name: "
            "run `dvc repro train`"
        )
    keys = [(image_id, k) for image_id in row_of for k in packed.classes_of[image_id]]
    pictures = _pictures_of_files(keys, packed, manifest)
    num_all = len(pictures)
    pictures = _whole_groups(pictures, [packed.groups[key] for key in keys])
    numbers = {group: number for number, group in enumerate(sorted({packed.groups[keys[row]] for row, _ in pictures}))}
    rows = np.array([row for row, _ in pictures], np.int64)
    edited = np.array([is_edited for _, is_edited in pictures], bool)
    plain, other = (matrix(table[name]) for name in ("plain", "edited"))
    places = np.array([row_of[keys[row][0]] for row in rows], np.int64)
    return _Files(
        features=np.where(edited[:, None], other[places], plain[places]).astype(np.float64),
        actual=np.array([keys[row][1] for row in rows], np.int64),
        group=np.array([numbers[packed.groups[keys[row]]] for row in rows], np.int64),
        sampled=len(pictures) < num_all or len(keys) < len(packed.groups),
    )


def _pictures_of_files(keys: list[tuple[str, int]], packed: Packed, manifest: Path) -> list[tuple[int, bool]]:
    """For each file that takes part or is a copy: the row of the picture that it shows, and whether it was edited."""
    rows_of: dict[str, list[int]] = {}
    for row, (image_id, _) in enumerate(keys):
        rows_of.setdefault(image_id, []).append(row)
    table = read_table(manifest, DEDUPED, columns=["image_id", "label", "verdict", "best_id"])
    columns = (table[name].to_pylist() for name in ("image_id", "label", "verdict", "best_id"))
    files = [file for file in zip(*columns, strict=True) if file[2] in ("keep", "copy")]

    def row_under(image_id: str, label: str) -> int | None:
        rows = rows_of.get(image_id, [])
        # a label that split merged into another one is no class, and stands once
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
    """At most MAX_FILES of `files`, by whole groups, drawn by the hash of their names.

    Args:
        group_of: of each row that a file may name.
    """
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
