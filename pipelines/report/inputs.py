"""Read, once, what the stages before wrote."""

import csv
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.core.errors import InputError
from pipelines.core.layout import repro_of
from pipelines.core.tables import DEDUPED, PACK_INDEX, PREDICTIONS, read_classes, read_table

CsvRow = dict[str, str]
SUBJECTS = (
    *("verdict", "calibration", "coverage", "top_k", "change", "slices", "learning_curve", "suspects", "strangers"),
    *("robustness", "maps", "cost", "embedding", "factors", "folds"),
)
"""of figures.json that may be null or missing"""


@dataclass(frozen=True)
class Inputs:
    """What the stages found.

    Args:
        classes: K labels in order of class_index.
        metrics: evaluate's figures.json, which holds all of metrics.json; a subject that was not measured is null.
        counts: (K, K) confusion counts; rows are the truth.
        image_ids: (N,) test images.
        actual: (N,) their true classes.
        probabilities: (N, K) float32.
        manifest: DEDUPED.
        index: PACK_INDEX.
        suspects, duplicates, rejects, decisions: rows of the CSV tables of that name.
        mistakes: rows of mistakes.csv by image_id; empty without that file.
        embedding: rows of embedding.csv; empty without that file.
        maps: by (image_id, class) the (h, w) activation map, 0 to 1.
        truth: rows of truth.csv, of the flaws that a source planted; None without one.
        expectations: validate's expectations.json.
        histories: (member, fold) to the columns of history.csv; the first is the x axis.
        run_id: 8 hex digits of a digest of the files that the report is about.
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
    mistakes: dict[str, CsvRow] = field(default_factory=dict)
    embedding: list[CsvRow] = field(default_factory=list)
    maps: Mapping[tuple[str, str], npt.NDArray[np.float16]] = field(default_factory=dict)
    run_id: str = ""

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
    table = table.filter(pc.equal(table["subset"], "test"))
    if read_classes(predictions) != classes:
        raise InputError(f"{predictions} was made for other classes than the pack's: run `dvc repro evaluate`")
    probabilities = table["probabilities"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    manifest, figures = dedupe_dir / "manifest.parquet", evaluate_dir / "figures.json"
    metrics = {**dict.fromkeys(SUBJECTS), **_json(figures)}
    return Inputs(
        classes=classes,
        metrics=metrics,
        counts=_confusion(evaluate_dir / "confusion.csv", classes),
        image_ids=table["image_id"].to_pylist(),
        actual=table["class_index"].to_numpy().astype(np.int64),
        probabilities=probabilities.reshape(table.num_rows, len(classes)),
        manifest=read_table(manifest, DEDUPED),
        index=read_table(augment_dir / "index.parquet", PACK_INDEX),
        suspects=_csv(evaluate_dir / "suspects.csv")[: (metrics.get("suspects") or {}).get("num")],
        duplicates=_csv(dedupe_dir / "duplicates.csv"),
        rejects=_csv(ingest_dir / "rejected.csv"),
        decisions=_optional_csv(dedupe_dir / "decisions.csv") or [],
        truth=_optional_csv(ingest_dir / "truth.csv"),
        expectations=_json(validate_dir / "expectations.json"),
        histories={member_and_fold: _history(folder / "history.csv") for member_and_fold, folder in folders.items()},
        mistakes={row["image_id"]: row for row in _optional_csv(evaluate_dir / "mistakes.csv") or []},
        embedding=_optional_csv(evaluate_dir / "embedding.csv") or [],
        maps=_maps(evaluate_dir),
        run_id=digest_of([manifest, augment_dir / "index.parquet", predictions, figures]),
    )


def digest_of(paths: Iterable[Path]) -> str:
    """8 hex digits that stand for the content of these files, whatever folder they lie in."""
    whole = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()[:8]


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


def _optional_csv(path: Path) -> list[CsvRow] | None:
    return _csv(path) if path.exists() else None


def _maps(evaluate_dir: Path) -> dict[tuple[str, str], npt.NDArray[np.float16]]:
    rows = _optional_csv(evaluate_dir / "maps.csv")
    if not rows:
        return {}
    maps = np.load(evaluate_dir / "maps.npy", mmap_mode="r")
    return {(row["image_id"], row["class"]): maps[int(row["row"])] for row in rows}


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
