"""What was listed, as a table: what one run leaves for the next, which compares its own listing with it.

Columns: path (bytes, as listed), label; size, mtime, inode (the stamp, see `Listing`); origin (a digest of what the
source knows of the picture beside its label; 0 for nothing). A finished run adds reason and detail of files that
became rejects when they were read; both are "" for pictures. Rows lie in the order of the listing.
"""

import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.core.tables import numbers
from pipelines.ingest.listing import UNKNOWN, UNKNOWN_STAMP, Listing

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
            **{name: numbers(stamps[:, column]) for column, name in enumerate(STAMP[:3])},
            "origin": numbers(_origins(listing)),
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
