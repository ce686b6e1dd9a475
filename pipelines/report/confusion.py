"""Confusion counts as a person reads them: look-alikes side by side, the worst pairs first, cells with a shade."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]
NUMBERS_UP_TO = 30
"""classes up to which cells are large"""
DIGITS_UP_TO = 999
"""pictures in a cell up to which a small cell has room for the number"""


def order_classes(counts: Counts) -> list[int]:
    """An order of the classes in which those that are often confused stand together.

    Chains of classes are joined at the ends where the two classes are confused most, the strongest confusion (as a
    share of both classes' pictures, either way) first. Classes that are never confused keep their place among the
    remaining chains, which follow each other by their first class.

    Args:
        counts: (K, K), rows are the truth.

    Returns:
        the K class indices in the order to show them.
    """
    num_classes = len(counts)
    pictures = np.maximum(counts.sum(axis=1), 1)
    mistakes = counts - np.diag(np.diag(counts))
    likeness = (mistakes / pictures[:, None]) + (mistakes / pictures[:, None]).T
    chains = {k: [k] for k in range(num_classes)}  # by either end
    pairs = [(-likeness[a, b], a, b) for a in range(num_classes) for b in range(a + 1, num_classes) if likeness[a, b]]
    for _, a, b in sorted(pairs):
        first, second = chains.get(a), chains.get(b)
        if first is None or second is None or first is second:
            continue  # inside a chain already, or its two ends
        joined = (first if first[-1] == a else first[::-1]) + (second if second[0] == b else second[::-1])
        for end in (first[0], first[-1], second[0], second[-1]):
            chains.pop(end, None)
        if joined[0] > joined[-1]:
            joined = joined[::-1]
        chains[joined[0]] = chains[joined[-1]] = joined
    distinct = {id(chain): chain for chain in chains.values()}
    return [k for chain in sorted(distinct.values(), key=min) for k in chain]


@dataclass(frozen=True)
class Pair:
    """Two classes and how often each was taken for the other."""

    first: int
    second: int
    first_as_second: int
    second_as_first: int

    @property
    def mistakes(self) -> int:
        return self.first_as_second + self.second_as_first


def confused_pairs(counts: Counts) -> list[Pair]:
    """Every pair with a mistake, the most mistakes first; of equals the pair with the larger share of its pictures."""
    pictures = counts.sum(axis=1)
    found = [
        Pair(a, b, int(counts[a, b]), int(counts[b, a]))
        for a in range(len(counts))
        for b in range(a + 1, len(counts))
        if counts[a, b] + counts[b, a]
    ]
    return sorted(found, key=lambda p: (-p.mistakes, int(pictures[p.first] + pictures[p.second]), p.first, p.second))


def shares(counts: Counts) -> npt.NDArray[np.float64]:
    """(K, K) each row divided by its sum; a row without pictures is 0."""
    return np.asarray(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))


@dataclass(frozen=True)
class Cell:
    """A cell of the matrix that is not zero.

    Args:
        count: pictures.
        share: of the row's pictures, 0 to 1.
        shade: strength of the colour, 0 to 1.
        right: on the diagonal.
        target: anchor of the pair's pictures; "" where none are shown.
    """

    count: int
    share: float
    shade: float
    right: bool
    target: str


def matrix_cells(counts: Counts, order: list[int], targets: dict[tuple[int, int], str]) -> list[list[Cell | None]]:
    """The matrix in the given order; None for zero.

    Shades go by the share of the row: a class of 11 pictures, all right, is as blue as one of 500. Right answers and
    mistakes are shaded on scales of their own: a mistake that happens to one picture in twenty
    is what the reader looks for, and would be invisible beside a diagonal of 95 %.
    """
    share = shares(counts)
    mistake = ~np.eye(len(counts), dtype=bool)
    largest = {True: 1.0, False: max(float((share * mistake).max()), 1e-9)}
    return [
        [
            Cell(
                count=int(counts[a, b]),
                share=float(share[a, b]),
                shade=shade(share[a, b] / largest[a == b]),
                right=a == b,
                target=targets.get((a, b), ""),
            )
            if counts[a, b]
            else None
            for b in order
        ]
        for a in order
    ]


def shade(fraction: float) -> float:
    """Strength of a colour for a fraction in (0, 1]: rising, but never between .5 and .78.

    Between these, neither dark nor light digits are readable on the colour (contrast below 4.5).
    """
    return round(0.1 + 0.8 * fraction, 3) if fraction < 0.5 else round(0.78 + 0.44 * (fraction - 0.5), 3)
