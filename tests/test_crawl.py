"""The crawl source: exactly the wanted pictures, in the order of the answers, and nothing lost or believed."""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from crawling import Web, outcomes, reasons
from hostile_server import Answer, Hit, HostileServer, picture
from search_pages import BAIDU_FORBIDDEN, BING_CHALLENGE, GOOGLE_SORRY, Picture, SearchSite, flickr_refusal
from test_crawl_engines import BAIDU, BING, FLICKR, GOOGLE

from pipelines.core.errors import InputError
from pipelines.core.tables import MANIFEST, read_table
from pipelines.ingest import ingest
from pipelines.ingest.crawl.answers import SearchHit
from pipelines.ingest.crawl.engines import PageOutcome

ROOT = Path(__file__).parents[1]


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    with HostileServer() as server:
        yield Web(server, tmp_path)


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
    kept = b"".join(path.read_bytes() for path in web.folder.rglob("*.sqlite"))
    assert b"http" in kept
    assert "secret-key" not in kept.decode("latin-1") + json.dumps(listing.records)


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
        listing = web.crawl(entry, connections=2, private_hosts=["127.0.0.1", "127.0.0.2"], max_wait_seconds=5.0)
        assert len(listing.paths) == 14
        quick = [time for path in web.asked() for time in web.server.times[path]]
        waited = [max(times) for path, times in other.times.items() if path.startswith("/slow")]
        assert max(quick[:10]) < max(waited) - 0.5


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
    assert b"s3cret" not in b"".join(path.read_bytes() for path in web.folder.rglob("*.sqlite"))


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
    (journal,) = web.folder.rglob("*.sqlite")
    with closing(sqlite3.connect(journal)) as database, database:
        names = [name for (name,) in database.execute("SELECT name FROM notes WHERE name <> 'finished' ORDER BY rowid")]
        assert names == ["0 own 'x' 0 0", "rows of sources.jsonl"]
        database.execute("UPDATE notes SET value = '[7]' WHERE name <> 'finished'")
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
import json, signal, sys
from pathlib import Path
from pipelines.params.ingest import DownloadParams, IngestParams
from pipelines.ingest import ingest

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell makes a background process ignore it
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


def test_a_row_survives_the_journal() -> None:
    result = PageOutcome((SearchHit("http://h/a", "http://p", "t", 1, 2, "l", "c"),), True, "ok", "http://e", 200)
    assert PageOutcome.from_json(json.loads(json.dumps(result.to_json()))) == result
    assert PageOutcome.from_json(json.loads(json.dumps(replace(result, hits=()).to_json()))).hits == ()
