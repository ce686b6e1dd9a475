"""Judgements on copies, conflicts, refusals and factors."""

import json
from typing import TYPE_CHECKING

import numpy as np

from pipelines.validate.judgement import Judgement, Mask, Rows, mask, numbered, of_rows

if TYPE_CHECKING:
    import pandas as pd


def copies(files: "pd.DataFrame", *, max_value: float) -> Judgement:
    """Of all files, at most this fraction are copies or near copies of another one."""
    return _fraction(_copies(files), max_value)


def near_copies(files: "pd.DataFrame", *, max_value: float) -> Judgement:
    """Of all files, at most this fraction are copies whose bytes are not those of their group's best picture."""
    return _fraction(_copies(files) & mask(files["best_id"] != files["image_id"]), max_value)


def conflicts(files: "pd.DataFrame", *, max_value: float) -> Judgement:
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


def refusals(seen: "pd.DataFrame", *, by: str, max_value: float) -> Judgement:
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
        return Judgement(True, None, guilty)
    return Judgement(not len(guilty), round(float(fractions.max()), 6), guilty)


def factors(files: "pd.DataFrame") -> Judgement:
    """Every file's factors are empty or a JSON object of texts."""
    codes, found = numbered(files["factors"])
    if not found:
        return of_rows(np.zeros(0, bool))
    return of_rows(np.array([not _is_object_of_texts(text) for text in found])[codes])


def _is_object_of_texts(text: str) -> bool:
    if not text:
        return True
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and all(isinstance(one, str) for one in value.values())


def _copies(files: "pd.DataFrame") -> Mask:
    # with `dedupe.duplicates: keep` a near copy is kept too; its group's best picture tells
    kept_copy = mask(files["verdict"] == "keep") & mask(files["best_id"] != files["image_id"])
    return mask(files["verdict"] == "copy") | kept_copy


def _fraction(guilty: Mask, max_value: float) -> Judgement:
    rows: Rows = np.flatnonzero(guilty)
    fraction = len(rows) / max(len(guilty), 1)
    return Judgement(fraction <= max_value, round(fraction, 6), rows)
