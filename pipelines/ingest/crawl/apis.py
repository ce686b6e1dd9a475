"""Engines made for programs: Flickr's API, and any service that answers in JSON (Openverse, Wikimedia Commons, …)."""

from collections.abc import Iterator
from urllib.parse import quote, quote_plus, urlencode, urljoin, urlsplit

from pipelines.ingest.crawl.answers import (
    NoResultsError,
    PageTurn,
    ResultPage,
    SearchEngine,
    SearchHit,
    as_pixels,
    as_text,
    as_words,
    each_once,
    find_reason,
    page_text,
    read_json,
)
from pipelines.ingest.fetch.fetcher import FetchedPage
from pipelines.params.engines import Flickr, JsonEndpoint

FLICKR_KEY_VARIABLE = "FLICKR_APIKEY"  # icrawler's name
_FLICKR_RESULTS = 100
_FLICKR_PAGES = 40  # Flickr gives the first 4,000 results of any search, and repeats itself afterwards
_FLICKR_BAD_KEY = 100
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


class FlickrSearch(SearchEngine):
    """flickr.photos.search tells sizes, licence and owner of every picture in one answer: icrawler asks for the sizes
    of each picture again, and drops those for which that fails."""

    def __init__(self, params: Flickr, key: str, home: str = "https://api.flickr.com/services/rest/") -> None:
        super().__init__("flickr", is_api=True, secret=key)
        self.params = params
        self.home = home

    def address(self, turn: PageTurn) -> str:
        params = self.params
        query = {
            "method": "flickr.photos.search", "api_key": self.secret, "format": "json", "nojsoncallback": "1",
            "text": turn.words, "sort": "relevance", "media": "photos", "per_page": str(_FLICKR_RESULTS),
            "page": str(turn.page + 1),
            "extras": ",".join(["license", "owner_name", *(f"url_{ending}" for ending in _SIZES.values())]),
        }  # fmt: skip
        if params.licenses:
            query["license"] = ",".join(str(number) for number in params.licenses)
        if params.type != "any":
            query["content_type"] = _TYPES[params.type]
        if params.color_codes:
            query["color_codes"] = ",".join(params.color_codes)
        for name in ("min_taken_date", "max_taken_date"):
            if getattr(params, name) != "any":
                query[name] = getattr(params, name)
        return f"{self.home}?{urlencode(query)}"

    def parse(self, page: FetchedPage, turn: PageTurn) -> ResultPage:
        """The results in the wanted size or the next smaller one."""
        text = page_text(page)
        answer = read_json(text, page.final_url)
        if isinstance(answer, dict) and answer.get("stat") == "fail":
            if answer.get("code") == _FLICKR_BAD_KEY:
                raise NoResultsError("bad-key", f"put a valid key of the Flickr API into {FLICKR_KEY_VARIABLE}")
            raise NoResultsError("engine-refused", "do what its message says, or try later")
        photos = look_up(answer, "photos.photo")
        if not isinstance(photos, list):
            raise find_reason(text, page.final_url, usual="unknown-answer")
        hits = each_once(_flickr_hits(photos, self.params.size))
        if not hits and turn.page == 0:
            raise NoResultsError("no-results")
        pages = min(as_pixels(look_up(answer, "photos.pages")) or _FLICKR_PAGES, _FLICKR_PAGES)
        return ResultPage(hits, bool(hits) and turn.page + 1 < pages)


class JsonSearch(SearchEngine):
    """A service of which params say what to ask and where its answers have their values."""

    def __init__(self, params: JsonEndpoint, key: str) -> None:
        super().__init__(params.name, is_api=True, secret=key)
        self.params = params

    def address(self, turn: PageTurn) -> str:
        # a plus sign is a space in a query only; before the question mark it would be a plus sign
        before, mark, after = self.params.url.partition("?")
        numbers = {
            "page": str(self.params.first_page + turn.page),
            "start": str(turn.start),
            "key": quote(self.secret, safe=""),
        }
        path = before.format(words=quote(turn.words, safe=""), **numbers)
        return path + mark + after.format(words=quote_plus(turn.words), **numbers)

    def parse(self, page: FetchedPage, turn: PageTurn) -> ResultPage:
        text = page_text(page)
        answer = read_json(text, page.final_url)
        found = look_up(answer, self.params.items)
        if isinstance(found, dict):
            found = list(found.values())
        if not isinstance(found, list):
            # some services leave the list out if it is empty
            if turn.start and isinstance(answer, dict) and not any(answer.get(key) for key in ("error", "errors")):
                return ResultPage((), more=False)
            raise find_reason(text, page.final_url, usual="unknown-answer")
        hits = each_once(_json_hits(found, self.params, page.final_url))
        if not hits and turn.start == 0:
            raise find_reason(text, page.final_url, usual="no-results")
        return ResultPage(hits, bool(hits))


def look_up(value: object, path: str) -> object:
    """What is at `path` (keys or positions joined by dots) of a JSON value; None if nothing is."""
    for part in path.split(".") if path else ():
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and part.isascii() and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value


def _flickr_hits(photos: list[object], size: str) -> Iterator[SearchHit]:
    names = list(_SIZES)
    wanted = [_SIZES[name] for name in names[names.index(size) :]]
    for photo in photos:
        if not isinstance(photo, dict):
            continue
        ending = next((one for one in wanted if as_text(photo.get(f"url_{one}"))), "")
        owner, number = as_text(photo.get("owner")), as_text(photo.get("id"))
        yield SearchHit(
            url=as_text(photo.get(f"url_{ending}")),
            page_url=f"https://www.flickr.com/photos/{quote(owner, safe='@')}/{quote(number)}" if owner else "",
            title=as_words(photo.get("title")),
            width=as_pixels(photo.get(f"width_{ending}")),
            height=as_pixels(photo.get(f"height_{ending}")),
            license=_flickr_license(photo.get("license")),
            creator=as_words(photo.get("ownername")),
        )


def _flickr_license(value: object) -> str:
    text = as_text(value)
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 4 else -1
    return _LICENSES.get(number, f"flickr-{text}" if text else "")


def _json_hits(found: list[object], params: JsonEndpoint, base: str) -> Iterator[SearchHit]:
    for told in found:
        yield SearchHit(
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
        return text  # no URL: the fetcher says so of it
