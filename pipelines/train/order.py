"""Which pictures each step of an epoch sees, in which order: functions of (seed, epoch) alone."""

import numpy as np
import numpy.typing as npt

from pipelines.augmentation.packs import Rows
from pipelines.augmentation.random import ORDER, Keys, uniform

SAMPLE, SAMPLE_START = 120, 121
"""streams of random numbers, see pipelines.augmentation"""
_ODD = np.uint64(0x9E3779B97F4A7C15)


def batches(keys: Keys, *, seed: int, epoch: int, batch_size: int, smallest: int) -> list[Rows]:
    """The rows of each batch of an epoch: every picture once, in an order drawn anew, in batches of nearly one size.

    Args:
        keys: (N,) of the pictures.
        smallest: no batch has fewer, unless there are fewer in all: see `smallest_part`; several devices share each.
    """
    order = np.argsort(uniform(seed, epoch, keys, ORDER), kind="stable")
    count = -(-len(order) // batch_size)
    if count > 1 and len(order) // count < smallest:
        count = max(1, len(order) // smallest)
    return np.array_split(order, count)


def balanced(labels: Rows, keys: Keys, *, seed: int, epoch: int) -> Rows:
    """N pictures of N, with repeats, so that every class comes as often as any other.

    Systematic sampling: what should come r times, a class or a picture, comes floor(r) or ceil(r) times.

    Args:
        labels: (N,) int64.
        keys: (N,).

    Returns:
        (N,) positions in `labels`.
    """
    # class by class, so that its share is exact; in it a random order, or the same pictures would always get the
    # extra turn
    shuffled = np.lexsort((uniform(seed, epoch, keys, SAMPLE), labels))
    counts = np.bincount(labels)
    share = 1.0 / counts[labels[shuffled]]
    edges = np.cumsum(share) / share.sum()
    start = uniform(seed, epoch, np.zeros(1, np.uint64), SAMPLE_START)[0]
    points = (np.arange(len(labels)) + start) / len(labels)
    return np.asarray(shuffled[np.minimum(np.searchsorted(edges, points, side="right"), len(labels) - 1)], np.int64)


def turn_keys(keys: Keys, turns: npt.NDArray[np.int64]) -> Keys:
    """Keys under which a picture's repeats are drawn for themselves; turn 0 keeps its own."""
    found: Keys = keys ^ (turns.astype(np.uint64) * _ODD)
    return found


def count_turns(chosen: Rows) -> Rows:
    """(N,) how often each entry of `chosen` already came before it."""
    order = np.argsort(chosen, kind="stable")
    ordered = chosen[order]
    first = np.flatnonzero(np.diff(ordered, prepend=-1))
    lengths = np.diff(np.append(first, len(chosen)))
    turns = np.empty(len(chosen), np.int64)
    turns[order] = np.arange(len(chosen)) - np.repeat(first, lengths)
    return turns
