"""Reads fetched pictures by their URL, in any process, without carrying a million URLs there."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from pipelines.core.errors import ImageError
from pipelines.core.files import whole_file
from pipelines.ingest.download.store import cache_errors, object_path

Index = npt.NDArray[np.uint64]
_WORDS = 4  # of 8 bytes, in a sha256


@dataclass(frozen=True)
class ObjectReader:
    """Reads what was fetched.

    Args:
        objects: the store's folder.
        index: a file that says which URL gave which content; see `write_index`.
        digest: of that file; another one of the same name is not mistaken for it.
        max_file_bytes: of ingest; it may have become smaller since the picture was fetched.
    """

    objects: str
    index: str
    digest: str
    max_file_bytes: int

    @classmethod
    def of(cls, images: Mapping[str, str], *, objects: Path, index: Path, max_file_bytes: int) -> Self:
        """A reader of `images`, the image_id by URL; writes `index`.

        Raises:
            InputError: the index cannot be written.
        """
        return cls(str(objects), str(index), write_index(images, index), max_file_bytes)

    def __call__(self, source_path: str) -> bytes:
        """The picture that `source_path`, a URL, gave.

        Raises:
            ImageError: `unreadable`: it is no longer in the cache, or damaged; `too-large`.
        """
        image_id = find_image(_load(self.index, self.digest), source_path)
        path = object_path(Path(self.objects), image_id)
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size > self.max_file_bytes:
                    raise ImageError("too-large", f"{size} bytes; ingest.max_file_bytes is {self.max_file_bytes}")
                data = file.read()
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise ImageError("unreadable", f"what was fetched is gone from the cache ({reason})") from error
        if hashlib.sha256(data).hexdigest() != image_id:
            path.unlink(missing_ok=True)
            raise ImageError("unreadable", "what was fetched lay damaged in the cache; run again to fetch it anew")
        return data


def write_index(images: Mapping[str, str], path: Path) -> str:
    """Write which URL gave which content: 48 bytes each, sorted by the digest of the URL, to be mapped into memory.

    Args:
        images: image_id by URL.
        path: a .npy of (6, N) uint64: two words of the URL's sha256, four of the image_id.

    Returns:
        The sha256 of the rows.

    Raises:
        InputError: it cannot be written.
    """
    keys = b"".join(hashlib.sha256(url.encode()).digest()[:16] for url in images)
    values = b"".join(bytes.fromhex(image_id) for image_id in images.values())
    rows = np.concatenate(
        [np.frombuffer(keys, ">u8").reshape(-1, 2), np.frombuffer(values, ">u8").reshape(-1, _WORDS)], axis=1
    ).astype(np.uint64)  # (N, 6)
    rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
    columns = np.ascontiguousarray(rows.T)  # (6, N): searching a column that lies apart would copy it each time
    with cache_errors(path), whole_file(path) as file:
        np.save(file, columns)
    return hashlib.sha256(columns.tobytes()).hexdigest()


def find_image(index: Index, url: str) -> str:
    """The image_id of `url` in an index of (6, N).

    Raises:
        KeyError: it is not there.
    """
    digest = hashlib.sha256(url.encode()).digest()
    first, second = np.uint64(int.from_bytes(digest[:8])), np.uint64(int.from_bytes(digest[8:16]))
    row = int(np.searchsorted(index[0], first))
    while row < index.shape[1] and index[0, row] == first:
        if index[1, row] == second:
            return index[2:, row].astype(">u8").tobytes().hex()
        row += 1
    raise KeyError(url)


@lru_cache(maxsize=4)
def _load(path: str, digest: str) -> Index:  # noqa: ARG001 - the digest keeps a changed file from being mistaken
    # a plain array over the map: numpy's own class for it costs 60 us at each look
    return np.asarray(np.load(path, mmap_mode="r"))
