"""What was tried for one source in one snapshot, written as it happens: a run that is killed goes on from here.

    <cache>/downloads/objects/                        what was fetched, by its sha256
    <cache>/downloads/<snapshot>/<source key>.sqlite  a row a record, committed before the next; notes of a crawl

The key is a hash of the source's settings, so that other settings make another journal; it takes over what journals of
the same snapshot have fetched. A finished journal is read in place of the network.
"""

import datetime
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from pipelines.core.errors import InputError
from pipelines.ingest.fetch.records import RECORD_FIELDS, FetchRecord
from pipelines.ingest.fetch.store import cache_errors, has_object, read_object
from pipelines.ingest.listing import Place
from pipelines.params.base import Section

VERSION = 2
# rules of ingest.download that decide what comes, not how fast
_RULES = {"timeout_seconds", "max_attempts", "max_wait_seconds", "max_redirects", "robots", "private_hosts"}
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS records ({", ".join(RECORD_FIELDS)}, PRIMARY KEY (url, label));
CREATE TABLE IF NOT EXISTS notes (name PRIMARY KEY, value);
"""
_values = attrgetter(*RECORD_FIELDS)
_SELECT = f"SELECT {', '.join(RECORD_FIELDS)} FROM records"


def downloads_folder(place: Place) -> Path:
    """The folder of journals and fetched contents."""
    return place.cache / "downloads"


def objects_folder(place: Place) -> Path:
    """The folder of fetched contents, shared by all snapshots."""
    return downloads_folder(place) / "objects"


def source_key(entry: Section, place: Place, *contents: bytes) -> str:
    """The name of one source's journal: 32 hex digits.

    Args:
        entry: of ingest.sources.
        place: with the rules that decide what comes.
        contents: what else the source consists of: the bytes of its list.
    """
    settings = {
        "version": VERSION,
        "entry": entry.model_dump(mode="json"),
        "rules": place.params.download.model_dump(mode="json", include=_RULES),
        "max_file_bytes": place.params.max_file_bytes,
        "contents": [hashlib.sha256(content).hexdigest() for content in contents],
    }
    text = json.dumps(settings, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class Journal:
    """The records of one source in one snapshot; closed by the end of its `with` block.

    Args:
        path: of its SQLite file; made here.
        objects: the store; a record of which the content is not there does not count.
        source: name of the entry: "0-urls".

    Raises:
        InputError: it cannot be written, or another run writes it.
    """

    def __init__(self, path: Path, *, objects: Path, source: str) -> None:
        self.path = path
        self.objects = objects
        self.source = source
        self._learned: dict[str, FetchRecord] = {}
        with cache_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            # committed one by one; a process that is killed loses nothing, a power cut the last few
            self._database = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
            try:
                self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
                self._database.execute("PRAGMA journal_mode = WAL")
                self._database.execute("PRAGMA synchronous = NORMAL")
                self._database.executescript(_SCHEMA)
            except sqlite3.Error as error:
                self._database.close()
                if "locked" in str(error):
                    raise InputError(f"{path}: another run is fetching this very source; wait for its end") from error
                raise

    @classmethod
    def open(cls, place: Place, *, source: str, key: str) -> Self:
        """The journal of the source with this key in the current snapshot; it knows what the snapshot's others fetched.

        Raises:
            InputError: it cannot be written, or another run writes it.
        """
        snapshot = downloads_folder(place) / place.params.snapshot
        journal = cls(snapshot / f"{key}.sqlite", objects=objects_folder(place), source=source)
        if not journal.finished:
            for path in sorted(snapshot.iterdir()):
                if path != journal.path:
                    journal._learn(path)
        return journal

    @property
    def records(self) -> list[FetchRecord]:
        """The newest record of each URL and label, in no particular order."""
        return list(_records(self._database))

    @property
    def finished(self) -> bool:
        """Whether every URL was tried, and all that came is still in the cache."""
        return self.note("finished") is not None and all(
            has_object(self.objects, record.image_id, record.bytes) for record in self.records if record.ok
        )

    def get(self, url: str, label: str) -> FetchRecord | None:
        """What came of `url` (in its one form) for `label` or another label; None if it has to be tried (again)."""
        record = self.last(url, label)
        if record is None or not record.ok:
            newest = "WHERE url = ? AND kept_from = '' ORDER BY outcome = 'ok' DESC, rowid DESC LIMIT 1"
            record = next(_records(self._database, newest, url), record)
        if record is None or record.momentary:
            record = self._learned.get(url)
        if record is None or (record.ok and not has_object(self.objects, record.image_id, record.bytes)):
            return None
        return record

    def last(self, url: str, label: str) -> FetchRecord | None:
        """The newest record of `url` for this very `label`, however it ended."""
        return next(_records(self._database, "WHERE url = ? AND label = ?", url, label), None)

    def append(self, record: FetchRecord) -> None:
        """Add a record, or replace the one of the same URL and label; committed before this returns.

        Raises:
            InputError: the disk is full or cannot be written.
        """
        marks = ", ".join("?" * len(RECORD_FIELDS))
        with cache_errors(self.path):
            self._database.execute(f"INSERT OR REPLACE INTO records VALUES ({marks})", _values(record))

    def note(self, name: str) -> Any:
        """The value kept under `name`; None if there is none."""
        return _note(self._database, name)

    def keep_note(self, name: str, value: Any) -> None:
        """Keep a value (JSON) under `name`; committed before this returns.

        Raises:
            InputError: the disk is full or cannot be written.
        """
        with cache_errors(self.path):
            self._database.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (name, json.dumps(value)))

    def finish(self) -> None:
        """Every URL was tried: a rerun needs no network."""
        now = datetime.datetime.now(datetime.UTC).isoformat()
        self.keep_note("finished", {"version": VERSION, "source": self.source, "finished_at": now})

    def keep_removed(self, listed: Iterable[str]) -> None:
        """Add what earlier snapshots of the same source fetched and this one no longer names; to call before `finish`.

        Args:
            listed: every URL that this snapshot names, in its one form. A URL that is named keeps nothing of old,
                whatever its label is now and whether or not it still gives a picture.
        """
        seen = set(listed)
        for name, records in _earlier_snapshots(self.path, self.source):
            kept = [
                replace(record, kept_from=record.kept_from or name)
                for record in records
                if record.ok and record.url not in seen and has_object(self.objects, record.image_id, record.bytes)
            ]
            for record in kept:
                self.append(record)
            seen |= {record.url for record in kept}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    def _learn(self, path: Path) -> None:
        """Take over what another journal of the snapshot fetched, and which URLs lead nowhere whatever the rules."""
        for record in _read_records(path):
            lost = record.outcome.startswith("http-4") and not record.momentary
            if not record.kept_from and (record.ok or lost):
                self._learned.setdefault(record.url, record)


@dataclass(frozen=True)
class ObjectReader:
    """Reads fetched pictures by their URL, in any process; a journal on disk says which content that is.

    Args:
        objects: the store's folder.
        journal: of the source, closed.
        changed_at: the time of its last change, st_mtime_ns; one that has changed is opened anew.
        max_file_bytes: of ingest; it may have become smaller since the picture was fetched.
    """

    objects: str
    journal: str
    changed_at: int
    max_file_bytes: int

    def __call__(self, source_path: str) -> bytes:
        """The picture that `source_path`, a URL, gave.

        Raises:
            ImageError: `unreadable`: it is no longer in the cache, or damaged; `too-large`.
        """
        found = _open_closed(self.journal, self.changed_at, os.getpid()).execute(
            "SELECT image_id FROM records WHERE url = ? AND outcome = 'ok' ORDER BY label DESC", (source_path,)
        )
        row = found.fetchone()
        if row is None:
            raise KeyError(source_path)
        return read_object(Path(self.objects), row[0], max_file_bytes=self.max_file_bytes)


@lru_cache(maxsize=4)
def _open_closed(path: str, changed_at: int, process: int) -> sqlite3.Connection:  # noqa: ARG001 - parts of the key
    """A journal that nobody writes: read without a lock, by a connection of this process."""
    return sqlite3.connect(f"file:{quote(path)}?immutable=1", uri=True, check_same_thread=False)


def _records(database: sqlite3.Connection, where: str = "", *values: str) -> Iterator[FetchRecord]:
    for row in database.execute(f"{_SELECT} {where}", values):
        yield FetchRecord(*row)


def _note(database: sqlite3.Connection, name: str) -> Any:
    row = database.execute("SELECT value FROM notes WHERE name = ?", (name,)).fetchone()
    return None if row is None else json.loads(row[0])


def _read_records(path: Path) -> Iterator[FetchRecord]:
    """The records of a journal, also of the former layout, JSON lines; one that cannot be read counts for nothing."""
    with suppress(OSError, sqlite3.Error, ValueError, TypeError):
        if path.suffix == ".sqlite":
            with closing(sqlite3.connect(path, timeout=0)) as database:
                yield from _records(database)
        lines = (path / "journal.jsonl").read_bytes().splitlines() if path.is_dir() else ()
        for value in map(json.loads, lines):
            if "note" not in value:
                yield FetchRecord(**value)


def _earlier_snapshots(path: Path, source: str) -> Iterator[tuple[str, list[FetchRecord]]]:
    """Name and records of the source's newest finished journal of each other snapshot, the newest first."""
    found: dict[str, tuple[str, Path]] = {}
    for other in path.parent.parent.glob("*/*.sqlite"):
        with suppress(sqlite3.Error, KeyError, TypeError), closing(sqlite3.connect(other, timeout=0)) as database:
            about = _note(database, "finished")
            if other.parent != path.parent and (about["source"], about["version"]) == (source, VERSION):
                name = other.parent.name
                found[name] = max(found.get(name, ("", other)), (str(about["finished_at"]), other))
    for name, (_, other) in sorted(found.items(), key=lambda item: item[1], reverse=True):
        yield name, list(_read_records(other))
