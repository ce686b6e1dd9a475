"""Which parts of the test pictures are clearly worse than the rest: by source, size, quality, colour and factor."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.core.factors import parse_column
from pipelines.core.tables import DEDUPED, read_table
from pipelines.evaluate.intervals import effective_number, fraction_interval
from pipelines.evaluate.members import Predictions
from pipelines.evaluate.metrics import Ints

Column = Sequence[str | float | bool | None]
FEWEST = 10
"""pictures in a slice, and outside of it: of fewer nothing is said"""
QUANTILES = ("smallest", "middle", "largest")
MAX_VALUES = 50
"""values of a column that are looked at; one with more, such as a path, makes no slices"""


def slices(
    right: npt.NDArray[np.bool_], groups: Ints, columns: Mapping[str, Column], *, confidence: float
) -> dict[str, Any]:
    """The part `slices` of figures.json, unrounded.

    A slice is worse where Fisher's exact test says so (one-sided, counts scaled to independent pictures), at the level
    1 - confidence after Holm's correction for how many were looked at.

    Args:
        right: (N,) whether each test picture is told right.
        groups: (N,) group of each, 0 to G - 1.
        columns: by kind (N,) values: texts and truth values make a slice each, numbers thirds of equal count.
        confidence: of the intervals, 0 to 1.
    """
    from scipy.stats import fisher_exact

    found: list[dict[str, Any]] = []
    ps: list[float] = []
    for kind, name, inside in _divide(columns, len(right)):
        if min(inside.sum(), (~inside).sum()) < FEWEST:
            continue
        table = []
        for part in (inside, ~inside):
            number = effective_number(right[part], np.unique(groups[part], return_inverse=True)[1].astype(np.int64))
            num_right = round(float(right[part].mean()) * number)
            table.append([num_right, round(number) - num_right])
        ps.append(float(fisher_exact(table, alternative="less").pvalue))
        part_groups = np.unique(groups[inside], return_inverse=True)[1].astype(np.int64)
        accuracy = fraction_interval(right[inside], part_groups, confidence)
        found.append(
            {
                "kind": kind,
                "name": name,
                "num_images": int(inside.sum()),
                "accuracy": accuracy._asdict(),
                "rest": float(right[~inside].mean()),
            }
        )
    for one, p in zip(found, holm(ps), strict=True):
        one["p_adjusted"] = p
    found.sort(key=lambda one: (one["p_adjusted"], one["kind"], one["name"]))
    worse = [one for one in found if one["p_adjusted"] < 1 - confidence]
    return {"num_looked_at": len(found), "worse": worse, "all": found}


def picture_columns(test: Predictions, manifest: Path | None) -> dict[str, Column]:
    """What the slices of `test` are made of, from dedupe's manifest: by kind (N,) values, None where not known."""
    if manifest is None:
        return {}
    names = ["image_id", "source", "width", "height", "sharpness", "brightness", "greyscale", "factors"]
    table = read_table(manifest, DEDUPED, columns=names)
    wanted = pc.index_in(pa.array(test.image_ids, pa.string()), table["image_id"].combine_chunks())
    rows = table.take(pc.fill_null(wanted, 0)).to_pydict()
    known = [place is not None for place in wanted.to_pylist()]

    def column(values: Iterable[Any]) -> Column:
        return [value if is_known else None for value, is_known in zip(values, known, strict=True)]

    found = {
        "source": column(rows["source"]),
        "shorter side": column(_float(min(w or 0, h or 0)) for w, h in zip(rows["width"], rows["height"], strict=True)),
        "sharpness": column(map(_float, rows["sharpness"])),
        "brightness": column(map(_float, rows["brightness"])),
        "colour": column({True: "greyscale", False: "colour"}.get(value) for value in rows["greyscale"]),
    }
    parsed = parse_column(rows["factors"], manifest)
    factors = [parsed[text] for text in rows["factors"]]
    for name in sorted({name for one in factors for name in one}):
        found[name] = column(one.get(name) for one in factors)
    return found


def _float(value: float | None) -> float | None:
    return None if value is None else float(value)


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's step-down correction (Scandinavian Journal of Statistics 6, 1979) of p values, in their order."""
    found = [0.0] * len(ps)
    largest = 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[i]))
        found[i] = largest
    return found


def _divide(columns: Mapping[str, Column], num_images: int) -> Iterator[tuple[str, str, npt.NDArray[np.bool_]]]:
    for kind, values in columns.items():
        known = [value for value in values if value is not None]
        if not known or len(values) != num_images:
            continue
        if isinstance(known[0], float):
            numbers = np.array([np.nan if value is None else value for value in values], np.float64)
            edges = np.unique(np.nanquantile(numbers, [1 / 3, 2 / 3]))
            third = np.searchsorted(edges, numbers, side="left")
            if len(edges) == 2:
                for k, name in enumerate(QUANTILES):
                    yield kind, name, (third == k) & ~np.isnan(numbers)
        else:
            names = sorted({str(value) for value in known if value != ""})
            if 1 < len(names) <= MAX_VALUES:
                texts = np.array(["" if value is None else str(value) for value in values])
                for name in names:
                    yield kind, name, texts == name
