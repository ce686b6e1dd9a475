"""Writes shards: uncompressed tars `<label>/<image_id>.<ext>` that depend on content alone.

tarfile makes one header per label and suffix; only its image id, size and checksum differ from file to file, and
numpy fills those in for a whole label at once: ten times faster, byte for byte what tarfile writes (a test compares).
"""

import tarfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
import numpy.typing as npt

from pipelines.core.files import whole_file

EXTENSIONS = {
    "JPEG": "jpg",
    "PNG": "png",
    "GIF": "gif",
    "BMP": "bmp",
    "WEBP": "webp",
    "TIFF": "tif",
    "AVIF": "avif",
    "HEIF": "heic",
    "PPM": "ppm",
}

_BLOCK = 512
_WRITE_BYTES = 4 << 20
_ZEROS = bytes(_BLOCK)
_BLANK_ID = "0" * 64
# where ustar keeps things in a header
_NAME_BYTES, _SIZE, _CHECKSUM = 100, slice(124, 135), slice(148, 156)


def shard_number(name: str) -> int:
    """7 of images-00007.tar; -1 of any other name."""
    digits = name.removeprefix("images-").removesuffix(".tar")
    return int(digits) if digits.isdecimal() and digits.isascii() and name == f"images-{digits}.tar" else -1


class ShardWriter:
    """Appends files to `images-00000.tar`, `images-00001.tar`, … of one folder; each appears once it is whole.

    Args:
        folder: where the shards go.
        shard_bytes: a shard is closed when it would grow past this; one larger file gets a shard of its own.
        number: of the first shard.
    """

    def __init__(self, folder: Path, shard_bytes: int, *, number: int = 0) -> None:
        self.folder = folder
        self.shard_bytes = shard_bytes
        self._number = number
        self._stack = ExitStack()
        self._file: BinaryIO | None = None
        self._name = ""
        self._position = 0
        self._held: list[bytes | memoryview] = []
        self._num_held = 0

    def pack(
        self,
        label: str,
        ids: npt.NDArray[np.uint8],
        extensions: Sequence[str],
        sizes: npt.NDArray[np.int64],
        contents: Iterable[bytes | memoryview],
    ) -> tuple[list[str], npt.NDArray[np.int64]]:
        """Append the N files of one label.

        Args:
            label: the folder inside the tar; clean (see `pipelines.ingest.labels`).
            ids: (N, 64) image ids in ASCII, ascending, each once.
            extensions: N suffixes without the dot.
            sizes: (N,) sizes, bytes.
            contents: the bytes of the N files; asked for one at a time.

        Returns:
            For each file the name of its shard, and the offset of its first byte there.
        """
        headers = self._headers(label, ids, extensions, sizes)
        lengths = np.array([len(header) for header in headers], np.int64)
        paddings = -sizes % _BLOCK
        ends = np.cumsum(lengths + sizes + paddings)
        starts = ends - (lengths + sizes + paddings)
        shards: list[str] = []
        offsets = np.empty(len(ids), np.int64)
        files = zip(headers, contents, paddings.tolist(), strict=True)
        while len(shards) < len(ids):
            first = len(shards)
            before = int(starts[first])
            room = self.shard_bytes - 2 * _BLOCK - self._position
            stop = int(np.searchsorted(ends, before + room, side="right"))
            if self._file is None or (self._position and stop <= first):
                self._next_shard()
                continue
            stop = max(stop, first + 1)  # one that is larger than a shard has its own
            offsets[first:stop] = starts[first:stop] + lengths[first:stop] + (self._position - before)
            shards += [self._name] * (stop - first)
            self._position += int(ends[stop - 1]) - before
            self._append(islice(files, stop - first))
        self._flush()  # what `contents` gave must not be held past its label
        return shards, offsets

    def _append(self, files: Iterable[tuple[bytes, bytes | memoryview, int]]) -> None:
        for header, data, padding in files:
            self._held += (header, data, _ZEROS[:padding])
            self._num_held += len(header) + len(data) + padding
            if self._num_held >= _WRITE_BYTES:
                self._flush()

    def _headers(
        self,
        label: str,
        ids: npt.NDArray[np.uint8],
        extensions: Sequence[str],
        sizes: npt.NDArray[np.int64],
    ) -> list[bytes]:
        found = [b""] * len(ids)
        for extension in sorted(set(extensions)):
            rows = [row for row, own in enumerate(extensions) if own == extension]
            made = tar_headers(label, extension, ids[rows], sizes[rows])
            length, whole = made.shape[1], made.tobytes()
            for place, row in enumerate(rows):
                found[row] = whole[place * length : (place + 1) * length]
        return found

    def _next_shard(self) -> None:
        self._end_shard()
        self._name = f"images-{self._number:05d}.tar"
        self._file = self._stack.enter_context(whole_file(self.folder / self._name))
        self._number += 1
        self._position = 0

    def _flush(self) -> None:
        if self._file is not None and self._held:
            self._file.write(b"".join(self._held))
        self._held, self._num_held = [], 0

    def _end_shard(self) -> None:
        if self._file is not None:
            self._held.append(bytes(2 * _BLOCK))  # the end of a tar
            self._flush()
            self._stack.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._end_shard()
        else:
            self._stack.__exit__(kind, error, trace)


def tar_headers(
    label: str, extension: str, ids: npt.NDArray[np.uint8], sizes: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint8]:
    """The tar headers of N files, (N, H) uint8; H is 512, or 1536 and more where the name needs a pax record.

    Pax records carry names of more than 100 bytes and all that is not ASCII, as UTF-8, which every tar reads.

    Args:
        label: see `ShardWriter.pack`.
        extension: of all files.
        ids: (N, 64) image ids in ASCII.
        sizes: (N,) bytes; below 8 GiB.
    """
    template = tarfile.TarInfo(f"{label}/{_BLANK_ID}.{extension}").tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")
    headers = np.tile(np.frombuffer(template, np.uint8), (len(ids), 1))  # (N, H)
    main = headers[:, -_BLOCK:]  # (N, 512), a view: the header proper comes last
    # the checksum is taken with blanks in its own place; only what is filled in below differs from file to file
    main[:, _CHECKSUM] = ord(" ")
    pax = template[:-_BLOCK]
    if pax:
        start = pax.index(_BLANK_ID.encode(), _BLOCK)  # the record follows a header block of its own
        headers[:, start : start + 64] = ids
    # the short name of a pax entry stands for itself only where pax is not understood; it is cut at 100 bytes
    start = len(label.encode("ascii", "replace")) + 1
    fits = max(0, min(64, _NAME_BYTES - start))
    own = np.concatenate([ids[:, :fits], _octal(sizes, 11)], axis=1)  # (N, fits + 11)
    main[:, start : start + fits] = 0
    main[:, _SIZE] = 0
    sums = int(main[:1].sum()) + own.sum(axis=1, dtype=np.int64)
    main[:, start : start + fits] = own[:, :fits]
    main[:, _SIZE] = own[:, fits:]
    main[:, _CHECKSUM] = np.frombuffer(b"\0\0\0\0\0\0\0 ", np.uint8)
    main[:, _CHECKSUM.start : _CHECKSUM.start + 6] = _octal(sums, 6)
    return headers


def _octal(numbers: npt.NDArray[np.int64], digits: int) -> npt.NDArray[np.uint8]:
    """(N,) → (N, digits): ASCII."""
    shifts = np.arange(3 * (digits - 1), -1, -3)
    return ((numbers[:, None] >> shifts & 7) + ord("0")).astype(np.uint8)
