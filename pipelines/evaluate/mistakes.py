"""Every wrong test picture: what it was taken for, the training pictures nearest to it, and the likely cause.

The cause follows stated rules, in this order:

label    the labels are disputed (a suspect), or all three neighbours have the predicted label and the network is sure;
picture  it is less sharp, of less contrast or smaller than 98 % of all kept pictures;
too_few  its class has fewer training pictures than half the median class, or none of them is among the neighbours;
model    none of these: the class is there, the network does not tell it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.evaluate.members import Names
from pipelines.evaluate.metrics import Floats, Ints

Cause = Literal["label", "picture", "too_few", "model"]
HEADER = (
    *("image_id", "source_path", "actual", "predicted", "confidence", "probability_actual"),
    *("top2", "top2_probability", "top3", "top3_probability", "neighbours", "cause"),
)
QUALITY_COLUMNS = ["image_id", "verdict", "width", "height", "sharpness", "contrast"]
NUM_NEIGHBOURS = 3
POOR_QUANTILE = 0.02
"""of sharpness, contrast and shorter side: a picture below it is poor"""
SURE = 0.9
"""confidence with which a picture among neighbours of the predicted label is likely to have a wrong one"""


def poor_pictures(table: pa.Table) -> frozenset[str]:
    """The image_ids that are below POOR_QUANTILE of kept pictures in sharpness, contrast or shorter side.

    Args:
        table: DEDUPED, with QUALITY_COLUMNS.
    """
    kept = table.filter(pa.array([verdict == "keep" for verdict in table["verdict"].to_pylist()], pa.bool_()))
    ids = np.array(kept["image_id"].to_pylist(), object)
    sides = [kept[name].to_numpy(zero_copy_only=False).astype(np.float64) for name in ("width", "height")]
    qualities = [kept[name].to_numpy(zero_copy_only=False).astype(np.float64) for name in ("sharpness", "contrast")]
    found: set[str] = set()
    for values in (*qualities, np.minimum(*sides)):
        if len(values) and not np.isnan(values).all():
            found.update(ids[values < np.nanquantile(values, POOR_QUANTILE)].tolist())
    return frozenset(found)


@dataclass(frozen=True)
class Neighbour:
    """A training picture near a test picture, by the cosine of their features, -1 to 1."""

    image_id: str
    label: str
    similarity: float


def nearest(
    wanted: npt.NDArray[np.float32], train: npt.NDArray[np.float32], keys: Sequence[tuple[str, str]]
) -> list[list[Neighbour]]:
    """The NUM_NEIGHBOURS training pictures nearest to each of M pictures, the nearest first.

    Args:
        wanted: (M, D) features of length 1.
        train: (N, D) of training pictures.
        keys: (image_id, label) of these, sorted: of equals the first counts as nearer.
    """
    found = []
    for line in wanted:
        # rounded, so that machines agree on the order
        cosines = (train @ line).astype(np.float64).round(4)
        order = np.argsort(-cosines, kind="stable")[:NUM_NEIGHBOURS]
        found.append([Neighbour(*keys[row], float(cosines[row])) for row in order])
    return found


def cause_of(
    *,
    actual: str,
    predicted: str,
    confidence: float,
    neighbours: Sequence[Neighbour],
    is_suspect: bool,
    is_poor: bool,
    num_train: Mapping[str, int],
) -> Cause:
    """The likely cause of a mistake, by the rules at the head of this file.

    Args:
        is_suspect: whether the label is disputed.
        is_poor: whether the picture is poor.
        num_train: training pictures of every class.
    """
    labels = [one.label for one in neighbours]
    if is_suspect or (confidence >= SURE and len(labels) == NUM_NEIGHBOURS and set(labels) == {predicted}):
        return "label"
    if is_poor:
        return "picture"
    if num_train[actual] < 0.5 * float(np.median(list(num_train.values()))) or (labels and actual not in labels):
        return "too_few"
    return "model"


def mistake_rows(
    image_ids: Names,
    actual: Ints,
    probabilities: Floats,
    *,
    classes: Sequence[str],
    paths: Mapping[tuple[str, str], str],
    neighbours: Mapping[str, Sequence[Neighbour]],
    suspects: frozenset[tuple[str, str]],
    poor: frozenset[str],
    num_train: Mapping[str, int],
) -> list[tuple[str, ...]]:
    """The rows of mistakes.csv, the surest first; texts and numbers as they are written.

    Args:
        image_ids: (N,) test pictures.
        actual: (N,) true classes.
        probabilities: (N, K).
        paths: (image_id, label) to the source path.
        neighbours: of wrong pictures, by image_id; without an entry none are known.
        suspects: (image_id, label) whose label is disputed.
        poor: image_ids of poor pictures.
        num_train: training pictures of every class.
    """
    predicted = probabilities.argmax(axis=1)
    confidence = probabilities[np.arange(len(actual)), predicted]
    wrong = sorted(
        np.flatnonzero(predicted != actual), key=lambda row: (-round(float(confidence[row]), 6), str(image_ids[row]))
    )
    rows = []
    for row in wrong:
        image_id, label = str(image_ids[row]), classes[actual[row]]
        near = neighbours.get(image_id, ())
        order = np.argsort(-probabilities[row], kind="stable")[1:3].tolist()
        runners = [(classes[k], f"{probabilities[row, k]:.6f}") for k in order] + [("", "")] * (2 - len(order))
        cause = cause_of(
            actual=label,
            predicted=classes[predicted[row]],
            confidence=float(confidence[row]),
            neighbours=near,
            is_suspect=(image_id, label) in suspects,
            is_poor=image_id in poor,
            num_train=num_train,
        )
        rows.append(
            (
                *(image_id, paths.get((image_id, label), ""), label, classes[predicted[row]]),
                *(f"{confidence[row]:.6f}", f"{probabilities[row, actual[row]]:.6f}"),
                *runners[0],
                *runners[1],
                " ".join(f"{one.image_id}:{one.similarity:.4f}" for one in near),
                cause,
            )
        )
    return rows
