"""Evaluate the predictions of members on the test set."""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from pipelines.core.errors import count
from pipelines.core.files import empty_folder, write_csv, write_json
from pipelines.core.tables import DEDUPED, LABEL, PREDICTIONS, read_table, write_table
from pipelines.evaluate.ensemble import EnsemblePredictions, calibrate, combine
from pipelines.evaluate.leaks import leak_premium
from pipelines.evaluate.members import (
    Predictions,
    join_factors,
    read_factors,
    read_index,
    read_members,
    require_same_pictures,
)
from pipelines.evaluate.metrics import confusion_counts, score
from pipelines.evaluate.metrics_json import DIGITS, compute_metrics, rounded
from pipelines.evaluate.suspects import HEADER, Suspects, find_suspects
from pipelines.params.evaluate import EvaluateParams


@dataclass(frozen=True)
class EvaluateArtifact:
    """What evaluate wrote: metrics.json, predictions.parquet, predictions.csv, confusion.csv, suspects.csv."""

    folder: Path
    num_images: int
    num_right: int
    accuracy_low: float
    accuracy_high: float
    num_suspects: int

    def __str__(self) -> str:
        return (
            f"{self.num_right:,} of {count(self.num_images, 'test picture')} right, "
            f"{100 * self.num_right / self.num_images:.1f} % "
            f"({100 * self.accuracy_low:.1f} to {100 * self.accuracy_high:.1f}); {count(self.num_suspects, 'suspect')}"
        )


class _ManifestFile(NamedTuple):
    """A row of dedupe's manifest."""

    source: str
    source_path: str
    image_id: str
    label: str
    original_label: str
    decision: str


def evaluate(
    params: EvaluateParams,
    *,
    folders: Mapping[tuple[str, int], Path],
    index: Path,
    manifest: Path | None,
    out_dir: Path,
) -> EvaluateArtifact:
    """Combine the predictions of members, and measure the result on the test set.

    Args:
        folders: (member, fold) to the folder with its predictions.parquet, and features.parquet where the backbone is
            frozen.
        index: the pack index, which names classes, test images and groups.
        manifest: dedupe's manifest, for the source paths of suspects; None leaves these empty.
        out_dir: emptied first.

    Raises:
        InputError: a member lacks predictions, knows other classes, or covers other test images.
    """
    packed = read_index(index)
    members = [calibrate(member) for member in read_members(folders, packed.classes)]
    factor_members = [member for member in members if member.target != LABEL]
    label_members = [member for member in members if member.target == LABEL]
    if factor_members:
        factors = read_factors(index, packed.classes)
        label_members.append(calibrate(join_factors(factor_members, factors, packed)))
    first = label_members[0]
    for member in label_members:
        require_same_pictures(packed.test, "the pack index", member.test, member.name, "test")
        require_same_pictures(first.val, first.name, member.val, member.name, "validation")
    val_groups = packed.group_numbers(first.val.image_ids)
    combined = combine(params.ensemble, label_members, val_groups=val_groups, seed=params.seed)
    features, files = _features(folders), _read_files(manifest)
    premium = leak_premium(params, features=features, packed=packed, manifest=manifest)
    metrics = compute_metrics(params, combined, label_members, factor_members, packed)
    metrics["leak_premium"] = {k: rounded(v) if isinstance(v, float) else v for k, v in premium.items()}
    metrics["decisions"] = _decisions(combined.test, packed.classes, files, manifest)
    suspects = find_suspects(
        (combined.val, combined.test), packed, features=features, settled=_settled(files), seed=params.seed
    )
    metrics["suspects"] = {
        "num": len(suspects.found),
        "num_pictures": suspects.num_pictures,
        "expected_precision": None if suspects.expected_precision is None else rounded(suspects.expected_precision),
        "method": suspects.method,
    }

    empty_folder(out_dir)
    _write_tables(combined, suspects, packed.classes, files, out_dir)
    # last: whoever sees the metrics finds everything else in place
    write_json(out_dir / "metrics.json", metrics)
    scored = score(combined.test.actual, combined.test.probabilities)
    return EvaluateArtifact(
        folder=out_dir,
        num_images=len(scored.actual),
        num_right=int(scored.right.sum()),
        accuracy_low=metrics["accuracy"]["low"],
        accuracy_high=metrics["accuracy"]["high"],
        num_suspects=len(suspects.found),
    )


