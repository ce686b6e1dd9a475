"""File names that do not tell what a file is: picture and planted copy look alike in a listing.

A name is the file's index in its class, multiplied and shifted modulo 10^8: neighbours in the folder are unrelated
and a name leads back to its index without a table, however many pictures there are.
"""

from functools import lru_cache

from pipelines.ingest.sample.dice import Dice

_MODULUS = 10**8
_FACTOR = 61_803_399  # near the golden section of the modulus, so that early names spread; no factor in common with it
_INVERSE = pow(_FACTOR, -1, _MODULUS)


@lru_cache(maxsize=256)
def _shift(seed: int, label: str) -> int:
    return Dice(seed, "names", label).whole(0, _MODULUS - 1)


def file_name(seed: int, label: str, index: int, ext: str = "jpg") -> str:
    """The path of file number `index`, 0 to 99,999,999, of class `label`."""
    return f"{label}/{(index * _FACTOR + _shift(seed, label)) % _MODULUS:08d}.{ext}"


def file_index(seed: int, label: str, stem: str) -> int:
    """The index behind a name's 8 digits."""
    return (int(stem) - _shift(seed, label)) * _INVERSE % _MODULUS
