"""Pictures whose own label the members dispute: candidates for data/decisions/relabel.csv or drop.csv."""

from dataclasses import dataclass

import numpy as np

from pipelines.evaluate.members import Predictions

HEADER = (
    "image_id",
    "label",
    "suggested",
    "probability_label",
    "probability_suggested",
    "subset",
    "source_path",
)


@dataclass(frozen=True)
class Suspect:
    """A picture whose label got little probability while another class got much; a row of suspects.csv."""

    image_id: str
    label: str
    suggested: str
    probability_label: float
    probability_suggested: float
    subset: str


def find_suspects(
    predictions: dict[str, Predictions], classes: list[str], *, suspect_confidence: float
) -> list[Suspect]:
    """The disputed pictures, most suspicious first: by how much the other class exceeds the label.

    Args:
        predictions: by subset; of pictures that the members did not learn from.
        classes: K labels.
        suspect_confidence: the label must get less than 1 minus this, the other class more than this.
    """
    found = []
    for subset, predicted in predictions.items():
        rows = np.arange(len(predicted.actual))
        of_label = predicted.probabilities[rows, predicted.actual]
        others = predicted.probabilities.copy()
        others[rows, predicted.actual] = -1.0
        best = others.argmax(axis=1)
        of_best = others[rows, best]
        for i in np.flatnonzero((of_label < 1.0 - suspect_confidence) & (of_best > suspect_confidence)):
            found.append(
                Suspect(
                    image_id=str(predicted.image_ids[i]),
                    label=classes[predicted.actual[i]],
                    suggested=classes[best[i]],
                    probability_label=float(of_label[i]),
                    probability_suggested=float(of_best[i]),
                    subset=subset,
                )
            )
    return sorted(found, key=lambda s: (s.probability_label - s.probability_suggested, s.image_id, s.label))
