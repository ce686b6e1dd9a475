"""Thumbnails, and the galleries of pictures whose label or place a person should judge: duplicates and suspects.

Thumbnails are embedded as data URIs, once for every time they are shown.
"""

import base64
import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from pipelines.core.errors import ImageError
from pipelines.core.tables import short_id
from pipelines.images.decoding import decode
from pipelines.images.shards import ShardReader
from pipelines.report.inputs import CsvRow

JPEG_QUALITY = 75


@dataclass(frozen=True)
class ThumbnailUri:
    """A JPEG as data URI, and its size in pixels."""

    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class ThumbnailMaker:
    """Reads images by image_id, from packs or ingest's shards, and shrinks them.

    Args:
        manifest: DEDUPED.
        index: PACK_INDEX.
        ingest_dir: holds the shards.
        augment_dir: holds the packs.
        size: longer side of a thumbnail; smaller images are not resized.
        max_pixels: larger originals are not opened.
    """

    manifest: pa.Table
    index: pa.Table
    ingest_dir: Path
    augment_dir: Path
    size: int
    max_pixels: int

    def packed(self, image_ids: Iterable[str], *, size: int | None = None) -> dict[str, ThumbnailUri]:
        """Thumbnails by image_id of what is packed, as the model saw it; else of the originals."""
        if size is not None:
            return replace(self, size=min(size, self.size)).packed(image_ids)
        wanted = set(image_ids)
        found: dict[str, ThumbnailUri] = {}
        rows = self.index.filter(pc.is_in(self.index["image_id"], pa.array(sorted(wanted), pa.string())))
        for subset in sorted(set(rows["subset"].to_pylist())):
            pack = np.load(self.augment_dir / f"{subset}.npy", mmap_mode="r")
            of_subset = rows.filter(pc.equal(rows["subset"], subset))
            columns = (of_subset[name].to_pylist() for name in ("image_id", "position"))
            for image_id, position in zip(*columns, strict=True):
                found[image_id] = self._shrink(np.asarray(pack[position]))
        return found | self.originals(wanted - set(found))

    def originals(self, image_ids: Iterable[str]) -> dict[str, ThumbnailUri]:
        """Thumbnails by image_id of whole images as they came; what cannot be decoded is left out."""
        wanted = pa.array(sorted(set(image_ids)), pa.string())
        rows = self.manifest.filter(pc.is_in(self.manifest["image_id"], wanted))
        found: dict[str, ThumbnailUri] = {}
        columns = (rows[name].to_pylist() for name in ("image_id", "shard", "offset", "size"))
        with ShardReader(self.ingest_dir) as reader:
            for image_id, shard, offset, size in zip(*columns, strict=True):
                if image_id in found:
                    continue
                try:
                    picture = decode(reader.read(shard, offset, size), max_pixels=self.max_pixels)
                except ImageError:
                    continue  # max_pixels is smaller than at ingest; the page says "no picture"
                found[image_id] = self._shrink(picture.pixels)
        return found

    def _shrink(self, pixels: npt.NDArray[np.uint8]) -> ThumbnailUri:
        image = Image.fromarray(pixels)
        image.thumbnail((self.size, self.size), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
        encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
        return ThumbnailUri(f"data:image/jpeg;base64,{encoded}", image.width, image.height)


@dataclass(frozen=True)
class ShownPair:
    """A row of duplicates.csv with its images.

    Args:
        lines: (label, line of relabel.csv) for each way to settle a conflict.
        different: line of keep.csv, if they are two images; "" for equal bytes or pixels.
    """

    row: CsvRow
    first: ThumbnailUri | None
    second: ThumbnailUri | None
    lines: list[tuple[str, str]]
    different: str


def duplicate_gallery(rows: list[CsvRow], limit: int, pictures: ThumbnailMaker) -> list[ShownPair]:
    """The first `limit` pairs of duplicates.csv, the least alike of near ones first: these are worth a look."""
    order = {"embedding": 0, "similar": 1, "recrop": 2, "near": 3, "pixels": 4, "exact": 5}
    rows = sorted(rows, key=lambda r: (order.get(r["kind"], 6), float(r["score"] or 1), r["image_a"], r["image_b"]))
    rows = rows[:limit]
    thumbnails = pictures.originals(row[side] for row in rows for side in ("image_a", "image_b"))
    return [
        ShownPair(
            row,
            thumbnails.get(row["image_a"]),
            thumbnails.get(row["image_b"]),
            [
                (row["label_a"], decision(row["image_b"], row["label_a"], f"was {row['label_b']}", row["path_b"])),
                (row["label_b"], decision(row["image_a"], row["label_b"], f"was {row['label_a']}", row["path_a"])),
            ]
            if row["verdict"] == "conflict"
            else [],
            decision(row["image_a"], short_id(row["image_b"]), "different pictures", row["path_a"])
            if row["kind"] not in ("exact", "pixels")
            else "",
        )
        for row in rows
    ]


@dataclass(frozen=True)
class ShownSuspect:
    """A row of suspects.csv with its image and the lines of decision files that would settle it."""

    row: CsvRow
    picture: ThumbnailUri | None
    relabel: str
    keep: str
    drop: str


def suspect_gallery(rows: list[CsvRow], limit: int, pictures: ThumbnailMaker) -> list[ShownSuspect]:
    """The first `limit` suspects, in the file's order: the most suspicious first."""
    rows = rows[:limit]
    thumbnails = pictures.packed(row["image_id"] for row in rows)
    return [
        ShownSuspect(
            row,
            thumbnails.get(row["image_id"]),
            relabel=decision(row["image_id"], row["suggested"], f"was {row['label']}", row["source_path"]),
            keep=decision(row["image_id"], "", "label is right", row["source_path"]),
            drop=decision(row["image_id"], f"neither {row['label']} nor {row['suggested']}", row["source_path"]),
        )
        for row in rows
    ]


def decision(image_id: str, *values: str) -> str:
    """A line of a decisions file, quoted where needed; its last column, `file`, is for people."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="").writerow((short_id(image_id), *values))
    return buffer.getvalue()
