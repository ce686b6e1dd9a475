"""Fabricates what evaluate reads: a pack index, predictions, features."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.core.tables import DEDUPED, FEATURES, PACK_INDEX, PREDICTIONS, write_table
from pipelines.evaluate import evaluate
from pipelines.evaluate.metrics import (
    Floats,
)
from pipelines.params.evaluate import EvaluateParams

PARAMS = EvaluateParams(seed=7, ensemble="mean", confidence=0.95, leak_repeats=3)


def sure_of(predicted: list[int], num_classes: int, confidence: float = 0.9) -> Floats:
    """(N, K): `confidence` for each picture's predicted class, the rest shared evenly."""
    probabilities = np.full((len(predicted), num_classes), (1 - confidence) / max(num_classes - 1, 1))
    probabilities[np.arange(len(predicted)), predicted] = confidence if num_classes > 1 else 1.0
    return probabilities


def write_index(path: Path, classes: list[str], rows: list[tuple[str, int, str]]) -> None:
    """A pack index of (image_id, class_index, subset)."""
    columns: dict[str, list[Any]] = {
        "image_id": [r[0] for r in rows],
        "label": [classes[r[1]] for r in rows],
        "class_index": [r[1] for r in rows],
        "group": [r[0] for r in rows],
        "subset": [r[2] for r in rows],
        "fold": [0 if r[2] == "val" else -1 for r in rows],
        "position": list(range(len(rows))),
        "factors": [""] * len(rows),
        "copy": [0] * len(rows),
    }
    write_table(pa.table(columns, schema=PACK_INDEX), path, classes=classes)


def write_predictions(
    folder: Path, classes: list[str], rows: list[tuple[str, int, str, list[float]]], target: str | None = None
) -> None:
    """Predictions of (image_id, class_index, subset, probabilities)."""
    columns: dict[str, list[Any]] = {
        "image_id": [r[0] for r in rows],
        "subset": [r[2] for r in rows],
        "class_index": [r[1] for r in rows],
        "probabilities": [r[3] for r in rows],
    }
    write_table(pa.table(columns, schema=PREDICTIONS), folder / "predictions.parquet", classes=classes, target=target)


CLASSES = ["Jaguar", "ジャズマスター", "Mustang"]
ROWS = [("a", 0, "test"), ("b", 1, "test"), ("c", 1, "test"), ("v", 0, "val"), ("w", 1, "val"), ("t", 2, "train")]


def row(image_id: str, actual: int, subset: str, *probabilities: float) -> tuple[str, int, str, list[float]]:
    return image_id, actual, subset, list(probabilities)


ONE = [
    row("a", 0, "test", 0.8, 0.1, 0.1),
    row("b", 1, "test", 0.6, 0.4, 0.0),
    row("c", 1, "test", 0.95, 0.05, 0.0),
    row("v", 0, "val", 0.1, 0.1, 0.8),
    row("w", 1, "val", 0.2, 0.7, 0.1),
]
TWO = [
    row("a", 0, "test", 0.6, 0.2, 0.2),
    row("b", 1, "test", 0.2, 0.8, 0.0),
    row("c", 1, "test", 0.85, 0.1, 0.05),
    row("v", 0, "val", 0.3, 0.1, 0.6),
    row("w", 1, "val", 0.1, 0.9, 0.0),
]


def small_stage(tmp_path: Path) -> Path:
    """What evaluate reads: three test pictures, two of val, one of train, as two members tell them."""
    write_index(tmp_path / "index.parquet", CLASSES, ROWS)
    write_predictions(tmp_path / "train" / "one-0", CLASSES, ONE)
    write_predictions(tmp_path / "train" / "two-0", CLASSES, TWO)
    names = {"image_id": ["c", "c"], "label": [CLASSES[1]] * 2, "source_path": ["z/c.jpg", "ジャ/c.jpg"]}
    filler = {f.name: pa.nulls(2, f.type) for f in DEDUPED if f.name not in names}
    write_table(
        pa.table({**{k: pa.array(v) for k, v in names.items()}, **filler}).select(DEDUPED.names),
        tmp_path / "manifest.parquet",
    )
    return tmp_path


def run(
    root: Path,
    *,
    members: tuple[str, ...] = ("one", "two"),
    folds: tuple[int, ...] = (0,),
    ensemble: str = "mean",
) -> dict[str, Any]:
    evaluate(
        PARAMS.model_copy(update={"ensemble": ensemble}),
        folders={(member, fold): root / "train" / f"{member}-{fold}" for member in members for fold in folds},
        index=root / "index.parquet",
        manifest=root / "manifest.parquet",
        out_dir=root / "evaluate",
        ask=False,
    )
    figures: dict[str, Any] = json.loads((root / "evaluate" / "figures.json").read_text())
    return figures


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_features(folder: Path, keys: list[tuple[str, int]], plain: Floats, edited: Floats) -> None:
    order = sorted(range(len(keys)), key=keys.__getitem__)
    columns = {
        "image_id": pa.array([keys[i][0] for i in order], pa.string()),
        "class_index": pa.array([keys[i][1] for i in order], pa.int32()),
        "plain": pa.array([plain[i].astype("<f2").tobytes() for i in order], pa.binary()),
        "edited": pa.array([edited[i].astype("<f2").tobytes() for i in order], pa.binary()),
    }
    write_table(pa.table(columns, schema=FEATURES), folder / "features.parquet")


def schema_of(schema: pa.Schema) -> tuple[list[str], list[pa.DataType]]:
    return schema.names, schema.types
