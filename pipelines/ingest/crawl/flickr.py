"""Flickr's API: flickr.photos.search, which tells sizes, licence and owner of every picture in one answer."""

from collections.abc import Iterator
from urllib.parse import quote, urlencode

from icrawler import Parser
from icrawler.builtin import FlickrFeeder
from icrawler.utils import Signal

from pipelines.ingest.crawl.answers import (
    REMEDIES,
    Answer,
    AnswerError,
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
from pipelines.params.engines import Flickr

ADDRESS = "https://api.flickr.com/services/rest/"
# icrawler's name
KEY_VARIABLE = "FLICKR_APIKEY"
PAGE_RESULTS = 100
# Flickr gives the first 4,000 of any search, and repeats itself afterwards
MAX_RESULTS = 4000
# from the largest to the smallest: icrawler's name of a size, and the ending of its fields
_SIZES = {
    "original": "o", "large 2048": "k", "large 1600": "h", "large": "l", "medium 800": "c", "medium 640": "z",
    "medium": "m", "small 320": "n", "small": "s", "large square": "q", "thumbnail": "t", "square": "sq",
}  # fmt: skip
# flickr.photos.licenses.getInfo
_LICENSES = {
    0: "All rights reserved", 1: "CC-BY-NC-SA-2.0", 2: "CC-BY-NC-2.0", 3: "CC-BY-NC-ND-2.0", 4: "CC-BY-2.0",
    5: "CC-BY-SA-2.0", 6: "CC-BY-ND-2.0", 7: "No known copyright restrictions", 8: "US-Government-Work",
    9: "CC0-1.0", 10: "PDM-1.0", 11: "CC-BY-4.0", 12: "CC-BY-SA-4.0", 13: "CC-BY-ND-4.0", 14: "CC-BY-NC-4.0",
    15: "CC-BY-NC-SA-4.0", 16: "CC-BY-NC-ND-4.0",
}  # fmt: skip
_TYPES = {"photo": "1", "screenshot": "2", "other": "3"}
_BAD_KEY = 100


class Feeder(FlickrFeeder):  # type: ignore[misc]  # icrawler has no types
    """One page at a time: icrawler feeds 4,000 results' pages whatever the answers say, in a loop without an end."""

    def __init__(self, params: Flickr, address: str, key: str) -> None:
        super().__init__(1, Signal(), None)
        self.params, self.address, self.key = params, address, key

    def feed(self, turn: Turn) -> str:
        """The URL of a page of results."""
        params = self.params
        query = {
            "method": "flickr.photos.search",
            "api_key": self.key,
            "format": "json",
            "nojsoncallback": "1",
            "text": turn.words,
            "sort": "relevance",
            "media": "photos",
            "per_page": str(PAGE_RESULTS),
            "page": str(turn.page + 1),
            "extras": ",".join(["license", "owner_name", *(f"url_{ending}" for ending in _SIZES.values())]),
        }
        if params.licenses:
            query["license"] = ",".join(str(number) for number in params.licenses)
        if params.type != "any":
            query["content_type"] = _TYPES[params.type]
        if params.color_codes:
            query["color_codes"] = ",".join(params.color_codes)
        for name in ("min_taken_date", "max_taken_date"):
            if getattr(params, name) != "any":
                query[name] = getattr(params, name)
        return f"{self.address}?{urlencode(query)}"


class Answers(Parser):  # type: ignore[misc]
    """No further question a picture: icrawler asks for the sizes of each, and drops those where that fails."""

    def __init__(self, params: Flickr) -> None:
        super().__init__(1, Signal(), None)
        self.params = params

    def parse(self, page: Page, turn: Turn) -> Answer:
        """The results of a page, in the wanted size or the next smaller one.

        Raises:
            AnswerError: there are none.
        """
        text = page_text(page)
        answer = read_json(text, page.final_url)
        if isinstance(answer, dict) and answer.get("stat") == "fail":
            if answer.get("code") == _BAD_KEY:
                raise AnswerError("bad-key", f"put a valid key of the Flickr API into {KEY_VARIABLE}")
            raise AnswerError("engine-refused", "do what its message says, or try later")
        photos = answer.get("photos") if isinstance(answer, dict) else None
        listed = photos.get("photo") if isinstance(photos, dict) else None
        if not isinstance(photos, dict) or not isinstance(listed, list):
            raise find_reason(text, page.final_url, usual="unknown-answer")
        items = each_once(_items(listed, self.params.size))
        if not items and turn.page == 0:
            raise AnswerError("no-results", REMEDIES["no-results"])
        last = MAX_RESULTS // PAGE_RESULTS
        pages = min(as_pixels(photos.get("pages")) or last, last)
        return Answer(items, bool(items) and turn.page + 1 < pages)


def _items(photos: list[object], size: str) -> Iterator[Item]:
    names = list(_SIZES)
    wanted = [_SIZES[name] for name in names[names.index(size) :]]
    for photo in photos:
        if not isinstance(photo, dict):
            continue
        ending = next((one for one in wanted if as_text(photo.get(f"url_{one}"))), "")
        owner, number = as_text(photo.get("owner")), as_text(photo.get("id"))
        yield Item(
            url=as_text(photo.get(f"url_{ending}")),
            page_url=f"https://www.flickr.com/photos/{quote(owner, safe='@')}/{quote(number)}" if owner else "",
            title=as_words(photo.get("title")),
            width=as_pixels(photo.get(f"width_{ending}")),
            height=as_pixels(photo.get(f"height_{ending}")),
            license=_license(photo.get("license")),
            creator=as_words(photo.get("ownername")),
        )


def _license(value: object) -> str:
    text = as_text(value)
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 4 else -1
    return _LICENSES.get(number, f"flickr-{text}" if text else "")
