"""Every engine: what is asked, and what is read in its answers; beside it, what icrawler asks and reads."""

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from icrawler.builtin import (
    BaiduFeeder,
    BaiduParser,
    BingFeeder,
    BingParser,
    FlickrFeeder,
    FlickrParser,
    GoogleFeeder,
    GoogleParser,
)
from icrawler.utils import Signal
from pydantic import TypeAdapter, ValidationError
from search_pages import (
    BAIDU_FORBIDDEN,
    BING_CHALLENGE,
    GOOGLE_CONSENT,
    GOOGLE_SORRY,
    Picture,
    baidu_cipher,
    baidu_page,
    bing_page,
    commons_page,
    flickr_page,
    flickr_refusal,
    google_page,
    google_script_page,
    openverse_page,
)

from pipelines.core.errors import InputError
from pipelines.ingest.crawl.answers import NoResultsError, PageTurn, ResultPage, SearchEngine, seen
from pipelines.ingest.crawl.engines import make_engines
from pipelines.ingest.fetch.fetcher import FetchedPage
from pipelines.params.engines import Engine as EngineParams

BING = {
    "engine": "bing", "size": "any", "type": "any", "color": "any", "license": "any", "layout": "any", "people": "any",
    "date": "any",
}  # fmt: skip
GOOGLE = {
    "engine": "google", "size": "any", "type": "any", "color": "any", "license": "any", "date": "any",
    "language": "any",
}  # fmt: skip
BAIDU = {"engine": "baidu", "size": "any", "type": "any", "color": "any"}
FLICKR: dict[str, Any] = {
    "engine": "flickr", "size": "medium 640", "licenses": [], "type": "any", "color_codes": [],
    "min_taken_date": "any", "max_taken_date": "any",
}  # fmt: skip
JSON: dict[str, Any] = {
    "engine": "json", "name": "openverse", "url": "https://api.example/images/?q={words}&page={page}", "key_from": "",
    "first_page": 1, "items": "results", "image_url": "url", "page_url": "foreign_landing_url", "title": "title",
    "license": "license license_version", "creator": "creator",
}  # fmt: skip
AWKWARD = "Tom & Jerry #1 +100% ギター"

PICTURES = [
    Picture("https://h.example/a.jpg", "https://p.example/1", "Ein „Titel“", 640, 480, 4, "Ann & Bo"),
    Picture("https://h.example/b.png?w=2&h=3", "https://p.example/2", 'a "quoted" <title>', 800, 600, 9, "山田"),
    Picture("https://h.example/c.JPEG", "https://p.example/3", "it's", 1024, 768, 0, ""),
    Picture("https://h.example/d", "https://p.example/4", "", 10, 20, 12, "x"),
    Picture("https://h.example/%E3%82%AE/ギ.webp", "https://p.example/5", "ギター", 30, 40, 16, "y"),
]


def engine(params: dict[str, Any]) -> SearchEngine:
    checked = TypeAdapter(EngineParams).validate_json(json.dumps(params))
    return make_engines([checked], where="ingest.sources[0]")[0]


def query_of(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query, keep_blank_values=True).items()}


def read(params: dict[str, Any], body: bytes, *, start: int = 0, page: int = 0, final_url: str = "") -> ResultPage:
    got = FetchedPage(200, final_url or "https://engine.example/x", "text/html", body, "ok", "")
    return engine(params).parse(got, PageTurn("words", page, start))


def refused(params: dict[str, Any], body: bytes, **more: Any) -> NoResultsError:
    with pytest.raises(NoResultsError) as caught:
        read(params, body, **more)
    return caught.value


class StockResponse:
    """What icrawler's parsers are given."""

    def __init__(self, body: bytes) -> None:
        self.content = body
        self.status_code = 200


def stock(parser: Any, body: bytes, **more: Any) -> list[str]:
    made = parser(1, Signal(), None)
    return [item["file_url"] for item in made.parse(StockResponse(body), **more)]