def _write_tables(
    combined: EnsemblePredictions, suspects: Suspects, classes: list[str], files: list[_ManifestFile], out_dir: Path
) -> None:
    """predictions.parquet, predictions.csv, confusion.csv and suspects.csv."""
    test = combined.test
    scored = score(test.actual, test.probabilities)
    columns = {
        "image_id": pa.array(test.image_ids, pa.string()),
        "subset": pa.array(["test"] * len(test.actual), pa.string()),
        "class_index": pa.array(test.actual, pa.int32()),
        "probabilities": pa.array(list(test.probabilities.astype(np.float32)), pa.list_(pa.float32())),
    }
    write_table(pa.table(columns, schema=PREDICTIONS), out_dir / "predictions.parquet", classes=classes)
    images = zip(test.image_ids, scored.actual, scored.predicted, scored.confidence.tolist(), strict=True)
    rows = ((image_id, classes[a], classes[p], _text(c)) for image_id, a, p, c in images)
    write_csv(out_dir / "predictions.csv", ("image_id", "actual", "predicted", "confidence"), rows)
    counts = confusion_counts(scored.actual, scored.predicted, scored.num_classes).tolist()
    lines = ((label, *row) for label, row in zip(classes, counts, strict=True))
    write_csv(out_dir / "confusion.csv", ("actual", *classes), lines)
    # the first path of an image, as files are sorted
    paths = {(file.image_id, file.label): file.source_path for file in reversed(files)}
    disputed = (
        (
            *(s.image_id, s.label, s.suggested, _text(s.probability_label), _text(s.probability_suggested)),
            *(s.subset, paths.get((s.image_id, s.label), "")),
        )
        for s in suspects.found
    )
    write_csv(out_dir / "suspects.csv", HEADER, disputed)


def _features(folders: Mapping[tuple[str, int], Path]) -> Path | None:
    """The features of the first member that writes some: those of all folds are equal."""
    paths = (folder / "features.parquet" for folder in folders.values())
    return next((path for path in paths if path.is_file()), None)


def _text(value: float) -> str:
    return f"{value:.{DIGITS}f}"


def _read_files(manifest: Path | None) -> list[_ManifestFile]:
    """All files, sorted; none without a manifest."""
    if manifest is None:
        return []
    columns = read_table(manifest, DEDUPED, columns=list(_ManifestFile._fields)).to_pydict().values()
    return sorted(_ManifestFile(*(value or "" for value in row)) for row in zip(*columns, strict=True))


def _settled(files: Sequence[_ManifestFile]) -> dict[str, str]:
    """Images whose label a person has looked at, with the decision."""
    return {file.image_id: file.decision for file in files if file.decision.startswith(("keep:", "relabel:"))}


def _decisions(
    test: Predictions, classes: list[str], files: Sequence[_ManifestFile], manifest: Path | None
) -> dict[str, Any]:
    """How many decisions were taken, and what accuracy would be had none changed the label of a test image.

    The model disputes suspects: relabelling these alone raises accuracy even where they were right.
    """
    labels = {(file.image_id, file.label): file for file in files if file.decision.startswith("relabel:")}
    original = test.actual.copy()
    num_relabelled = 0
    for row, (image_id, k) in enumerate(zip(test.image_ids, test.actual, strict=True)):
        file = labels.get((image_id, classes[k]))
        if file is not None and file.original_label != classes[k]:
            # a label that is no class any more cannot be predicted
            original[row] = classes.index(file.original_label) if file.original_label in classes else -1
            num_relabelled += 1
    taken: Counter[str] = Counter()
    decisions = manifest and manifest.with_name("decisions.csv")
    if decisions and decisions.exists():
        with decisions.open(encoding="utf-8", newline="") as rows:
            taken.update(row["decision"] for row in csv.DictReader(rows) if row["status"] == "applied")
    return {
        "relabelled_test": num_relabelled,
        "accuracy_with_original_labels": rounded(float((test.probabilities.argmax(axis=1) == original).mean())),
        "kept": taken["keep"],
        "relabelled": taken["relabel"],
        "dropped": taken["drop"],
        "different": taken["different"],
    }
