"""What evaluate reads from features: neighbours of mistakes, the learning curve, strangers, the map.

All that a network learnt from counts as known: the train pictures of the fold whose features these are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.core.files import write_csv
from pipelines.core.tables import DEDUPED, PENULTIMATE, read_table
from pipelines.evaluate import embedding, mistakes
from pipelines.evaluate.figures import DIGITS
from pipelines.evaluate.intervals import group_numbers
from pipelines.evaluate.leaks import matrix
from pipelines.evaluate.learning_curve import learning_curve
from pipelines.evaluate.members import EvaluationIndex, MemberPredictions, Predictions, val_accuracy
from pipelines.evaluate.metrics import Ints, score
from pipelines.evaluate.strangers import StrangerScorer, strangers, unit, write_tensors
from pipelines.params.evaluate import EvaluateParams

STRANGERS = "strangers.safetensors"
CURVE_HEADER = ("num_images", "accuracy", "low", "high", "kind")


@dataclass(frozen=True)
class LabelledFeatures:
    """N pictures that a network looked at, sorted by (image_id, class_index).

    Args:
        keys: (image_id, class_index) of each.
        features: (N, D) float16.
        is_frozen: whether the network never learnt the labels.
        member: the name of the network's folder: "linear_probe-0".
    """

    keys: list[tuple[str, int]]
    features: npt.NDArray[np.float16]
    is_frozen: bool
    member: str

    @property
    def actual(self) -> Ints:
        return np.array([k for _, k in self.keys], np.int64)


def read_features(folder: Path, packed: EvaluationIndex) -> LabelledFeatures | None:
    """Of the member in `folder`; None where it wrote none.

    Raises:
        InputError: they are of other pictures than the index.
    """
    is_frozen = (folder / "features.parquet").is_file()
    path = folder / ("features.parquet" if is_frozen else "penultimate.parquet")
    if not path.is_file():
        return None
    table = read_table(path, PENULTIMATE, columns=["image_id", "plain"])
    packed.require_known(table["image_id"].to_numpy(zero_copy_only=False))
    # a member of a factor has other classes: those of the pack count
    row_of = {image_id: row for row, image_id in enumerate(table["image_id"].to_pylist())}
    keys = sorted((image_id, k) for image_id in row_of for k in packed.classes_of[image_id])
    features = matrix(table["plain"])[[row_of[image_id] for image_id, _ in keys]]
    return LabelledFeatures(keys, features, is_frozen, folder.name)


def look_at_features(
    params: EvaluateParams,
    *,
    folders: Mapping[tuple[str, int], Path],
    members: Sequence[MemberPredictions],
    test: Predictions,
    packed: EvaluationIndex,
    manifest: Path | None,
    suspects: frozenset[tuple[str, str]],
    paths: Mapping[tuple[str, str], str],
    out_dir: Path,
) -> dict[str, Any]:
    """The parts learning_curve, strangers and embedding of figures.json; writes mistakes.csv, a CSV of each curve
    and strangers.safetensors.

    Neighbours, strangers and map are of the member that tells most validation pictures right and has features, by its
    first fold; the curve of the first frozen one.

    Args:
        folders: (member, fold) to the folder that train wrote.
        members: those that tell labels.
        test: the test pictures, as all members together tell them.
        manifest: dedupe's, for the quality of pictures, or None.
        suspects: (image_id, label) whose label is disputed.
        paths: (image_id, label) to the source path.
        out_dir: exists.
    """
    seen, own_val = _of_best_member(folders, members, packed)
    scored = score(test.actual, test.probabilities)
    wrong = ~scored.right
    found: dict[str, Any] = {"learning_curve": None, "strangers": None, "embedding": None}
    neighbours: dict[str, list[mistakes.Neighbour]] = {}
    scorer: StrangerScorer | None = None
    places: list[tuple[object, ...]] = []
    if seen is not None:
        features, actual = unit(seen.features), seen.actual
        subset = np.array([_subset(key, packed, own_val) for key in seen.keys])
        known, val, tested = (np.flatnonzero(subset == name) for name in ("train", "val", "test"))
        row_of = {key: row for row, key in enumerate(seen.keys)}
        asked = [
            (test.image_ids[i], row_of[key]) for i in np.flatnonzero(wrong).tolist() if (key := _key(test, i)) in row_of
        ]
        names = [(seen.keys[row][0], packed.classes[actual[row]]) for row in known]
        near = mistakes.nearest(features[[row for _, row in asked]], features[known], names)
        neighbours = {image_id: one for (image_id, _), one in zip(asked, near, strict=True)}
        told = strangers(
            *((seen.features[rows], actual[rows]) for rows in (known, val, tested)),
            member=seen.member,
            leave_out=seen.is_frozen,
            confidence=params.confidence,
        )
        if told is not None:
            found["strangers"], scorer = told
        mistaken = {_key(test, i) for i in np.flatnonzero(wrong).tolist()}
        is_mistake = np.array([key in mistaken for key in seen.keys])
        rows = embedding.choose_pictures([image_id for image_id, _ in seen.keys], is_mistake)
        if (drawn := embedding.embed(seen.features[rows])) is not None:
            found["embedding"] = {"num_images": len(rows), "method": embedding.METHOD}
            places = [
                (
                    *(seen.keys[row][0], f"{x:.4f}", f"{y:.4f}", packed.classes[actual[row]]),
                    *(packed.subsets[seen.keys[row]], int(is_mistake[row])),
                )
                for row, (x, y) in zip(rows, drawn.tolist(), strict=True)
            ]
    if scorer is not None:
        scorer.save(out_dir / STRANGERS)
    else:
        write_tensors(out_dir / STRANGERS, {}, {})
    found["learning_curve"] = _curve(params, folders, seen, packed)
    rows_of_curve = _curve_rows(found["learning_curve"])
    write_csv(out_dir / "learning_curve.csv", CURVE_HEADER, rows_of_curve)
    write_csv(out_dir / "embedding.csv", embedding.HEADER, places)
    num_train = _num_train(packed)
    poor: frozenset[str] = frozenset()
    if manifest is not None:
        poor = mistakes.poor_pictures(read_table(manifest, DEDUPED, columns=mistakes.QUALITY_COLUMNS))
    lines = mistakes.mistake_rows(
        test.image_ids,
        test.actual,
        test.probabilities,
        classes=packed.classes,
        paths=paths,
        neighbours=neighbours,
        suspects=suspects,
        poor=poor,
        num_train=dict(zip(packed.classes, num_train, strict=True)),
    )
    write_csv(out_dir / "mistakes.csv", mistakes.HEADER, lines)
    return found


def _key(test: Predictions, row: int) -> tuple[str, int]:
    return test.image_ids[row], int(test.actual[row])


def _subset(key: tuple[str, int], packed: EvaluationIndex, own_val: set[str]) -> str:
    """train, val or test, as the fold has it."""
    return "test" if packed.subsets[key] == "test" else "val" if key[0] in own_val else "train"


def _num_train(packed: EvaluationIndex) -> list[int]:
    """(K,) pictures of each class that are neither of test nor of val."""
    counts = [0] * len(packed.classes)
    for (_, k), subset in packed.subsets.items():
        counts[k] += subset == "train"
    return counts


def _of_best_member(
    folders: Mapping[tuple[str, int], Path], members: Sequence[MemberPredictions], packed: EvaluationIndex
) -> tuple[LabelledFeatures | None, set[str]]:
    """Features, and the pictures that validated their network."""
    for member in sorted(members, key=val_accuracy, reverse=True):
        for (name, fold), folder in folders.items():
            if name == member.name and fold in member.folds and (seen := read_features(folder, packed)) is not None:
                return seen, set(member.folds[fold].image_ids)
    return None, set()


def _curve(
    params: EvaluateParams,
    folders: Mapping[tuple[str, int], Path],
    seen: LabelledFeatures | None,
    packed: EvaluationIndex,
) -> dict[str, Any] | None:
    frozen = seen if seen is not None and seen.is_frozen else None
    for folder in folders.values():
        if frozen is None and (folder / "features.parquet").is_file():
            frozen = read_features(folder, packed)
    if frozen is None or not len(frozen.keys):
        return None
    return learning_curve(
        frozen.features,
        frozen.actual,
        group_numbers(np.array([packed.groups[key] for key in frozen.keys], np.str_)),
        classes=packed.classes,
        num_train=_num_train(packed),
        repeats=params.learning_curve_repeats,
        confidence=params.confidence,
        seed=params.seed,
    )


def _curve_rows(curve: Mapping[str, Any] | None) -> list[tuple[object, ...]]:
    if curve is None:
        return []
    return [
        (row["num_images"], *(f"{row[name]:.{DIGITS}f}" for name in ("accuracy", "low", "high")), kind)
        for kind, rows in (("measured", curve["points"]), ("forecast", curve["forecast"]))
        for row in rows
    ]
