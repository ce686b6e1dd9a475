"""What an expectation of our own finds."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipelines.validate.rule import Observed

if TYPE_CHECKING:
    import pandas as pd

Rows = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]

NO_ROWS: Rows = np.zeros(0, np.intp)
_MAX_TALLIED = 5


@dataclass(frozen=True)
class Judgement:
    """Whether a table keeps a rule, and who breaks it.

    Args:
        observed: the figure that was held against the limit; None where there is nothing to look at.
        rows: (R,) rows that break the rule, by position from 0, ascending.
        labels: classes that break it, where it judges classes and not files.
    """

    success: bool
    observed: Observed
    rows: Rows
    labels: tuple[str, ...] = ()


def of_rows(guilty: Mask) -> Judgement:
    """No row may be guilty; reported is their number."""
    rows = np.flatnonzero(guilty)
    return Judgement(not len(rows), len(rows), rows)


def mask(column: "pd.Series[bool]") -> Mask:
    """(N,) of its own, where a missing value is no."""
    return column.to_numpy(dtype=bool, copy=True, na_value=False)


def numbered(column: "pd.Series[str]") -> tuple[npt.NDArray[np.intp], list[str]]:
    """Each row's place among the different texts, and these texts, sorted; "" for a missing one."""
    import pandas as pd

    codes, found = pd.factorize(column, use_na_sentinel=True)
    texts = ["" if text is None else str(text) for text in found]
    if (codes < 0).any():
        if "" not in texts:
            texts.append("")
        codes = np.where(codes < 0, texts.index(""), codes)
    order = sorted(range(len(texts)), key=texts.__getitem__)
    place = np.zeros(len(texts), np.intp)
    place[order] = np.arange(len(texts))
    return place[codes] if len(texts) else codes, [texts[old] for old in order]


def tally(names: "list[str] | pd.Series[str]") -> str:
    """ "cc-by-nc-4.0 (12), unknown (3)": the most frequent first."""
    import pandas as pd

    counts = sorted(pd.Series(names, dtype="str").value_counts().items(), key=lambda item: (-item[1], str(item[0])))
    shown = [f"{str(value)[:60] or 'unknown'} ({count:,})" for value, count in counts[:_MAX_TALLIED]]
    rest = len(counts) - _MAX_TALLIED
    return ", ".join([*shown, f"and {rest} more"] if rest > 0 else shown)
