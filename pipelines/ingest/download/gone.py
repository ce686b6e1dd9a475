"""Pictures that earlier snapshots of a source fetched and that it no longer names."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pipelines.ingest.download.journal import VERSION, Journal, read_journal
from pipelines.ingest.download.records import Record
from pipelines.ingest.download.store import has_object


@dataclass(frozen=True)
class Finished:
    """A finished journal of one source.

    Args:
        snapshot: its name.
        records: all of them.
    """

    snapshot: str
    records: list[Record]


def earlier_snapshots(journal: Journal) -> Iterator[Finished]:
    """The source's newest finished journal of each other snapshot, the newest first."""
    this = journal.folder.parent
    found = []
    for snapshot in this.parent.iterdir():
        journals = [] if snapshot == this or not snapshot.is_dir() else list(_finished(snapshot, journal.source))
        if journals:
            finished_at, folder = max(journals)
            found.append((finished_at, snapshot.name, folder))
    for _, name, folder in sorted(found, reverse=True):
        yield Finished(name, [line for line in read_journal(folder / "journal.jsonl") if isinstance(line, Record)])


def keep_gone(journal: Journal, listed: Iterable[str]) -> None:
    """Add what earlier snapshots of the same source fetched and this one no longer names; to be called before `finish`.

    Args:
        journal: of this snapshot.
        listed: every URL that this snapshot names, in its one form. A URL that is named keeps nothing of old,
            whatever its label is now and whether or not it still gives a picture.
    """
    seen = set(listed)
    for earlier in earlier_snapshots(journal):
        kept = [
            replace(record, kept_from=record.kept_from or earlier.snapshot)
            for record in earlier.records
            if record.ok and record.url not in seen and has_object(journal.objects, record.image_id, record.bytes)
        ]
        newest: dict[tuple[str, str], Record] = {(record.url, record.label): record for record in kept}
        for record in newest.values():
            journal.append(record)
        seen |= {record.url for record in kept}


def _finished(snapshot: Path, source: str) -> Iterator[tuple[str, Path]]:
    for path in snapshot.glob("*/finished.json"):
        try:
            about = json.loads(path.read_text(encoding="utf-8"))
            if about["source"] == source and about["version"] == VERSION:
                yield str(about["finished_at"]), path.parent
        except (OSError, ValueError, KeyError, TypeError):  # not one of ours: a cache may hold anything
            continue
