"""Bing's image search: `images/async`, whose every result is a link with JSON in its attribute `m`."""

import html
import json
import re
from collections.abc import Iterator
from urllib.parse import urlencode

from icrawler import Parser
from icrawler.builtin import BingFeeder
from icrawler.utils import Signal

from pipelines.ingest.crawl.answers import (
    Answer,
    Item,
    Turn,
    as_pixels,
    as_text,
    as_words,
    each_once,
    find_reason,
    page_text,
)
from pipelines.ingest.download import Page
from pipelines.params.engines import Bing

ADDRESS = "https://www.bing.com/images/async"
# Bing repeats itself after that
MAX_RESULTS = 1000
PAGE_RESULTS = 35
# possessive (++): a page full of open quotes is refused in one pass
_LINK = re.compile(r"""<a\b((?:[^<>"']++|"[^"]*+"|'[^']*+')*+)>""")
_ATTRIBUTE = re.compile(r"""([a-z-]+)\s*=\s*(?:"([^"]*)"|'([^']*)')""")
_SIZE = re.compile(r"\bexph=(\d+)&expw=(\d+)")


class Feeder(BingFeeder):  # type: ignore[misc]  # icrawler has no types
    """icrawler's filters; the words are quoted, and a page starts where the one before ended.

    icrawler puts the words into the URL as they are (`#` cuts it off, `&` ends the query) and counts 20 results a
    page, whatever came.
    """

    def __init__(self, params: Bing, address: str) -> None:
        super().__init__(1, Signal(), None)
        self.params, self.address = params, address

    def feed(self, turn: Turn) -> str:
        """The URL of a page of results."""
        chosen = self.params.model_dump(exclude={"engine"})
        filters = self.get_filter().apply({name: value for name, value in chosen.items() if value != "any"})
        query = {"q": turn.words, "first": str(turn.start), "count": str(PAGE_RESULTS), "mmasync": "1"}
        # the filters' plus signs stand for themselves, as icrawler and Bing's own pages send them
        return f"{self.address}?{urlencode(query)}" + (f"&qft={filters}" if filters else "")


class Answers(Parser):  # type: ignore[misc]
    """Every result by its `murl`: icrawler keeps those that end in .jpg alone, and cuts off what follows it."""

    def __init__(self) -> None:
        super().__init__(1, Signal(), None)

    def parse(self, page: Page, turn: Turn) -> Answer:
        """The results of a page.

        Raises:
            AnswerError: there are none.
        """
        text = page_text(page)
        items = each_once(_items(text))
        if not items and turn.start == 0:
            shown = 'class="imgpt"' in text or "iusc" in text
            raise find_reason(text, page.final_url, usual="unknown-answer" if shown or not text else "no-results")
        return Answer(items, bool(items) and turn.start + len(items) < MAX_RESULTS)


def _items(text: str) -> Iterator[Item]:
    for link in _LINK.finditer(text):
        attributes = {name: html.unescape(one or other) for name, one, other in _ATTRIBUTE.findall(link[1])}
        if "m" not in attributes:
            continue
        try:
            told = json.loads(attributes["m"], strict=False)
        except (ValueError, RecursionError):
            told = {}  # a result that cannot be read is still counted
        if not isinstance(told, dict) or (told and not {"murl", "turl"} & told.keys()):
            continue  # related searches and the like have an `m` too
        size = _SIZE.search(attributes.get("href", ""))
        yield Item(
            url=as_text(told.get("murl")),
            page_url=as_text(told.get("purl")),
            title=as_words(told.get("t")),
            width=as_pixels(size[2]) if size else 0,
            height=as_pixels(size[1]) if size else 0,
        )
