"""Checks of labels, classes, copies, conflicts and rejects: what an expectation of our own finds in a table."""

import unicodedata
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipelines.core.factors import parse_factors
from pipelines.validate.rule import Observed

if TYPE_CHECKING:
    import pandas as pd


Rows = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]

NO_ROWS: Rows = np.zeros(0, np.intp)
_MAX_TALLIED = 5


@dataclass(frozen=True)
class CheckResult:
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


def of_rows(guilty: Mask) -> CheckResult:
    """No row may be guilty; reported is their number."""
    rows = np.flatnonzero(guilty)
    return CheckResult(not len(rows), len(rows), rows)


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


def written_well(label: str) -> str:
    """`label` as ingest writes labels: NFC, without leading or trailing spaces."""
    return unicodedata.normalize("NFC", label).strip()


def spelling(label: str) -> str:
    """What is left of `label` without case, width, spaces and punctuation: equal for look-alikes.

    `Les paul`, `LesPaul`, `les-paul ` and `ＬｅｓＰａｕｌ` are all `lespaul`. Accents and symbols count: `C+` is not
    `C`. A label of punctuation alone stays itself.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", label).casefold())
    # P: punctuation, Z: spaces, C: control and invisible characters such as the zero-width space
    kept = "".join(letter for letter in folded if unicodedata.category(letter)[0] not in "PZC")
    return kept or label


def class_sizes(files: "pd.DataFrame") -> dict[str, int]:
    """Pictures kept of each class that has a file, dropped ones apart; sorted by label."""
    codes, labels = numbered(files["label"])
    taking_part = mask(files["verdict"] != "drop")
    kept = mask(files["verdict"] == "keep")
    present = np.bincount(codes[taking_part], minlength=len(labels))
    counts = np.bincount(codes[kept], minlength=len(labels))
    return {label: int(counts[k]) for k, label in enumerate(labels) if present[k]}


def class_pictures(files: "pd.DataFrame", *, min_value: int) -> CheckResult:
    """Every class has at least `min_value` pictures kept; observed: the smallest class."""
    sizes = class_sizes(files)
    guilty = tuple(label for label, size in sizes.items() if size < min_value)
    return CheckResult(not guilty, min(sizes.values(), default=None), NO_ROWS, guilty)


def imbalance(files: "pd.DataFrame", *, max_value: float) -> CheckResult:
    """The largest class has at most `max_value` times the pictures of any other that has one; observed: most times."""
    sizes = {label: size for label, size in class_sizes(files).items() if size}
    largest = max(sizes.values(), default=0)
    times = {label: largest / size for label, size in sizes.items()}
    guilty = tuple(label for label, value in times.items() if value > max_value)
    return CheckResult(not guilty, max(times.values(), default=None), NO_ROWS, guilty)


def labels_written_well(files: "pd.DataFrame") -> CheckResult:
    """Every label is a text in NFC, not empty, without spaces at its ends."""
    guilty = tuple(label for label in class_sizes(files) if not label.strip() or written_well(label) != label)
    return CheckResult(not guilty, len(guilty), NO_ROWS, guilty)


def labels_differ(files: "pd.DataFrame") -> CheckResult:
    """No two labels have the same `spelling`."""
    labels = list(class_sizes(files))
    spelled = Counter(map(spelling, labels))
    guilty = tuple(label for label in labels if spelled[spelling(label)] > 1)
    return CheckResult(not guilty, len(guilty), NO_ROWS, guilty)


def copies(files: "pd.DataFrame", *, max_value: float) -> CheckResult:
    """Of all files, at most this fraction are copies or near copies of another one."""
    return _fraction(_copies(files), max_value)


def near_copies(files: "pd.DataFrame", *, max_value: float) -> CheckResult:
    """Of all files, at most this fraction are copies whose bytes are not those of their group's best picture."""
    return _fraction(_copies(files) & mask(files["best_id"] != files["image_id"]), max_value)


def conflicts(files: "pd.DataFrame", *, max_value: float) -> CheckResult:
    """Of all files, at most this fraction are of a picture that stands under two labels.

    These are held back; with `dedupe.label_conflicts: keep` they are the equal files that have two labels.
    """
    taking_part = files.loc[mask(files["verdict"] != "drop"), ["image_id", "label"]]
    copied = taking_part["image_id"].duplicated(keep=False)
    pairs = taking_part[copied].drop_duplicates()
    torn = pairs.loc[pairs["image_id"].duplicated(), "image_id"].unique()
    held = mask(files["verdict"] == "conflict")
    if len(torn):
        held |= mask(files["image_id"].isin(torn)) & mask(files["verdict"] != "drop")
    return _fraction(held, max_value)


def refusals(seen: "pd.DataFrame", *, by: str, max_value: float) -> CheckResult:
    """Of the files seen of any one class or source (column `by`), at most this fraction were refused.

    Observed is the worst; offenders are the refused files of those above the limit. Files without a value of `by` do
    not count.
    """
    codes, names = numbered(seen[by])
    refused = mask(seen["refused"])
    counts = np.bincount(codes, minlength=len(names))
    fractions = np.bincount(codes[refused], minlength=len(names)) / np.maximum(counts, 1)
    fractions[[name == "" for name in names]] = 0.0
    guilty = np.flatnonzero(refused & (fractions > max_value)[codes]) if len(names) else np.zeros(0, np.intp)
    if not len(names):
        return CheckResult(True, None, guilty)
    return CheckResult(not len(guilty), round(float(fractions.max()), 6), guilty)


def factors(files: "pd.DataFrame") -> CheckResult:
    """Every file's factors are empty or a JSON object of texts."""
    codes, found = numbered(files["factors"])
    if not found:
        return of_rows(np.zeros(0, bool))
    return of_rows(np.array([not _is_object_of_texts(text) for text in found])[codes])


def _is_object_of_texts(text: str) -> bool:
    try:
        parse_factors(text)
    except ValueError:
        return False
    return True


def _copies(files: "pd.DataFrame") -> Mask:
    # with `dedupe.duplicates: keep` a near copy is kept too; its group's best picture tells
    kept_copy = mask(files["verdict"] == "keep") & mask(files["best_id"] != files["image_id"])
    return mask(files["verdict"] == "copy") | kept_copy


def _fraction(guilty: Mask, max_value: float) -> CheckResult:
    rows: Rows = np.flatnonzero(guilty)
    fraction = len(rows) / max(len(guilty), 1)
    return CheckResult(fraction <= max_value, round(fraction, 6), rows)
