"""The image galleries of the page: confused pairs with typical examples, duplicates, conflicts and suspects.

Thumbnails are embedded as data URIs, once for every time they are shown.
"""

import base64
import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
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
from pipelines.params.report import ReportParams
from pipelines.report.confusion import ConfusedPair
from pipelines.report.inputs import CsvRow, Inputs

JPEG_QUALITY = 80


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

    def packed(self, image_ids: Iterable[str]) -> dict[str, ThumbnailUri]:
        """Thumbnails by image_id of what is packed, as the model saw it; else of the originals."""
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
class ShownImage:
    """A test image with (label, probability) of the two classes of its pair, the most probable first.

    Args:
        picture: None where it cannot be shown.
        path: its source.
    """

    picture: ThumbnailUri | None
    chances: list[tuple[str, float]]
    path: str


@dataclass(frozen=True)
class ConfusionGallery:
    """Images of `actual` that were predicted as `predicted`, beside typical ones of `actual`."""

    actual: str
    predicted: str
    mistakes: int
    num_actual: int
    anchor: str
    typical: list[ShownImage]
    mistaken: list[ShownImage]


def pair_anchors(pairs: list[ConfusedPair]) -> dict[tuple[int, int], str]:
    """By (actual, predicted) class the anchor of its gallery."""
    found = {}
    for i, pair in enumerate(pairs, 1):
        found[pair.first, pair.second] = f"pair-{i}-a"
        found[pair.second, pair.first] = f"pair-{i}-b"
    return found


def pair_galleries(
    inputs: Inputs, pairs: list[ConfusedPair], params: ReportParams, pictures: ThumbnailMaker
) -> list[tuple[ConfusionGallery, ConfusionGallery]]:
    """Both ways of each pair. Mistakes: the most confident first. Typical: right, and the most confident."""
    paths = _paths(inputs)
    predicted = inputs.probabilities.argmax(axis=1)
    anchors = pair_anchors(pairs)
    chosen: dict[tuple[int, int], tuple[list[int], list[int]]] = {}
    for a, b in anchors:
        typical = _surest(inputs, np.flatnonzero((inputs.actual == a) & (predicted == a)), a)
        mistaken = _surest(inputs, np.flatnonzero((inputs.actual == a) & (predicted == b)), b)
        chosen[a, b] = (typical[: max(params.pictures_per_pair, 1)], mistaken[: params.pictures_per_pair])
    thumbnails = pictures.packed(inputs.image_ids[i] for both in chosen.values() for part in both for i in part)

    def shown(i: int, classes: tuple[int, int]) -> ShownImage:
        chances = [(inputs.classes[k], float(inputs.probabilities[i, k])) for k in classes]
        image_id = inputs.image_ids[i]
        return ShownImage(thumbnails.get(image_id), sorted(chances, key=lambda c: -c[1]), paths.get(image_id, ""))

    def direction(a: int, b: int) -> ConfusionGallery:
        typical, mistaken = chosen[a, b]
        return ConfusionGallery(
            actual=inputs.classes[a],
            predicted=inputs.classes[b],
            mistakes=int(inputs.counts[a, b]),
            num_actual=int(inputs.counts[a].sum()),
            anchor=anchors[a, b],
            typical=[shown(i, (a, b)) for i in typical],
            mistaken=[shown(i, (a, b)) for i in mistaken],
        )

    return [(direction(p.first, p.second), direction(p.second, p.first)) for p in pairs]


def _surest(inputs: Inputs, rows: np.ndarray[tuple[int], np.dtype[np.intp]], class_index: int) -> list[int]:
    """The rows, the most probable for a class first; of equals by image_id."""
    chance = inputs.probabilities[:, class_index]
    return sorted(rows.tolist(), key=lambda i: (-float(chance[i]), inputs.image_ids[i]))


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


def _paths(inputs: Inputs) -> dict[str, str]:
    """By image_id, the first path of each test picture."""
    wanted = set(inputs.image_ids)
    pairs = zip(inputs.manifest["image_id"].to_pylist(), inputs.manifest["source_path"].to_pylist(), strict=True)
    found: dict[str, str] = {}
    for image_id, path in pairs:
        if image_id in wanted and (image_id not in found or path < found[image_id]):
            found[image_id] = path
    return found
