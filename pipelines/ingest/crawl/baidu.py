"""Baidu's image search: `acjson`, JSON whose addresses of pictures are enciphered."""

from collections.abc import Iterator
from urllib.parse import urlencode

from icrawler.builtin import BaiduFeeder, BaiduParser
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
    read_json,
)
from pipelines.ingest.download import Page
from pipelines.params.engines import Baidu

ADDRESS = "https://image.baidu.com/search/acjson"
MAX_RESULTS = 1000
PAGE_RESULTS = 30


class Feeder(BaiduFeeder):  # type: ignore[misc]  # icrawler has no types
    """icrawler's filters; the words are quoted, the connection is encrypted, and a page starts where the one before
    ended."""

    def __init__(self, params: Baidu, address: str) -> None:
        super().__init__(1, Signal(), None)
        self.params, self.address = params, address

    def feed(self, turn: Turn) -> str:
        """The URL of a page of results."""
        chosen = self.params.model_dump(exclude={"engine"})
        filters = self.get_filter().apply({k: v for k, v in chosen.items() if v != "any"}, sep="&")
        query = {
            "tn": "resultjson_com",
            "ipn": "rj",
            "word": turn.words,
            "pn": str(turn.start),
            "rn": str(PAGE_RESULTS),
        }
        return f"{self.address}?{urlencode(query)}" + (f"&{filters}" if filters else "")


class Answers(BaiduParser):  # type: ignore[misc]
    """icrawler's cipher; what is no JSON, or of another shape, is said instead of taken for the end."""

    def __init__(self) -> None:
        super().__init__(1, Signal(), None)

    def parse(self, page: Page, turn: Turn) -> Answer:
        """The results of a page.

        Raises:
            AnswerError: there are none.
        """
        # \' is no JSON, and Baidu sends it
        text = page_text(page).replace("\\'", "'")
        answer = read_json(text, page.final_url)
        data = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(data, list):
            raise find_reason(text, page.final_url, usual="unknown-answer")
        items = each_once(self._items(data))
        if not items and turn.start == 0:
            raise find_reason(text, page.final_url, usual="no-results")
        return Answer(items, bool(items) and turn.start + len(items) < MAX_RESULTS)

    def _items(self, data: list[object]) -> Iterator[Item]:
        for told in data:
            if not isinstance(told, dict) or not told:
                continue  # the list ends in {}
            known = told.get("replaceUrl")
            first = known[0] if isinstance(known, list) and known and isinstance(known[0], dict) else {}
            ways = (told.get("objURL"), first.get("ObjURL"), told.get("hoverURL"), told.get("middleURL"))
            yield Item(
                url=next((url for way in ways if (url := self._plain(way))), ""),
                page_url=self._plain(told.get("fromURL")) or self._plain(first.get("FromURL")),
                title=as_words(told.get("fromPageTitleEnc") or told.get("fromPageTitle")),
                width=as_pixels(told.get("width")),
                height=as_pixels(told.get("height")),
            )

    def _plain(self, value: object) -> str:
        """The deciphered address; icrawler garbles one that came in clear."""
        text = as_text(value)
        return text if not text or text.startswith(("http:", "https:")) else str(self._decode_url(text))
