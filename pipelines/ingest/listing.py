"""What a source offers, before anything is opened: every kind of source lists itself in this form."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from pipelines.parallel.pool import Side

if TYPE_CHECKING:  # see pipelines.ingest.folder
    from pipelines.params.ingest import IngestParams


@dataclass(frozen=True)
class Place:
    """What every kind of source is told beside its own entry.

    Args:
        root: where relative paths start: the folder of params.yaml.
        cache: for downloads and the like; what lies there may be deleted at any time between runs (.miwake).
        params: the whole section, with the limits.
        side: who else may list.
    """

    root: Path
    cache: Path
    params: "IngestParams"
    side: Side | None = None


@dataclass(frozen=True)
class Reject:
    """One file that does not become a row of the manifest, and why; a row of rejected.csv.

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
    """A part of a picture, as a table gives it: from the top left, upright."""

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
RACY_NANOSECONDS = 2_000_000_000
"""a file that changed so shortly before it was listed may change again under the same time of change"""
"""fills the stamp of a file whose bytes cannot be told from it this time"""


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
