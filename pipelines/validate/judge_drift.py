"""Judgements on what changed since an earlier snapshot; what it was like is part of the arguments."""

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from pipelines.validate.judgement import NO_ROWS, Judgement, mask, numbered

if TYPE_CHECKING:
    import pandas as pd

Compared = Literal["files", "pictures"]
"""All files under the labels that they came with, or the pictures kept."""

_NUM_EDGES = 100


def label_shares(files: "pd.DataFrame", compared: Compared) -> dict[str, float]:
    """Each class's share of the files compared, sorted by label."""
    if compared == "files":
        column = files["original_label" if "original_label" in files else "label"]
    else:
        column = files.loc[mask(files["verdict"] == "keep"), "label"]
    codes, labels = numbered(column)
    counts = np.bincount(codes, minlength=len(labels))
    return {label: round(int(count) / len(codes), 9) for label, count in zip(labels, counts, strict=True)}


class Distribution(NamedTuple):
    """A distribution function at some places: at each the share of values below it, and up to it."""

    edges: list[float]
    below: list[float]
    up_to: list[float]


def distribution(values: npt.NDArray[np.float64]) -> Distribution:
    """Of `values` (N ≥ 1, finite), at their percentiles, each place once."""
    ordered = np.sort(values)
    ranks = np.unique(np.linspace(0, len(ordered) - 1, min(_NUM_EDGES, len(ordered))).round().astype(np.intp))
    edges = np.unique(ordered[ranks])
    below, up_to = _shares(ordered, edges)
    return Distribution(edges.tolist(), below.round(9).tolist(), up_to.round(9).tolist())


def _shares(
    ordered: npt.NDArray[np.float64], edges: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(E,) shares of the values below, and up to, each of (E,) edges."""
    below, up_to = (np.searchsorted(ordered, edges, side=side) / len(ordered) for side in ("left", "right"))
    return below, up_to


def label_shift(
    files: "pd.DataFrame", *, compared: Compared, reference: dict[str, float], max_value: float
) -> Judgement:
    """Total variation distance of the classes' shares from `reference`; offenders are the classes that make up half
    of it, the most changed first."""
    now = label_shares(files, compared)
    if not now:
        return Judgement(True, None, NO_ROWS)
    change = {label: abs(now.get(label, 0.0) - reference.get(label, 0.0)) for label in sorted({*now, *reference})}
    distance = sum(change.values()) / 2
    guilty: list[str] = []
    left = distance
    for label, value in sorted(change.items(), key=lambda item: (-item[1], item[0])):
        if left <= 0 or distance <= max_value:
            break
        guilty.append(label)
        left -= value
    return Judgement(distance <= max_value, round(distance, 6), NO_ROWS, tuple(guilty))


def figure_shift(
    files: "pd.DataFrame",
    *,
    column: str,
    compared: Compared,
    edges: list[float],
    below: list[float],
    up_to: list[float],
    max_value: float,
) -> Judgement:
    """Largest distance between the distribution functions of `column` now and then, at and just below `edges`."""
    values = files[column] if compared == "files" else files.loc[mask(files["verdict"] == "keep"), column]
    ordered = np.sort(values.to_numpy(dtype=np.float64, na_value=np.nan))
    ordered = ordered[: int(np.searchsorted(ordered, np.nan))]  # missing ones are sorted to the end
    if not len(ordered):
        return Judgement(True, None, NO_ROWS)
    # where many values are the same, the functions may be far apart just below an edge and equal on it
    now = np.concatenate(_shares(ordered, np.array(edges)))
    distance = float(np.abs(now - np.array([*below, *up_to])).max())
    return Judgement(distance <= max_value, round(distance, 6), NO_ROWS)
