"""The crawl source: exactly the wanted pictures, in the order of the answers, and nothing lost or believed."""

import json
import logging
import os
import queue
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import icrawler
import pytest
from hostile_server import Answer, Hit, HostileServer, at_first, picture
from icrawler.storage import BaseStorage
from icrawler.utils import CachedQueue, Signal
from search_pages import BAIDU_FORBIDDEN, BING_CHALLENGE, GOOGLE_SORRY, Picture, SearchSite, flickr_refusal
from test_crawl_engines import BAIDU, BING, FLICKR, GOOGLE, JSON
from test_ingest import DOWNLOAD

from pipelines.core.errors import InputError
from pipelines.core.params.ingest import DownloadParams, IngestParams
from pipelines.core.params.sources import CrawlSource
from pipelines.core.tables import MANIFEST, read_table
from pipelines.ingest import ingest
from pipelines.ingest.crawl import list_crawl
from pipelines.ingest.crawl.answers import Item
from pipelines.ingest.crawl.crew import Crew, Job
from pipelines.ingest.crawl.engines import Result
from pipelines.ingest.crawl.run import Fetcher
from pipelines.ingest.crawl.search import Ask, Fetch, Search
from pipelines.ingest.listing import Listing, Place

ROOT = Path(__file__).parents[1]


# --- the search for one class ------------------------------------------------------------------------------------

Pages = Mapping[tuple[int, int], Sequence[Sequence[str]]]
"""(engine, word) to its pages of URLs"""


def play(pages: Pages, bytes_of: Mapping[str, str], *, wanted: int, at_once: int, seed: int, words: int = 2) -> Search:
    """Run a search against answers that come in an order drawn at random."""
    drawn = random.Random(seed)
    search = Search("label", [f"w{word}" for word in range(words)], 2, wanted, 3)
    flying: list[Ask | Fetch] = []
    while not search.ended:
        while len(flying) < at_once and (step := search.step()) is not None:
            flying.append(step)
        step = flying.pop(drawn.randrange(len(flying)))
        if isinstance(step, Fetch):
            search.came(step, bytes_of.get(search.found[step.number].url, ""))
            continue
        given = pages.get((step.engine, step.word), ())
        urls = given[step.page] if step.page < len(given) else []
        items = tuple(Item(url) for url in urls)
        search.answered(step, Result(items, step.page + 1 < len(given), "ok" if items else "no-results", "", 200))
    return search


def taken(search: Search) -> list[str]:
    return [search.found[number].url for number in search.taken()]


def u(*names: str) -> list[str]:
    return [f"http://h/{name}" for name in names]


def all_good(pages: Pages) -> dict[str, str]:
    return {url: url for one in pages.values() for page in one for url in page}


def test_the_searches_of_a_class_take_turns() -> None:
    pages = {(0, 0): [u("a1", "a2", "a3")], (0, 1): [u("b1", "b2", "b3")]}
    assert taken(play(pages, all_good(pages), wanted=4, at_once=3, seed=0)) == u("a1", "b1", "a2", "b2")


def test_every_search_of_an_engine_comes_before_the_next_engine_and_pages_before_pages() -> None:
    pages = {(0, 0): [u("a1"), u("a2")], (0, 1): [u("b1"), u("b2")], (1, 0): [u("c1")], (1, 1): [u("d1")]}
    order = u("a1", "b1", "a2", "b2", "c1", "d1")
    for wanted in range(1, 7):
        assert taken(play(pages, all_good(pages), wanted=wanted, at_once=3, seed=wanted)) == order[:wanted]


def test_a_search_that_ends_leaves_its_turns_to_the_others() -> None:
    pages = {(0, 0): [u("a1")], (0, 1): [u("b1", "b2"), u("b3")]}
    assert taken(play(pages, all_good(pages), wanted=9, at_once=2, seed=0)) == u("a1", "b1", "b2", "b3")


@pytest.mark.parametrize("seed", range(40))
def test_the_answers_alone_decide_whatever_their_timing(seed: int) -> None:
    """Against one answer after the other: the same pictures, and not one more asked for."""
    drawn = random.Random(1000 + seed)
    names = [f"n{number}" for number in range(40)]
    pages = {
        (engine, word): [u(*drawn.choices(names, k=drawn.randint(0, 8))) for _ in range(drawn.randint(0, 4))]
        for engine in range(2)
        for word in range(2)
    }
    # a fifth of the URLs give nothing, others share their bytes
    bytes_of = {url: str(drawn.randint(1, 30)) for url in u(*names) if drawn.random() < 0.8}
    wanted = drawn.randint(1, 15)
    alone = play(pages, bytes_of, wanted=wanted, at_once=1, seed=0)
    together = play(pages, bytes_of, wanted=wanted, at_once=drawn.randint(2, 16), seed=seed)
    assert taken(together) == taken(alone)
    assert together.good == alone.good
    assert together.next == alone.next
    assert together.found == alone.found
    assert together.failures == alone.failures
    assert len({bytes_of[url] for url in taken(alone)}) == len(taken(alone)) == alone.num_good <= wanted


