"""Judgements on classes and their names, over the whole manifest."""

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from pipelines.validate.judgement import NO_ROWS, Judgement, mask, numbered
from pipelines.validate.labels import spelling, written_well

if TYPE_CHECKING:
    import pandas as pd


def class_sizes(files: "pd.DataFrame") -> dict[str, int]:
    """Pictures kept of each class that has a file, dropped ones apart; sorted by label."""
    codes, labels = numbered(files["label"])
    taking_part = mask(files["verdict"] != "drop")
    kept = mask(files["verdict"] == "keep")
    present = np.bincount(codes[taking_part], minlength=len(labels))
    counts = np.bincount(codes[kept], minlength=len(labels))
    return {label: int(counts[k]) for k, label in enumerate(labels) if present[k]}


def class_pictures(files: "pd.DataFrame", *, min_value: int) -> Judgement:
    """Every class has at least `min_value` pictures kept; observed: the smallest class."""
    sizes = class_sizes(files)
    guilty = tuple(label for label, size in sizes.items() if size < min_value)
    return Judgement(not guilty, min(sizes.values(), default=None), NO_ROWS, guilty)


def imbalance(files: "pd.DataFrame", *, max_value: float) -> Judgement:
    """The largest class has at most `max_value` times the pictures of any other that has one; observed: most times."""
    sizes = {label: size for label, size in class_sizes(files).items() if size}
    largest = max(sizes.values(), default=0)
    times = {label: largest / size for label, size in sizes.items()}
    guilty = tuple(label for label, value in times.items() if value > max_value)
    return Judgement(not guilty, max(times.values(), default=None), NO_ROWS, guilty)


def labels_written_well(files: "pd.DataFrame") -> Judgement:
    """Every label is a text in NFC, not empty, without spaces at its ends."""
    guilty = tuple(label for label in class_sizes(files) if not label.strip() or written_well(label) != label)
    return Judgement(not guilty, len(guilty), NO_ROWS, guilty)


def labels_differ(files: "pd.DataFrame") -> Judgement:
    """No two labels have the same `spelling`."""
    labels = list(class_sizes(files))
    spelled = Counter(map(spelling, labels))
    guilty = tuple(label for label in labels if spelled[spelling(label)] > 1)
    return Judgement(not guilty, len(guilty), NO_ROWS, guilty)
