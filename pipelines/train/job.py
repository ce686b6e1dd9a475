"""What the training of one member on one fold is given, and what it leaves."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from pipelines.augmentation.packs import FoldRows, PackIndex, PackReader, Rows
from pipelines.core.files import write_bytes, write_csv
from pipelines.core.tables import FEATURES, PENULTIMATE, PREDICTIONS, write_table
from pipelines.params.networks import MemberWeights, Weights
from pipelines.params.recipes import TtaView
from pipelines.params.train import TrainParams

if TYPE_CHECKING:
    from pipelines.train.processes import ProcessGroup

Probabilities = npt.NDArray[np.float32]

HISTORY_HEADER = (
    *("epoch", "train_loss", "val_loss", "train_accuracy", "val_accuracy", "val_macro_f1", "learning_rate"),
)
MAX_EXPORTED = 20_000
"""images in features.parquet, 102 MB with Lite0; of larger sets whole groups are drawn. Evaluate looks for wrong labels
among all of them, and measures the leak premium on 5,000"""


@dataclass(frozen=True)
class TrainJob:
    """One member on one fold.

    Args:
        params: the section `train`.
        reader, rows: the packs, and the fold's rows of their index.
        labels: (N,) int64, class index of every row of the reader's index, of the recipe's target.
        classes: K labels of that target.
        device: to train on.
        processes: that train together.
        root: folder that relative paths of params.yaml begin at.
        members_dir: with the folders of members that this one needs.
        cache_dir: `.miwake`.
    """

    params: TrainParams
    member: str
    fold: int
    reader: PackReader
    rows: FoldRows
    labels: Rows
    classes: list[str]
    device: torch.device
    processes: "ProcessGroup"
    root: Path
    members_dir: Path
    cache_dir: Path

    @property
    def title(self) -> str:
        return f"{self.member}-{self.fold}"

    @property
    def where(self) -> str:
        """The recipe's path in params.yaml, for messages."""
        return f"train.recipes.{self.member}"

    def model_path(self, member: str) -> Path:
        """Path of the model of a member that was trained before, on the same fold."""
        return self.members_dir / f"{member}-{self.fold}" / "model.safetensors"

    def source_path(self, weights: Weights) -> Path | None:
        """Path of the model of the member that `weights` name; None for other weights."""
        return self.model_path(weights.member) if isinstance(weights, MemberWeights) else None

    def say(self, line: str) -> None:
        """Print a line, once for all processes."""
        if self.processes.is_main:
            print(f"{self.title}: {line}", flush=True)


@dataclass(frozen=True)
class TrainOutcome:
    """A trained member.

    Args:
        tensors: weights by name, on the CPU.
        info: metadata of the model file; plain JSON values.
        history_header, history: history.csv; the first column is the x axis.
        val, test, unlabelled: (N, K) float32 probabilities of these images, in the order of the fold's rows.
        features: FEATURES; None where the backbone was trained too.
        penultimate: PENULTIMATE; None where the backbone is frozen.
        finish: called once everything is written, to remove the checkpoint.
    """

    tensors: dict[str, torch.Tensor]
    info: dict[str, Any]
    history_header: tuple[str, ...]
    history: list[tuple[float, ...]]
    val: Probabilities
    test: Probabilities
    unlabelled: Probabilities
    features: pa.Table | None = None
    penultimate: pa.Table | None = None
    finish: Callable[[], None] = lambda: None


def metrics_of(line: Sequence[float]) -> dict[str, float]:
    """A line of history by name, without the epoch."""
    return dict(zip(HISTORY_HEADER[1:], line[1:], strict=True))


def write_outcome(outcome: TrainOutcome, job: TrainJob, *, target: str, out_dir: Path) -> None:
    """Write model.safetensors, history.csv, predictions.parquet, and features.parquet or penultimate.parquet."""
    from pipelines.train.member import save_member

    index, rows = job.reader.index, job.rows
    write_bytes(out_dir / "model.safetensors", save_member(outcome.tensors, outcome.info))
    history = [[f"{value:.8g}" for value in line] for line in outcome.history]
    write_csv(out_dir / "history.csv", outcome.history_header, history)
    if outcome.features is not None:
        write_table(outcome.features, out_dir / "features.parquet", classes=index.classes)
    if outcome.penultimate is not None:
        write_table(outcome.penultimate, out_dir / "penultimate.parquet", classes=index.classes)
    predictions = [
        {
            "image_id": str(index.image_id[row]),
            "subset": subset,
            "class_index": int(job.labels[row]),
            "probabilities": line.tolist(),
        }
        for subset, of_subset, probabilities in (
            ("test", rows.test, outcome.test),
            ("unlabelled", rows.unlabelled, outcome.unlabelled),
            ("val", rows.val, outcome.val),
        )
        for row, line in zip(of_subset, probabilities, strict=True)
    ]
    predictions.sort(key=lambda row: (row["subset"], row["image_id"], row["class_index"]))
    table = pa.Table.from_pylist(predictions, schema=PREDICTIONS)
    write_table(table, out_dir / "predictions.parquet", classes=job.classes, target=target)


def exported_rows(groups: Sequence[str]) -> Rows:
    """Rows of the index, sorted, whose features are exported: all, or whole groups in the order of their hashes.

    Args:
        groups: of each row of the index.
    """
    if len(groups) <= MAX_EXPORTED:
        return np.arange(len(groups))
    members: dict[str, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    found: list[int] = []
    for group in sorted(members, key=lambda name: hashlib.sha256(name.encode()).digest()):
        if len(found) + len(members[group]) <= MAX_EXPORTED:
            found += members[group]
    return np.array(sorted(found), np.int64)


def feature_table(
    index: PackIndex, rows: Rows, features: Sequence[npt.NDArray[np.float16]], views: Sequence[TtaView]
) -> pa.Table:
    """The table FEATURES.

    Args:
        rows: n rows of the index.
        features: (n, D) of these in each of `views`. The last view that is not the image itself stands for a
            near-duplicate of it.
    """
    plain = views.index("original") if "original" in views else 0
    edited = max((i for i in range(len(views)) if i != plain), default=plain)
    columns = {
        "image_id": pa.array(index.image_id[rows].tolist(), pa.string()),
        "class_index": pa.array(index.class_index[rows], pa.int32()),
        "plain": pa.array([line.tobytes() for line in features[plain]], pa.binary()),
        "edited": pa.array([line.tobytes() for line in features[edited]], pa.binary()),
    }
    return pa.table(columns, schema=FEATURES).sort_by([("image_id", "ascending"), ("class_index", "ascending")])


def penultimate_table(index: PackIndex, rows: Rows, features: npt.NDArray[np.float16]) -> pa.Table:
    """The table PENULTIMATE of n `rows` of the index and their (n, D) features."""
    columns = {
        "image_id": pa.array(index.image_id[rows].tolist(), pa.string()),
        "class_index": pa.array(index.class_index[rows], pa.int32()),
        "plain": pa.array([line.tobytes() for line in features], pa.binary()),
    }
    return pa.table(columns, schema=PENULTIMATE).sort_by([("image_id", "ascending"), ("class_index", "ascending")])
