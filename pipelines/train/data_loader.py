"""How packed images reach the device: copied there once, or read batch by batch while the device computes.

There are no worker processes, because a pack is a memory map and needs no decoding. All loaders give equal pixels.
"""

import hashlib
import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

from pipelines.augmentation.packs import PackReader, Rows

Pixels = npt.NDArray[np.uint8]

RESIZE_CHUNK = 256
"""images resized at a time: bounds the float copy"""
DIGEST_CHUNK = 64
"""images hashed at a time"""
PREFETCH = 3
"""batches in flight: one in use, one ready, one being read"""
FREE_MEMORY_SHARE = 0.5
"""part of a GPU's free memory that resident images may take"""


class BatchLoader(Protocol):
    """Gives batches of images by their positions among the loader's own."""

    def batches(self, parts: Sequence[Rows]) -> Iterator[torch.Tensor]:
        """Yield (B, s, s, 3) uint8 on the device for each part, a part being (B,) positions."""
        ...


class ResidentLoader:
    """Serves images from the device's memory.

    Args:
        pixels: (N, s, s, 3) uint8 on the device.
    """

    def __init__(self, pixels: torch.Tensor) -> None:
        self.pixels = pixels

    def batches(self, parts: Sequence[Rows]) -> Iterator[torch.Tensor]:
        for part in parts:
            yield self.pixels[torch.from_numpy(part).to(self.pixels.device, non_blocking=True)]


class PackLoader:
    """Serves images of packs on a CPU, straight from the memory map.

    Args:
        rows: (N,) of the reader's index.
    """

    def __init__(self, reader: PackReader, rows: Rows) -> None:
        self._reader, self._rows = reader, rows

    def batches(self, parts: Sequence[Rows]) -> Iterator[torch.Tensor]:
        for part in parts:
            yield torch.from_numpy(self._reader.read(self._rows[part]))


class StreamingLoader:
    """Reads and resizes images of packs in a thread while the device computes.

    Args:
        rows: (N,) of the reader's index.
        image_size: s.
        device: receives the batches.
    """

    def __init__(self, reader: PackReader, rows: Rows, *, image_size: int, device: torch.device) -> None:
        self._reader, self._rows, self._image_size, self._device = reader, rows, image_size, device

    def batches(self, parts: Sequence[Rows]) -> Iterator[torch.Tensor]:
        ready: queue.Queue[torch.Tensor | BaseException | None] = queue.Queue(PREFETCH - 1)
        stopped = threading.Event()
        thread = threading.Thread(target=self._fill, args=(parts, ready, stopped), daemon=True)
        thread.start()
        try:
            while (batch := ready.get()) is not None:
                if isinstance(batch, BaseException):
                    raise batch
                yield batch.to(self._device, non_blocking=True)
        finally:
            stopped.set()
            while thread.is_alive():  # it may be blocked by a full queue
                try:
                    ready.get(timeout=0.05)
                except queue.Empty:
                    continue

    def _fill(
        self, parts: Sequence[Rows], ready: "queue.Queue[torch.Tensor | BaseException | None]", stopped: threading.Event
    ) -> None:
        try:
            for part in parts:
                if stopped.is_set():
                    return
                # sorted, so that the disk reads forward
                order = np.argsort(self._rows[part], kind="stable")
                pixels = resize(self._reader.read(self._rows[part[order]]), self._image_size)
                batch = np.empty_like(pixels)
                batch[order] = pixels
                tensor = torch.from_numpy(batch)
                # a copy from pinned memory runs beside the computation
                ready.put(tensor.pin_memory() if self._device.type == "cuda" else tensor)
            ready.put(None)
        except BaseException as error:  # noqa: BLE001  (raised again by the consumer)
            ready.put(error)


def make_loader(
    reader: PackReader, rows: Rows, *, image_size: int, device: torch.device, max_device_cache_bytes: int
) -> BatchLoader:
    """Choose a loader: resident where the images fit, the memory map on a CPU that needs no resizing, else streaming.

    Args:
        rows: (N,) of the reader's index.
        image_size: s, to which images are resized once.
        max_device_cache_bytes: that images may take on the device.
    """
    if device.type == "cuda":
        max_device_cache_bytes = min(
            max_device_cache_bytes, int(torch.cuda.mem_get_info(device)[0] * FREE_MEMORY_SHARE)
        )
    if len(rows) * image_size * image_size * 3 > max_device_cache_bytes:
        return StreamingLoader(reader, rows, image_size=image_size, device=device)
    if device.type == "cpu" and image_size == reader.image_size:
        return PackLoader(reader, rows)
    return ResidentLoader(torch.from_numpy(read_resized(reader, rows, image_size)).to(device))


def resize(pixels: Pixels, image_size: int) -> Pixels:
    """Resize (B, S, S, 3) uint8 to (B, s, s, 3), bicubic with antialiasing; on the CPU, so that devices agree."""
    if pixels.shape[1] == image_size:
        return pixels
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
    small = F.interpolate(images, (image_size, image_size), mode="bicubic", align_corners=False, antialias=True)
    result: Pixels = small.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    return result


def read_resized(reader: PackReader, rows: Rows, image_size: int) -> Pixels:
    """Read the images of `rows` as (N, s, s, 3) uint8."""
    images = np.empty((len(rows), image_size, image_size, 3), np.uint8)
    for start in range(0, len(rows), RESIZE_CHUNK):
        images[start : start + RESIZE_CHUNK] = resize(reader.read(rows[start : start + RESIZE_CHUNK]), image_size)
    return images


def digest_pixels(reader: PackReader, rows: Rows) -> bytes:
    """Sha256 of the packed images of `rows`, in order."""
    digest = hashlib.sha256()
    for start in range(0, len(rows), DIGEST_CHUNK):
        digest.update(reader.read(rows[start : start + DIGEST_CHUNK]).data)
    return digest.digest()
