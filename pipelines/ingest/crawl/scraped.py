r"""Bing, Google and Baidu: pages made for people, whose robots.txt may refuse programs; filters by icrawler.

- Bing: `images/async`; each result is a link with JSON in its attribute `m`.
- Google: scripts with `["https://…/x.jpg",768,1024]` (address, height, width) and behind it
  `"2003":[null,"…","https://page","title"`, escaped once or twice (`\u003d`, `\x3d`, `\/`); if there is none, anything
  between quotes that ends like a picture's file, which is what icrawler looks for.
- Baidu: `acjson`; the addresses are enciphered.

icrawler puts the words into URLs as they are (`#` cuts them off) and counts a fixed number of results a page: here
words are quoted, and a page starts where the one before ended.
"""

import html
import itertools
import json
import re
from collections.abc import Iterator
from datetime import date
from typing import Any
from urllib.parse import urlencode, urlsplit

from icrawler.builtin import BaiduFeeder, BaiduParser, BingFeeder, GoogleFeeder
from icrawler.utils import Signal

from pipelines.ingest.crawl.answers import (
    PageTurn,
    ResultPage,
    SearchEngine,
    SearchHit,
    as_pixels,
    as_text,
    as_words,
    each_once,
    elements,
    find_reason,
    page_text,
    read_json,
)
from pipelines.ingest.fetch.fetcher import FetchedPage
from pipelines.params.engines import Baidu, Bing, Google

MAX_RESULTS = 1000  # the engines repeat themselves after that
_BING_RESULTS = 35
_BAIDU_RESULTS = 30
# possessive (++): a page full of open quotes is refused in one pass
_LINK = re.compile(r"""<a\b((?:[^<>"']++|"[^"]*+"|'[^']*+')*+)>""")
_ATTRIBUTE = re.compile(r"""([a-z-]+)\s*=\s*(?:"([^"]*)"|'([^']*)')""")
_SIZE = re.compile(r"\bexph=(\d+)&expw=(\d+)")
_TRIPLE = re.compile(r'\[\\*"(https?:(?:[^"\\<>\t\r\n]|\\+[ux/])+)\\*",(\d{1,6}),(\d{1,6})\]')
# group 1: the backslashes of the quotes, none or one
_SOURCE = re.compile(
    r'(\\?)"2003\1":\[null,\1"[^"\\]{0,200}\1",\1"(https?:(?:[^"\\\s]|\\+[ux/])+)\1",\1"(.{0,1000}?)(?<!\\)\1"'
)
# possessive (*+): what was read as one address is not read again from its middle
_ADDRESS = re.compile(r"https?:(?:[^\"'\\<>\s,\[\]]|\\+[ux/])*+")
_PICTURE_FILE = re.compile(r"\.(?:jpe?g|png|bmp|gif|webp)\b", re.IGNORECASE)
_ESCAPE = re.compile(r"\\+(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|([/\"']))")
_GOOGLE_HOSTS = ("gstatic.com", "google.com", "googleusercontent.com", "googleapis.com")


class BingSearch(SearchEngine):
    def __init__(self, params: Bing, home: str = "https://www.bing.com/images/async") -> None:
        super().__init__("bing")
        self.home = home
        self.filters = _filters(BingFeeder, params.model_dump(exclude={"engine"}))

    def address(self, turn: PageTurn) -> str:
        query = {"q": turn.words, "first": str(turn.start), "count": str(_BING_RESULTS), "mmasync": "1"}
        # the filters' plus signs are sent as they are, like icrawler and Bing's own pages do
        return f"{self.home}?{urlencode(query)}" + (f"&qft={self.filters}" if self.filters else "")

    def parse(self, page: FetchedPage, turn: PageTurn) -> ResultPage:
        """Every result by its `murl`: icrawler keeps those that end in .jpg alone, and cuts off what follows it."""
        text = page_text(page)
        shown = 'class="imgpt"' in text or "iusc" in text
        return _result_page(_bing_hits(text), page, turn, usual="unknown-answer" if shown or not text else "no-results")


class GoogleSearch(SearchEngine):
    def __init__(self, params: Google, home: str = "https://www.google.com/search") -> None:
        super().__init__("google")
        self.home = home
        self.language = params.language
        chosen: dict[str, Any] = params.model_dump(exclude={"engine", "language"})
        if ".." in params.date:
            chosen["date"] = tuple(date.fromisoformat(day) if day else None for day in params.date.split(".."))
        self.filters = _filters(GoogleFeeder, chosen, sep=",")

    def address(self, turn: PageTurn) -> str:
        query = {"q": turn.words, "ijn": str(turn.page), "start": str(turn.start), "tbs": self.filters, "tbm": "isch"}
        if self.language != "any":
            query["lr"] = f"lang_{self.language}"
        return f"{self.home}?{urlencode(query)}"

    def parse(self, page: FetchedPage, turn: PageTurn) -> ResultPage:
        """All results of all scripts: icrawler reads the first script that holds any, and returns None without one."""
        text = page_text(page)
        hits = [hit for hit in _google_hits(text) if not _is_googles_own(hit.url)]
        if not hits:
            hits = [hit for hit in _picture_files(text) if not _is_googles_own(hit.url)]
        return _result_page(iter(hits), page, turn, usual="unknown-answer")


