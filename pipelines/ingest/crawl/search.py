"""The search for one class: which page to ask for and which picture to fetch next, and which pictures it takes.

The order is fixed: engine, page, rank, words. The results of a page keep the engine's order, and those of a class's
several searches alternate, so that each has its share. A picture is asked for only while the pictures before it, those
still on their way counted as good, are too few; a page likewise. So exactly those pictures are fetched that the order
needs, and the answers alone, not their timing, decide which they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pipelines.core.errors import ImageError
from pipelines.ingest.crawl.answers import SearchHit
from pipelines.ingest.crawl.engines import PageOutcome
from pipelines.ingest.fetch.urls import clean_url


class PageStep(NamedTuple):
    """A page of results to be asked for."""

    label: str
    engine: int
    """index"""
    page: int
    """from 0"""
    word: int
    """index of the search words"""
    start: int
    """results on the pages before"""


class FetchStep(NamedTuple):
    """A picture to be fetched."""

    label: str
    number: int
    """index into `ClassSearch.found`"""


@dataclass(frozen=True)
class FoundPicture:
    """A picture that an engine named.

    Args:
        url: in its one form; as the engine wrote it where it has none.
        engine, page, word: see `PageStep`.
        rank: position on the page, from 0.
        hit: what the page says.
        again: the same URL came before in this class, or the hit names none: it is not fetched.
    """

    url: str
    engine: int
    page: int
    word: int
    rank: int
    hit: SearchHit
    again: bool


@dataclass
class ClassSearch:
    """The search for one class.

    Args:
        label: of the class.
        words: its searches.
        num_engines: asked in turn.
        wanted: pictures.
        max_pages: of one engine for one search.
    """

    label: str
    words: Sequence[str]
    num_engines: int
    wanted: int
    max_pages: int
    found: list[FoundPicture] = field(default_factory=list)
    """in order; those from `next` on were not needed"""
    next: int = 0
    good: dict[int, str] = field(default_factory=dict)
    """index into `found` to sha256, of the pictures that came"""
    failures: list[tuple[PageStep, PageOutcome]] = field(default_factory=list)
    _round: tuple[int, int] = (0, -1)
    """engine and page"""
    _open_words: list[int] = field(default_factory=list)
    """indices of the words that the engine may have more for"""
    _starts: dict[int, int] = field(default_factory=dict)
    _asks: list[PageStep] = field(default_factory=list)
    _answers: dict[int, tuple[PageStep, PageOutcome | None]] = field(default_factory=dict)
    """of the round, by word; None: on its way"""
    _flying: set[int] = field(default_factory=set)
    _known: set[str] = field(default_factory=set)
    """URLs of the class"""
    _told: dict[int, set[str]] = field(default_factory=dict)
    """URLs that the engine gave, by word"""
    _ids: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._open_words = list(range(len(self.words)))

    @property
    def num_good(self) -> int:
        """Pictures of different bytes that came."""
        return len(self._ids)

    @property
    def ended(self) -> bool:
        """Whether there is nothing to wait for and nothing to do."""
        return not self._flying and not any(answer is None for _, answer in self._answers.values()) and not self._todo()

    def step(self) -> PageStep | FetchStep | None:
        """What to do next; None while answers must be waited for, or when the search has ended."""
        if not self._todo():
            return None
        if self.next >= len(self.found):
            ask = self._asks.pop(0)
            self._answers[ask.word] = (ask, None)
            return ask
        number, self.next = self.next, self.next + 1
        self._flying.add(number)
        return FetchStep(self.label, number)

    def answered(self, ask: PageStep, result: PageOutcome) -> None:
        """Take a page of results."""
        self._answers[ask.word] = (ask, result)
        if not self._asks and all(answer is not None for _, answer in self._answers.values()):
            self._end_round()

    def came(self, fetch: FetchStep, image_id: str) -> None:
        """Take what came of a picture: its sha256, or "" if it cannot be used."""
        self._flying.remove(fetch.number)
        if image_id:
            self.good[fetch.number] = image_id
            self._ids.add(image_id)

    def taken(self) -> list[int]:
        """Indices into `found` of the pictures that the class takes: the first `wanted` of different bytes."""
        first: dict[str, int] = {}
        for number in sorted(self.good):
            first.setdefault(self.good[number], number)
        return sorted(first.values())[: self.wanted]

    def _todo(self) -> bool:
        """Whether something can be done now; moves on to the next page or engine where that is what is needed."""
        if self.num_good + len(self._flying) >= self.wanted:
            return False
        while self.next < len(self.found) and self.found[self.next].again:
            self.next += 1
        if self.next < len(self.found) or self._asks:
            return True
        return not self._answers and self._start_round()

    def _start_round(self) -> bool:
        engine, page = self._round
        page += 1
        if not self._open_words or page >= self.max_pages:
            engine, page = engine + 1, 0
            self._open_words, self._starts, self._told = list(range(len(self.words))), {}, {}
        if engine >= self.num_engines:
            self._open_words = []
            return False
        self._round = (engine, page)
        self._asks = [PageStep(self.label, engine, page, word, self._starts.get(word, 0)) for word in self._open_words]
        return True

    def _end_round(self) -> None:
        """Put the results of all searches of a page in order, and see which searches are at their end."""
        engine, page = self._round
        answers = [(word, ask, result) for word, (ask, result) in sorted(self._answers.items()) if result is not None]
        self._answers = {}
        rows = []
        for word, ask, result in answers:
            if not result.ok:
                self.failures.append((ask, result))
            urls = [_one_form(hit.url) for hit in result.hits]
            told = self._told.setdefault(word, set())
            # an engine that is at its end and does not say so gives a page that it gave before
            if not (result.ok and result.more and any(url and url not in told for url in urls)):
                self._open_words.remove(word)
            told.update(urls)
            self._starts[word] = ask.start + len(result.hits)
            rows += [(rank, word, url, hit) for rank, (url, hit) in enumerate(zip(urls, result.hits, strict=True))]
        for rank, word, url, hit in sorted(rows, key=lambda row: row[:2]):
            self.found.append(FoundPicture(url, engine, page, word, rank, hit, again=not url or url in self._known))
            self._known.add(url)


def _one_form(url: str) -> str:
    try:
        return clean_url(url) if url else ""
    except ImageError:
        return url
