"""Random draws and file names that are the same on every machine and in every version of Python.

A file name does not tell whether a file is a picture or a planted copy: it is the file's index in its class, multiplied
and shifted modulo 10^8, so neighbours in a folder are unrelated, and the name gives the index back without a table.
"""

import hashlib
import random
from collections.abc import Sequence
from functools import lru_cache
from typing import TypeVar

T = TypeVar("T")

_MODULUS = 10**8
_FACTOR = 61_803_399  # near the golden section of the modulus, so that early names spread; no factor in common with it
_INVERSE = pow(_FACTOR, -1, _MODULUS)


class Dice:
    """Random draws from a key.

    Only `random.Random.random` and `getrandbits` are used below: the two whose sequence Python promises to keep;
    `choice`, `shuffle` and `gauss` have changed between versions.

    Args:
        key: what the draws depend on, and nothing else: (seed, purpose, class, index).
    """

    def __init__(self, *key: object) -> None:
        digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
        self._random = random.Random(int.from_bytes(digest[:16], "big"))

    def between(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return low + (high - low) * self._random.random()

    def whole(self, low: int, high: int) -> int:
        """A whole number in [low, high], both included."""
        return low + int((high - low + 1) * self._random.random())

    def chance(self, probability: float) -> bool:
        """True with `probability`; never at 0, always at 1."""
        return self._random.random() < probability

    def pick(self, options: Sequence[T]) -> T:
        """One of `options`, which are equally likely."""
        return options[int(len(options) * self._random.random())]

    def noise(self, count: int) -> bytes:
        """`count` bytes, each 0 to 255 equally likely."""
        return self._random.getrandbits(8 * count).to_bytes(count, "little")

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """`items` in random order (Fisher and Yates)."""
        mixed = list(items)
        for last in range(len(mixed) - 1, 0, -1):
            other = self.whole(0, last)
            mixed[last], mixed[other] = mixed[other], mixed[last]
        return mixed


@lru_cache(maxsize=256)
def _shift(seed: int, label: str) -> int:
    return Dice(seed, "names", label).whole(0, _MODULUS - 1)


def file_name(seed: int, label: str, index: int, ext: str = "jpg") -> str:
    """The path of file number `index`, 0 to 99,999,999, of class `label`."""
    return f"{label}/{(index * _FACTOR + _shift(seed, label)) % _MODULUS:08d}.{ext}"


def file_index(seed: int, label: str, stem: str) -> int:
    """The index behind a name's 8 digits."""
    return (int(stem) - _shift(seed, label)) * _INVERSE % _MODULUS
