"""The torchvision source: a classification data set of torchvision.datasets, by the name of its class.

Where the data set keeps files, their own bytes are packed; where it keeps arrays, each picture becomes a PNG, the same
bytes every time. Only the listing needs torchvision (5 s to import): workers read files, or pixels from the cache.

- `no-label`: the data set gives a picture no class (an unlabelled part). `duplicate-row`: a file stands in two of the
  parts that are asked for. `missing-file`, `symlink`, …: what the data set names is not there, or no file below `root`.
"""

import functools
import hashlib
import io
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.core.errors import ImageError, InputError
from pipelines.core.files import whole_file
from pipelines.images.decoding import Pixels
from pipelines.ingest.file_reader import FolderReader
from pipelines.ingest.labels import clean_label, printable
from pipelines.ingest.listing import Listing, Origin, Place, Reader, Reject
from pipelines.ingest.paths import Files
from pipelines.ingest.torchvision_data.datasets import ARRAYS, class_names, find_class, given_subset, items, open_part
from pipelines.params.base import path_below
from pipelines.params.sources import TorchvisionSource


def list_torchvision(params: TorchvisionSource, *, source: str, place: Place) -> Listing:
    """List the pictures of a torchvision data set, downloaded first if that is asked for.

    Args:
        params: the entry of ingest.sources.
        source: its name in manifest and rejects: "0-torchvision".
        place: root, cache and limits.

    Raises:
        InputError: no such data set or part, its files are missing or broken, or the download failed.
    """
    where = f"ingest.sources[{source.split('-')[0]}]"
    kind = find_class(params.dataset, where)
    root = path_below(place.root, params.root)
    if not root.is_dir() and not params.download:
        raise InputError(
            f"{where}.root: {params.root} is no folder; name the one that holds {params.dataset}, or set download: true"
        )
    found = _Found(source)
    readers = {}
    for part in dict.fromkeys(params.splits):
        data = open_part(kind, part, params, root=root, where=where)
        pictures, names = items(data, part, params, where), class_names(data)
        if params.dataset in ARRAYS:
            key = repr((params.dataset, params.root, part, sorted(params.options.items())))
            name = f"{params.dataset}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.bin"
            path = place.cache / "torchvision" / name
            readers[part], stored = _store(path, f"{params.dataset} ({part})", pictures)
            found.add_pixels(stored, names, part)
        else:
            found.add_files(pictures, names, part, root)
    limit = place.params.max_file_bytes
    read: Reader = PixelReader(readers, limit) if readers else FolderReader(str(root), limit, follow=False)
    if not found.paths and not found.rejects:
        raise InputError(f"{where}: {params.dataset} in {params.root} holds no picture; download it again")
    order = sorted(range(len(found.paths)), key=lambda row: (found.paths[row], found.labels[row]))
    return Listing(
        source=source,
        paths=[found.paths[row] for row in order],
        labels=[found.labels[row] for row in order],
        read=read,
        rejects=sorted(found.rejects, key=lambda reject: (reject.source_path, reject.detail)),
        origins=[found.origins[row] for row in order],
        stamps=np.array(found.stamps, np.int64).reshape(-1, 3)[order],
    )


@dataclass
class _Found:
    """What the parts of a data set hold, in the order in which it was met."""

    source: str
    paths: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    origins: list[Origin] = field(default_factory=list)
    stamps: list[tuple[int, int, int]] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    parts: dict[tuple[str, str], str] = field(default_factory=dict)

    def add_files(
        self, pictures: Iterable[tuple[str, int | None]], names: dict[int, str], part: str, root: Path
    ) -> None:
        """Take the files of one part; their paths are written without `root`, which lies elsewhere tomorrow."""
        files, start = Files(root), f"{root}/"
        origin = Origin(given_subset=given_subset(part))
        for name, target in pictures:
            label, path = "", name.removeprefix(start)
            try:
                label = _label(target, names)
                path, stamp = files.find(path)
                earlier = self.parts.setdefault((path, label), part)
                if earlier != part:
                    raise ImageError("duplicate-row", f"{earlier} has it already; ask for one of the two parts")
            except ImageError as error:
                self.reject(path, label, error)
                continue
            self.keep(path, label, origin, (stamp.size, stamp.changed, stamp.inode))

    def add_pixels(
        self, stored: Iterable[tuple[int | None, tuple[int, int, int]]], names: dict[int, str], part: str
    ) -> None:
        """Take the pictures of one part: class and stamp of each."""
        origin = Origin(given_subset=given_subset(part))
        for number, (target, stamp) in enumerate(stored):
            path = f"{part}/{number:07d}.png"
            try:
                self.keep(path, _label(target, names), origin, stamp)
            except ImageError as error:
                self.reject(path, "", error)

    def keep(self, path: str, label: str, origin: Origin, stamp: tuple[int, int, int]) -> None:
        self.paths.append(path)
        self.labels.append(label)
        self.origins.append(origin)
        self.stamps.append(stamp)

    def reject(self, path: str, label: str, error: ImageError) -> None:
        self.rejects.append(Reject(self.source, printable(path), label, error.reason, error.detail))


