"""Recall and precision of reported pairs, by planted truth and two judges of the pairs that were not planted.

plain      the two pictures, 32 x 32 grey, correlate with 0.95 as they lie, or mirrored. It aligns nothing: two cuts of
           one photograph that are shifted by two pixels are false to it, so its precision is a lower bound.
aligned    the best correlation over 175 zooms and shifts, in colour, at 32 pixels, reaches 0.95, mirrored or not.
"""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

NATURAL = 0.95
SIDE = 32
# zooms of both axes alike, and shifts in pixels: a coarse grid, so that the judge is not the finder's own search
ZOOMS = (0.82, 0.88, 0.94, 1.0, 1.06, 1.12, 1.2)
SHIFTS = (-2.5, -1.25, 0.0, 1.25, 2.5)

Pair = tuple[str, str]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Figures:
    """What one finder reached; shares in [0, 1]."""

    recall: dict[str, float]
    """by kind of planted copy"""
    all_recall: float
    precision: float
    """by the plain judge"""
    aligned_precision: float
    pairs: int


def read_truth(path: Path) -> dict[Pair, str]:
    """Kind by pair, the smaller name first."""
    with path.open(newline="", encoding="utf-8") as file:
        return {pair(row["original"], row["copy"]): row["kind"] for row in csv.DictReader(file)}


def pair(one: str, other: str) -> Pair:
    """The smaller name first."""
    return (one, other) if one <= other else (other, one)


def judge(folder: Path, found: Iterable[Pair], truth: dict[Pair, str], *, limit: int = 4000) -> Figures:
    """Score pairs of paths below `folder`; of more than `limit` that were not planted, so many are looked at."""
    pairs = {pair(*one) for one in found}
    hit = pairs & truth.keys()
    others = sorted(pairs - truth.keys())
    looked = others
    if len(others) > limit:
        chosen = np.random.default_rng(0).choice(len(others), limit, replace=False)
        looked = [others[place] for place in sorted(chosen.tolist())]
    cache: dict[str, Floats] = {}
    plain = aligned = 0
    for one, other in looked:
        first, second = (cache.setdefault(name, _picture(folder / name)) for name in (one, other))
        right = max(_grey(first, second), _grey(first[:, ::-1], second)) >= NATURAL
        plain += right
        aligned += right or max(_best(first, second), _best(first[:, ::-1], second)) >= NATURAL
    scale = len(others) / max(1, len(looked))
    kinds = sorted(set(truth.values()))
    return Figures(
        recall={kind: _share([one in hit for one, its in truth.items() if its == kind]) for kind in kinds},
        all_recall=len(hit) / len(truth),
        precision=(len(hit) + plain * scale) / max(1, len(pairs)),
        aligned_precision=(len(hit) + aligned * scale) / max(1, len(pairs)),
        pairs=len(pairs),
    )


def _share(found: list[bool]) -> float:
    return sum(found) / len(found)


def _picture(path: Path) -> Floats:
    """(32, 32, 3) float32."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.float32)


def _correlation(first: Floats, second: Floats) -> float:
    one, other = first - first.mean(), second - second.mean()
    return float((one * other).sum() / max(np.sqrt((one**2).sum() * (other**2).sum()), 1e-6))


def _grey(first: Floats, second: Floats) -> float:
    luma = np.array([0.299, 0.587, 0.114], np.float32)
    return _correlation(first @ luma, second @ luma)


def _best(first: Floats, second: Floats) -> float:
    """The best correlation of the middle of `second` with the part of `first` that each zoom and shift gives."""
    middle = slice(4, SIDE - 4)
    at = np.arange(SIDE)[middle] - (SIDE - 1) / 2
    target = second[middle, middle]
    best = -1.0
    for zoom in ZOOMS:
        for down in SHIFTS:
            rows = _between(first, at * zoom + down + (SIDE - 1) / 2, 0)
            for right in SHIFTS:
                best = max(best, _correlation(_between(rows, at * zoom + right + (SIDE - 1) / 2, 1), target))
    return best


def _between(picture: Floats, places: Floats, axis: int) -> Floats:
    """Linear interpolation at `places` of an axis; the edge is repeated outside."""
    places = np.clip(places, 0, SIDE - 1)
    low = np.minimum(places.astype(int), SIDE - 2)
    part = (places - low).astype(np.float32).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
    between: Floats = np.take(picture, low, axis) * (1 - part) + np.take(picture, low + 1, axis) * part
    return between
