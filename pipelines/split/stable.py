"""`method: hash`: each unit's own hash decides, so that growth never moves an old picture.

No picture's bin depends on any picture outside its unit. The price is that fractions are met on average only: a class
of n units gets n·f ± sqrt(n·f·(1 - f)) of them into a bin of fraction f.

A unit has members: its images, or, with group_by, the values that it holds (a person who gains pictures stays one
member). Each member has a priority and a choice, both hashed from the seed and the member's name; the unit takes the
choice of the member of lowest priority. So a unit's chance of a bin is the bin's fraction, however large the unit.

What can move an old picture, and nothing else: a new copy that links to it (or joins its unit with another one) and
has a lower priority than all the m old members, which happens in 1 of m + 1 cases, and then another choice. No rule
without a memory can avoid this: a split cannot tell which of two copies came first. And a class that `rare_classes:
train_only` held in training takes up its own choices once it is large enough.
"""

import numpy as np
import numpy.typing as npt

from pipelines.split.units import Ints, Pictures, seeded_hashes


def stable_bins(
    pictures: Pictures,
    counts: tuple[Ints, Ints, Ints],  # noqa: ARG001 - both methods are called alike
    fractions: tuple[float, ...],
    forced: npt.NDArray[np.bool_],  # noqa: ARG001 - forced units are overruled by the caller
    seed: int,
) -> Ints:
    """The bin of each unit, (U,), 0 to B - 1.

    Args:
        fractions: (B,) of each bin, sums to 1.
    """
    priority, choice = seeded_hashes(seed, pictures.keys)
    # the first key of each unit in (unit, priority) order is the one that decides
    order = np.lexsort((priority, pictures.unit_of_key))
    _, first = np.unique(pictures.unit_of_key[order], return_index=True)
    share = choice[order[first]] / 2.0**64  # (U,) in [0, 1]
    edges = np.cumsum(fractions)[:-1]  # the last bin is all that is left
    return np.searchsorted(edges, share, side="right").astype(np.int64)
