"""How packed pictures reach the device: all of them once, or batch by batch while the device computes.

No loader processes: a pack is a memory map, so there is nothing to decode. The pixels are the same either way.
"""

import hashlib
import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch

from pipelines.augmentation.packs import PackReader, Rows
from pipelines.train.pictures import read_resized, resize

DIGESTED = 64
"""pictures at a time, to digest"""
PREFETCHED = 3
"""batches that are ready or under way: the one in use, the next, and one to spare"""
FREE_SHARE = 0.5
"""of a GPU's free memory that resident pictures may take"""


class Feed(Protocol):
    """Gives pictures by their position among the feed's own."""

    def batches(self, parts: Sequence[Rows]) -> Iterator[torch.Tensor]:
        """(B, s, s, 3) uint8 on the device for each part, a part being (B,) positions."""
        ...


class ResidentFeed:
    """All pictures lie in the device's memory.

    Args:
        pixels: (N, s, s, 3) uint8 on the device.
    """

    def __init__(self, pixels: torch.Tensor) -> None:
        self.pixels = pixels

    def batches(self, parts: Sequence[Rows]) -> Iterator[torch.Tensor]:
        for part in parts:
            yield self.pixels[torch.from_numpy(part).to(self.pixels.device, non_blocking=True)]


class PackFeed:
    """On a CPU: pictures are read from the packs as they are needed, which keeps none of them twice.

    Args:
        reader: of the packs.
        rows: (N,) of its index.
    """

    def __init__(self, reader: PackReader, rows: Rows) -> None:
        self._reader, self._rows = reader, rows

    def batches(self, parts: Sequence[Rows]) -> Iterator[torch.Tensor]:
        for part in parts:
            yield torch.from_numpy(self._reader.read(self._rows[part]))


class StreamedFeed:
    """Pictures are read from the packs, and resized, by a thread while the device computes.

    Args:
        reader: of the packs.
        rows: (N,) of its index.
        image_size: s.
        device: where the batches go.
    """

    def __init__(self, reader: PackReader, rows: Rows, *, image_size: int, device: torch.device) -> None:
        self._reader, self._rows, self._image_size, self._device = reader, rows, image_size, device

    def batches(self, parts: Sequence[Rows]) -> Iterator[torch.Tensor]:
        ready: queue.Queue[torch.Tensor | BaseException | None] = queue.Queue(PREFETCHED - 1)
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
            while thread.is_alive():  # it may wait for room
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
                # sorted reads are sequential ones
                order = np.argsort(self._rows[part], kind="stable")
                pixels = resize(self._reader.read(self._rows[part[order]]), self._image_size)
                batch = np.empty_like(pixels)
                batch[order] = pixels
                tensor = torch.from_numpy(batch)
                # from pinned memory the copy runs beside the computation
                ready.put(tensor.pin_memory() if self._device.type == "cuda" else tensor)
            ready.put(None)
        except BaseException as error:  # noqa: BLE001  (raised again by the thread that reads)
            ready.put(error)


def feed_of(
    reader: PackReader, rows: Rows, *, image_size: int, device: torch.device, max_device_cache_bytes: int
) -> Feed:
    """Resident where the pictures fit, on a CPU straight from packs of the wanted size; else streamed.

    Args:
        rows: (N,) of the reader's index.
        image_size: s, to which pictures are resized once.
        max_device_cache_bytes: what they may take on the device.
    """
    size = len(rows) * image_size * image_size * 3
    if device.type == "cuda":
        max_device_cache_bytes = min(max_device_cache_bytes, int(torch.cuda.mem_get_info(device)[0] * FREE_SHARE))
    if size > max_device_cache_bytes:
        return StreamedFeed(reader, rows, image_size=image_size, device=device)
    if device.type == "cpu" and image_size == reader.image_size:
        return PackFeed(reader, rows)
    return ResidentFeed(torch.from_numpy(read_resized(reader, rows, image_size)).to(device))


def digest_pixels(reader: PackReader, rows: Rows) -> bytes:
    """Of the packed pictures, in order."""
    digest = hashlib.sha256()
    for start in range(0, len(rows), DIGESTED):
        digest.update(reader.read(rows[start : start + DIGESTED]).data)
    return digest.digest()
