"""One confusion matrix for each factor of labels that are joined from several, such as gender and status."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.core.factors import parse_column
from pipelines.core.tables import PACK_INDEX, read_table
from pipelines.evaluate.intervals import fraction_interval
from pipelines.evaluate.members import Predictions
from pipelines.evaluate.metrics import Ints, confusion_counts


def factor_figures(
    index: Path, test: Predictions, groups: Ints, classes: list[str], *, confidence: float
) -> dict[str, Any]:
    """The part `factors` of figures.json, unrounded: {} where labels have no factors.

    A value's probability is the sum over its labels. A factor of which a label has no value, or several, is left out.

    Args:
        index: the pack index.
        test: N test pictures.
        groups: (N,) group of each.
        classes: the labels.
        confidence: of the intervals, 0 to 1.
    """
    table = read_table(index, PACK_INDEX, columns=["class_index", "factors"])
    seen = Counter(zip(table["factors"].to_pylist(), table["class_index"].to_pylist(), strict=True))
    parsed = parse_column((text for text, _ in seen), index)
    found = {}
    for name in sorted({name for one in parsed.values() for name in one}):
        values: dict[int, set[str]] = {k: set() for k in range(len(classes))}
        for (text, k), _ in seen.items():
            if k in values and name in parsed[text]:
                values[k].add(parsed[text][name])
        if any(len(one) != 1 for one in values.values()):
            continue
        of_class = [values[k].copy().pop() for k in range(len(classes))]
        names = sorted(set(of_class))
        place = np.array([names.index(value) for value in of_class])
        likely = np.zeros((len(test.actual), len(names)))
        for k, column in enumerate(place):
            likely[:, column] += test.probabilities[:, k]
        actual, predicted = place[test.actual], likely.argmax(axis=1)
        found[name] = {
            "classes": names,
            "counts": confusion_counts(actual, predicted, len(names)).tolist(),
            "accuracy": fraction_interval(actual == predicted, groups, confidence)._asdict(),
        }
    return found
