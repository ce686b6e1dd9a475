"""`method: stratified`: the best stratification of a fixed set of pictures, with units as they are.

Every class has a whole-number target in every bin, within one picture of its ideal. Lumps (units of several pictures)
go first, the one that weighs most in a class first; single pictures then fill what is missing, exactly. Near the idea
of iterative stratification (Sechidis, Tsoumakas, Vlahavas, 2011), but with targets that add up, with units of any
size, and in O(N log N).

All choices are made by hashes, so that a picture more or less moves as few others as the counts allow: mostly none or
one, two at most within its class. A lump goes where its own hash says while it fits there and its classes are mostly
single pictures; else where it fits best, which depends on all lumps.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np
import numpy.typing as npt

from pipelines.params.split import SplitParams
from pipelines.split.links import Bools, Ints
from pipelines.split.units import Pictures, seeded_hashes, unit_label_counts

ALWAYS_TRAIN = -1
"""The bin of pictures that are never tested on, nor validated on."""
TEST = 0
"""The bin of the test set."""


@dataclass(frozen=True)
class Bins:
    """The B bins of a split: test first; then val and train, or one bin a fold.

    Args:
        fractions: (B,) what each bin should get of every class; sums to 1.
        folds: split.folds.
    """

    fractions: tuple[float, ...]
    folds: int

    @classmethod
    def of(cls, params: SplitParams) -> Self:
        test = params.test_fraction
        if params.folds == 1:
            return cls((test, params.val_fraction, 1.0 - test - params.val_fraction), folds=1)
        return cls((test, *[(1.0 - test) / params.folds] * params.folds), folds=params.folds)

    @property
    def num_bins(self) -> int:
        return len(self.fractions)

    @property
    def subsets(self) -> tuple[str, ...]:
        return ("train", "val", "test") if self.folds == 1 else ("train", "test")

    @property
    def named(self) -> list[str]:
        """What a message calls each bin."""
        return ["test", "val", "train"] if self.folds == 1 else ["test", *(f"fold {k}" for k in range(self.folds))]

    @property
    def summary(self) -> str:
        """All bins in a few words."""
        return "test, val, train" if self.folds == 1 else f"test and {self.folds} folds"

    @property
    def train(self) -> int:
        """The bin of pictures that are only trained on."""
        return self.num_bins - 1 if self.folds == 1 else ALWAYS_TRAIN

    def reached(self, bin_of: Ints, label_of: Ints, num_labels: int) -> Bools:
        """(K, B) whether a class has a picture in a bin; (N,) bins and labels of pictures."""
        bin_of = np.where(bin_of == ALWAYS_TRAIN, self.train, bin_of)
        found = np.zeros((num_labels, self.num_bins), dtype=bool)
        # pictures that train in every fold are in no bin of their own
        found[label_of[bin_of >= 0], bin_of[bin_of >= 0]] = True
        return found

    def subset_and_fold(self, bin_of: Ints) -> tuple[npt.NDArray[np.object_], npt.NDArray[np.int16]]:
        """What SPLITS says of each bin number: subset and fold, (N,) each."""
        # the last entry is that of ALWAYS_TRAIN, -1
        if self.folds == 1:
            subsets, folds = ["test", "val", "train", "train"], [-1, 0, -1, -1]
        else:
            subsets, folds = ["test", *["train"] * self.folds, "train"], [-1, *range(self.folds), -1]
        return np.array(subsets, dtype=object)[bin_of], np.array(folds, dtype=np.int16)[bin_of]


Row = list[int]


def draw_bins(
    pictures: Pictures,
    fractions: tuple[float, ...],
    seed: int,
    *,
    rows: Bools | None = None,
    rare: Bools | None = None,
    method: Callable[..., Ints] | None = None,
) -> Ints:
    """(n,) the bin of each picture of `rows`, by whole units; ALWAYS_TRAIN for units that hold a rare class.

    Args:
        fractions: (B,) of each bin, sums to 1.
        rows: (N,) pictures to divide; all when None.
        rare: (K,) classes.
        method: what divides units; `stratified_bins` when None.
    """
    counts = unit_label_counts(pictures, rows)
    forced = np.zeros(len(pictures.units), dtype=bool)
    if rare is not None:
        forced[counts[0][rare[counts[1]]]] = True
    bin_of_unit = (method or stratified_bins)(pictures, counts, fractions, forced, seed)
    bin_of: Ints = np.where(forced, ALWAYS_TRAIN, bin_of_unit)
    return bin_of[pictures.unit_of if rows is None else pictures.unit_of[rows]]


def stratified_bins(
    pictures: Pictures,
    counts: tuple[Ints, Ints, Ints],
    fractions: tuple[float, ...],
    forced: Bools,
    seed: int,
) -> Ints:
    """The bin of each unit, (U,), 0 to B - 1; that of forced units means nothing.

    Args:
        counts: (unit, label, count), (P,) each, sorted by unit, then label.
        fractions: (B,) of each bin, sums to 1.
        forced: (U,) units that the caller puts into training whatever comes out here.
    """
    unit, label, count = counts
    num_units, num_labels, num_bins = len(pictures.units), len(pictures.labels), len(fractions)
    free = ~forced[unit]
    totals = np.bincount(label[free], weights=count[free], minlength=num_labels).astype(int)
    left = np.bincount(label[free], minlength=num_labels)
    place = np.argsort(np.argsort(seeded_hashes(seed, pictures.labels)[0])).tolist()
    targets = target_counts(totals.tolist(), (left >= num_bins).tolist(), fractions, place)
    tie, choice = seeded_hashes(seed, pictures.units)
    pairs = np.bincount(unit, minlength=num_units)
    pictures_of = np.bincount(unit, weights=count, minlength=num_units)
    lump = (pairs > 1) | (pictures_of > 1)
    in_lumps = np.bincount(label, weights=count * (lump[unit] & free), minlength=num_labels)
    crowded = np.bincount(unit, weights=(2 * in_lumps > totals)[label], minlength=num_units) > 0
    wanted = np.where(crowded, -1, np.searchsorted(np.cumsum(fractions)[:-1], choice / 2.0**64, side="right"))

    bin_of = np.zeros(num_units, dtype=np.int64)
    bins = LumpBins(targets, left.tolist())
    share = np.zeros(num_units)
    np.maximum.at(share, unit, count / np.maximum(totals, 1)[label])
    lumps = np.flatnonzero(lump & ~forced)
    begin = np.searchsorted(unit, lumps)
    end = np.searchsorted(unit, lumps, side="right")
    for at in np.lexsort((tie[lumps], -share[lumps])).tolist():
        held = slice(int(begin[at]), int(end[at]))
        bin_of[lumps[at]] = bins.place(label[held].tolist(), count[held].tolist(), int(wanted[lumps[at]]))
    # single pictures: a shuffle by hash, dealt out by what each bin still lacks, to the largest bin between the others
    single = ~lump[unit] & ~forced[unit]
    single_unit, single_label = unit[single], label[single]
    order = np.lexsort((tie[single_unit], single_label))
    edges = np.searchsorted(single_label[order], np.arange(num_labels + 1))
    in_turn = np.roll(np.arange(num_bins), -1)
    for index in range(num_labels):
        dealt = single_unit[order[edges[index] : edges[index + 1]]]
        bin_of[dealt] = np.repeat(in_turn, np.roll(bins.deal(index, len(dealt)), -1))
    return bin_of


def target_counts(
    totals: Row, everywhere: list[bool], fractions: tuple[float, ...], places: Row | None = None
) -> list[Row]:
    """Whole numbers for ideals: (K, B), each row sums to its class's total.

    Each is the ideal rounded down or up, by an offset of the class alone: the running sum of the ideals, plus the
    offset, rounded down. Offsets are evenly spread, so that the bins' own totals come out right as well; where one is
    off by two pictures and by 0.2 % of all, the classes of the smallest offsets give and take one until it is not. A
    class that can be everywhere has at least one in every bin; where that is more than its share, the bin that is most
    above its own gives way.

    Args:
        totals: (K,) pictures of each class.
        everywhere: (K,) whether the class has as many units as there are bins.
        fractions: (B,) of each bin, sums to 1.
        places: (K,) a permutation that shuffles the offsets; as the classes come when None.
    """
    offsets = [(place + 0.5) / len(totals) for place in places or range(len(totals))]
    # train between val and test: neither of these grows when the class loses a picture
    running = [sum(fractions[1 : j + 1]) for j in range(1, len(fractions))]
    targets, ideals = [], [[total * fraction for fraction in fractions] for total in totals]
    for total, ideal, can, offset in zip(totals, ideals, everywhere, offsets, strict=True):
        # 1e-9: 0.2 * 15 is 3, not 2.9999999999999996
        edges = [0, *(int(total * part + offset + 1e-9) for part in running), total]
        row = [max(high - low, 1 if can else 0) for low, high in pairwise(edges)]
        row = [row[-1], *row[:-1]]
        while sum(row) > total:
            row[max(range(len(row)), key=lambda j: (row[j] - ideal[j], row[j]) if row[j] > 1 else (-total, 0))] -= 1
        targets.append(row)
    over = [sum(row[j] for row in targets) - sum(totals) * fraction for j, fraction in enumerate(fractions)]
    by_offset = sorted(range(len(totals)), key=offsets.__getitem__)
    while max(map(abs, over)) >= max(2.0, sum(totals) / 500) - 1e-9:
        swaps = (
            (over[one] - over[other], -place, k, one, other)
            for place, k in enumerate(by_offset)
            for one in range(len(over))
            for other in range(len(over))
            if targets[k][one] > max(ideals[k][one] + 1e-9, everywhere[k])
            and targets[k][other] < ideals[k][other] - 1e-9
        )
        gain, _, k, one, other = max(swaps, default=(0.0, 0, 0, 0, 0))
        if gain <= 1:
            break  # no class can give what another lacks
        targets[k][one] -= 1
        targets[k][other] += 1
        over[one] -= 1
        over[other] += 1
    return targets


class LumpBins:
    """How full the bins are while units are placed.

    Args:
        targets: (K, B) pictures that each bin should get of each class.
        left: (K,) units of each class that are still to be placed; counted down.
    """

    def __init__(self, targets: list[Row], left: Row) -> None:
        self.targets = targets
        self.left = left
        self.filled = [[0] * len(row) for row in targets]

    def place(self, labels: Row, counts: Row, wanted: int = -1) -> int:
        """Put a unit of `counts` pictures of `labels` into the bin `wanted`, or where it fits best; return that bin.

        Best is the least sum of (filled - target)² / target. A bin that a class would otherwise never reach, since
        only as many of its units are left as it has empty bins, goes before any fit.

        Args:
            wanted: taken where no class is exceeded or at its last chance; -1 for none.
        """
        scores = [0.0] * len(self.targets[0])
        fits = wanted >= 0
        for label, count in zip(labels, counts, strict=True):
            target, filled = self.targets[label], self.filled[label]
            last_chance = self.left[label] <= filled.count(0)
            fits = fits and not last_chance and filled[wanted] + count <= target[wanted]
            for j, (goal, have) in enumerate(zip(target, filled, strict=True)):
                scores[j] += (2 * (goal - have) - count) * count / (goal or 0.5)
                if last_chance and have == 0:
                    scores[j] += 1e12
        best = wanted if fits else max(range(len(scores)), key=scores.__getitem__)
        for label, count in zip(labels, counts, strict=True):
            self.filled[label][best] += count
            self.left[label] -= 1
        return best

    def deal(self, label: int, num_singles: int) -> Row:
        """How many of a class's single pictures each bin gets, (B,): what it lacks, or, where lumps took more than
        their share of another bin, an equal part of what it lacks."""
        target, filled = self.targets[label], self.filled[label]
        given = [max(goal - have, 0) for goal, have in zip(target, filled, strict=True)]
        heap = [
            ((have + give - goal) / (goal or 1), j)
            for j, (goal, have, give) in enumerate(zip(target, filled, given, strict=True))
        ]
        heap = [(-over, j) for over, j in heap if given[j] > (filled[j] == 0)]
        heapq.heapify(heap)
        for _ in range(sum(given) - num_singles):
            _, j = heapq.heappop(heap)
            given[j] -= 1
            if given[j] > (filled[j] == 0):
                over = (filled[j] + given[j] - target[j]) / (target[j] or 1)
                heapq.heappush(heap, (-over, j))
        return given
