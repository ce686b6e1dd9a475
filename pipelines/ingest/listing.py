"""What a source offers, before anything is opened: every kind of source lists itself in this form."""

from dataclasses import dataclass
from typing import Protocol


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


@dataclass(frozen=True)
class Listing:
    """The files of one source, sorted by path.

    Args:
        source: index and kind of the entry of ingest.sources: "0-folder".
        paths: N paths below the source, with /, each once.
        labels: N labels, NFC-normalised, without leading or trailing spaces.
        read: gives the bytes of one of `paths`.
        rejects: what was refused while listing: links, hidden and foreign files.
    """

    source: str
    paths: list[str]
    labels: list[str]
    read: Reader
    rejects: list[Reject]
