"""Read, once, what the stages before wrote."""

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.core.errors import InputError
from pipelines.core.layout import repro_of
from pipelines.core.tables import DEDUPED, PACK_INDEX, PREDICTIONS, read_classes, read_table

CsvRow = dict[str, str]


@dataclass(frozen=True)
class Inputs:
    """What the stages found.

    Args:
        classes: K labels in order of class_index.
        metrics: evaluate's figures.json, which holds all of metrics.json.
        counts: (K, K) confusion counts; rows are the truth.
        image_ids: (N,) test images.
        actual: (N,) their true classes.
        probabilities: (N, K) float32.
        manifest: DEDUPED.
        index: PACK_INDEX.
        suspects, duplicates, rejects, decisions: rows of the CSV tables of that name.
        truth: rows of truth.csv, of the flaws that a source planted; None without one.
        expectations: validate's expectations.json.
        histories: (member, fold) to the columns of history.csv; the first is the x axis.
    """

    classes: list[str]
    metrics: dict[str, Any]
    counts: npt.NDArray[np.int64]
    image_ids: list[str]
    actual: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float32]
    manifest: pa.Table
    index: pa.Table
    suspects: list[CsvRow]
    duplicates: list[CsvRow]
    rejects: list[CsvRow]
    decisions: list[CsvRow]
    truth: list[CsvRow] | None
    expectations: dict[str, Any]
    histories: dict[tuple[str, int], dict[str, list[float]]]

    @property
    def is_drawn(self) -> bool:
        """Whether any image is from the sample source."""
        return any(source.endswith("-sample") for source in self.manifest["source"].unique().to_pylist())


def read_inputs(
    folders: Mapping[tuple[str, int], Path],
    *,
    ingest_dir: Path,
    dedupe_dir: Path,
    validate_dir: Path,
    augment_dir: Path,
    evaluate_dir: Path,
) -> Inputs:
    """Read all of it; `folders` are by (member, fold), from params.

    Raises:
        InputError: a file is missing or does not fit the others.
    """
    classes = read_classes(augment_dir / "index.parquet")
    predictions = evaluate_dir / "predictions.parquet"
    table = read_table(predictions, PREDICTIONS)
    if read_classes(predictions) != classes:
        raise InputError(f"{predictions} was made for other classes than the pack's: run `dvc repro evaluate`")
    probabilities = table["probabilities"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    truth, decisions = ingest_dir / "truth.csv", dedupe_dir / "decisions.csv"
    metrics = {**_json(evaluate_dir / "metrics.json"), **_json(evaluate_dir / "figures.json")}
    return Inputs(
        classes=classes,
        metrics=metrics,
        counts=_confusion(evaluate_dir / "confusion.csv", classes),
        image_ids=table["image_id"].to_pylist(),
        actual=table["class_index"].to_numpy().astype(np.int64),
        probabilities=probabilities.reshape(table.num_rows, len(classes)),
        manifest=read_table(dedupe_dir / "manifest.parquet", DEDUPED),
        index=read_table(augment_dir / "index.parquet", PACK_INDEX),
        suspects=_csv(evaluate_dir / "suspects.csv")[: metrics.get("suspects", {}).get("num")],
        duplicates=_csv(dedupe_dir / "duplicates.csv"),
        rejects=_csv(ingest_dir / "rejected.csv"),
        decisions=_csv(decisions) if decisions.exists() else [],
        truth=_csv(truth) if truth.exists() else None,
        expectations=_json(validate_dir / "expectations.json"),
        histories={member_and_fold: _history(folder / "history.csv") for member_and_fold, folder in folders.items()},
    )


def _text(path: Path) -> str:
    try:
        # surrogateescape: names of files need not be UTF-8
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist: run the stage that writes it (`{repro_of(path)}`)") from error


def _csv(path: Path) -> list[CsvRow]:
    # a lone surrogate cannot be written as UTF-8: show the replacement character
    text = _text(path).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return list(csv.DictReader(text.splitlines(keepends=True)))


def _json(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(_text(path))
    return loaded


def _confusion(path: Path, classes: list[str]) -> npt.NDArray[np.int64]:
    lines = list(csv.reader(_text(path).splitlines(keepends=True)))
    if not lines or lines[0][1:] != classes or [line[0] for line in lines[1:]] != classes:
        raise InputError(f"{path} counts other classes than the pack's: run `dvc repro evaluate`")
    return np.asarray([line[1:] for line in lines[1:]], np.int64)


def _history(path: Path) -> dict[str, list[float]]:
    found = _csv(path)
    if not found:
        return {}
    return {name: [float(row[name]) if row[name] else float("nan") for row in found] for name in found[0]}
