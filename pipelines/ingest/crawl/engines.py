"""One form for every engine: which page to ask for, and what it answered."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any, Protocol
from urllib.parse import quote, quote_plus

from pipelines.core.errors import InputError
from pipelines.ingest.crawl import baidu, bing, endpoint, flickr, google
from pipelines.ingest.crawl.answers import Answer, AnswerError, Item, Turn, find_reason, page_text, seen
from pipelines.ingest.download import Downloader, Page
from pipelines.params.engines import Baidu, Bing, Flickr, Google, JsonEndpoint

AnyEngine = Bing | Google | Baidu | Flickr | JsonEndpoint
# where the engines are, but for `json`; tests ask elsewhere
ADDRESSES: Mapping[str, str] = {
    "bing": bing.ADDRESS, "google": google.ADDRESS, "baidu": baidu.ADDRESS, "flickr": flickr.ADDRESS,
}  # fmt: skip
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


class Feeder(Protocol):
    """Says what to ask; every one is a feeder of icrawler."""

    def feed(self, turn: Turn) -> str: ...


class Parser(Protocol):
    """Reads the answer; every one is a parser of icrawler."""

    def parse(self, page: Page, turn: Turn) -> Answer: ...


@dataclass(frozen=True)
class Engine:
    """A search engine, set up.

    Args:
        name: in sources.jsonl and messages.
        is_api: made for programs; robots.txt speaks of pages for people.
        secret: the key, which is in no record and no message; "" where there is none.
        feeder: icrawler's, gives the URL of a page of results.
        parser: icrawler's, understands the answer.
    """

    name: str
    is_api: bool
    secret: str
    feeder: Feeder
    parser: Parser

    def hide(self, text: str) -> str:
        """`text` without the key."""
        for form in {self.secret, quote(self.secret, safe=""), quote_plus(self.secret)} if self.secret else ():
            text = text.replace(form, "***")
        return text


@dataclass(frozen=True)
class Result:
    """What came of asking for one page of results.

    Args:
        items: in the order of the page.
        more: whether there may be a further page.
        outcome: "ok", or in kebab-case why there are no items.
        url: that was asked, without the key.
        status: of HTTP; 0 where there was no answer.
        seen: of an answer without items, the first 200 printable characters.
        remedy: what to do then.
    """

    items: tuple[Item, ...]
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
        return [[list(astuple(item)) for item in self.items], *astuple(self)[1:]]

    @classmethod
    def from_json(cls, value: Any) -> "Result":
        """Read what `to_json` gave.

        Raises:
            ValueError, TypeError: it is something else.
        """
        items, more, outcome, url, status, seen_there, remedy = value
        return cls(tuple(Item(*item) for item in items), more, outcome, url, status, seen_there, remedy)


def make_engines(params: Sequence[AnyEngine], *, where: str, addresses: Mapping[str, str]) -> list[Engine]:
    """Set up the engines; nothing is asked yet.

    Args:
        params: of the engines.
        where: the entry, for messages: "ingest.sources[0]".
        addresses: see ADDRESSES.

    Raises:
        InputError: the environment lacks the key of one of them.
    """
    return [_make(one, f"{where}.engines[{index}]", addresses) for index, one in enumerate(params)]


def ask(engine: Engine, downloader: Downloader, turn: Turn) -> Result:
    """Ask for one page of results; what goes wrong stands in the result.

    Args:
        engine: to be asked.
        downloader: fetches the page.
        turn: which page.
    """
    url = engine.feeder.feed(turn)
    got = downloader.get_page(url, api=engine.is_api)
    hidden = engine.hide(url)
    try:
        if got.outcome != "ok":
            text = page_text(got)
            known = find_reason(text, got.final_url, usual="unknown-answer")
            if known.reason != "unknown-answer":
                raise known
            detail = engine.hide(got.detail)
            remedy = _REMEDIES.get(got.outcome, "try again later")
            raise AnswerError(got.outcome, f"{detail}; {remedy}" if detail else remedy)
        answer = engine.parser.parse(got, turn)
    except AnswerError as error:
        return Result((), False, error.reason, hidden, got.status, engine.hide(seen(got.body)), error.remedy)
    return Result(answer.items, answer.more, "ok", hidden, got.status)


def _make(params: AnyEngine, where: str, addresses: Mapping[str, str]) -> Engine:
    if isinstance(params, JsonEndpoint):
        key = _key(params.key_from, where, f"{params.name} needs a key") if params.key_from else ""
        return Engine(params.name, True, key, endpoint.Feeder(params, key), endpoint.Answers(params))
    home = addresses[params.engine]
    if isinstance(params, Flickr):
        key = _key(flickr.KEY_VARIABLE, where, "Flickr answers only those who name a key of its API")
        return Engine("flickr", True, key, flickr.Feeder(params, home, key), flickr.Answers(params))
    if isinstance(params, Google):
        return Engine("google", False, "", google.Feeder(params, home), google.Answers())
    if isinstance(params, Bing):
        return Engine("bing", False, "", bing.Feeder(params, home), bing.Answers())
    return Engine("baidu", False, "", baidu.Feeder(params, home), baidu.Answers())


def _key(variable: str, where: str, why: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not key:
        raise InputError(f"{where}: {why}; put it into the environment variable {variable}, or remove the engine")
    return key
