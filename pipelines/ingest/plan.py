"""What is to be inspected: all files that are not taken over, in order of label, cut into chunks of work."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipelines.ingest.cropping import asks_for_crop
from pipelines.ingest.file_reader import FolderReader
from pipelines.ingest.incremental import Places
from pipelines.ingest.inspection import Chunk
from pipelines.ingest.listing import Listing
from pipelines.params.ingest import FaceCrop, IngestParams

# small enough to balance work over cores, large enough that handing one over costs nothing beside it
FILES_PER_CHUNK = 1024
BYTES_PER_CHUNK = 4 << 20
# threads hand nothing over, and hold less memory at a time
BYTES_PER_THREADS_CHUNK = 1 << 20
# where sizes are not known
FILES_OF_ANY_SIZE = 64
# reading, hashing and decoding files of this size on average lets other threads run nearly all the time
THREADS_FROM_BYTES = 32 << 10


@dataclass(frozen=True)
class Plan:
    """The work of one run.

    Args:
        chunks: one label after the other, so that one at a time is held, sorted and packed.
        where: for each chunk the index of its listing, and the places of its files there.
        threads: whether threads inspect them as fast as processes.
    """

    chunks: list[Chunk]
    where: list[tuple[int, Places]]
    threads: bool

    @property
    def num_files(self) -> int:
        return sum(len(places) for _, places in self.where)


def plan(params: IngestParams, listings: Sequence[Listing], todo: Sequence[Places], spool: Path | None) -> Plan:
    """Cut the files at the places `todo` of each listing into chunks.

    Args:
        params: limits that workers need.
        spool: of `Chunk`.
    """
    found = Plan([], [], _suits_threads(params, listings, todo))
    for label, index, places in _groups(listings, todo):
        listing = listings[index]
        for some in _cut(listing, places, BYTES_PER_THREADS_CHUNK if found.threads else BYTES_PER_CHUNK):
            origins = None if listing.origins is None else [listing.origins[place] for place in some]
            paths = [listing.paths[place] for place in some]
            crop = params.crop if asks_for_crop(params.crop) else None
            limits = (params.max_pixels, params.min_side, crop)
            chunk = Chunk(len(found.chunks), listing.source, label, paths, listing.read, *limits, spool, origins)
            found.chunks.append(chunk)
            found.where.append((index, some))
    return found


def _suits_threads(params: IngestParams, listings: Sequence[Listing], todo: Sequence[Places]) -> bool:
    """Whether files are known to be large, and what works on them lets other threads run; finding faces does not."""
    sizes = [_sizes(listing, places) for listing, places in zip(listings, todo, strict=True) if len(places)]
    known = [one for one in sizes if one is not None]
    if not known or len(known) < len(sizes) or isinstance(params.crop, FaceCrop):
        return False
    return float(np.concatenate(known).mean()) >= THREADS_FROM_BYTES


def _cut(listing: Listing, places: Places, num_bytes: int) -> Iterator[Places]:
    """Places of one chunk each, of about `num_bytes` together where sizes are known."""
    sizes = _sizes(listing, places)
    if sizes is None:
        ends, most = [], min(FILES_PER_CHUNK, FILES_OF_ANY_SIZE)
    else:
        ends, most = (np.flatnonzero(np.diff(np.cumsum(sizes) // num_bytes)) + 1).tolist(), FILES_PER_CHUNK
    for start, stop in pairwise([0, *ends, len(places)]):
        for first in range(start, stop, most):
            yield places[first : min(stop, first + most)]


def _sizes(listing: Listing, places: Places) -> npt.NDArray[np.int64] | None:
    """Bytes of the files at `places`, 0 where that is not known; None where the stamps of a listing are no sizes."""
    if listing.stamps is None or not isinstance(listing.read, FolderReader):
        return None
    sizes: npt.NDArray[np.int64] = np.maximum(listing.stamps[places, 0], 0)
    return sizes


def _groups(listings: Sequence[Listing], todo: Sequence[Places]) -> Iterator[tuple[str, int, Places]]:
    """(label, index of listing, places), sorted; numbers, since a Python object a file would outweigh its path."""
    names = sorted({label for listing in listings for label in set(listing.labels)})
    code_of = dict(zip(names, range(len(names)), strict=True))
    found = []
    for index, (listing, places) in enumerate(zip(listings, todo, strict=True)):
        codes = np.fromiter(map(code_of.__getitem__, listing.labels), np.int32, len(listing.labels))[places]
        order = np.argsort(codes, kind="stable")
        edges = np.flatnonzero(np.diff(codes[order], prepend=-1)).tolist()
        for start, stop in pairwise([*edges, len(order)]):
            found.append((int(codes[order[start]]), index, places[order[start:stop]]))
    for code, index, places in sorted(found, key=lambda group: group[:2]):
        yield names[code], index, places