def test_an_engine_that_gives_the_same_page_for_ever_is_left() -> None:
    pages = {(0, 0): [u("a1")] * 3, (0, 1): [u("a1")] * 3}
    search = play(pages, all_good(pages), wanted=5, at_once=1, seed=0)
    assert taken(search) == u("a1")
    assert len(search.found) == 4  # two searches, two pages each: the second had nothing new


# --- whole crawls ------------------------------------------------------------------------------------------------


class Web:
    """A server of pictures and of all engines, and crawls of it."""

    def __init__(self, server: HostileServer, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.index: dict[str, list[Picture]] = {}
        self.site = SearchSite(self.index)
        routes: dict[str, Any] = {
            "/picture/*": lambda hit: picture(int(hit.path.split("/")[2].split(".")[0])),
            "/same/*": picture(1),
            "/403": Answer(b"no", 403, "text/plain"),
            "/410": Answer(b"gone", 410, "text/plain"),
            "/500-once": at_first(1, Answer(b"", 500), picture(1)),
            "/html": Answer(b"<html><body>Not found</body></html>"),
            "/empty": Answer(b""),
        }
        for path, handler in routes.items():
            server.add(path, handler)
        for engine in ("bing", "google", "baidu", "flickr", "json"):
            server.add(f"/{engine}", self._answer(engine))

    def _answer(self, engine: str) -> Callable[[Hit], Answer]:
        def answer(hit: Hit) -> Answer:
            query = {name: values[0] for name, values in hit.query.items()}
            return Answer(self.site.answer(engine, query), type="text/html")

        return answer

    def picture(self, path: str, **about: Any) -> Picture:
        return Picture(self.server.url(path), **about)

    def pictures(self, *numbers: int) -> list[Picture]:
        return [self.picture(f"/picture/{number}.jpg") for number in numbers]

    def json(self, name: str = "own", path: str = "/json") -> dict[str, Any]:
        return {**JSON, "name": name, "url": self.server.url(path) + "?q={words}&page={page}"}

    def entry(self, classes: Mapping[str, Sequence[str]], *engines: dict[str, Any], **more: Any) -> CrawlSource:
        settings = {
            "kind": "crawl", "classes": classes, "images_per_class": 3, "max_pages": 3, "engines": engines,
            "fail_when": "any", "gone": "drop", **more,
        }  # fmt: skip
        return CrawlSource.model_validate_json(json.dumps(settings))

    def params(self, entry: CrawlSource, *, snapshot: str = "1", **download: Any) -> IngestParams:
        rules = {**DOWNLOAD, "open_hosts": ["127.0.0.1"], "tries": 2, **download}
        given = {
            "snapshot": snapshot, "sources": [entry.model_dump(mode="json")], "download": rules,
            "crop": {"kind": "none"}, "max_file_bytes": 1 << 20, "max_pixels": 1_000_000, "min_side": 8,
            "shard_bytes": 1 << 20,
        }  # fmt: skip
        return IngestParams.model_validate_json(json.dumps(given))

    def crawl(self, entry: CrawlSource, **more: Any) -> Listing:
        place = Place(self.folder, self.folder / "cache", self.params(entry, **more))
        home = {name: self.server.url(f"/{name}") for name in ("bing", "google", "baidu", "flickr")}
        return list_crawl(entry, source="0-crawl", place=place, addresses=home)

    def paths(self, listing: Listing) -> list[str]:
        """Paths of the pictures, in the order in which the engines named them."""
        rows = [row for row in listing.records or [] if row["outcome"] == "ok"]
        assert sorted((row["url"], row["label"]) for row in rows) == sorted(
            zip(listing.paths, listing.labels, strict=True)
        )
        return [row["url"].removeprefix(self.server.url("")) for row in rows]

    def asked(self, prefix: str = "/picture/") -> dict[str, int]:
        return {path: count for path, count in self.server.hits.items() if path.startswith(prefix)}


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    with HostileServer() as server:
        yield Web(server, tmp_path)


def outcomes(listing: Listing) -> Counter[str]:
    return Counter(row["outcome"] for row in listing.records or [])


def reasons(listing: Listing) -> Counter[str]:
    return Counter(reject.reason for reject in listing.rejects)


@pytest.mark.parametrize("engine", ["bing", "google", "baidu", "flickr", "json"])
def test_every_engine_gives_exactly_the_wanted_pictures_and_not_one_more_is_fetched(
    web: Web, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLICKR_APIKEY", "secret-key")
    params = {"bing": BING, "google": GOOGLE, "baidu": BAIDU, "flickr": FLICKR, "json": web.json()}[engine]
    web.index["ギター & #1"] = [
        web.picture(f"/picture/{n}.jpg", page_url=f"http://p.example/{n}", license=4, creator="Ann") for n in range(25)
    ]
    listing = web.crawl(web.entry({"ギター": ["ギター & #1"]}, params, images_per_class=12))
    assert web.paths(listing) == [f"/picture/{n}.jpg" for n in range(12)]
    assert web.asked() == {f"/picture/{n}.jpg": 1 for n in range(12)}
    assert [start for _, _, start in web.site.asked] == [0, 10]
    assert outcomes(listing) == {"ok": 12, "over-limit": 8}
    assert listing.rejects == []
    assert listing.labels == ["ギター"] * 12
    assert listing.origins is not None
    origin = listing.origins[0]
    assert origin.query == "ギター & #1"
    if engine != "flickr":  # which shows a page of its own
        assert origin.page_url == "http://p.example/0"
    if engine == "flickr":
        assert (origin.license, origin.creator) == ("CC-BY-2.0", "Ann")
    if engine == "json":
        assert (origin.license, origin.creator) == ("by 4.0", "Ann")
    row = (listing.records or [])[3]
    assert (row["engine"], row["page"], row["rank"]) == ("own" if engine == "json" else engine, 1, 3)
    kept = "".join(path.read_text() for path in web.folder.rglob("*.json*"))
    assert "secret-key" not in kept + json.dumps(listing.records)


def test_pictures_that_cannot_be_used_are_replaced_and_each_is_accounted_for(web: Web) -> None:
    web.index["x"] = [
        *(web.picture(path) for path in ("/403", "/same/1", "/html", "/same/2", "/empty")),
        Picture("ftp://h.example/a.jpg"), Picture("http://10.0.0.1/a.jpg"), Picture(""), web.picture("/same/1#again"),
        *web.pictures(5, 6, 7),
    ]  # fmt: skip
    listing = web.crawl(web.entry({"a": ["x"]}, web.json()))
    assert web.paths(listing) == ["/same/1", "/picture/5.jpg", "/picture/6.jpg"]
    expected = {
        "http-403": 1, "not-an-image": 1, "duplicate-content": 1, "empty-file": 1, "unsupported-scheme": 1,
        "private-address": 1, "no-image-url": 1, "duplicate-url": 1,
    }  # fmt: skip
    assert reasons(listing) == expected
    assert outcomes(listing) == {**expected, "ok": 3, "over-limit": 1}
    detail = {reject.reason: reject.detail for reject in listing.rejects}
    assert detail["not-an-image"] == "an HTML page"
    assert detail["duplicate-content"] == f"the same bytes as {web.server.url('/same/1')}"
    assert [reject.source_path for reject in listing.rejects if reject.reason == "no-image-url"] == [
        "own: x: page 1, result 8"
    ]


def test_nothing_that_an_engine_says_is_believed(web: Web) -> None:
    evil = [
        web.picture("/picture/1.jpg", page_url="javascript:alert(1)", creator="<script>\x00\u202ex" + "y" * 999),
        Picture("http://me:secret@127.0.0.1/x.jpg", "http://me:secret@h.example/"), Picture("data:image/png;base64,AA"),
        Picture("http://h.example/" + "a" * 9000), Picture("file:///etc/passwd"), *web.pictures(2, 3, 4),
        Picture("http://me:secret@127.0.0.1/y.jpg"),
    ]  # fmt: skip
    web.index["x"] = evil
    listing = web.crawl(web.entry({"a": ["x"]}, web.json()))
    assert web.paths(listing) == ["/picture/1.jpg", "/picture/2.jpg", "/picture/3.jpg"]
    assert reasons(listing) == {"bad-url": 2, "unsupported-scheme": 2}
    assert listing.origins is not None
    assert listing.origins[0].page_url == ""
    assert listing.origins[0].creator == "<script>x" + "y" * 291
    assert "secret" not in json.dumps(listing.records) + "".join(map(str, listing.rejects))


def test_one_engine_fills_what_another_began(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLICKR_APIKEY", "k")
    web.index["x"] = web.pictures(1, 2)
    listing = web.crawl(web.entry({"a": ["x"]}, BING, web.json(), fail_when="empty", images_per_class=2))
    assert {engine for engine, _, _ in web.site.asked} == {"bing"}
    web.index["y"] = web.pictures(3, 4)
    web.server.add("/other", lambda hit: Answer(SearchSite({"y": web.pictures(4, 5, 6)}).answer(
        "json", {"q": hit.query["q"][0], "page": hit.query["page"][0]}
    )))  # fmt: skip
    listing = web.crawl(web.entry({"a": ["y"]}, BING, web.json(path="/other"), images_per_class=4))
    assert web.paths(listing) == [f"/picture/{n}.jpg" for n in (3, 4, 5, 6)]
    assert [row["engine"] for row in listing.records or []] == ["bing", "bing", "own", "own", "own"]
    assert reasons(listing) == {"duplicate-url": 1}


def test_two_classes_that_find_the_same_picture_fetch_it_once(web: Web) -> None:
    web.index.update({"x": web.pictures(1, 2), "y": web.pictures(2, 3)})
    listing = web.crawl(web.entry({"b": ["y"], "a": ["x"]}, web.json(), images_per_class=2))
    found = [(row["label"], row["url"][-5], row["query"]) for row in listing.records or []]
    assert found == [("a", "1", "x"), ("a", "2", "x"), ("b", "2", "y"), ("b", "3", "y")]
    assert web.asked() == {f"/picture/{n}.jpg": 1 for n in (1, 2, 3)}


@pytest.mark.parametrize("seed", range(3))
def test_a_server_of_many_speeds_gives_the_same_rows(web: Web, seed: int) -> None:
    drawn = random.Random(seed)
    pause = {n: drawn.random() * 0.1 for n in range(30)}

    def slow(hit: Hit) -> bytes:
        number = int(hit.path.split("/")[2].split(".")[0])
        time.sleep(pause[number])
        return picture(number % 17)

    web.server.add("/picture/*", slow)
    web.index.update({"x": web.pictures(*range(20)), "y": web.pictures(*range(10, 30))})
    entry = web.entry({"a": ["x", "y"], "b": ["y"]}, web.json(), images_per_class=11)
    listing = web.crawl(entry, connections=8, connections_per_host=8)
    assert web.server.most_at_once <= 8
    assert len(listing.paths) == 22
    strip = ("fetched_at", "seconds")
    rows = [{k: v for k, v in row.items() if k not in strip} for row in listing.records or []]
    web.folder = web.folder / "again"
    listing = web.crawl(entry, connections=1)
    assert [{k: v for k, v in row.items() if k not in strip} for row in listing.records or []] == rows


def test_a_host_that_must_wait_holds_up_no_other(web: Web) -> None:
    tired = Answer(b"", 429, headers={"Retry-After": "1"})
    try:
        other = HostileServer("127.0.0.2")
    except OSError:
        pytest.skip("this machine has no 127.0.0.2")
    with other:
        # the first two requests are turned away: one URL alone may have both, and has three tries
        other.add("/slow/*", lambda hit: tired if other.total < 3 else picture(int(hit.path[-1])))
        slow = [Picture(other.url(f"/slow/{number}")) for number in range(4)]
        web.index["x"] = [*slow, *web.pictures(*range(10, 20))]
        entry = web.entry({"a": ["x"]}, web.json(), images_per_class=14, max_pages=9)
        listing = web.crawl(entry, connections=2, open_hosts=["127.0.0.1", "127.0.0.2"], max_wait_seconds=5.0)
        assert len(listing.paths) == 14
        quick = [time for path in web.asked() for time in web.server.times[path]]
        waited = [max(times) for path, times in other.times.items() if path.startswith("/slow")]
        assert max(quick[:10]) < max(waited) - 0.5


@dataclass
class OpenGate:
    """Lets everybody through; `held` hosts must wait until a time."""

    held: dict[str, float] = field(default_factory=dict)

    def ready_at(self, host: str) -> float:
        return self.held.get(host, 0.0)

    def delay(self, host: str) -> float:  # noqa: ARG002
        return 0.0

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def crew_of(connections: int, per_host: int, *, gate: OpenGate | None = None, stopped: list[int] | None = None) -> Any:
    rules = {**DOWNLOAD, "connections": connections, "connections_per_host": per_host}
    params = DownloadParams.model_validate_json(json.dumps(rules))
    stop = (lambda: stopped.append(1)) if stopped is not None else (lambda: None)
    return Crew[str](params, gate=gate or OpenGate(), stop=stop)  # type: ignore[arg-type]  # a gate without a network


def test_a_crew_keeps_to_its_connections_and_to_those_of_each_host() -> None:
    lock, now, most = threading.Lock(), Counter[str](), Counter[str]()

    def work(host: str, tries: int) -> str:  # noqa: ARG001
        with lock:
            now.update([host, "all"])
            most[host], most["all"] = max(most[host], now[host]), max(most["all"], now.total() // 2)
        time.sleep(0.01)
        with lock:
            now.subtract([host, "all"])
        return host

    with crew_of(5, 2) as crew:
        for number in range(20):
            host = "abcd"[number % 4]
            crew.add(Job(host, partial(work, host)))
        assert crew.full
        came: Counter[str] = Counter()
        while crew.busy:
            came.update(result for _, result in crew.land())
    assert came == dict.fromkeys("abcd", 5)
    assert most["all"] == 5
    assert all(most[host] <= 2 for host in "abcd")


def test_a_job_that_asks_for_another_try_gets_it_later_and_the_others_go_first() -> None:
    order: list[str] = []

    def work(name: str, tries: int) -> str | float:
        order.append(f"{name}{tries}")
        return 0.05 * (2 - tries) if name == "b" and tries < 2 else name

    with crew_of(1, 1, gate=OpenGate({"c": time.monotonic() + 0.3})) as crew:
        for name in "bca":
            crew.add(Job(name, partial(work, name)))
        landed = []
        while crew.busy:
            landed += [result for _, result in crew.land()]
    assert order == ["b0", "a0", "b1", "b2", "c0"]
    assert landed == ["a", "b", "c"]


def test_an_error_in_a_crew_stops_what_is_under_way_and_drops_what_waits() -> None:
    stopped: list[int] = []
    done: list[int] = []

    def work(number: int, tries: int) -> str:  # noqa: ARG001
        if number == 0:
            raise RuntimeError("lost")
        done.append(number)
        return "x"

    def run() -> None:
        with crew_of(1, 1, stopped=stopped) as crew:
            for number in range(9):
                crew.add(Job("a", partial(work, number)))
            while crew.busy:
                crew.land()

    with pytest.raises(RuntimeError, match="lost"):
        run()
    assert (stopped, done) == ([1], [])


# --- engines that fail -------------------------------------------------------------------------------------------


def test_a_class_that_ends_short_stops_the_run_and_says_everything(web: Web) -> None:
    web.index.update({"x": web.pictures(1, 2), "y": [*web.pictures(3, 4, 5)]})
    web.site.spoiled["json", "z"] = b"{}"
    entry = web.entry({"short": ["x"], "full": ["y"], "none": ["z"]}, web.json())
    with pytest.raises(InputError) as caught:
        web.crawl(entry)
    said = str(caught.value).splitlines()
    assert said[0] == (
        "ingest.sources[0]: 2 of 3 classes have fewer pictures than images_per_class = 3 (fail_when: any)"
    )
    assert said[1:4] == ["  full: 3 of 3", "  none: 0 of 3", "  short: 2 of 3"]
    assert said[4] == "What the engines answered:"
    assert said[5].startswith(
        "  own, searching 'z' for 'none', page 1 (HTTP 200): unknown-answer: its pages have changed"
    )
    assert said[5].endswith('it showed "{}"')
    assert said[-1].startswith("What was fetched is kept: run again to go on from there. Or give")
    web.index["x"] += web.pictures(6)
    web.site.spoiled.clear()
    web.index["z"] = web.pictures(7, 8, 9)
    with pytest.raises(InputError, match=r"1 of 3 classes(.|\n)*What was fetched is kept, but another run would find"):
        web.crawl(entry)  # the page with two results is known; the page that failed is asked for again
    assert set(web.asked().values()) == {1}
    assert [words for _, words, _ in web.site.asked].count("x") == 2


def test_short_classes_are_warnings_where_params_say_so(web: Web, capsys: pytest.CaptureFixture[str]) -> None:
    web.index["x"] = [*web.pictures(1), web.picture("/403")]
    web.site.spoiled["bing", "x"] = BING_CHALLENGE
    listing = web.crawl(web.entry({"a": ["x"]}, BING, web.json(), fail_when="empty"))
    assert web.paths(listing) == ["/picture/1.jpg"]
    said = capsys.readouterr().err
    assert "warning: ingest.sources[0]: class 'a' has 1 of 3 pictures (1 http-403)" in said
    assert "warning: ingest.sources[0]: bing, searching 'x' for 'a', page 1 (HTTP 200): captcha: it takes us" in said
    assert 'it showed "One last step Please solve the challenge below"' in said
    failed = [row for row in listing.records or [] if row["outcome"] == "engine-failed"]
    assert [(row["engine"], row["query"], row["label"], row["status"]) for row in failed] == [("bing", "x", "a", 200)]
    assert failed[0]["url"].startswith(web.server.url("/bing?q=x&"))
    assert reasons(listing) == {"http-403": 1}


def test_a_class_without_any_picture_stops_the_run_always(web: Web) -> None:
    web.index.update({"x": web.pictures(1), "y": [web.picture("/410")]})
    says = r"1 of 2 classes have no picture at all .*\n  a: 1 of 3\n  b: 0 of 3 \(1 http-410\)"
    with pytest.raises(InputError, match=says):
        web.crawl(web.entry({"a": ["x"], "b": ["y"]}, web.json(), fail_when="empty"))


@pytest.mark.parametrize(
    ("params", "name", "body", "reason"),
    [
        (BING, "bing", BING_CHALLENGE, "captcha"),
        (GOOGLE, "google", GOOGLE_SORRY, "captcha"),
        (BAIDU, "baidu", BAIDU_FORBIDDEN, "captcha"),
        (FLICKR, "flickr", flickr_refusal(100, "Invalid API Key (Key has invalid format)"), "bad-key"),
    ],
)
def test_an_engine_that_takes_us_for_a_robot_is_not_asked_again(
    web: Web, params: dict[str, Any], name: str, body: bytes, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLICKR_APIKEY", "k")
    classes = {"a": ["x", "y"], "b": ["z"]}
    web.site.spoiled.update({(name, words): body for words in "xyz"})
    with pytest.raises(InputError) as caught:
        web.crawl(web.entry(classes, params), connections=1)
    assert len(web.site.asked) == 1
    said = str(caught.value)
    assert said.count(f": {reason}: ") == 3
    assert said.count("not asked, since it answered another search so") == 2


def test_robots_txt_is_obeyed_for_pages_and_not_asked_for_an_api(web: Web) -> None:
    web.server.add("/robots.txt", Answer(b"User-agent: *\nDisallow: /bing\nDisallow: /json\n", type="text/plain"))
    web.index["x"] = web.pictures(1, 2, 3)
    listing = web.crawl(web.entry({"a": ["x"]}, BING, web.json()))
    assert {engine for engine, _, _ in web.site.asked} == {"json"}
    failed = [row for row in listing.records or [] if row["outcome"] == "engine-failed"]
    assert "its robots.txt refuses programs; use an engine with an API" in failed[0]["detail"]
    assert len(listing.paths) == 3


def test_a_page_is_tried_again_like_a_picture(web: Web) -> None:
    web.index["x"] = web.pictures(1, 2, 3)
    good = web.server.routes["/json"]
    web.server.add("/json", lambda hit: Answer(b"", 500) if hit.count == 1 else good(hit))
    assert len(web.crawl(web.entry({"a": ["x"]}, web.json())).paths) == 3
    assert web.server.hits["/json"] == 2


def test_an_engine_that_answers_an_error_is_quoted(web: Web) -> None:
    web.server.add("/json", Answer(b'{"detail": "API key revoked"}', 403, "application/json"))
    with pytest.raises(InputError, match=r"\(HTTP 403\): http-403: .*it refuses.*it showed .*API key revoked"):
        web.crawl(web.entry({"a": ["x"]}, web.json()))


def test_a_key_is_in_no_message(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "s3cret+")
    web.server.add("/json", Answer(b"no such key: s3cret+", 401, "text/plain"))
    engine = web.json() | {"url": web.server.url("/json") + "?q={words}&p={page}&key={key}", "key_from": "MY_KEY"}
    with pytest.raises(InputError) as caught:
        web.crawl(web.entry({"a": ["x"]}, engine))
    assert 'it showed "no such key: ***"' in str(caught.value)
    assert "s3cret" not in "".join(path.read_text() for path in web.folder.rglob("*.json*"))


@pytest.mark.parametrize(
    ("classes", "says"),
    [
        ({"a/../b": ["x"]}, "classes: 'a/../b': '..' is no name"),
        ({"\xe9": ["x"], "e\u0301": ["y"]}, "and another class are both '\xe9'"),
        ({"a": ["x", " x"]}, "'a' has an empty search or the same one twice"),
        ({"a": [" "]}, "'a' has an empty search"),
    ],
)
def test_classes_that_cannot_be_are_refused(web: Web, classes: dict[str, list[str]], says: str) -> None:
    with pytest.raises(InputError) as caught:
        web.crawl(web.entry(classes, web.json()))
    assert says in str(caught.value)


# --- going on, going back ----------------------------------------------------------------------------------------


def test_a_finished_crawl_needs_no_network_and_no_key(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLICKR_APIKEY", "k")
    web.index["x"] = [web.picture("/403"), *web.pictures(1, 2, 3, 4)]
    entry = web.entry({"a": ["x"]}, FLICKR)
    first = web.crawl(entry)
    monkeypatch.delenv("FLICKR_APIKEY")
    before = web.server.total
    again = web.crawl(entry)
    assert web.server.total == before
    assert (again.paths, again.records, again.rejects) == (first.paths, first.records, first.rejects)
    assert [again.read(path) for path in again.paths] == [picture(1), picture(2), picture(3)]


def test_a_picture_that_the_cache_lost_is_fetched_again_and_nothing_else(web: Web) -> None:
    web.index["x"] = web.pictures(1, 2, 3)
    entry = web.entry({"a": ["x"]}, web.json())
    listing = web.crawl(entry)
    lost = next(row["image_id"] for row in listing.records or [] if row["url"].endswith("/2.jpg"))
    next(web.folder.rglob(lost)).unlink()
    assert web.crawl(entry).records is not None
    assert web.asked() == {"/picture/1.jpg": 1, "/picture/2.jpg": 2, "/picture/3.jpg": 1}
    assert web.server.hits["/json"] == 1


def test_a_journal_with_notes_that_are_not_ours_is_read_as_far_as_it_goes(web: Web) -> None:
    web.index["x"] = web.pictures(1, 2, 3)
    entry = web.entry({"a": ["x"]}, web.json())
    first = web.crawl(entry)
    (journal,) = web.folder.rglob("journal.jsonl")
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    names = [line["note"] for line in lines if "note" in line]
    assert names == ["0 own 'x' 0 0", "rows of sources.jsonl"]
    with journal.open("a") as file:
        file.writelines(json.dumps({"note": name, "value": [7]}) + "\n" for name in names)
    assert web.crawl(entry).records == first.records
    assert set(web.asked().values()) == {1}
    assert web.server.hits["/json"] == 2


def test_more_pictures_of_the_same_snapshot_fetch_the_missing_ones_alone(web: Web) -> None:
    web.index["x"] = web.pictures(*range(8))
    web.crawl(web.entry({"a": ["x"]}, web.json(), images_per_class=3))
    web.crawl(web.entry({"a": ["x"]}, web.json(), images_per_class=6))
    assert web.asked() == {f"/picture/{n}.jpg": 1 for n in range(6)}


def test_a_new_snapshot_searches_anew_and_keeps_what_is_gone_if_asked_to(web: Web) -> None:
    web.server.add("/old.jpg", picture(77))
    web.server.add("/new.jpg", picture(77))
    web.index["x"] = [*web.pictures(1, 2, 3), web.picture("/old.jpg")]
    keep = web.entry({"a": ["x"]}, web.json(), images_per_class=4, gone="keep")
    web.crawl(keep)
    web.index["x"] = [*web.pictures(3, 4, 5), web.picture("/new.jpg")]
    listing = web.crawl(keep, snapshot="2")
    rows = [
        (row["url"].removeprefix(web.server.url("")), row["outcome"], row["kept_from"]) for row in listing.records or []
    ]
    assert rows == [
        ("/picture/3.jpg", "ok", ""),
        ("/picture/4.jpg", "ok", ""),
        ("/picture/5.jpg", "ok", ""),
        ("/new.jpg", "ok", ""),
        ("/old.jpg", "duplicate-content", "1"),
        ("/picture/1.jpg", "ok", "1"),
        ("/picture/2.jpg", "ok", "1"),
    ]
    before = web.server.total
    assert web.crawl(keep, snapshot="2").records == listing.records
    assert web.crawl(keep, snapshot="1").paths[-1].endswith("/picture/3.jpg")
    assert web.server.total == before
    drop = web.entry({"a": ["x"]}, web.json(), images_per_class=4)
    assert len(web.crawl(drop, snapshot="3").paths) == 4


HANGS_SECONDS = 240.0
SCRIPT = """
import json, sys
from pathlib import Path
from pipelines.core.params.ingest import DownloadParams, IngestParams
from pipelines.ingest import ingest

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    params = IngestParams.model_validate_json((folder / "ingest.json").read_text())
    print(ingest(params, root=folder, cache=folder / "cache", out_dir=folder / "out", workers=1))
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_ended_half_way_goes_on(web: Web, how: signal.Signals) -> None:
    """Nothing that came is fetched again, no answered page is asked for again; it ends like an unbroken run."""
    pause = threading.Event()

    def slow(hit: Hit) -> bytes:
        number = int(hit.path.split("/")[2].split(".")[0])
        if number >= 9:
            pause.wait(HANGS_SECONDS)
        return picture(number)

    web.server.add("/picture/*", slow)
    web.index.update({"x": web.pictures(*range(0, 20, 2)), "y": web.pictures(*range(1, 21, 2))})
    entry = web.entry({"a": ["x"], "b": ["y"]}, web.json(), images_per_class=8)
    params = web.params(entry, connections_per_host=4, timeout_seconds=HANGS_SECONDS)
    (web.folder / "ingest.json").write_text(params.model_dump_json())
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.Popen([sys.executable, "-c", SCRIPT, str(web.folder)], env=environment, stderr=subprocess.PIPE)
    while sum(web.asked().values()) < 12:
        time.sleep(0.02)
        assert run.poll() is None
    time.sleep(0.2)
    run.send_signal(how)
    run.communicate(timeout=HANGS_SECONDS / 4)  # without an answer to what it has asked for
    assert run.returncode != 0
    done = {path for path in web.asked() if int(path.split("/")[2].split(".")[0]) < 9}
    pause.set()
    artifact = ingest(params, root=web.folder, cache=web.folder / "cache", out_dir=web.folder / "out", workers=1)
    assert (artifact.num_images, artifact.num_rejected) == (16, 0)
    assert {path: count for path, count in web.asked().items() if path in done} == dict.fromkeys(done, 1)
    assert len(done) == 9
    assert web.server.hits["/json"] == 2
    outputs = {path.name: path.read_bytes() for path in (web.folder / "out").iterdir()}
    ingest(params, root=web.folder, cache=web.folder / "other-cache", out_dir=web.folder / "out", workers=1)
    for path in (web.folder / "out").iterdir():
        assert path.name == "sources.jsonl" or path.read_bytes() == outputs[path.name], path.name


def test_the_manifest_knows_where_each_picture_comes_from(web: Web) -> None:
    web.index["x"] = [web.picture("/picture/1.jpg", page_url="http://p.example/1", creator="Ann"), web.picture("/html")]
    params = web.params(web.entry({"a": ["x"]}, web.json(), fail_when="empty"))
    artifact = ingest(params, root=web.folder, cache=web.folder / "cache", out_dir=web.folder / "out", workers=1)
    assert (artifact.num_files, artifact.num_images, artifact.num_rejected) == (2, 1, 1)
    (row,) = read_table(web.folder / "out" / "manifest.parquet", MANIFEST).to_pylist()
    url = web.server.url("/picture/1.jpg")
    assert (row["source"], row["source_path"], row["url"], row["label"]) == ("0-crawl", url, url, "a")
    assert (row["page_url"], row["query"], row["license"], row["creator"]) == (
        "http://p.example/1",
        "x",
        "by 4.0",
        "Ann",
    )
    rows = [json.loads(line) for line in (web.folder / "out" / "sources.jsonl").read_text().splitlines()]
    assert [(one["source"], one["outcome"]) for one in rows] == [("0-crawl", "ok"), ("0-crawl", "not-an-image")]


# --- what icrawler's threads lose --------------------------------------------------------------------------------


def quiet(parts: Any) -> Any:
    """One of icrawler's parts, told that nothing has ended."""
    parts.signal.set(feeder_exited=False, parser_exited=False, reach_max_num=False)
    return parts


class Kept(BaseStorage):  # type: ignore[misc]  # icrawler has no types
    """Names of files in the order in which icrawler stores them."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def write(self, id: str, data: bytes) -> None:  # noqa: ARG002
        self.names.append(id)

    def exists(self, id: str) -> bool:  # noqa: ARG002
        return False


class Always:
    """A session that gives the same answer to everybody."""

    def __init__(self, status: int = 200) -> None:
        self.status, self.num_asked = status, 0

    def get(self, url: str, **_: Any) -> Any:  # noqa: ARG002
        self.num_asked += 1
        return type("Response", (), {"status_code": self.status, "content": picture(1)})()


def stock_downloader(session: Any, *, kind: Any = icrawler.Downloader, threads: int = 1) -> Any:
    downloader = quiet(kind(threads, Signal(), session, Kept()))
    downloader.max_num = 9
    return downloader


def test_icrawler_takes_more_than_was_wanted() -> None:
    """Here: see that not one more is fetched, above."""
    together = threading.Barrier(4)

    class Slow(icrawler.Downloader):  # type: ignore[misc]
        def keep_file(self, task: Any, response: Any, **_: Any) -> bool:  # noqa: ARG002
            together.wait(5)
            return True

        def get_filename(self, task: Any, default_ext: str) -> str:  # noqa: ARG002
            return str(self.fetched_num)

    downloader = stock_downloader(Always(), kind=Slow, threads=4)
    for number in range(4):
        downloader.in_queue.put({"file_url": f"http://h/{number}"})
    downloader.start(max_num=1, queue_timeout=0.05)
    for worker in downloader.workers:
        worker.join()
    assert len(downloader.storage.names) == 4


def test_icrawler_leaves_while_pages_are_still_read(web: Web) -> None:
    downloader = stock_downloader(Always(), kind=icrawler.ImageDownloader)
    downloader.fetched_num = 1
    downloader.worker_exec(max_num=9, queue_timeout=0.01)  # returns, though the parser has not exited
    assert not downloader.signal.get("parser_exited")
    good = web.server.routes["/json"]

    def slow(hit: Hit) -> Answer | bytes:
        time.sleep(0.5 if hit.query["page"] == ["2"] else 0.0)
        return good(hit)

    web.server.add("/json", slow)
    web.index["x"] = web.pictures(*range(12))
    assert len(web.crawl(web.entry({"a": ["x"]}, web.json(), images_per_class=12)).paths) == 12


def test_icrawler_tries_no_error_again(web: Web) -> None:
    session = Always(500)
    downloader = stock_downloader(session, kind=icrawler.ImageDownloader)
    downloader.download({"file_url": "http://h/a.jpg"}, "jpg", max_retry=3, overwrite=True)
    assert session.num_asked == 1
    web.index["x"] = [web.picture("/500-once")]
    assert len(web.crawl(web.entry({"a": ["x"]}, web.json(), images_per_class=1)).paths) == 1


def test_icrawler_drops_what_comes_twice_without_a_word() -> None:
    """Here: rejects duplicate-url and duplicate-content, above."""
    tasks = CachedQueue(5)
    tasks.put({"file_url": "http://h/a.jpg"})
    tasks.put({"file_url": "http://h/a.jpg"})
    assert tasks.qsize() == 1


def test_icrawler_names_files_by_their_arrival() -> None:
    """Here: by their content; and the same rows at any speed, above."""
    downloader = stock_downloader(Always(), kind=icrawler.ImageDownloader)
    for url in ("http://h/b.jpg", "http://h/a.png"):
        downloader.download({"file_url": url}, "jpg", overwrite=True)
    assert downloader.storage.names == ["000001.jpg", "000002.png"]


def test_an_error_in_a_thread_ends_icrawlers_crawl_in_silence_and_ours_with_that_error(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(icrawler.Downloader):  # type: ignore[misc]
        def download(self, task: Any, *_: Any, **__: Any) -> Any:
            raise RuntimeError(f"lost {task}")

    downloader = stock_downloader(Always(), kind=Broken)
    downloader.in_queue.put({"file_url": "http://h/a.jpg"})
    died: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda about: died.append(str(about.exc_value)))
    downloader.start(max_num=1, queue_timeout=0.05)
    downloader.workers[0].join()
    assert len(died) == 1
    assert not downloader.is_alive()  # all that icrawler's crawl() waits for

    def broken(self: Fetcher, task: Any, tries: int) -> Any:  # noqa: ARG001
        raise RuntimeError(f"lost {task.url}")

    monkeypatch.setattr(Fetcher, "download", broken)
    web.index["x"] = web.pictures(1, 2, 3)
    with pytest.raises(RuntimeError, match="lost http://127.0.0.1"):
        web.crawl(web.entry({"a": ["x"]}, web.json()))


def test_a_crawl_leaves_no_thread_and_no_logging_behind(web: Web) -> None:
    threads = set(threading.enumerate())
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    web.index["x"] = web.pictures(1, 2, 3)
    web.crawl(web.entry({"a": ["x"]}, BING, web.json()))
    with pytest.raises(InputError):
        web.crawl(web.entry({"a": ["nothing"]}, web.json()))
    left = {thread for thread in threading.enumerate() if "crawl" in thread.name or "parser" in thread.name}
    assert not left - threads
    assert (root.handlers, root.level) == (handlers, level)


def test_icrawlers_queues_block_a_feeder_that_nobody_reads() -> None:
    """Which is why nothing here waits in them: `Search` says one step at a time."""
    feeder = quiet(icrawler.Feeder(1, Signal(), None))
    for number in range(5):
        feeder.output(f"http://h/{number}", block=False)
    with pytest.raises(queue.Full):
        feeder.output("http://h/6", block=False)


def test_a_row_survives_the_journal() -> None:
    result = Result((Item("http://h/a", "http://p", "t", 1, 2, "l", "c"),), True, "ok", "http://e", 200)
    assert Result.from_json(json.loads(json.dumps(result.to_json()))) == result
    assert Result.from_json(json.loads(json.dumps(replace(result, items=()).to_json()))).items == ()
