"""Evaluate the predictions of members on the test set."""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from pipelines.core.errors import count
from pipelines.core.files import empty_folder, write_csv, write_json
from pipelines.core.git import committed_text
from pipelines.core.tables import DEDUPED, LABEL, PREDICTIONS, read_table, write_table
from pipelines.evaluate.change import HEADER as CHANGE_HEADER
from pipelines.evaluate.change import ID_DIGITS, change, compare_answers
from pipelines.evaluate.ensemble import EnsemblePredictions, calibrate, combine
from pipelines.evaluate.factors import factor_figures
from pipelines.evaluate.feature_space import look_at_features
from pipelines.evaluate.figures import DIGITS, compute_figures, headline, rounded
from pipelines.evaluate.leaks import leak_premium
from pipelines.evaluate.members import (
    EvaluationIndex,
    Predictions,
    join_factors,
    read_factors,
    read_index,
    read_members,
    require_same_pictures,
)
from pipelines.evaluate.metrics import confusion_counts, score
from pipelines.evaluate.networks import ask_networks
from pipelines.evaluate.slices import picture_columns, slices
from pipelines.evaluate.suspects import HEADER, Suspects, find_suspects
from pipelines.params.evaluate import EvaluateParams

COMPARED = "compared.csv"


@dataclass(frozen=True)
class EvaluateArtifact:
    """Where evaluate wrote metrics.json, figures.json and their tables, and the headline."""

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
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    num_threads: int = 1,
    ask: bool = True,
) -> EvaluateArtifact:
    """Combine the predictions of members, and measure the result on the test set.

    Args:
        folders: (member, fold) to the folder that train wrote.
        index: the pack index, which names classes, test images and groups; the packs lie beside it.
        manifest: dedupe's manifest, for source paths, decisions and slices; None leaves these empty.
        out_dir: emptied first.
        device, num_threads: of the networks, as in train's params.
        ask: whether to run the networks themselves, for maps, robustness and cost.

    Raises:
        InputError: a member lacks predictions, knows other classes, or covers other test images.
    """
    committed = committed_text(out_dir / COMPARED)
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
    test, scored = combined.test, score(combined.test.actual, combined.test.probabilities)
    groups = packed.group_numbers(test.image_ids)
    features, files = _features(folders), _read_files(manifest)

    figures = compute_figures(params, combined, label_members, factor_members, packed)
    figures["factors"] = factor_figures(index, test, groups, packed.classes, confidence=params.confidence)
    figures["leak_premium"] = leak_premium(params, features=features, packed=packed, manifest=manifest)
    figures["decisions"] = _decisions(test, packed.classes, files, manifest)
    suspects = find_suspects((combined.val, test), packed, features=features, settled=_settled(files), seed=params.seed)
    figures["suspects"] = {
        "num": len(suspects.found),
        "per_class": _suspects_of_classes(suspects),
        "num_pictures": suspects.num_pictures,
        "expected_precision": suspects.expected_precision,
        "method": suspects.method,
    }
    answers = compare_answers(
        test.image_ids,
        [packed.classes[k] for k in scored.actual],
        [packed.classes[k] for k in scored.predicted],
        committed,
    )
    figures["change"] = change(answers, _short_groups(packed), confidence=params.confidence)
    columns = picture_columns(test, manifest)
    figures["slices"] = slices(scored.right, groups, columns, confidence=params.confidence)

    empty_folder(out_dir)
    # the first path of an image, as files are sorted
    paths = {(file.image_id, file.label): file.source_path for file in reversed(files)}
    figures |= look_at_features(
        params,
        folders=folders,
        members=label_members,
        test=test,
        packed=packed,
        manifest=manifest,
        suspects=frozenset((one.image_id, one.label) for one in suspects.found),
        paths=paths,
        out_dir=out_dir,
    )
    if ask:
        figures |= ask_networks(
            params,
            folders=folders,
            members=label_members,
            test=test,
            packed=packed,
            augment_dir=index.parent,
            device=device,
            num_threads=num_threads,
            out_dir=out_dir,
        )
    figures = rounded(figures)
    _write_tables(combined, suspects, packed.classes, paths, out_dir)
    write_csv(out_dir / COMPARED, CHANGE_HEADER, answers)
    _write_curves(figures, out_dir)
    write_json(out_dir / "figures.json", figures)
    # last: whoever sees the metrics finds everything else in place
    write_json(out_dir / "metrics.json", headline(figures))
    return EvaluateArtifact(
        folder=out_dir,
        num_images=len(scored.actual),
        num_right=int(scored.right.sum()),
        accuracy_low=figures["accuracy"]["low"],
        accuracy_high=figures["accuracy"]["high"],
        num_suspects=len(suspects.found),
    )


def _suspects_of_classes(suspects: Suspects) -> dict[str, dict[str, Any]]:
    """By label the number of suspects, and the mean probability that they are wrong; None where it is not known."""
    found: dict[str, list[float | None]] = {}
    for one in suspects.found:
        found.setdefault(one.label, []).append(one.probability_wrong)
    return {
        label: {
            "num": len(values),
            "expected_precision": None if None in values else float(np.mean([value or 0.0 for value in values])),
        }
        for label, values in sorted(found.items())
    }


def _write_curves(figures: Mapping[str, Any], out_dir: Path) -> None:
    """coverage.csv and reliability.csv, for `dvc plots`."""
    for name, rows, header in (
        ("coverage", figures["coverage"]["curve"], ("coverage", "threshold", "accuracy", "low", "high")),
        ("reliability", figures["calibration"]["bins"], ("confidence", "accuracy", "num", "low", "high")),
    ):
        write_csv(out_dir / f"{name}.csv", header, ([row[column] for column in header] for row in rows))


def _short_groups(packed: EvaluationIndex) -> dict[str, str]:
    return {image_id[:ID_DIGITS]: group for (image_id, _), group in packed.groups.items()}


def _write_tables(
    combined: EnsemblePredictions,
    suspects: Suspects,
    classes: list[str],
    paths: Mapping[tuple[str, str], str],
    out_dir: Path,
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
    disputed = (
        (
            *(s.image_id, s.label, s.suggested, _text(s.probability_label), _text(s.probability_suggested)),
            "" if s.probability_wrong is None else _text(s.probability_wrong),
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
        "accuracy_with_original_labels": float((test.probabilities.argmax(axis=1) == original).mean()),
        "kept": taken["keep"],
        "relabelled": taken["relabel"],
        "dropped": taken["drop"],
        "different": taken["different"],
    }
