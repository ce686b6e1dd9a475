"""An engine by its params, and one page of its results: what it named, or what went wrong and what to do."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

from pipelines.core.errors import InputError
from pipelines.ingest.crawl.answers import (
    NoResultsError,
    PageTurn,
    SearchEngine,
    SearchHit,
    find_reason,
    page_text,
    seen,
)
from pipelines.ingest.crawl.apis import FLICKR_KEY_VARIABLE, FlickrSearch, JsonSearch
from pipelines.ingest.crawl.scraped import BaiduSearch, BingSearch, GoogleSearch
from pipelines.ingest.fetch.fetcher import Fetcher
from pipelines.params.engines import Baidu, Bing, Flickr, Google, JsonEndpoint

EngineParams = Bing | Google | Baidu | Flickr | JsonEndpoint
# after such an answer, an engine is not asked for anything else: it would only be the worse for it
CLOSING = frozenset(
    {"captcha", "consent-page", "bad-key", "http-401", "http-403", "robots-disallowed", "private-address"}
)
_REMEDIES = {
    "http-400": "check the engine's url and filters",
    "http-401": "check the engine's key",
    "http-403": "it refuses; check its key or terms, or use another engine",
    "http-404": "check the engine's url",
    "http-429": "it is asked too much: wait, or raise ingest.download.delay_seconds",
    "too-large": "ask for fewer results a page",
    "robots-disallowed": "its robots.txt refuses programs; use an engine with an API (flickr or json), or, if its "
    "owner agreed, set ingest.download.robots: ignore",
}


@dataclass(frozen=True)
class PageOutcome:
    """What came of asking for one page of results.

    Args:
        hits: in the order of the page.
        more: whether there may be a further page.
        outcome: "ok", or in kebab-case why there are no hits.
        url: that was asked, without the key.
        status: of HTTP; 0 without an answer.
        seen: of an answer without hits, the first 200 printable characters.
        remedy: what to do then.
    """

    hits: tuple[SearchHit, ...]
    more: bool
    outcome: str
    url: str
    status: int
    seen: str = ""
    remedy: str = ""

    @property
    def ok(self) -> bool:
        return self.outcome == "ok"

    def to_json(self) -> list[Any]:
        return [[list(astuple(hit)) for hit in self.hits], *astuple(self)[1:]]

    @classmethod
    def from_json(cls, value: Any) -> "PageOutcome":
        """Read what `to_json` gave.

        Raises:
            ValueError, TypeError: it is something else.
        """
        hits, more, outcome, url, status, seen_there, remedy = value
        return cls(tuple(SearchHit(*hit) for hit in hits), more, outcome, url, status, seen_there, remedy)


def make_engines(
    params: Sequence[EngineParams], *, where: str, homes: Mapping[str, str] | None = None
) -> list[SearchEngine]:
    """Set up the engines; nothing is asked yet.

    Args:
        params: of the engines.
        where: the entry, for messages: "ingest.sources[0]".
        homes: by engine, other addresses than their own; for tests.

    Raises:
        InputError: the environment lacks the key of one of them.
    """
    return [_make(one, f"{where}.engines[{index}]", homes or {}) for index, one in enumerate(params)]


async def ask(engine: SearchEngine, fetcher: Fetcher, turn: PageTurn) -> PageOutcome:
    """Ask `engine` for one page of results; what goes wrong is part of what comes."""
    url = engine.address(turn)
    got = await fetcher.get_page(url, api=engine.is_api)
    hidden = engine.hide(url)
    try:
        if got.outcome != "ok":
            known = find_reason(page_text(got), got.final_url, usual="unknown-answer")
            if known.reason != "unknown-answer":
                raise known
            detail = engine.hide(got.detail)
            remedy = _REMEDIES.get(got.outcome, "try again later")
            raise NoResultsError(got.outcome, f"{detail}; {remedy}" if detail else remedy)
        results = engine.parse(got, turn)
    except NoResultsError as error:
        return PageOutcome((), False, error.reason, hidden, got.status, engine.hide(seen(got.body)), error.remedy)
    return PageOutcome(results.hits, results.more, "ok", hidden, got.status)


def _make(params: EngineParams, where: str, homes: Mapping[str, str]) -> SearchEngine:
    if isinstance(params, JsonEndpoint):
        key = _key(params.key_from, where, f"{params.name} needs a key") if params.key_from else ""
        return JsonSearch(params, key)
    home = {"home": homes[params.engine]} if params.engine in homes else {}
    if isinstance(params, Flickr):
        why = "Flickr answers only those who name a key of its API"
        return FlickrSearch(params, _key(FLICKR_KEY_VARIABLE, where, why), **home)
    if isinstance(params, Google):
        return GoogleSearch(params, **home)
    return BingSearch(params, **home) if isinstance(params, Bing) else BaiduSearch(params, **home)


def _key(variable: str, where: str, why: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not key:
        raise InputError(f"{where}: {why}; put it into the environment variable {variable}, or remove the engine")
    return key
