"""Writes shards: uncompressed tars `<label>/<image_id>.<ext>` that depend on content alone.

tarfile makes one header per label and suffix; only its image id, size and checksum differ from file to file, and
numpy fills those in for a whole label at once: ten times faster, byte for byte what tarfile writes (a test compares).
"""

import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
import numpy.typing as npt

from pipelines.core.files import whole_file
from pipelines.ingest.blocks import BLOCK, Numbers, Runs, copy_runs, write_at
from pipelines.parallel.pool import Side

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

# written at once, by one process
_PIECE_BYTES = 4 << 20
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
        side: who writes the pieces of a shard; this process when None.
    """

    def __init__(self, folder: Path, shard_bytes: int, *, number: int = 0, side: Side | None = None) -> None:
        self.folder = folder
        self.shard_bytes = shard_bytes
        self._number = number
        self._side = side or Side()
        self._writing: list[Future[None]] = []
        self._stack = ExitStack()
        self._file: BinaryIO | None = None
        self._name = ""
        self._position = 0

    def pack(
        self, label: str, digests: npt.NDArray[np.uint8], extensions: Sequence[str], sizes: Numbers, files: Runs
    ) -> tuple[list[str], Numbers, list[Future[None]]]:
        """Append the N files of one label.

        Args:
            label: the folder inside the tar; clean (see `pipelines.ingest.labels`).
            digests: (N, 32) sha256 of each, ascending, each once.
            extensions: N suffixes without the dot.
            sizes: (N,) sizes, bytes.
            files: the bytes of the N files.

        Returns:
            For each file the name of its shard, and the offset of its first byte there; and what must be done before
            the bytes of `files` may go.
        """
        per_extension = {extension: _header_bytes(label, extension) for extension in set(extensions)}
        lengths = np.array([per_extension[extension] for extension in extensions], np.int64)
        ends = np.cumsum(lengths + BLOCK * files.lengths)
        starts = ends - (lengths + BLOCK * files.lengths)
        shards: list[str] = []
        offsets = np.empty(len(sizes), np.int64)
        writing: list[Future[None]] = []
        while len(shards) < len(sizes):
            first = len(shards)
            before = int(starts[first])
            room = self.shard_bytes - 2 * BLOCK - self._position
            stop = int(np.searchsorted(ends, before + room, side="right"))
            if self._file is None or (self._position and stop <= first):
                self._next_shard()
                continue
            stop = max(stop, first + 1)  # one that is larger than a shard has its own
            offsets[first:stop] = starts[first:stop] + lengths[first:stop] + (self._position - before)
            shards += [self._name] * (stop - first)
            partial = Path(self._file.name)
            for rows in _cut(ends, first, stop):
                position = self._position + int(starts[rows.start]) - before
                entries = Entries(label, digests[rows], extensions[rows], sizes[rows], files.take(rows))
                writing.append(self._side.share(write_entries, (partial, position, entries)))
            self._position += int(ends[stop - 1]) - before
            self._writing += writing
        return shards, offsets, writing

    def _next_shard(self) -> None:
        self._end_shard()
        self._name = f"images-{self._number:05d}.tar"
        self._file = self._stack.enter_context(whole_file(self.folder / self._name))
        self._number += 1
        self._position = 0

    def _end_shard(self) -> None:
        if self._file is not None:
            for piece in self._writing:
                piece.result()
            self._writing = []
            self._file.truncate(self._position + 2 * BLOCK)  # the end of a tar: two blocks of zeros
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


@dataclass(frozen=True)
class Entries:
    """N files of one label, to be written one after the other; for the arguments see `ShardWriter.pack`."""

    label: str
    digests: npt.NDArray[np.uint8]
    extensions: Sequence[str]
    sizes: Numbers
    files: Runs


def write_entries(what: tuple[Path, int, Entries]) -> None:
    """Write entries at a place of a shard that is being written."""
    path, position, entries = what
    ids = np.frombuffer(entries.digests.tobytes().hex().encode("ascii"), np.uint8).reshape(len(entries.sizes), -1)
    extensions = np.array(entries.extensions)
    headers = {
        extension: tar_headers(
            entries.label, extension, ids[extensions == extension], entries.sizes[extensions == extension]
        )
        for extension in sorted(set(entries.extensions))
    }
    of_header = np.zeros(len(ids), np.int64)  # blocks
    for extension, made in headers.items():
        of_header[extensions == extension] = made.shape[1] // BLOCK
    ends = np.cumsum(of_header + entries.files.lengths)
    targets = ends - entries.files.lengths
    out = np.empty((int(ends[-1]), BLOCK), np.uint8)
    for extension, made in headers.items():
        first = (targets - of_header)[extensions == extension]
        for block in range(made.shape[1] // BLOCK):
            out[first + block] = made[:, block * BLOCK : (block + 1) * BLOCK]
    copy_runs(entries.files, out, targets)
    write_at(path, position, out)


def _cut(ends: Numbers, first: int, stop: int) -> Iterator[slice]:
    """The rows from `first` to `stop` in slices of about `_PIECE_BYTES`, by where each ends."""
    while first < stop:
        before = int(ends[first - 1]) if first else 0
        last = int(np.searchsorted(ends, before + _PIECE_BYTES, side="right"))
        yield slice(first, min(max(last, first + 1), stop))
        first = min(max(last, first + 1), stop)


def _header_bytes(label: str, extension: str) -> int:
    found: int = tar_headers(label, extension, np.zeros((1, 64), np.uint8), np.zeros(1, np.int64)).shape[1]
    return found


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
    main = headers[:, -BLOCK:]  # (N, 512), a view: the header proper comes last
    # the checksum is taken with blanks in its own place; only what is filled in below differs from file to file
    main[:, _CHECKSUM] = ord(" ")
    pax = template[:-BLOCK]
    if pax:
        start = pax.index(_BLANK_ID.encode(), BLOCK)  # the record follows a header block of its own
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
