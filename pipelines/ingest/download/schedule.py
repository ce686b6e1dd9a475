"""Many URLs at the same time: hosts take turns, a host that must wait holds up no other."""

import contextlib
import heapq
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from pipelines.core.errors import ImageError
from pipelines.core.progress import Advance, progress
from pipelines.ingest.download.addresses import parse_url
from pipelines.ingest.download.downloader import Downloader, blank_record
from pipelines.ingest.download.gate import Gate
from pipelines.ingest.download.journal import Journal
from pipelines.ingest.download.records import Record, Request
from pipelines.ingest.download.trouble import StoppedError

_LAST_WORDS_SECONDS = 2.0


def fetch_all(requests: Iterable[Request], *, downloader: Downloader, journal: Journal, title: str) -> list[Record]:
    """Fetch what the journal does not know yet; each URL once, whatever its labels.

    Args:
        requests: of which the second with the same URL and label is left out.
        downloader: with the rules.
        journal: gets every record as it happens.
        title: of the progress bar.

    Returns:
        A record of each URL and label, in the order of `requests`.

    Raises:
        InputError: the cache cannot be written. What was fetched is in the journal, as after Ctrl-C.
    """
    wanted: dict[tuple[str, str], Request] = {}
    for request in requests:
        wanted.setdefault((blank_record(request).url, request.label), request)
    jobs: dict[str, _Job] = {}
    for (url, label), request in wanted.items():
        known = journal.get(url, label)
        if known is not None:
            record = labelled(known, request)
            if record != journal.last(url, label):
                journal.append(record)
        elif url in jobs:
            jobs[url].requests.append(request)
        else:
            jobs[url] = _Job(_host(url), [request])
    if jobs:
        num_known = len(wanted) - sum(len(job.requests) for job in jobs.values())
        with progress(title, len(wanted), unit="URLs", done=num_known) as advance:
            _run(list(jobs.values()), downloader, journal, advance)
    ended = (journal.last(url, label) for url, label in wanted)
    return [record for record in ended if record is not None]


def labelled(record: Record, request: Request) -> Record:
    """What came of a URL, told for `request`: its label and what is known beside it."""
    blank = blank_record(request)
    names = ("label", "query", "engine", "page", "rank", "page_url", "license", "creator", "kept_from")
    return replace(record, **{name: getattr(blank, name) for name in names})


@dataclass(slots=True)
class _Job:
    """One URL to fetch, for the requests that name it."""

    host: str
    requests: list[Request]
    tries: int = 0


@dataclass(slots=True)
class _Queue:
    """The jobs of one host."""

    waiting: deque[_Job] = field(default_factory=deque)
    active: int = 0
    listed: bool = False
    """whether it stands in the heap of those who may be next"""


class _Schedule:
    """Says which job is next. Thread-safe.

    Args:
        jobs: to do.
        gate: knows when a host may be asked.
        share: jobs of one host at the same time.
    """

    def __init__(self, jobs: Iterable[_Job], gate: Gate, share: int) -> None:
        self._gate = gate
        self._share = share
        self._hosts: dict[str, _Queue] = {}
        self._ready: list[tuple[float, int, str]] = []
        self._later: list[tuple[float, int, _Job]] = []
        self._change = threading.Condition()
        self._number = 0
        self._left = 0
        self._ended = False
        for job in jobs:
            self._left += 1
            self._hosts.setdefault(job.host, _Queue()).waiting.append(job)
        for host in self._hosts:
            self._list(host)

    def take(self) -> _Job | None:
        """The next job, once there is one; None when all are done or everything ends."""
        with self._change:
            while self._left and not self._ended:
                now = time.monotonic()
                while self._later and self._later[0][0] <= now:
                    job = heapq.heappop(self._later)[2]
                    self._hosts[job.host].waiting.appendleft(job)
                    self._list(job.host)
                if self._ready and self._ready[0][0] <= now:
                    host = heapq.heappop(self._ready)[2]
                    self._hosts[host].listed = False
                    if self._gate.ready_at(host) > now:  # it was told to wait since
                        self._list(host)
                        continue
                    self._hosts[host].active += 1
                    job = self._hosts[host].waiting.popleft()
                    self._list(host, self._gate.delay(host))
                    return job
                times = [heap[0][0] for heap in (self._ready, self._later) if heap]
                self._change.wait(max(0.001, min(times) - now) if times else None)
            return None

    def done(self, job: _Job) -> None:
        """`job` needs no further try."""
        with self._change:
            self._left -= 1
            self._leave(job)

    def again(self, job: _Job, wait_seconds: float) -> None:
        """`job` is to be tried once more, after a pause in which others are."""
        with self._change:
            self._number += 1
            heapq.heappush(self._later, (time.monotonic() + wait_seconds, self._number, job))
            self._leave(job)

    def end(self) -> None:
        """Hand out nothing more."""
        with self._change:
            self._ended = True
            self._change.notify_all()

    def _leave(self, job: _Job) -> None:
        self._hosts[job.host].active -= 1
        self._list(job.host)
        self._change.notify_all()

    def _list(self, host: str, delay: float = 0.0) -> None:
        found = self._hosts[host]
        if found.waiting and found.active < self._share and not found.listed:
            found.listed = True
            self._number += 1
            at = max(self._gate.ready_at(host), time.monotonic() + delay)
            heapq.heappush(self._ready, (at, self._number, host))


def _run(jobs: list[_Job], downloader: Downloader, journal: Journal, advance: Advance) -> None:
    """Do all jobs in `connections` threads; the first error ends them all and is raised here."""
    schedule = _Schedule(jobs, downloader.gate, downloader.params.connections_per_host)
    errors: list[BaseException] = []
    lock = threading.Lock()

    def work() -> None:
        try:
            while (job := schedule.take()) is not None:
                attempt = downloader.attempt(job.requests[0], job.tries)
                job.tries += 1
                if attempt.wait_seconds is not None:
                    schedule.again(job, attempt.wait_seconds)
                    continue
                for request in job.requests:
                    journal.append(labelled(attempt.record, request))
                schedule.done(job)
                with lock:
                    advance(len(job.requests), attempt.record.bytes)
        except BaseException as error:  # noqa: BLE001 - nothing may be lost in a thread: it is raised again by the caller
            errors.append(error)
            schedule.end()
            downloader.stop()

    threads = [
        threading.Thread(target=work, name=f"download-{number}", daemon=True)
        for number in range(min(downloader.params.connections, len(jobs)))
    ]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        schedule.end()
        if any(thread.is_alive() for thread in threads):
            downloader.stop()
        until = time.monotonic() + _LAST_WORDS_SECONDS
        for thread in threads:
            if thread.ident is not None:
                thread.join(max(0.0, until - time.monotonic()))
    for error in sorted(errors, key=lambda error: isinstance(error, StoppedError)):
        raise error


def _host(url: str) -> str:
    with contextlib.suppress(ImageError):
        return parse_url(url).host
    return ""  # it will be refused at once
