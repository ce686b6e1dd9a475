"""What a source offers, before anything is opened: every kind of source lists itself as a `Listing`.

As a table, a listing is what one run leaves for the next, which compares its own with it. Columns: path (bytes, as
listed), label; size, mtime, inode (the stamp, see `Listing`); origin (a digest of what the source knows of the picture
beside its label; 0 for nothing). A finished run adds reason and detail of files that became rejects when they were
read; both are "" for pictures. Rows have the order of the listing.
"""

import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

if TYPE_CHECKING:  # see pipelines.ingest.folder
    from pipelines.params.ingest import IngestParams


@dataclass(frozen=True)
class Place:
    """Paths and limits that every kind of source needs beside its own entry.

    Args:
        root: where relative paths start: the folder of params.yaml.
        cache: for downloads and the like (.miwake); may be deleted between runs.
        params: the whole section, with the limits.
    """

    root: Path
    cache: Path
    params: "IngestParams"


@dataclass(frozen=True)
class Reject:
    """A file that does not become a row of the manifest; a row of rejected.csv.

    Args:
        source: index and kind of the entry of ingest.sources: "0-folder".
        source_path: path below the source, with /.
        label: as far as known, else "".
        reason: short and stable, in kebab-case: what reports count by.
        detail: what a person needs to know of this very file.
    """

    source: str
    source_path: str
    label: str
    reason: str
    detail: str


class Reader(Protocol):
    """Gives the bytes of a listed file; picklable, since workers call it."""

    def __call__(self, source_path: str) -> bytes:
        """The whole file.

        Raises:
            ImageError: the file cannot be had (unreadable, too large); it becomes a reject.
        """


class Box(NamedTuple):
    """A region of a picture, upright, measured from the top left."""

    left: float
    top: float
    right: float
    bottom: float
    in_pixels: bool
    """else fractions of width and height"""


class Origin(NamedTuple):
    """What a source knows of a picture beside its label; columns of the manifest. "" where it is not known."""

    url: str = ""
    page_url: str = ""
    query: str = ""
    license: str = ""
    creator: str = ""
    given_subset: str = ""
    """train, val or test"""
    factors: str = ""
    """a JSON object: label column to value, in the order of the columns"""
    given_groups: str = ""
    """a JSON object: group column to value"""
    box: Box | None = None


UNKNOWN = Origin()
UNKNOWN_STAMP = -1
"""the stamp of a file that may have changed without its time telling"""
RACY_NANOSECONDS = 2_000_000_000
"""a file that changed so shortly before it was listed may change again under the same time of change"""


@dataclass(frozen=True)
class Listing:
    """The files of one source, sorted by path.

    Args:
        source: index and kind of the entry of ingest.sources: "0-folder".
        paths: N paths below the source, with /, or URLs; each once a label.
        labels: N labels, NFC-normalised, without leading or trailing spaces.
        read: gives the bytes of one of `paths`.
        rejects: what was refused while listing: links, hidden and foreign files, URLs that gave nothing.
        origins: N origins; None where nothing but path and label is known of any picture.
        stamps: (N, 3) int64, the first number the size in bytes: a file whose path and stamp are those of an earlier
            run has the same bytes, unless the first number is UNKNOWN_STAMP. None where that cannot be told without
            reading.
        num_litter: files and folders that systems left there (`pipelines.ingest.paths.is_litter`), skipped unread.
        records: of a source that used the network: one JSON object for each URL tried, sorted; rows of sources.jsonl.
    """

    source: str
    paths: list[str]
    labels: list[str]
    read: Reader
    rejects: list[Reject]
    origins: list[Origin] | None = None
    stamps: npt.NDArray[np.int64] | None = None
    records: list[dict[str, Any]] | None = None
    num_litter: int = 0


STAMP = ("size", "mtime", "inode", "origin")
FINISHED = ["path", "label", *STAMP, "reason", "detail"]

Refused = Mapping[int, tuple[str, str]]
"""place in a listing: reason and detail of the reject that the file became when it was read"""


def listing_table(listing: Listing) -> pa.Table:
    """The N files of one source, without what reading them shows."""
    stamps = listing.stamps
    if stamps is None:
        stamps = np.full((len(listing.paths), 3), UNKNOWN_STAMP, np.int64)
    return pa.table(
        {
            "path": _as_bytes(listing.paths),
            "label": pa.array(listing.labels, pa.large_string()),
            **{name: pa.array(stamps[:, column]) for column, name in enumerate(STAMP[:3])},
            "origin": pa.array(_origins(listing)),
        }
    )


def finished_table(tables: Sequence[pa.Table], refused: Sequence[Refused]) -> pa.Table:
    """The tables of all sources, one after the other, with the columns reason and detail."""
    whole = []
    for table, own in zip(tables, refused, strict=True):
        for column, name in enumerate(("reason", "detail")):
            values = [""] * table.num_rows
            for place, words in own.items():
                values[place] = words[column]
            table = table.append_column(name, pa.array(values, pa.large_string()))
        whole.append(table)
    return pa.concat_tables(whole)


def listing_digest(tables: Iterable[pa.Table], listings: Iterable[Listing]) -> str | None:
    """A digest of all that was listed, files and rejects; None where a file's stamp says nothing."""
    sink = _Sink()
    for table, listing in zip(tables, listings, strict=True):
        if (table["size"].to_numpy() == UNKNOWN_STAMP).any():
            return None
        sink.write(f"{listing.source} {table.num_rows} {len(listing.rejects)}\n".encode())
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        for reject in listing.rejects:
            sink.write(ascii((reject.source_path, reject.label, reject.reason, reject.detail)).encode())
    return sink.digest.hexdigest()


def _as_bytes(paths: Sequence[str]) -> pa.Array:
    try:
        # a cast would import pyarrow.compute, which most runs do without
        return pa.array(paths, pa.large_string()).view(pa.large_binary())
    except UnicodeEncodeError:  # names that are not UTF-8
        return pa.array([path.encode("utf-8", "surrogateescape") for path in paths], pa.large_binary())


def _origins(listing: Listing) -> npt.NDArray[np.int64]:
    if listing.origins is None:
        return np.zeros(len(listing.paths), np.int64)
    found = [
        0 if origin == UNKNOWN else int.from_bytes(hashlib.blake2b(ascii(origin).encode(), digest_size=8).digest())
        for origin in listing.origins
    ]
    return np.array(found, np.uint64).view(np.int64)


class _Sink(io.RawIOBase):
    """A file that keeps nothing but the digest of what was written."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        view = memoryview(data)  # type: ignore[arg-type]  # the base class leaves the type open
        self.digest.update(view)
        return view.nbytes