def stock_urls(feeder: Any, **asked: Any) -> list[str]:
    made = feeder(1, Signal(), None)
    made.out_queue.maxsize = 0
    made.feed(**asked)
    return list(made.out_queue.queue)


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLICKR_APIKEY", "k3y+/=")


# --- what is asked -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "words"), [(BING, "q"), (GOOGLE, "q"), (BAIDU, "word"), (FLICKR, "text"), (JSON, "q")]
)
def test_words_arrive_as_they_are_in_any_script(params: dict[str, Any], words: str) -> None:
    url = engine(params).address(PageTurn(AWKWARD, 0, 0))
    assert url.isascii()
    assert query_of(url)[words] == AWKWARD
    assert not urlsplit(url).fragment


def test_icrawler_cuts_words_at_an_ampersand_and_a_hash() -> None:
    (url,) = stock_urls(BingFeeder, keyword="Tom & Jerry #1", offset=0, max_num=20)
    assert query_of(url)["q"] == "Tom "
    (url,) = stock_urls(BaiduFeeder, keyword="a#b", offset=0, max_num=30)
    assert "pn" not in query_of(url)


def test_a_page_starts_where_the_one_before_ended() -> None:
    """icrawler counts 20, 100 or 30 results a page, whatever came: it skips results, or asks for them twice."""
    for params, name in ((BING, "first"), (GOOGLE, "start"), (BAIDU, "pn")):
        assert query_of(engine(params).address(PageTurn("x", 2, 47)))[name] == "47"
    stock_pages = stock_urls(BingFeeder, keyword="x", offset=0, max_num=60)
    assert [query_of(url)["first"] for url in stock_pages] == ["0", "20", "40"]
    stock_pages = stock_urls(GoogleFeeder, keyword="x", offset=0, max_num=200)
    assert [query_of(url)["start"] for url in stock_pages] == ["0", "100"]


@pytest.mark.parametrize(
    ("params", "filters", "expected"),
    [
        (BING, {"size": "extralarge"}, "+filterui:imagesize-wallpaper"),
        (BING, {"size": ">640x480", "color": "blackandwhite"}, "+filterui:imagesize-custom_640_480+filterui:color2-bw"),
        (BING, {"type": "animated", "people": "face"}, "+filterui:photo-animatedgif+filterui:face-face"),
        (BING, {"license": "commercial,modify", "layout": "tall"}, "+filterui:license-L2_L3+filterui:aspect-tall"),
        (BING, {"date": "pastweek"}, "+filterui:age-lt10080"),
        (GOOGLE, {"size": ">2mp", "color": "teal"}, "isz:lt,islt:2mp,ic:specific,isc:teal"),
        (GOOGLE, {"size": "=640x480", "type": "linedrawing"}, "isz:ex,iszw:640,iszh:480,itp:lineart"),
        (GOOGLE, {"license": "commercial", "date": "pastday"}, "sur:fc,qdr:d"),
        (GOOGLE, {"date": "2020-01-31..2020-12-31"}, "cdr:1,cd_min:01/31/2020,cd_max:12/31/2020"),
        (GOOGLE, {"date": "..2020-12-31"}, "cdr:1,cd_min:,cd_max:12/31/2020"),
    ],
)
def test_filters_have_the_names_of_icrawler(params: dict[str, Any], filters: dict[str, str], expected: str) -> None:
    url = engine({**params, **filters}).address(PageTurn("x", 0, 0))
    if params is BING:
        assert url.endswith("&qft=" + expected)
    else:
        assert query_of(url)["tbs"] == expected


def test_no_filter_leaves_no_trace() -> None:
    assert "qft" not in engine(BING).address(PageTurn("x", 0, 0))
    google = query_of(engine(GOOGLE).address(PageTurn("x", 0, 0)))
    assert google["tbs"] == ""
    assert "lr" not in google
    assert query_of(engine({**GOOGLE, "language": "ja"}).address(PageTurn("x", 0, 0)))["lr"] == "lang_ja"
    assert engine(BAIDU).address(PageTurn("x", 0, 0)).endswith("rn=30")


