"""Runs the searches of all classes at once: pages of results and pictures through the same few connections."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from icrawler import Downloader as IcrawlerDownloader
from icrawler.utils import Signal

from pipelines.core.errors import ImageError
from pipelines.core.progress import Advance
from pipelines.images.formats import identify
from pipelines.ingest.crawl.answers import Turn
from pipelines.ingest.crawl.crew import Crew, Job
from pipelines.ingest.crawl.engines import CLOSING, Engine, Result, ask
from pipelines.ingest.crawl.search import Ask, Fetch, Found, Search
from pipelines.ingest.download import Attempt, Downloader, Journal, Record, Request, clean_url
from pipelines.ingest.download.schedule import labelled
from pipelines.ingest.download.store import object_path
from pipelines.ingest.listing import Origin
from pipelines.params.ingest import DownloadParams

# what `identify` looks at
_HEAD_BYTES = 1024


class Fetcher(IcrawlerDownloader):  # type: ignore[misc]  # icrawler has no types
    """Fetches one picture with all of the project's rules.

    icrawler's own threads end at the first exception, and the crawl with them, without a word; they name files by
    their arrival, take more than was wanted, and leave while pages are still read. Here `Search` decides what is
    fetched, and `Crew` hands every exception on.
    """

    def __init__(self, downloader: Downloader) -> None:
        super().__init__(1, Signal(), None, None)
        self._downloader = downloader

    def download(self, task: Request, tries: int) -> Attempt:
        """Try once more to fetch a picture, after `tries` tries; what goes wrong stands in the record."""
        return self._downloader.attempt(task, tries)


@dataclass
class Crawl:
    """What the searches share.

    Args:
        engines: in the order of asking.
        searches: one a class.
        downloader, journal: of this run.
        objects: where fetched pictures lie.
        params: how many connections.
        advance: told of every picture that came.
        records: what came, by label and `Fetch.number`.
    """

    engines: Sequence[Engine]
    searches: Sequence[Search]
    downloader: Downloader
    journal: Journal
    objects: Path
    params: DownloadParams
    advance: Advance
    records: dict[Fetch, Record] = field(default_factory=dict)
    _closed: dict[int, Result] = field(default_factory=dict)
    """engines that refused everything, by index"""
    _by_url: dict[str, Record] = field(default_factory=dict)
    """what this run fetched; a momentary failure is not tried again for the next class"""
    _waiting: dict[Job[Record | Result], list[tuple[Search, Ask | Fetch]]] = field(default_factory=dict)
    _fetching: dict[str, Job[Record | Result]] = field(default_factory=dict)

    def run(self) -> None:
        """Do all that the searches want.

        Raises:
            InputError: the cache cannot be written.
        """
        fetcher = Fetcher(self.downloader)
        with Crew[Record | Result](self.params, gate=self.downloader.gate, stop=self.downloader.stop) as crew:
            active = list(self.searches)
            while active:
                for search in active:
                    self._feed(search, crew, fetcher)
                active = [search for search in active if not search.ended]
                if crew.busy:
                    for job, came in crew.land():
                        self._land(self._waiting.pop(job), came)

    def _feed(self, search: Search, crew: Crew[Record | Result], fetcher: Fetcher) -> None:
        """Start what a search wants, as far as there are hands; what is known needs none."""
        while not crew.full and (step := search.step()) is not None:
            if isinstance(step, Ask):
                known = self._known_result(search, step)
                if known is not None:
                    search.answered(step, known)
                    continue
                turn = Turn(search.words[step.word], step.page, step.start)
                host = _host(self.engines[step.engine].feeder.feed(turn))
                asking = Job[Record | Result](host, partial(self._ask, step.engine, turn))
                self._waiting[asking] = [(search, step)]
                crew.add(asking)
                continue
            found = search.found[step.number]
            record = self._by_url.get(found.url) or self.journal.get(found.url, search.label)
            if record is not None:
                self._take(search, step, record)
            elif found.url in self._fetching:
                self._waiting[self._fetching[found.url]].append((search, step))
            else:
                request = self._request(search, found)
                fetching = Job[Record | Result](_host(found.url), partial(self._fetch, fetcher, request))
                self._fetching[found.url] = fetching
                self._waiting[fetching] = [(search, step)]
                crew.add(fetching)

    def _ask(self, engine: int, turn: Turn, tries: int) -> Record | Result | float:  # noqa: ARG002 - tries by itself
        closed = self._closed.get(engine)
        if closed is None:
            return ask(self.engines[engine], self.downloader, turn)
        remedy = f"not asked, since it answered another search so; {closed.remedy}"
        return replace(closed, url="", status=0, seen="", remedy=remedy)

    @staticmethod
    def _fetch(fetcher: Fetcher, request: Request, tries: int) -> Record | Result | float:
        attempt = fetcher.download(request, tries)
        return attempt.record if attempt.wait_seconds is None else float(attempt.wait_seconds)

    def _land(self, waiting: Sequence[tuple[Search, Ask | Fetch]], came: Record | Result) -> None:
        """Tell those who wait what came."""
        for search, step in waiting:
            if isinstance(came, Result) and isinstance(step, Ask):
                self.journal.note(_note(self.engines, search, step), came.to_json())
                if came.outcome in CLOSING:
                    self._closed.setdefault(step.engine, came)
                search.answered(step, came)
            elif isinstance(came, Record) and isinstance(step, Fetch):
                url = search.found[step.number].url
                self._fetching.pop(url, None)
                self._by_url[url] = came
                self._take(search, step, came)

    def _known_result(self, search: Search, step: Ask) -> Result | None:
        """The answer of an earlier run; a failure may be over by now."""
        try:
            result = Result.from_json(self.journal.notes[_note(self.engines, search, step)])
        except (KeyError, ValueError, TypeError):
            return None
        return result if result.ok else None

    def _take(self, search: Search, step: Fetch, record: Record) -> None:
        """Keep the record of a picture under the class and words that found it, and tell the search."""
        request = self._request(search, search.found[step.number])
        record = labelled(record, request)
        if self.journal.get(record.url, record.label) != record:
            self.journal.append(record)
        if record.ok:
            try:
                with object_path(self.objects, record.image_id).open("rb") as file:
                    identify(file.read(_HEAD_BYTES))
            except ImageError as error:
                record = replace(record, outcome=error.reason, detail=error.detail)
        self.records[step] = record
        before = search.num_good
        search.came(step, record.image_id if record.ok else "")
        if search.num_good > before:
            self.advance(1, record.bytes)

    def _request(self, search: Search, found: Found) -> Request:
        return make_request(search, found, self.engines[found.engine].name)


def make_request(search: Search, found: Found, engine: str) -> Request:
    """What the downloader is asked for, with all that is known of a picture."""
    item = found.item
    page_url = _web_address(item.page_url)
    origin = Origin(page_url=page_url, query=search.words[found.word], license=item.license, creator=item.creator)
    return Request(found.url, search.label, origin, engine=engine, page=found.page + 1, rank=found.rank)


def _web_address(url: str) -> str:
    """An address that a report may link to: no `javascript:`, no password; "" for anything else."""
    try:
        return clean_url(url)
    except ImageError:
        return ""


def _note(engines: Sequence[Engine], search: Search, step: Ask) -> str:
    """The name of a page of results in the journal; classes that search for the same words share it."""
    return f"{step.engine} {engines[step.engine].name} {search.words[step.word]!r} {step.page} {step.start}"


def _host(url: str) -> str:
    """Whose turn a URL has to wait for; of one that will be refused, it does not matter."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
