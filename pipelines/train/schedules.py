"""The learning rate of every step, as a factor of the recipe's own."""

import math
from dataclasses import dataclass

from pipelines.params.optimizers import Constant, Cosine, OneCycle, Plateau, Step

ONE_CYCLE_END = 1e-4
"""of one_cycle: the share that is left at its last step"""


@dataclass(frozen=True)
class Span:
    """The steps that a schedule covers.

    Args:
        num_steps: all of them.
        epoch_steps: of one epoch.
        warmup_steps: at the beginning, in which the factor rises in a straight line; the schedule covers the rest.
    """

    num_steps: int
    epoch_steps: int
    warmup_steps: int


def factor_at(step: int, schedule: Constant | Step | Cosine | OneCycle | Plateau, span: Span) -> float:
    """The share of the learning rate at one step; of `plateau` the warm-up alone, since the rest depends on results.

    Args:
        step: from 0 to span.num_steps - 1.

    Returns:
        From 0 to 1.
    """
    if step < span.warmup_steps:
        return (step + 1) / (span.warmup_steps + 1)
    step -= span.warmup_steps
    num_steps = max(1, span.num_steps - span.warmup_steps)
    match schedule:
        case Constant() | Plateau():
            return 1.0
        case Step():
            return float(schedule.gamma ** (step // (schedule.step_size * span.epoch_steps)))
        case Cosine():
            return _between(1.0, schedule.min_lr_ratio, step / num_steps)
        case OneCycle():
            top = schedule.pct_start * (num_steps - 1)
            if step < top:
                return _between(1.0 / schedule.div_factor, 1.0, step / top)
            return _between(1.0, ONE_CYCLE_END, (step - top) / max(1e-9, num_steps - 1 - top))


def _between(first: float, last: float, done: float) -> float:
    """From `first` to `last` along half a cosine; `done` from 0 to 1."""
    return last + (first - last) * 0.5 * (1.0 + math.cos(math.pi * done))
