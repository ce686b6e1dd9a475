"""A plain JSON endpoint: Openverse, Wikimedia Commons, an own index. Where its values stand, params say."""

from collections.abc import Iterator
from urllib.parse import quote, quote_plus, urljoin, urlsplit

from icrawler import Feeder as AnyFeeder
from icrawler import Parser
from icrawler.utils import Signal

from pipelines.ingest.crawl.answers import (
    Answer,
    Item,
    Turn,
    as_text,
    as_words,
    each_once,
    find_reason,
    page_text,
    read_json,
)
from pipelines.ingest.download import Page
from pipelines.params.engines import JsonEndpoint


class Feeder(AnyFeeder):  # type: ignore[misc]  # icrawler has no types
    """Fills the address in."""

    def __init__(self, params: JsonEndpoint, key: str) -> None:
        super().__init__(1, Signal(), None)
        self.params, self.key = params, key

    def feed(self, turn: Turn) -> str:
        """The URL of a page of results."""
        # a plus sign is a space in a query only; before the question mark it would stand for itself
        before, mark, after = self.params.url.partition("?")
        numbers = {
            "page": str(self.params.first_page + turn.page),
            "start": str(turn.start),
            "key": quote(self.key, safe=""),
        }
        path = before.format(words=quote(turn.words, safe=""), **numbers)
        return path + mark + after.format(words=quote_plus(turn.words), **numbers)


class Answers(Parser):  # type: ignore[misc]
    """Finds the results where params say they stand."""

    def __init__(self, params: JsonEndpoint) -> None:
        super().__init__(1, Signal(), None)
        self.params = params

    def parse(self, page: Page, turn: Turn) -> Answer:
        """The results of a page.

        Raises:
            AnswerError: there are none.
        """
        text = page_text(page)
        answer = read_json(text, page.final_url)
        found = look_up(answer, self.params.items)
        if isinstance(found, dict):
            found = list(found.values())
        if not isinstance(found, list):
            # some services leave the list out where it would be empty
            if turn.start and isinstance(answer, dict) and not any(answer.get(key) for key in ("error", "errors")):
                return Answer((), False)
            raise find_reason(text, page.final_url, usual="unknown-answer")
        items = each_once(_items(found, self.params, page.final_url))
        if not items and turn.start == 0:
            raise find_reason(text, page.final_url, usual="no-results")
        return Answer(items, bool(items))


def look_up(value: object, path: str) -> object:
    """What stands at `path` (keys or positions joined by dots) of a JSON value; None where nothing does."""
    for part in path.split(".") if path else ():
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and part.isascii() and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value


def _items(found: list[object], params: JsonEndpoint, base: str) -> Iterator[Item]:
    for told in found:
        yield Item(
            url=_address(look_up(told, params.image_url), base),
            page_url=_address(look_up(told, params.page_url), base) if params.page_url else "",
            title=_join(told, params.title),
            license=_join(told, params.license),
            creator=_join(told, params.creator),
        )


def _join(told: object, places: str) -> str:
    return " ".join(filter(None, (as_words(look_up(told, place)) for place in places.split())))


def _address(value: object, base: str) -> str:
    """A URL of an answer; one without a host belongs to the answer's own."""
    text = as_text(value)
    try:
        return urljoin(base, text) if text and not urlsplit(text).netloc else text
    except ValueError:
        return text  # no URL: the downloader says so of it