class BaiduSearch(SearchEngine):
    def __init__(self, params: Baidu, home: str = "https://image.baidu.com/search/acjson") -> None:
        super().__init__("baidu")
        self.home = home
        self.filters = _filters(BaiduFeeder, params.model_dump(exclude={"engine"}), sep="&")
        self._decipher = BaiduParser(1, Signal(), None)._decode_url

    def address(self, turn: PageTurn) -> str:
        query = {
            "tn": "resultjson_com", "ipn": "rj", "word": turn.words, "pn": str(turn.start), "rn": str(_BAIDU_RESULTS),
        }  # fmt: skip
        return f"{self.home}?{urlencode(query)}" + (f"&{self.filters}" if self.filters else "")

    def parse(self, page: FetchedPage, turn: PageTurn) -> ResultPage:
        # \' is no JSON, and Baidu sends it
        answer = read_json(page_text(page).replace("\\'", "'"), page.final_url)
        data = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(data, list):
            raise find_reason(page_text(page), page.final_url, usual="unknown-answer")
        return _result_page(self._hits(data), page, turn, usual="no-results")

    def _hits(self, data: list[object]) -> Iterator[SearchHit]:
        for told in data:
            if not isinstance(told, dict) or not told:
                continue  # the list ends in {}
            known = told.get("replaceUrl")
            first = known[0] if isinstance(known, list) and known and isinstance(known[0], dict) else {}
            ways = (told.get("objURL"), first.get("ObjURL"), told.get("hoverURL"), told.get("middleURL"))
            yield SearchHit(
                url=next((url for way in ways if (url := self._plain(way))), ""),
                page_url=self._plain(told.get("fromURL")) or self._plain(first.get("FromURL")),
                title=as_words(told.get("fromPageTitleEnc") or told.get("fromPageTitle")),
                width=as_pixels(told.get("width")),
                height=as_pixels(told.get("height")),
            )

    def _plain(self, value: object) -> str:
        """The deciphered address; icrawler garbles one that came in clear."""
        text = as_text(value)
        return text if not text or text.startswith(("http:", "https:")) else str(self._decipher(text))


def _filters(feeder: Any, chosen: dict[str, Any], **separator: str) -> str:
    """What icrawler's feeder of an engine makes of the filters that are chosen."""
    wanted = {name: value for name, value in chosen.items() if value not in ("any", (None, None))}
    return str(feeder(1, Signal(), None).get_filter().apply(wanted, **separator))


def _result_page(hits: Iterator[SearchHit], page: FetchedPage, turn: PageTurn, *, usual: str) -> ResultPage:
    found = each_once(hits)
    if not found and turn.start == 0:
        raise find_reason(page_text(page), page.final_url, usual=usual)
    return ResultPage(found, bool(found) and turn.start + len(found) < MAX_RESULTS)


def _bing_hits(text: str) -> Iterator[SearchHit]:
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
        yield SearchHit(
            url=as_text(told.get("murl")),
            page_url=as_text(told.get("purl")),
            title=as_words(told.get("t")),
            width=as_pixels(size[2]) if size else 0,
            height=as_pixels(size[1]) if size else 0,
        )


def _google_hits(text: str) -> Iterator[SearchHit]:
    matches = list(_TRIPLE.finditer(text))
    for match, following in itertools.zip_longest(matches, matches[1:]):
        end = following.start() if following else len(text)
        # what is told of a picture is behind it, before the next one
        source = _SOURCE.search(text, match.end(), min(end, match.end() + 4000))
        page_url, title = (_unescape(source[2]), _unescape(source[3])) if source else ("", "")
        yield SearchHit(_unescape(match[1]), page_url, as_words(title), as_pixels(match[3]), as_pixels(match[2]))


def _picture_files(text: str) -> Iterator[SearchHit]:
    for inside, script in elements(text, "script"):
        for match in _ADDRESS.finditer(script) if inside else ():
            ends = [ending.end() for ending in _PICTURE_FILE.finditer(match[0])]
            if ends:
                yield SearchHit(_unescape(match[0][: ends[-1]]))


def _unescape(text: str) -> str:
    r"""Undo \uNNNN, \xNN, \/ and escaped quotes, once or twice escaped."""

    def sign(match: re.Match[str]) -> str:
        code = match[1] or match[2]
        return chr(int(code, 16)) if code else match[3]

    # UTF-16 halves of one sign come as two escapes
    return _ESCAPE.sub(sign, text).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _is_googles_own(url: str) -> bool:
    """Whether a URL is one of Google's thumbnails and logos, which are no results."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    return any(host == own or host.endswith("." + own) for own in _GOOGLE_HOSTS)