def _label(target: int | None, names: dict[int, str]) -> str:
    if target is None or target < 0:
        raise ImageError("no-label", "the data set gives it no class")
    return clean_label(names.get(target, str(target)), remedy="it is the data set's own name for a class")


_STAMP = struct.Struct("<qq")


@dataclass(frozen=True)
class StoredPixels:
    """A file with N pictures of one shape, one after the other.

    Args:
        path: the file.
        shape: (H, W) or (H, W, 3), uint8.
        changed: time (ns) and inode of the file: another file has others.
    """

    path: str
    shape: tuple[int, ...]
    changed: tuple[int, int]


@dataclass(frozen=True)
class PixelReader:
    """Gives `<part>/<number>.png`; small when pickled.

    Args:
        parts: the pictures of each part.
        max_file_bytes: of ingest.
    """

    parts: dict[str, StoredPixels]
    max_file_bytes: int

    def __call__(self, source_path: str) -> bytes:
        """The picture as PNG.

        Raises:
            ImageError: `too-large` or `unreadable`.
        """
        from PIL import Image

        part, _, name = source_path.rpartition("/")
        try:
            picture = _map_pixels(self.parts[part])[int(name.removesuffix(".png"))]
        except OSError as error:
            raise ImageError("unreadable", f"the cache: {os.strerror(error.errno or 0)}") from error
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "PNG")
        data = buffer.getvalue()
        if len(data) > self.max_file_bytes:
            raise ImageError("too-large", f"{len(data)} bytes; ingest.max_file_bytes is {self.max_file_bytes}")
        return data


@functools.lru_cache(maxsize=8)
def _map_pixels(stored: StoredPixels) -> Pixels:
    pixels: Pixels = np.memmap(stored.path, np.uint8, "r").reshape(-1, *stored.shape)  # (N, H, W) or (N, H, W, 3)
    return pixels


def _store(
    path: Path, name: str, pictures: Iterable[tuple[Any, int | None]]
) -> tuple[StoredPixels, list[tuple[int | None, tuple[int, int, int]]]]:
    """Write pictures one after the other to `path`, a file of the cache, whole or not at all.

    Args:
        name: of the data set and its part, for messages.
        pictures: pixels and class of each.

    Returns:
        What was stored; class and stamp of each picture.
    """
    import PIL

    encoder = PIL.__version__.encode()  # the stamp stands for the PNG, which another version may write otherwise
    shape: tuple[int, ...] = ()
    found = []
    with whole_file(path) as file:
        for number, (picture, target) in enumerate(pictures):
            pixels = np.ascontiguousarray(picture)
            if pixels.dtype != np.uint8 or pixels.shape != (shape or pixels.shape):
                raise InputError(
                    f"{name}: picture {number} is {pixels.dtype} {pixels.shape}, not uint8 like the others of {shape}; "
                    "its files are damaged, download them again"
                )
            shape = pixels.shape
            file.write(pixels.data)
            digest = hashlib.sha256(pixels.data)
            digest.update(encoder)
            found.append((target, (pixels.nbytes, *_STAMP.unpack(digest.digest()[: _STAMP.size]))))
    status = path.stat()
    return StoredPixels(str(path), shape, (status.st_mtime_ns, status.st_ino)), found
