"""`method: exact`: the best stratification of a fixed set of pictures, with units as they are.

Every class has a whole-number target in every bin, within one picture of its ideal. Lumps (units of several pictures)
go first, the one that weighs most in a class first, each into the bin that it fits best; single pictures then fill
what is missing, exactly. Near the idea of iterative stratification (Sechidis, Tsoumakas, Vlahavas, 2011), but with
targets that add up, with units of any size, and in O(N log N).
"""

import heapq

import numpy as np
import numpy.typing as npt

from pipelines.split.units import Ints, Pictures, seeded_hashes

Row = list[int]


def exact_bins(
    pictures: Pictures,
    counts: tuple[Ints, Ints, Ints],
    fractions: tuple[float, ...],
    forced: npt.NDArray[np.bool_],
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
    targets = target_counts(totals.tolist(), (left >= num_bins).tolist(), fractions)
    tie, _ = seeded_hashes(seed, pictures.units)
    pairs = np.bincount(unit, minlength=num_units)
    pictures_of = np.bincount(unit, weights=count, minlength=num_units)
    lump = (pairs > 1) | (pictures_of > 1)

    bin_of = np.zeros(num_units, dtype=np.int64)
    bins = LumpBins(targets, left.tolist())
    share = np.zeros(num_units)
    np.maximum.at(share, unit, count / np.maximum(totals, 1)[label])
    lumps = np.flatnonzero(lump & ~forced)
    begin = np.searchsorted(unit, lumps)
    end = np.searchsorted(unit, lumps, side="right")
    for at in np.lexsort((tie[lumps], -share[lumps])).tolist():
        held = slice(int(begin[at]), int(end[at]))
        bin_of[lumps[at]] = bins.place(label[held].tolist(), count[held].tolist())
    # single pictures: a shuffle by hash, dealt out by what each bin still lacks
    single = ~lump[unit] & ~forced[unit]
    single_unit, single_label = unit[single], label[single]
    order = np.lexsort((tie[single_unit], single_label))
    edges = np.searchsorted(single_label[order], np.arange(num_labels + 1))
    for index in range(num_labels):
        dealt = single_unit[order[edges[index] : edges[index + 1]]]
        bin_of[dealt] = np.repeat(np.arange(num_bins), bins.deal(index, len(dealt)))
    return bin_of


def target_counts(totals: Row, everywhere: list[bool], fractions: tuple[float, ...]) -> list[Row]:
    """Whole numbers for ideals: (K, B), each row sums to its class's total.

    Each is the ideal rounded down or up. Up goes where a bin is most behind over all classes so far, so that the
    bins' own totals come out right as well. A class that can be everywhere has at least one in every bin; where that
    is more than its share, its largest bin gives way.

    Args:
        totals: (K,) pictures of each class.
        everywhere: (K,) whether the class has as many units as there are bins.
        fractions: (B,) of each bin, sums to 1.
    """
    behind = [0.0] * len(fractions)
    targets = []
    for total, can in zip(totals, everywhere, strict=True):
        ideal = [total * fraction for fraction in fractions]
        # 1e-9: 0.2 * 15 is 3, not 2.9999999999999996
        row = [max(int(value + 1e-9), 1 if can else 0) for value in ideal]
        while sum(row) > total:
            largest = max(range(len(row)), key=lambda j: (row[j], -behind[j]))
            row[largest] -= 1
        for _ in range(total - sum(row)):
            open_bins = [j for j in range(len(row)) if row[j] < ideal[j] - 1e-9]
            row[max(open_bins, key=lambda j: behind[j] + ideal[j] - row[j])] += 1
        behind = [b + value - got for b, value, got in zip(behind, ideal, row, strict=True)]
        targets.append(row)
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

    def place(self, labels: Row, counts: Row) -> int:
        """Put a unit of `counts` pictures of `labels` where it fits best, and return that bin.

        Best is the least sum of (filled - target)² / target. A bin that a class would otherwise never reach, since
        only as many of its units are left as it has empty bins, goes before any fit.
        """
        scores = [0.0] * len(self.targets[0])
        for label, count in zip(labels, counts, strict=True):
            target, filled = self.targets[label], self.filled[label]
            last_chance = self.left[label] <= filled.count(0)
            for j, (goal, have) in enumerate(zip(target, filled, strict=True)):
                scores[j] += (2 * (goal - have) - count) * count / (goal or 0.5)
                if last_chance and have == 0:
                    scores[j] += 1e12
        best = max(range(len(scores)), key=scores.__getitem__)
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
