"""Small pictures, what ingest would write for them, and dedupe run on it."""

import csv
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from PIL import Image

from pipelines.core.tables import DEDUPED, MANIFEST, read_table, rows, write_table
from pipelines.dedupe import DedupeArtifact, dedupe
from pipelines.params.dedupe import DedupeParams


@dataclass(frozen=True)
class File:
    label: str
    path: str
    data: bytes


def drawn(seed: int, size: int = 160) -> Image.Image:
    """A smooth random picture: strong large shapes, weaker small ones, as photographs have."""
    rng = np.random.default_rng(seed)
    total = np.zeros((size, size, 3))
    for cells, weight in ((3, 50), (6, 35), (12, 25), (24, 15)):
        field = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        total += weight * (np.asarray(field.resize((size, size), Image.Resampling.BICUBIC), float) / 127.5 - 1)
    return Image.fromarray(np.clip(total + 128, 0, 255).astype(np.uint8))


def jpeg(picture: Image.Image, quality: int = 92) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return file.getvalue()


def png(picture: Image.Image, level: int = 6) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=level)
    return file.getvalue()


def write_ingest(folder: Path, files: list[File]) -> Path:
    """What ingest would write for `files`."""
    folder.mkdir(parents=True)
    ordered = sorted((file.label, hashlib.sha256(file.data).hexdigest(), file.path, file.data) for file in files)
    table: list[dict[str, Any]] = []
    thumbnails = np.zeros((len(files), 32, 32), np.uint8)
    with (folder / "images-00000.tar").open("wb") as shard:
        for row, (label, image_id, path, data) in enumerate(ordered):
            picture = Image.open(io.BytesIO(data))
            thumbnails[row] = np.asarray(picture.convert("L").resize((32, 32), Image.Resampling.BOX))
            table.append(
                {
                    "image_id": image_id,
                    "label": label,
                    "shard": "images-00000.tar",
                    "offset": shard.tell(),
                    "size": len(data),
                }
                | {"format": picture.format, "mode": picture.mode, "width": picture.width, "height": picture.height}
                | {"size": len(data), "orientation": 1, "num_frames": 1, "brightness": float(thumbnails[row].mean())}
                | {"contrast": float(thumbnails[row].std()), "source": "0-folder", "source_path": path}
            )
            shard.write(data)
    np.save(folder / "thumbnails.npy", thumbnails)
    write_table(pa.Table.from_pylist(table, schema=MANIFEST), folder / "manifest.parquet")
    return folder


@dataclass(frozen=True)
class Result:
    artifact: DedupeArtifact
    rows: dict[str, dict[str, Any]]
    pairs: list[dict[str, str]]

    def verdicts(self) -> dict[str, str]:
        return {path: row["verdict"] for path, row in self.rows.items()}


def params(**changes: Any) -> DedupeParams:
    usual = {
        "near": True,
        "mirror": True,
        "rotations": False,
        "min_score": 0.95,
        "duplicates": "drop",
        "recrops": "keep",
    }
    return DedupeParams(**{**usual, "label_conflicts": "hold", "embeddings": None, "reference_sets": (), **changes})


def run(
    folder: Path,
    files: list[File],
    *,
    near: bool = True,
    mirror: bool = True,
    duplicates: Literal["drop", "keep"] = "drop",
    label_conflicts: Literal["hold", "keep"] = "hold",
    drop: tuple[str, ...] = (),
    relabel: tuple[str, ...] = (),
    keep: tuple[str, ...] = (),
    unlabelled: str | None = None,
    **more: Any,
) -> Result:
    ingest_dir = write_ingest(folder / "ingest", files)
    (folder / "decisions").mkdir()
    (folder / "decisions/drop.csv").write_text("\n".join(["image_id,reason", *drop]))
    (folder / "decisions/relabel.csv").write_text("\n".join(["image_id,label,reason", *relabel]))
    (folder / "decisions/keep.csv").write_text("\n".join(["image_id,other_id,reason", *keep]))
    artifact = dedupe(
        params(near=near, mirror=mirror, duplicates=duplicates, label_conflicts=label_conflicts, **more),
        root=folder,
        cache=folder / "cache",
        ingest_dir=ingest_dir,
        decisions_dir=folder / "decisions",
        out_dir=folder / "dedupe",
        unlabelled=unlabelled,
    )
    table = rows(read_table(artifact.manifest, DEDUPED))
    with artifact.duplicates.open(newline="", encoding="utf-8") as file:
        pairs = list(csv.DictReader(file))
    return Result(artifact, {row["source_path"]: row for row in table}, pairs)
