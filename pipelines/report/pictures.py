"""Small pictures for the page, as data URIs: from the packs where a picture is packed, else from ingest's shards."""

import base64
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
from pipelines.images.decoding import decode
from pipelines.images.shards import ShardReader

QUALITY = 80


@dataclass(frozen=True)
class Thumbnail:
    """A picture ready for an `<img>`: a JPEG as data URI, and its size in pixels."""

    uri: str
    width: int
    height: int


class Pictures:
    """Finds and shrinks pictures by image_id; each is embedded as often as it is shown.

    Args:
        manifest: DEDUPED: where each picture's bytes lie.
        index: PACK_INDEX: which pictures are packed, and where.
        ingest_dir: holds the shards.
        augment_dir: holds the packs.
        size: longer side of a thumbnail; smaller pictures stay as they are.
        max_pixels: larger originals are not opened.
    """

    def __init__(
        self,
        manifest: pa.Table,
        index: pa.Table,
        *,
        ingest_dir: Path,
        augment_dir: Path,
        size: int,
        max_pixels: int,
    ) -> None:
        self._manifest, self._index = manifest, index
        self._ingest_dir, self._augment_dir = ingest_dir, augment_dir
        self._size, self._max_pixels = size, max_pixels

    def packed(self, image_ids: Iterable[str]) -> dict[str, Thumbnail]:
        """Thumbnails by image_id, as the model saw them; of the originals for what is not packed."""
        wanted = set(image_ids)
        found: dict[str, Thumbnail] = {}
        rows = self._index.filter(pc.is_in(self._index["image_id"], pa.array(sorted(wanted), pa.string())))
        for subset in sorted(set(rows["subset"].to_pylist())):
            pack = np.load(self._augment_dir / f"{subset}.npy", mmap_mode="r")
            of_subset = rows.filter(pc.equal(rows["subset"], subset))
            for image_id, position in zip(
                of_subset["image_id"].to_pylist(), of_subset["position"].to_pylist(), strict=True
            ):
                found[image_id] = self._shrink(np.asarray(pack[position]))
        return found | self.originals(wanted - set(found))

    def originals(self, image_ids: Iterable[str]) -> dict[str, Thumbnail]:
        """Thumbnails by image_id, of the whole picture as it came; what cannot be shown is left out."""
        wanted = pa.array(sorted(set(image_ids)), pa.string())
        rows = self._manifest.filter(pc.is_in(self._manifest["image_id"], wanted))
        found: dict[str, Thumbnail] = {}
        columns = (rows[name].to_pylist() for name in ("image_id", "shard", "offset", "size"))
        with ShardReader(self._ingest_dir) as reader:
            for image_id, shard, offset, size in zip(*columns, strict=True):
                if image_id in found:
                    continue
                try:
                    picture = decode(reader.read(shard, offset, size), max_pixels=self._max_pixels)
                except ImageError:
                    continue  # ingest could read it under larger limits; the page says "no picture"
                found[image_id] = self._shrink(picture.pixels)
        return found

    def _shrink(self, pixels: npt.NDArray[np.uint8]) -> Thumbnail:
        image = Image.fromarray(pixels)
        image.thumbnail((self._size, self._size), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=QUALITY, optimize=True)
        encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
        return Thumbnail(f"data:image/jpeg;base64,{encoded}", image.width, image.height)
