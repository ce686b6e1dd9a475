"""Runs the searches of all classes at the same time, pages of results and pictures by one fetcher."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from pipelines.core.errors import ImageError
from pipelines.core.progress import Advance, progress
from pipelines.images.formats import identify
from pipelines.ingest.crawl.answers import PageTurn, SearchEngine
from pipelines.ingest.crawl.engines import CLOSING, PageOutcome, ask
from pipelines.ingest.crawl.search import ClassSearch, FetchStep, FoundPicture, PageStep
from pipelines.ingest.fetch.fetcher import Fetcher, run_async
from pipelines.ingest.fetch.journal import Journal, objects_folder
from pipelines.ingest.fetch.listing import WAITING_PER_CONNECTION
from pipelines.ingest.fetch.records import FetchRecord, FetchRequest, labelled
from pipelines.ingest.fetch.store import object_path
from pipelines.ingest.fetch.urls import clean_url
from pipelines.ingest.listing import Origin, Place

_HEAD_BYTES = 1024  # what `identify` looks at
Came = FetchRecord | PageOutcome


def run_searches(
    searches: Sequence[ClassSearch], engines: Sequence[SearchEngine], *, place: Place, journal: Journal, title: str
) -> dict[FetchStep, FetchRecord]:
    """Do all that the searches want; give what came of each picture.

    Raises:
        InputError: the cache cannot be written.
    """

    async def run() -> dict[FetchStep, FetchRecord]:
        params = place.params
        total = sum(search.wanted for search in searches)
        with progress(title, total, unit="pictures") as advance:
            async with Fetcher(
                params.download, max_file_bytes=params.max_file_bytes, objects=objects_folder(place)
            ) as fetcher:
                crawl = CrawlRun(engines, fetcher, journal, advance)
                await crawl.run(searches)
        return crawl.records

    return run_async(run)


class CrawlRun:
    """What the searches share.

    Args:
        engines: in the order of asking.
        fetcher, journal: of this run.
        advance: told of every picture that came.
    """

    def __init__(self, engines: Sequence[SearchEngine], fetcher: Fetcher, journal: Journal, advance: Advance) -> None:
        self.records: dict[FetchStep, FetchRecord] = {}
        self._engines = engines
        self._fetcher = fetcher
        self._journal = journal
        self._advance = advance
        share = min(fetcher.params.connections, fetcher.params.connections_per_host)
        self._turns = [asyncio.Semaphore(share) for _ in engines]
        self._closed: dict[int, PageOutcome] = {}
        """engines that refused everything, by index"""
        self._by_url: dict[str, FetchRecord] = {}
        """what this run fetched; a momentary failure is not tried again for the next class"""
        self._fetching: dict[str, asyncio.Task[Came]] = {}
        self._waiting: defaultdict[asyncio.Task[Came], list[tuple[ClassSearch, PageStep | FetchStep]]] = defaultdict(
            list
        )

    async def run(self, searches: Sequence[ClassSearch]) -> None:
        """Do all that the searches want; the first error ends everything and is raised."""
        active = list(searches)
        try:
            while active:
                for search in active:
                    self._feed(search)
                active = [search for search in active if not search.ended]
                if self._waiting:
                    done, _ = await asyncio.wait(self._waiting, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        self._land(self._waiting.pop(task), task.result())
        finally:
            for task in self._waiting:
                task.cancel()
            await asyncio.gather(*self._waiting, return_exceptions=True)

    def _feed(self, search: ClassSearch) -> None:
        """Start what a search wants, as far as connections go; what is known needs none."""
        most = self._fetcher.params.connections * WAITING_PER_CONNECTION
        while len(self._waiting) < most and (step := search.step()) is not None:
            if isinstance(step, PageStep):
                known = self._known_outcome(search, step)
                if known is not None:
                    search.answered(step, known)
                else:
                    turn = PageTurn(search.words[step.word], step.page, step.start)
                    self._waiting[asyncio.create_task(self._ask(step.engine, turn))].append((search, step))
                continue
            found = search.found[step.number]
            record = self._by_url.get(found.url) or self._journal.get(found.url, search.label)
            if record is not None:
                self._take(search, step, record)
                continue
            if found.url not in self._fetching:
                request = make_request(search, found, self._engines[found.engine].name)
                self._fetching[found.url] = asyncio.create_task(self._fetcher.fetch(request))
            self._waiting[self._fetching[found.url]].append((search, step))

    async def _ask(self, engine: int, turn: PageTurn) -> Came:
        async with self._turns[engine]:
            closed = self._closed.get(engine)
            if closed is None:
                outcome = await ask(self._engines[engine], self._fetcher, turn)
                if outcome.outcome in CLOSING:
                    self._closed.setdefault(engine, outcome)
                return outcome
        remedy = f"not asked, since it answered another search so; {closed.remedy}"
        return replace(closed, url="", status=0, seen="", remedy=remedy)

    def _land(self, waiting: Sequence[tuple[ClassSearch, PageStep | FetchStep]], came: Came) -> None:
        """Tell the searches that wait what came."""
        for search, step in waiting:
            if isinstance(came, PageOutcome) and isinstance(step, PageStep):
                self._journal.keep_note(self._note(search, step), came.to_json())
                search.answered(step, came)
            elif isinstance(came, FetchRecord) and isinstance(step, FetchStep):
                url = search.found[step.number].url
                self._fetching.pop(url, None)
                self._by_url[url] = came
                self._take(search, step, came)

    def _known_outcome(self, search: ClassSearch, step: PageStep) -> PageOutcome | None:
        """The answer of an earlier run; a failure may be over by now."""
        try:
            outcome = PageOutcome.from_json(self._journal.note(self._note(search, step)))
        except (ValueError, TypeError):
            return None
        return outcome if outcome.ok else None

    def _note(self, search: ClassSearch, step: PageStep) -> str:
        """The name of a page of results in the journal; classes that search for the same words share it."""
        return f"{step.engine} {self._engines[step.engine].name} {search.words[step.word]!r} {step.page} {step.start}"

    def _take(self, search: ClassSearch, step: FetchStep, record: FetchRecord) -> None:
        """Keep the record of a picture under the class and words that found it, and tell the search."""
        found = search.found[step.number]
        record = labelled(record, make_request(search, found, self._engines[found.engine].name))
        if self._journal.get(record.url, record.label) != record:
            self._journal.append(record)
        if record.ok:
            try:
                with object_path(self._journal.objects, record.image_id).open("rb") as file:
                    identify(file.read(_HEAD_BYTES))
            except ImageError as error:
                record = replace(record, outcome=error.reason, detail=error.detail)
        self.records[step] = record
        before = search.num_good
        search.came(step, record.image_id if record.ok else "")
        if search.num_good > before:
            self._advance(1, record.bytes)


def make_request(search: ClassSearch, found: FoundPicture, engine: str) -> FetchRequest:
    """What the fetcher is asked for, with all that is known of a picture."""
    hit = found.hit
    page_url = _web_address(hit.page_url)
    origin = Origin(page_url=page_url, query=search.words[found.word], license=hit.license, creator=hit.creator)
    return FetchRequest(found.url, search.label, origin, engine=engine, page=found.page + 1, rank=found.rank)


def _web_address(url: str) -> str:
    """An address that a report may link to: no `javascript:`, no password; "" for anything else."""
    try:
        return clean_url(url)
    except ImageError:
        return ""
