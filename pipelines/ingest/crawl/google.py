r"""Google's image search: pages whose results stand in their scripts, in one of several forms.

- `["https://…/x.jpg",768,1024]` (address, height, width), with `"2003":[null,"…","https://page","title"` behind it:
  what browsers get (AF_initDataCallback, and the calls that followed it);
- `{"ou":"https://…","oh":768,"ow":1024,"ru":"https://page","pt":"title"}`: the older rg_meta;
- `/imgres?imgurl=…&imgrefurl=…&h=…&w=…`: links of the plain page for browsers without scripts;
- anything between quotes that ends like a picture's file: what icrawler looks for; asked last.

Each may be escaped once or twice (`\u003d`, `\x3d`, `\/`).
"""

import html
import itertools
import json
import re
from collections.abc import Iterator
from datetime import date
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from icrawler import Parser
from icrawler.builtin import GoogleFeeder
from icrawler.utils import Signal

from pipelines.ingest.crawl.answers import (
    Answer,
    Item,
    Turn,
    as_pixels,
    as_text,
    as_words,
    each_once,
    elements,
    find_reason,
    page_text,
)
from pipelines.ingest.download import Page
from pipelines.params.engines import Google

ADDRESS = "https://www.google.com/search"
MAX_RESULTS = 1000
_TRIPLE = re.compile(r'\[\\*"(https?:(?:[^"\\<>\t\r\n]|\\+[ux/])+)\\*",(\d{1,6}),(\d{1,6})\]')
# group 1: the backslashes of the quotes, none or one
_SOURCE = re.compile(
    r'(\\?)"2003\1":\[null,\1"[^"\\]{0,200}\1",\1"(https?:(?:[^"\\\s]|\\+[ux/])+)\1",\1"(.{0,1000}?)(?<!\\)\1"'
)
_META = re.compile(r'\{[^{}]*"ou":[^{}]*\}')
_PLAIN_LINK = re.compile(r"/imgres\?([^\"'<>\s]+)")
# possessive (*+): what was read as one address is not read again from its middle
_ADDRESS = re.compile(r"https?:(?:[^\"'\\<>\s,\[\]]|\\+[ux/])*+")
_PICTURE_FILE = re.compile(r"\.(?:jpe?g|png|bmp|gif|webp)\b", re.IGNORECASE)
_ESCAPE = re.compile(r"\\+(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|([/\"']))")
_OWN_HOSTS = ("gstatic.com", "google.com", "googleusercontent.com", "googleapis.com")


class Feeder(GoogleFeeder):  # type: ignore[misc]  # icrawler has no types
    """icrawler's filters and form of the query; a page starts where the one before ended, not 100 further."""

    def __init__(self, params: Google, address: str) -> None:
        super().__init__(1, Signal(), None)
        self.params, self.address = params, address

    def feed(self, turn: Turn) -> str:
        """The URL of a page of results."""
        params = self.params
        chosen: dict[str, Any] = params.model_dump(exclude={"engine", "language"})
        if ".." in params.date:
            first, last = (date.fromisoformat(day) if day else None for day in params.date.split(".."))
            chosen["date"] = (first, last)
        filters = self.get_filter().apply({k: v for k, v in chosen.items() if v not in ("any", (None, None))}, sep=",")
        query = {"q": turn.words, "ijn": str(turn.page), "start": str(turn.start), "tbs": filters, "tbm": "isch"}
        if params.language != "any":
            query["lr"] = f"lang_{params.language}"
        return f"{self.address}?{urlencode(query)}"


class Answers(Parser):  # type: ignore[misc]
    """All results of all scripts: icrawler reads the first script that holds any, and returns None where none does."""

    def __init__(self) -> None:
        super().__init__(1, Signal(), None)

    def parse(self, page: Page, turn: Turn) -> Answer:
        """The results of a page.

        Raises:
            AnswerError: there are none.
        """
        text = page_text(page)
        items = each_once(item for item in _items(text) if not _is_own(item.url))
        if not items and turn.start == 0:
            raise find_reason(text, page.final_url, usual="unknown-answer")
        return Answer(items, bool(items) and turn.start + len(items) < MAX_RESULTS)


def _items(text: str) -> Iterator[Item]:
    found = [*_triples(text), *_metas(text), *_plain_links(text)]
    yield from found
    if not any(not _is_own(item.url) for item in found):
        for inside, script in elements(text, "script"):
            for match in _ADDRESS.finditer(script) if inside else ():
                ends = [ending.end() for ending in _PICTURE_FILE.finditer(match[0])]
                if ends:
                    yield Item(_unescape(match[0][: ends[-1]]))


def _triples(text: str) -> Iterator[Item]:
    matches = list(_TRIPLE.finditer(text))
    for match, following in itertools.zip_longest(matches, matches[1:]):
        end = following.start() if following else len(text)
        # what is told of a picture stands behind it, before the next one
        source = _SOURCE.search(text, match.end(), min(end, match.end() + 4000))
        page_url, title = (_unescape(source[2]), _unescape(source[3])) if source else ("", "")
        yield Item(_unescape(match[1]), page_url, as_words(title), as_pixels(match[3]), as_pixels(match[2]))


def _metas(text: str) -> Iterator[Item]:
    for match in _META.finditer(text.replace("&quot;", '"') if "&quot;ou&quot;" in text else text):
        try:
            told = json.loads(match[0], strict=False)
        except ValueError:
            continue
        url, page_url, title = (html.unescape(as_text(told.get(name))) for name in ("ou", "ru", "pt"))
        yield Item(url, page_url, as_words(title), as_pixels(told.get("ow")), as_pixels(told.get("oh")))


def _plain_links(text: str) -> Iterator[Item]:
    for match in _PLAIN_LINK.finditer(text):
        told = parse_qs(_unescape(html.unescape(match[1])))
        if "imgurl" in told:
            width, height = (as_pixels(told.get(side, ["0"])[0]) for side in ("w", "h"))
            yield Item(told["imgurl"][0], told.get("imgrefurl", [""])[0], width=width, height=height)


def _unescape(text: str) -> str:
    r"""Undo \uNNNN, \xNN, \/ and escaped quotes, once or twice escaped; other scripts stay as they are."""

    def sign(match: re.Match[str]) -> str:
        code = match[1] or match[2]
        return chr(int(code, 16)) if code else match[3]

    # UTF-16 halves of one sign come as two escapes
    return _ESCAPE.sub(sign, text).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _is_own(url: str) -> bool:
    """Whether a URL is one of Google's own thumbnails and signs, which are no results."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    return any(host == own or host.endswith("." + own) for own in _OWN_HOSTS)
