"""What augment makes of folders as ingest and split leave them."""

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from pipelines.augment import AugmentArtifact, augment
from pipelines.core.decisions import WHOLE, Crop
from pipelines.core.tables import MANIFEST, SPLITS, write_table
from pipelines.params.augment import AugmentParams, policy_of
from pipelines.params.ingest import CropParams, NoCrop

ID = "ab" * 32
NO_CROP = NoCrop(kind="none")


def params(**changes: Any) -> AugmentParams:
    values: dict[str, Any] = {
        "image_size": 16,
        "resize_mode": "squash",
        "seed": 1,
        "preview_images": 3,
        "copies": None,
        "policies": {"plain": policy_of(), "strong": policy_of(hflip=0.5, degrees=20.0, random_erasing=0.5)},
    }
    return AugmentParams(**{**values, **changes})


def ingest_folder(
    root: Path, pictures: list[tuple[str, str, str, int, bytes]], *, crop: Crop = WHOLE
) -> dict[str, Path]:
    """Ingest's folder and split's table for (image_id, label, subset, fold, file); each picture cropped so."""
    (root / "ingest").mkdir(parents=True)
    (root / "decisions").mkdir()
    manifest, splits, shard = [], [], b""
    for image_id, label, subset, fold, data in sorted(pictures, key=lambda p: (p[1], p[0])):
        width, height = Image.open(io.BytesIO(data)).size
        manifest.append(
            {
                **{"image_id": image_id, "label": label, "shard": "images-00000.tar", "offset": len(shard)},
                **{"size": len(data), "format": "PNG", "mode": "RGB", "width": width, "height": height},
                **{"orientation": 1, "num_frames": 1, "brightness": 0.0, "contrast": 0.0},
                **{"source": "0-folder", "source_path": f"{label}/{image_id}.png"},
                **{f"crop_{side}": value for side, value in zip(Crop._fields, crop, strict=True)},
            }
        )
        splits.append({"image_id": image_id, "label": label, "group": image_id, "subset": subset, "fold": fold})
        shard += data
    (root / "ingest" / "images-00000.tar").write_bytes(shard)
    write_table(pa.Table.from_pylist(manifest, schema=MANIFEST), root / "ingest" / "manifest.parquet")
    write_table(pa.Table.from_pylist(splits, schema=SPLITS), root / "splits.parquet")
    return {
        "splits": root / "splits.parquet",
        "ingest_dir": root / "ingest",
        "decisions_dir": root / "decisions",
        "out_dir": root / "augment",
    }


def pack(params: AugmentParams, paths: dict[str, Path], *, crop: CropParams = NO_CROP) -> AugmentArtifact:
    return augment(params, crop=crop, **paths)


def png(colour: tuple[int, int, int], size: tuple[int, int] = (20, 20)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def four_pictures() -> list[tuple[str, str, str, int, bytes]]:
    return [
        ("4" * 64, "cat", "train", -1, png((10, 20, 30))),
        ("3" * 64, "cat", "val", 0, png((40, 50, 60))),
        ("2" * 64, "dog", "train", -1, png((70, 80, 90))),
        ("1" * 64, "dog", "test", -1, png((100, 110, 120))),
    ]
