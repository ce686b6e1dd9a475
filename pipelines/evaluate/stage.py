"""Evaluate: read what was predicted, write what it is worth."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipelines.core.errors import count
from pipelines.core.files import empty_folder, write_csv, write_json
from pipelines.core.params.evaluate import EvaluateParams
from pipelines.core.tables import DEDUPED, LABEL, PREDICTIONS, read_table, write_table
from pipelines.evaluate.ensemble import Combined, combine
from pipelines.evaluate.factors import join_factors, read_factors
from pipelines.evaluate.figures import DIGITS, measure, rounded
from pipelines.evaluate.leaks import leak_premium
from pipelines.evaluate.members import Predictions, read_index, read_members, require_same_pictures
from pipelines.evaluate.metrics import confusion_counts, score
from pipelines.evaluate.suspects import HEADER, find_suspects


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


def evaluate(
    params: EvaluateParams,
    *,
    folders: Mapping[tuple[str, int], Path],
    index: Path,
    manifest: Path | None,
    out_dir: Path,
) -> EvaluateArtifact:
    """Bring together what members predicted and measure the result on the test set.

    Args:
        params: the section `evaluate`.
        folders: (member, fold) to the folder with its predictions.parquet, and features.parquet where the member is
            frozen; the members whose predictions count.
        index: the pack index, which names classes, test pictures and groups.
        manifest: dedupe's manifest, for the source paths of suspects; None leaves these empty.
        out_dir: emptied first.

    Raises:
        InputError: a member lacks predictions, knows other classes, or covers other test pictures.
    """
    packed = read_index(index)
    members = read_members(folders, packed.classes)
    parts = [member for member in members if member.target != LABEL]
    takers = [member for member in members if member.target == LABEL]
    if parts:
        takers.append(join_factors(parts, read_factors(index, packed.classes), packed))
    for member in takers:
        require_same_pictures(packed.test, "the pack index", member.test, member.name, "test")
        require_same_pictures(takers[0].val, takers[0].name, member.val, member.name, "validation")
    combined = combine(
        params.ensemble,
        takers,
        val_groups=packed.group_numbers(takers[0].val.image_ids),
        seed=params.seed,
    )
    premium = leak_premium(params, features=_features(folders), packed=packed, manifest=manifest)
    metrics = measure(params, combined, takers, parts, packed)
    metrics["leak_premium"] = {
        name: rounded(value) if isinstance(value, float) else value for name, value in premium.items()
    }

    empty_folder(out_dir)
    num_suspects = _write_tables(params, combined, packed.classes, manifest, out_dir)
    # last: whoever sees the metrics finds everything else in place
    write_json(out_dir / "metrics.json", metrics)
    scored = score(combined.test.actual, combined.test.probabilities)
    return EvaluateArtifact(
        folder=out_dir,
        num_images=len(scored.actual),
        num_right=int(scored.right.sum()),
        accuracy_low=metrics["accuracy"]["low"],
        accuracy_high=metrics["accuracy"]["high"],
        num_suspects=num_suspects,
    )


def _write_tables(
    params: EvaluateParams, combined: Combined, classes: list[str], manifest: Path | None, out_dir: Path
) -> int:
    """predictions.parquet, predictions.csv, confusion.csv and suspects.csv; how many suspects there are."""
    test = combined.test
    scored = score(test.actual, test.probabilities)
    write_table(_prediction_table(test), out_dir / "predictions.parquet", classes=classes)
    write_csv(
        out_dir / "predictions.csv",
        ("image_id", "actual", "predicted", "confidence"),
        (
            (image_id, classes[a], classes[p], _text(c))
            for image_id, a, p, c in zip(
                test.image_ids, scored.actual, scored.predicted, scored.confidence.tolist(), strict=True
            )
        ),
    )
    counts = confusion_counts(scored.actual, scored.predicted, scored.num_classes)
    write_csv(
        out_dir / "confusion.csv",
        ("actual", *classes),
        ((label, *row) for label, row in zip(classes, counts.tolist(), strict=True)),
    )
    suspects = find_suspects({"val": combined.val, "test": test}, classes, suspect_confidence=params.suspect_confidence)
    paths = _source_paths(manifest)
    write_csv(
        out_dir / "suspects.csv",
        HEADER,
        (
            (
                *(s.image_id, s.label, s.suggested, _text(s.probability_label), _text(s.probability_suggested)),
                *(s.subset, paths.get((s.image_id, s.label), "")),
            )
            for s in suspects
        ),
    )
    return len(suspects)


def _features(folders: Mapping[tuple[str, int], Path]) -> Path | None:
    """The features of the first member that leaves some: those of all folds are equal."""
    paths = (folder / "features.parquet" for folder in folders.values())
    return next((path for path in paths if path.is_file()), None)


def _text(value: float) -> str:
    return f"{value:.{DIGITS}f}"


def _prediction_table(test: Predictions) -> pa.Table:
    return pa.table(
        {
            "image_id": pa.array(test.image_ids, pa.string()),
            "subset": pa.array(["test"] * len(test.actual), pa.string()),
            "class_index": pa.array(test.actual, pa.int32()),
            "probabilities": pa.array(list(test.probabilities.astype(np.float32)), pa.list_(pa.float32())),
        },
        schema=PREDICTIONS,
    )


def _source_paths(manifest: Path | None) -> dict[tuple[str, str], str]:
    """By (image_id, label), the first path under which a picture came in."""
    if manifest is None:
        return {}
    table = read_table(manifest, DEDUPED, columns=["image_id", "label", "source", "source_path"])
    table = table.sort_by([("source", "descending"), ("source_path", "descending")])
    columns = [table[name].to_pylist() for name in ("image_id", "label", "source_path")]
    # descending, so that the first path is the one that stays
    return {(image_id, label): path for image_id, label, path in zip(*columns, strict=True)}