def test_baidus_filters() -> None:
    url = engine({**BAIDU, "size": "=640x480", "type": "face", "color": "red"}).address(PageTurn("x", 0, 0))
    assert url.endswith("&rn=30&width=640&height=480&s=0&lm=0&st=-1&face=1&ic=1")


def all_values(params: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The params with every value that the schema lists, one at a time."""
    schema = TypeAdapter(EngineParams).json_schema()
    name = {"bing": "Bing", "google": "Google", "baidu": "Baidu"}[params["engine"]]
    for field, about in schema["$defs"][name]["properties"].items():
        for value in about.get("enum", ()):
            yield {**params, field: value}
    sizes = {
        "bing": ["any", "extralarge", "large", "medium", "small", ">1x1"],
        "google": ["any", "large", "medium", "icon", "=1x1", ">400x300", ">640x480", ">800x600", ">1024x768"]
        + [f">{number}mp" for number in (2, 4, 6, 8, 10, 12, 15, 20, 40, 70)],
        "baidu": ["any", "extralarge", "large", "medium", "small", "=1x1"],
    }
    for size in sizes[params["engine"]]:
        yield {**params, "size": size}


@pytest.mark.parametrize("params", [BING, GOOGLE, BAIDU])
def test_icrawler_knows_every_value_that_params_allow(params: dict[str, Any]) -> None:
    urls = {engine(one).address(PageTurn("x", 0, 0)) for one in all_values(params)}
    assert len(urls) > 10


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({**BING, "size": ">axb"}, "should match pattern"),
        ({**BING, "color": "mauve"}, "should be 'any', 'color'"),
        ({**GOOGLE, "size": ">640x481"}, "should match pattern"),
        ({**GOOGLE, "date": "2020-02-30.."}, "2020-02-30 is no day of the calendar"),
        ({**FLICKR, "licenses": [17]}, "less than or equal to 16"),
        ({**JSON, "url": "https://h/?q=x&page={page}"}, "lacks {words}"),
        ({**JSON, "url": "https://h/?q={words}"}, "lacks {page} or {start}"),
        ({**JSON, "url": "https://h/?q={words}&page={page}&x={word}"}, "only {words}, {page}, {start} and {key}"),
        ({**JSON, "url": "https://h/?q={words}&page={page"}, "double the braces"),
    ],
)
def test_a_wrong_filter_is_refused_at_the_door(params: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        engine(params)
    assert says in str(caught.value)


def test_flickr_is_asked_for_everything_at_once() -> None:
    """icrawler asks once more for the sizes of each picture, and feeds 40 pages whether or not they exist."""
    asked = {**FLICKR, "licenses": [4, 9], "type": "photo", "color_codes": ["0", "e"], "min_taken_date": "2020-01-01"}
    query = query_of(engine(asked).address(PageTurn("x", 2, 200)))
    assert query["page"] == "3"
    assert query["license"] == "4,9"
    assert query["content_type"] == "1"
    assert query["color_codes"] == "0,e"
    assert query["min_taken_date"] == "2020-01-01"
    assert "max_taken_date" not in query
    assert query["api_key"] == "k3y+/="
    assert {"license", "owner_name", "url_o", "url_k", "url_z", "url_sq"} <= set(query["extras"].split(","))
    assert len(stock_urls(FlickrFeeder, apikey="x", text="x")) == 40


def test_the_key_is_in_the_request_and_hidden_everywhere_else() -> None:
    flickr = engine(FLICKR)
    url = flickr.address(PageTurn("x", 0, 0))
    assert "api_key=k3y%2B%2F%3D" in url
    assert "api_key=***" in flickr.hide(url)
    assert flickr.hide("sent k3y+/= to us") == "sent *** to us"


def test_a_missing_key_is_named_before_anything_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLICKR_APIKEY")
    with pytest.raises(InputError, match=r"engines\[0\]: Flickr answers .* environment variable FLICKR_APIKEY"):
        engine(FLICKR)
    with pytest.raises(InputError, match=r"openverse needs a key; put it into the environment variable MY_KEY"):
        engine({**JSON, "key_from": "MY_KEY"})


def test_a_json_endpoints_address_is_filled_in() -> None:
    url = "https://h.example/{words}/search?w={words}&n={page}&from={start}&key={key}"
    filled = engine({**JSON, "url": url, "key_from": "FLICKR_APIKEY", "first_page": 0})
    assert filled.address(PageTurn("a/b ギ", 2, 37)) == (
        "https://h.example/a%2Fb%20%E3%82%AE/search?w=a%2Fb+%E3%82%AE&n=2&from=37&key=k3y%2B%2F%3D"
    )


# --- what is read ------------------------------------------------------------------------------------------------


def test_bing_gives_every_picture_with_its_page_title_and_size() -> None:
    answer = read(BING, bing_page(PICTURES))
    assert [item.url for item in answer.hits] == [one.url for one in PICTURES]
    assert [item.page_url for item in answer.hits] == [one.page_url for one in PICTURES]
    assert [item.title for item in answer.hits] == [one.title for one in PICTURES]
    assert [(item.width, item.height) for item in answer.hits] == [(one.width, one.height) for one in PICTURES]
    assert answer.more


def test_icrawler_reads_of_bing_what_ends_in_jpg_alone() -> None:
    assert stock(BingParser, bing_page(PICTURES)) == ["https://h.example/a.jpg"]
    cut = [Picture("https://h.example/photo.jpg.php?id=1")]
    assert stock(BingParser, bing_page(cut)) == ["https://h.example/photo.jpg"]
    assert [item.url for item in read(BING, bing_page(cut)).hits] == [cut[0].url]


def test_a_bing_result_that_cannot_be_read_is_still_counted() -> None:
    broken = bing_page(PICTURES[:2]).replace(b"&quot;purl&quot;:", b"&quot;purl&quot;", 1)
    first, second = read(BING, broken).hits
    assert first.url == ""
    assert second.url == PICTURES[1].url


def test_google_gives_every_picture_with_its_page_title_and_size() -> None:
    answer = read(GOOGLE, google_page(PICTURES))
    assert [item.url for item in answer.hits] == [one.url for one in PICTURES]
    assert [(item.width, item.height) for item in answer.hits] == [(one.width, one.height) for one in PICTURES]
    assert [item.page_url for item in answer.hits] == [one.page_url for one in PICTURES]
    assert [item.title for item in answer.hits] == [one.title for one in PICTURES]


def test_google_is_read_when_its_data_are_escaped_twice() -> None:
    twice = google_page(PICTURES[:3]).replace(b'\\"', b"'").replace(b'"', b'\\"').replace(b"\\u", b"\\\\u")
    items = read(GOOGLE, twice).hits
    assert [item.url for item in items] == [one.url for one in PICTURES[:3]]
    assert items[0].title == PICTURES[0].title


def test_google_is_read_by_the_ends_of_file_names_where_nothing_else_is_there() -> None:
    urls = ["https://h.example/ä/a.jpg", "https://h.example/b.PNG", "https://www.gstatic.com/logo.png"]
    items = read(GOOGLE, google_script_page([*urls, "https://h.example/page.html"])).hits
    assert [item.url for item in items] == urls[:2]


def test_icrawler_gives_none_for_a_google_page_without_pictures_and_its_thread_dies_of_it() -> None:
    assert GoogleParser(1, Signal(), None).parse(StockResponse(b"<script>nothing</script>")) is None
    parser = GoogleParser(1, Signal(), Session(b"<script>nothing</script>"))
    parser.signal.set(feeder_exited=True, reach_max_num=False)
    parser.in_queue.put("https://www.google.com/search?q=x")
    died: list[BaseException | None] = []
    before, threading.excepthook = threading.excepthook, lambda about: died.append(about.exc_value)
    try:
        parser.start(queue_timeout=0.01)
        parser.workers[0].join()
    finally:
        threading.excepthook = before
    assert [str(error) for error in died] == ["'NoneType' object is not iterable"]
    assert not parser.is_alive()  # all that icrawler's crawl() looks at before it says that it is done
    error = refused(GOOGLE, b"<title>Results</title><script>nothing</script>")
    assert error.reason == "unknown-answer"


def test_icrawler_takes_googles_own_signs_for_results() -> None:
    assert stock(GoogleParser, GOOGLE_CONSENT) == ["https://www.gstatic.com/a.png"]
    assert refused(GOOGLE, GOOGLE_CONSENT).reason == "consent-page"


def test_icrawler_garbles_other_scripts_in_googles_urls() -> None:
    page = "<script>['https://h.example/ü.jpg']</script>".encode()
    assert stock(GoogleParser, page) == ["https://h.example/Ã¼.jpg"]
    assert [item.url for item in read(GOOGLE, page).hits] == ["https://h.example/ü.jpg"]


def test_baidu_is_deciphered() -> None:
    answer = read(BAIDU, baidu_page(PICTURES))
    assert [item.url for item in answer.hits] == [one.url for one in PICTURES]
    assert [item.page_url for item in answer.hits] == [one.page_url for one in PICTURES]
    assert [item.title for item in answer.hits] == [one.title for one in PICTURES]


def test_icrawler_garbles_baidus_plain_urls_and_takes_a_refusal_for_the_end() -> None:
    plain = json.dumps({"data": [{"objURL": "http://h.example/a.jpg"}]}).encode()
    assert stock(BaiduParser, plain) != ["http://h.example/a.jpg"]
    assert [item.url for item in read(BAIDU, plain).hits] == ["http://h.example/a.jpg"]
    assert stock(BaiduParser, b"<html>not JSON</html>") == []
    with pytest.raises(KeyError):
        stock(BaiduParser, BAIDU_FORBIDDEN)
    assert refused(BAIDU, BAIDU_FORBIDDEN).reason == "captcha"


def test_baidus_other_addresses_are_used_where_the_first_is_missing() -> None:
    told: list[dict[str, Any]] = [
        {"replaceUrl": [{"ObjURL": "http://h.example/1.jpg", "FromURL": "http://p.example/1"}]},
        {"hoverURL": "http://h.example/2.jpg", "fromURL": baidu_cipher("http://p.example/2")},
        {"thumbURL": "http://h.example/3.jpg"},
    ]
    items = read(BAIDU, json.dumps({"data": told}).encode()).hits
    assert [item.url for item in items] == ["http://h.example/1.jpg", "http://h.example/2.jpg", ""]
    assert [item.page_url for item in items] == ["http://p.example/1", "http://p.example/2", ""]


def test_flickr_tells_licence_owner_page_and_size() -> None:
    items = read(FLICKR, flickr_page(PICTURES)).hits
    assert [item.url for item in items] == [one.url for one in PICTURES]
    assert [item.license for item in items] == [
        "CC-BY-2.0", "CC0-1.0", "All rights reserved", "CC-BY-SA-4.0", "CC-BY-NC-ND-4.0",
    ]  # fmt: skip
    assert [item.creator for item in items] == [one.creator for one in PICTURES]
    assert items[1].page_url == "https://www.flickr.com/photos/12345@N01/1001"
    assert (items[0].width, items[0].height) == (640, 480)


@pytest.mark.parametrize(
    ("size", "ending"), [("original", "?o"), ("large", ""), ("medium 640", ""), ("medium", "?sq"), ("square", "?sq")]
)
def test_flickr_gives_the_wanted_size_or_the_next_smaller_one(size: str, ending: str) -> None:
    (item,) = read({**FLICKR, "size": size}, flickr_page(PICTURES[:1])).hits
    assert item.url == PICTURES[0].url + ending


def test_flickr_ends_with_its_last_page() -> None:
    assert read(FLICKR, flickr_page(PICTURES, page=1, pages=2), page=0).more
    assert not read(FLICKR, flickr_page(PICTURES, page=2, pages=2), page=1).more
    assert read(FLICKR, flickr_page(PICTURES, page=1, pages=9_999_999), page=0).more
    assert not read(FLICKR, flickr_page(PICTURES, page=40, pages=900), page=39).more  # 4,000 results are all it gives


def test_icrawler_drops_flickrs_pictures_without_a_word_where_a_second_question_fails() -> None:
    made = FlickrParser(1, Signal(), Session(None))
    assert list(made.parse(StockResponse(flickr_page(PICTURES)), apikey="x", size_preference=["medium 640"])) == []
    assert list(made.parse(StockResponse(flickr_refusal(100, "Invalid API Key")), apikey="x")) == []


def test_a_json_endpoint_is_read_where_params_say() -> None:
    items = read(JSON, openverse_page(PICTURES)).hits
    assert [item.url for item in items] == [one.url for one in PICTURES]
    assert {item.license for item in items} == {"by 4.0"}
    assert [item.creator for item in items] == [one.creator for one in PICTURES]
    commons = {
        **JSON, "items": "query.pages", "image_url": "imageinfo.0.url", "page_url": "imageinfo.0.descriptionurl",
        "license": "imageinfo.0.extmetadata.LicenseShortName.value", "creator": "imageinfo.0.extmetadata.Artist.value",
    }  # fmt: skip
    items = read(commons, commons_page(PICTURES)).hits
    assert [item.url for item in items] == [one.url for one in PICTURES]
    assert items[0].license == "CC BY-SA 4.0"
    assert items[0].title == PICTURES[0].title


def test_a_json_endpoint_may_answer_with_a_bare_list_and_relative_addresses() -> None:
    answer = json.dumps([{"i": "/a.jpg"}, {"i": 7}, {}, "x", {"i": ["y"]}]).encode()
    bare = {**JSON, "items": "", "image_url": "i", "page_url": ""}
    items = read(bare, answer, final_url="https://h.example/search?q=x").hits
    assert [item.url for item in items] == ["https://h.example/a.jpg", "https://h.example/7", "", "", ""]


def test_the_same_picture_twice_on_a_page_is_one_result() -> None:
    for params, page in ((BING, bing_page), (GOOGLE, google_page), (BAIDU, baidu_page), (JSON, openverse_page)):
        answer = read(params, page([PICTURES[0], PICTURES[1], PICTURES[0]]))
        assert [item.url for item in answer.hits] == [PICTURES[0].url, PICTURES[1].url]


# --- pages without results ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "body", "reason"),
    [
        (BING, BING_CHALLENGE, "captcha"),
        (BING, bing_page([]), "no-results"),
        (BING, b"", "unknown-answer"),
        (BING, b'<div class="imgpt"><a data-m="new form"></a></div>', "unknown-answer"),
        (GOOGLE, GOOGLE_SORRY, "captcha"),
        (GOOGLE, b"", "unknown-answer"),
        (BAIDU, "<title>百度安全验证</title>".encode(), "captcha"),
        (BAIDU, b'{"antiFlag":0,"data":[]}', "no-results"),
        (BAIDU, b'{"data":{}}', "unknown-answer"),
        (BAIDU, b"[" * 100_000, "unknown-answer"),
        (FLICKR, flickr_page([]), "no-results"),
        (FLICKR, flickr_refusal(100, "Invalid API Key"), "bad-key"),
        (FLICKR, flickr_refusal(105, "Service currently unavailable"), "engine-refused"),
        (FLICKR, b'{"stat":"ok"}', "unknown-answer"),
        (JSON, b'{"results": []}', "no-results"),
        (JSON, b'{"results": [', "unknown-answer"),
        (JSON, b'{"detail": "over quota"}', "unknown-answer"),
        (JSON, b"\xff\xfe\x00", "unknown-answer"),
    ],
)
def test_a_page_without_results_says_why(params: dict[str, Any], body: bytes, reason: str) -> None:
    error = refused(params, body)
    assert error.reason == reason
    assert len(error.remedy) > 20


@pytest.mark.parametrize(
    ("params", "body"),
    [
        (BING, bing_page([])),
        (GOOGLE, b"<html></html>"),
        (BAIDU, b'{"data":[{}]}'),
        (JSON, b"{}"),
        (JSON, b'{"results":[]}'),
    ],
)
def test_a_later_page_without_results_is_the_end(params: dict[str, Any], body: bytes) -> None:
    assert read(params, body, start=20, page=2) == ResultPage((), more=False)
    assert read(FLICKR, flickr_page([], page=3, pages=2), page=2) == ResultPage((), more=False)


def test_a_later_page_that_says_error_is_not_the_end() -> None:
    assert refused(JSON, b'{"error": "over quota"}', start=20, page=2).reason == "unknown-answer"


def test_a_redirect_to_a_captcha_or_consent_page_is_recognised_by_its_address() -> None:
    assert refused(GOOGLE, b"", final_url="https://www.google.com/sorry/index?x").reason == "captcha"
    assert refused(GOOGLE, b"", final_url="https://consent.google.com/m?x").reason == "consent-page"


def test_signs_that_grow_in_lower_case_and_a_byte_order_mark_do_no_harm() -> None:
    page = (
        "İİİİ<SCRIPT>['https://h.example/1.jpg']</Script>İ['https://h.example/2.jpg']<script>'https://h.example/3.png'"
    )
    assert [item.url[-5:] for item in read(GOOGLE, page.encode()).hits] == ["1.jpg", "3.png"]
    assert len(read(JSON, b"\xef\xbb\xbf" + openverse_page(PICTURES)).hits) == len(PICTURES)


def test_a_word_in_a_script_is_no_captcha() -> None:
    page = b"<script src='recaptcha.js'></script><script>captcha()</script>" + bing_page([])
    assert refused(BING, page).reason == "no-results"


def test_what_a_person_would_see_is_told_in_200_printable_characters() -> None:
    page = b"<title>One last\nstep</title><style>p{}</style><script>x</script><p>Solve &amp; go\x07</p>" + b"z" * 999
    text = seen(page)
    assert text.startswith("One last step Solve & go\N{REPLACEMENT CHARACTER} zzz")
    assert len(text) == 200
    assert seen(b"") == ""


@pytest.mark.parametrize(
    "hostile",
    [
        b"<a " * 300_000, b'<a m="' * 200_000, b"<script>" * 300_000, b'["https:' * 200_000, b"{" * 300_000,
        b"<script>" + b"http:" * 300_000, b"/imgres?" * 200_000, b'["https:' + b"\\u" * 300_000, b"\\" * 600_000,
    ],
)  # fmt: skip
@pytest.mark.timeout(20)
def test_a_hostile_page_costs_no_more_than_its_length(hostile: bytes) -> None:
    for params in (BING, GOOGLE, BAIDU, JSON):
        assert refused(params, hostile).reason == "unknown-answer" or params is BING
    assert len(seen(hostile)) <= 200


class Session:
    """icrawler's session, which gives one answer, or fails."""

    def __init__(self, body: bytes | None) -> None:
        self.body = body

    def get(self, url: str, **_: Any) -> StockResponse:
        if self.body is None:
            raise OSError(url)
        return StockResponse(self.body)


def test_results_beyond_what_an_engine_gives_are_not_asked_for() -> None:
    assert not read(BING, bing_page(PICTURES), start=995).more
    assert read(BING, bing_page(PICTURES), start=994).more


def test_strange_values_in_an_answer_are_no_error() -> None:
    odd: dict[str, Any] = {
        "results": [None, 1, [], {"url": None}, {"url": {"a": 1}}, {"url": True}, {"url": "a\u0000\ud800b"}]
    }
    items = read(JSON, json.dumps(odd).encode()).hits
    assert [item.url for item in items[:6]] == [""] * 6
    assert items[6].url.isprintable()
    assert replace(items[6], url="") == replace(items[5], url="")
