"""What training a member gives, whatever the recipe, and how it is written."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from pipelines.augmentation.packs import FoldRows, PackIndex, Rows
from pipelines.core.files import write_bytes, write_csv
from pipelines.core.tables import PREDICTIONS, write_table

Probabilities = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Outcome:
    """A trained member.

    Args:
        tensors: all that predicting needs, by name; on the CPU.
        info: what the tensors mean; plain JSON values.
        history_header, history: history.csv; the first column is the x axis.
        val, test: (N, K) float32 probabilities of the fold's validation and test pictures, in the order of its rows.
        unlabelled: the same of the pictures without a label; None where nobody asked.
        features: FEATURES; None where the backbone was trained too.
        finish: called once everything is written: what was kept for a killed run may go.
    """

    tensors: dict[str, torch.Tensor]
    info: dict[str, Any]
    history_header: tuple[str, ...]
    history: list[tuple[float, ...]]
    val: Probabilities
    test: Probabilities
    unlabelled: Probabilities | None = None
    features: pa.Table | None = None
    finish: Callable[[], None] = lambda: None


def write_outcome(
    outcome: Outcome, *, index: PackIndex, rows: FoldRows, labels: Rows, classes: list[str], target: str, out_dir: Path
) -> None:
    """Write model.safetensors, history.csv, predictions.parquet and, where there are any, features.parquet.

    Args:
        labels: (N,) int64, of every row of `index`, of the member's target; -1 for none.
        classes: K labels of the target.
    """
    from pipelines.train.member import save_member

    write_bytes(out_dir / "model.safetensors", save_member(outcome.tensors, outcome.info))
    history = [[f"{value:.8g}" for value in line] for line in outcome.history]
    write_csv(out_dir / "history.csv", outcome.history_header, history)
    if outcome.features is not None:
        write_table(outcome.features, out_dir / "features.parquet", classes=index.classes)
    predictions = []
    for subset, where, probabilities in (
        ("test", rows.test, outcome.test),
        ("unlabelled", rows.unlabelled, outcome.unlabelled),
        ("val", rows.val, outcome.val),
    ):
        for row, line in zip(
            where, probabilities if probabilities is not None else (), strict=probabilities is not None
        ):
            predictions.append(
                {
                    "image_id": str(index.image_id[row]),
                    "subset": subset,
                    "class_index": int(labels[row]),
                    "probabilities": line.tolist(),
                }
            )
    predictions.sort(key=lambda row: (row["subset"], row["image_id"], row["class_index"]))
    table = pa.Table.from_pylist(predictions, schema=PREDICTIONS)
    write_table(table, out_dir / "predictions.parquet", classes=classes, target=target)
