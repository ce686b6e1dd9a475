"""What a run takes over from an earlier one, its base: rows, thumbnails and packed bytes of unchanged files.

A file is taken over if the base met it under the same entry of ingest.sources, path and label, with the same stamp.
Its bytes are not read again; nor are those of a file that the base rejected.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.core.tables import MANIFEST, ROW_GROUP
from pipelines.images.decoding import Pixels
from pipelines.ingest.snapshots import Finished

Places = npt.NDArray[np.int64]


class DamagedBaseError(Exception):
    """The base cannot be read after all; the run starts anew without it."""


@dataclass(frozen=True)
class Match:
    """One listing compared with the base.

    Args:
        todo: places in the listing that must be read, ascending.
        rows: rows of the base's manifest that are taken over.
        refused: place in the listing → reason and detail, of rejects that are taken over.
    """

    todo: Places
    rows: Places
    refused: dict[int, tuple[str, str]]


@dataclass(frozen=True)
class Label:
    """The rows of one label that the base has.

    Args:
        rows: all of them, (B, …) in the order of its manifest.
        start: the first one's place there.
        taken: which are taken over, places among the B.
    """

    rows: pa.Table
    start: int
    taken: Places

    def places(self, ids: Sequence[str]) -> dict[str, tuple[str, int]]:
        """Shard and offset of those of `ids` that the base packed under this label, whether still listed or not."""
        import pyarrow.compute as pc  # takes 0.06 s, which most runs can do without

        found = pc.index_in(pa.array(ids, pa.string()), value_set=self.rows["image_id"].combine_chunks())
        known = found.drop_null()
        where = zip(
            self.rows["shard"].take(known).to_pylist(), self.rows["offset"].take(known).to_pylist(), strict=True
        )
        names = [image_id for image_id, row in zip(ids, found.is_valid().to_pylist(), strict=True) if row]
        return dict(zip(names, where, strict=True))


@dataclass
class Base:
    """Gives what is taken over, label by label in ascending order, without holding more than a few.

    Args:
        finished: the earlier run.
        matches: one for each listing, in order.
        names: name of a source there → name now.
    """

    finished: Finished
    matches: list[Match]
    names: dict[str, str]
    _ranges: dict[str, tuple[int, int]]
    _taken: npt.NDArray[np.bool_]
    _groups: dict[int, pa.Table] = field(default_factory=dict)

    def labels(self, *, below: str | None) -> list[str]:
        """Labels not yet asked for, of which rows are taken over, ascending; only those before `below`."""
        return [
            label
            for label, (start, stop) in self._ranges.items()
            if (below is None or label < below) and self._taken[start:stop].any()
        ]

    def label(self, label: str) -> Label | None:
        """The base's rows of `label`, once."""
        found = self._ranges.pop(label, None)
        if found is None:
            return None
        start, stop = found
        return Label(self._read(start, stop), start, np.flatnonzero(self._taken[start:stop]))

    def taken_rows(self, label: Label) -> pa.Table:
        """Its rows that are taken over, as rows of the new manifest."""
        rows = label.rows.take(pa.array(label.taken))
        if any(old != new for old, new in self.names.items()):
            sources = [self.names[name] for name in rows["source"].to_pylist()]
            rows = rows.set_column(MANIFEST.get_field_index("source"), "source", pa.array(sources, pa.string()))
        return rows.select(MANIFEST.names).cast(MANIFEST)

    def thumbnails(self, rows: Places) -> Pixels:
        """(B, 32, 32): those of rows of its manifest; mapped for this call alone, so that memory does not grow."""
        thumbnails = np.load(self.finished.folder / "thumbnails.npy", mmap_mode="r")
        found: Pixels = np.asarray(thumbnails[rows])
        return found

    def _read(self, start: int, stop: int) -> pa.Table:
        first, last = start // ROW_GROUP, max(start, stop - 1) // ROW_GROUP
        self._groups = {group: rows for group, rows in self._groups.items() if group >= first}
        try:
            with pq.ParquetFile(self.finished.folder / "manifest.parquet") as file:
                for group in range(first, last + 1):
                    if group not in self._groups:
                        self._groups[group] = file.read_row_group(group, columns=MANIFEST.names)
        except (OSError, pa.ArrowException) as error:
            raise DamagedBaseError(str(error)) from error
        whole = pa.concat_tables([self._groups[group] for group in range(first, last + 1)])
        return whole.slice(start - first * ROW_GROUP, stop - start)
