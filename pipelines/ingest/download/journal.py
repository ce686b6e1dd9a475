"""What was tried for one source in one snapshot, written as it happens: a run that is killed goes on from here.

    <cache>/downloads/<snapshot>/<source key>/journal.jsonl     a line a record, appended by one write call
    <cache>/downloads/<snapshot>/<source key>/finished.json     there once every URL was tried

The key is a hash of the source's settings, so that other settings make another journal; it takes over what journals of
the same snapshot have fetched. A finished journal is read in place of the network.
"""

import datetime
import errno
import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pipelines.core.errors import InputError
from pipelines.core.files import write_json
from pipelines.ingest.download.records import Record
from pipelines.ingest.download.store import cache_errors, has_object
from pipelines.ingest.listing import Place
from pipelines.params.base import Section

VERSION = 1
# rules of ingest.download that decide what comes, not how fast
_RULES = {"timeout_seconds", "max_attempts", "max_wait_seconds", "max_redirects", "robots", "private_hosts"}


def downloads_folder(place: Place) -> Path:
    """Where journals and fetched contents lie."""
    return place.cache / "downloads"


def objects_folder(place: Place) -> Path:
    """Where fetched contents lie, by their sha256, shared by all snapshots."""
    return downloads_folder(place) / "objects"


def source_key(entry: Section, place: Place, *contents: bytes) -> str:
    """Tells the journal of one source: 32 hex digits.

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
    """The records of one source in one snapshot. Thread-safe; closed by the end of its `with` block.

    Args:
        folder: of this journal; made here.
        objects: where contents lie; a record whose content is not there does not count.
        source: name of the entry: "0-urls".

    Raises:
        InputError: it cannot be written, or another run writes it.
    """

    def __init__(self, folder: Path, *, objects: Path, source: str) -> None:
        self.folder = folder
        self.objects = objects
        self.source = source
        self.notes: dict[str, Any] = {}
        self._records: dict[tuple[str, str], Record] = {}
        self._by_url: dict[str, Record] = {}
        self._lock = threading.Lock()
        with cache_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(folder / "journal.jsonl", os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(self._file)
                raise InputError(f"{folder}: another run is fetching this very source; wait for its end") from None
            self._cut_torn_line()
        for line in read_journal(folder / "journal.jsonl"):
            if isinstance(line, Record):
                self._take(line)
            else:
                self.notes[line[0]] = line[1]

    @classmethod
    def open(cls, place: Place, *, source: str, key: str) -> Self:
        """The journal of the source with this key in the current snapshot; it knows what the snapshot's others fetched.

        Raises:
            InputError: it cannot be written, or another run writes it.
        """
        snapshot = downloads_folder(place) / place.params.snapshot
        journal = cls(snapshot / key, objects=objects_folder(place), source=source)
        if not journal.finished:
            for folder in sorted(snapshot.iterdir()):
                if folder.name != key:
                    journal._learn(folder)
        return journal

    @property
    def records(self) -> list[Record]:
        """The newest record of each URL and label, in no particular order."""
        with self._lock:
            return list(self._records.values())

    @property
    def finished(self) -> bool:
        """Whether every URL was tried, and all that came is still in the cache."""
        if not (self.folder / "finished.json").is_file():
            return False
        with self._lock:
            return all(
                has_object(self.objects, record.image_id, record.bytes)
                for record in self._records.values()
                if record.ok
            )

    def get(self, url: str, label: str) -> Record | None:
        """What came of `url` (in its one form) for `label` or another label; None where it has to be tried (again)."""
        with self._lock:
            record = self._records.get((url, label))
            if record is None or not record.ok:
                record = self._by_url.get(url, record)
            if record is None or record.momentary:
                return None
        if record.ok and not has_object(self.objects, record.image_id, record.bytes):
            return None
        return record

    def last(self, url: str, label: str) -> Record | None:
        """The newest record of `url` for this very `label`, however it ended."""
        with self._lock:
            return self._records.get((url, label))

    def append(self, record: Record) -> None:
        """Add a record, on disk before this returns.

        Raises:
            InputError: the disk is full or cannot be written.
        """
        self._write(record.to_json())
        with self._lock:
            self._take(record)

    def note(self, name: str, value: Any) -> None:
        """Keep a value (JSON) over a kill; found in `notes` again.

        Raises:
            InputError: the disk is full or cannot be written.
        """
        self._write({"note": name, "value": value})
        with self._lock:
            self.notes[name] = value

    def finish(self) -> None:
        """Every URL was tried: a rerun needs no network."""
        with cache_errors(self.folder):
            write_json(
                self.folder / "finished.json",
                {
                    "version": VERSION,
                    "source": self.source,
                    "num_records": len(self._records),
                    "finished_at": datetime.datetime.now(datetime.UTC).isoformat(),
                },
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            os.close(self._file)
            self._file = -1

    def _write(self, value: dict[str, Any]) -> None:
        line = json.dumps(value, ensure_ascii=True).encode() + b"\n"
        with self._lock, cache_errors(self.folder):
            if os.write(self._file, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _take(self, record: Record) -> None:
        self._records[record.url, record.label] = record
        known = self._by_url.get(record.url)
        if not record.kept_from and (record.ok or known is None or not known.ok):
            self._by_url[record.url] = record

    def _learn(self, folder: Path) -> None:
        """Take over what another journal of the snapshot fetched, and which URLs lead nowhere whatever the rules."""
        for record in read_journal(folder / "journal.jsonl"):
            if isinstance(record, Record) and not record.kept_from:
                gone = record.outcome.startswith("http-4") and not record.momentary
                if record.ok or gone:
                    self._by_url.setdefault(record.url, record)

    def _cut_torn_line(self) -> None:
        """A kill may leave half a line at the end."""
        end = os.fstat(self._file).st_size
        position = end
        while position:
            start = max(0, position - 65536)
            found = os.pread(self._file, position - start, start).rfind(b"\n")
            if found >= 0:
                position = start + found + 1
                break
            position = start
        if position != end:
            os.ftruncate(self._file, position)


def read_journal(path: Path) -> Iterator[Record | tuple[str, Any]]:
    """The records and notes of a journal; one that cannot be read counts for nothing."""
    try:
        with path.open("rb") as file:
            for line in file:
                try:
                    value = json.loads(line)
                    if isinstance(value, dict) and value.keys() == {"note", "value"}:
                        yield str(value["note"]), value["value"]
                    else:
                        yield Record.from_json(value)
                except ValueError:
                    continue
    except (FileNotFoundError, NotADirectoryError):
        return
