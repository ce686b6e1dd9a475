"""The random numbers of augmentation: a draw for each picture that depends on (seed, epoch, picture) alone."""

from pipelines.core.draws.numbers import ORDER, Keys, picture_keys, uniform, uniforms
from pipelines.core.draws.policy import Draws, draw

__all__ = ["ORDER", "Draws", "Keys", "draw", "picture_keys", "uniform", "uniforms"]
