"""Which pictures a network takes for something else, and is surest of."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipelines.augmentation.packs import PackReader, Rows
from pipelines.train.trackers import Wrong


def most_confident_mistakes(
    found: npt.NDArray[np.float64],
    labels: Rows,
    *,
    classes: Sequence[str],
    reader: PackReader,
    rows: Rows,
    limit: int,
) -> list[Wrong]:
    """At most `limit` misclassified pictures, the most confident first; of equally confident ones the first row.

    Args:
        found: (N, K) probabilities.
        labels: (N,) int64, the truth.
        classes: K labels.
        reader, rows: of the packs; (N,) rows.
    """
    predicted = found.argmax(axis=1)
    confidence = found.max(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    chosen = wrong[np.argsort(-confidence[wrong], kind="stable")][:limit]
    return [
        Wrong(
            image_id=str(reader.index.image_id[rows[i]]),
            pixels=np.array(reader.picture(int(rows[i]))),
            actual=classes[labels[i]],
            predicted=classes[predicted[i]],
            confidence=float(confidence[i]),
        )
        for i in chosen
    ]
