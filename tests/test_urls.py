"""The urls source: each line becomes a picture or a reject that names it; what was fetched is never fetched again."""

import csv
import json
import os
import pickle
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hostile_server import Answer, HostileServer, at_first, misbehave, picture, redirect

from pipelines.core.errors import ImageError, InputError
from pipelines.core.tables import MANIFEST, read_table, rows
from pipelines.ingest import ingest
from pipelines.ingest.fetch import FetchRecord, FetchRequest, Journal, download_listing, source_key
from pipelines.ingest.fetch.journal import ObjectReader
from pipelines.ingest.fetch.store import object_path
from pipelines.ingest.listing import Origin, Place, Reject
from pipelines.params.ingest import IngestParams

ROOT = Path(__file__).parents[1]


def section(name: str = "list.txt", **changes: Any) -> dict[str, Any]:
    """The section ingest for one list; `changes` are of the source, of download, or of the section."""
    source = {"kind": "urls", "path": name, "format": "csv" if name.endswith("csv") else "text", "gone": "drop"}
    download: dict[str, Any] = {
        "contact": "",
        "connections": 4,
        "connections_per_host": 4,
        "delay_seconds": 0.0,
        "timeout_seconds": 2.0,
        "max_attempts": 2,
        "max_wait_seconds": 1.0,
        "max_redirects": 5,
        "robots": "obey",
        "private_hosts": ["127.0.0.1"],
    }
    whole: dict[str, Any] = {
        "snapshot": "1",
        "crop": {"kind": "none"},
        "max_file_bytes": 1 << 20,
        "max_pixels": 1_000_000,
        "min_side": 8,
        "shard_bytes": 1 << 28,
    }
    for key, value in changes.items():
        next((part for part in (source, download) if key in part), whole)[key] = value
    return {**whole, "sources": [source], "download": download}


@dataclass(frozen=True)
class Result:
    """What one run of ingest wrote, read back."""

    folder: Path

    @property
    def rows(self) -> list[dict[str, Any]]:
        return rows(read_table(self.folder / "manifest.parquet", MANIFEST))

    @property
    def rejects(self) -> list[dict[str, str]]:
        with (self.folder / "rejected.csv").open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "sources.jsonl").read_text(encoding="utf-8").splitlines()]

    @property
    def timeless(self) -> list[dict[str, Any]]:
        """The records, but for what differs from run to run."""
        return [{k: v for k, v in r.items() if k not in ("fetched_at", "seconds", "tries")} for r in self.records]

    @property
    def bytes(self) -> dict[str, bytes]:
        """Every file but sources.jsonl, which holds times."""
        return {p.name: p.read_bytes() for p in sorted(self.folder.iterdir()) if p.name != "sources.jsonl"}


@pytest.fixture
def server() -> Iterator[HostileServer]:
    with HostileServer() as found:
        misbehave(found)
        yield found


def write_list(tmp_path: Path, text: str | bytes, name: str = "list.txt") -> None:
    (tmp_path / name).write_bytes(text.encode() if isinstance(text, str) else text)


def run(tmp_path: Path, *, cache: str = "cache", out: str = "out", **changes: Any) -> Result:
    params = IngestParams.model_validate_json(json.dumps(section(**changes)))
    ingest(params, root=tmp_path, cache=tmp_path / cache, out_dir=tmp_path / out, workers=1)
    return Result(tmp_path / out)


# lists ------------------------------------------------------------------------------------------------------------


def test_every_line_of_a_text_list_is_a_picture_or_a_reject(server: HostileServer, tmp_path: Path) -> None:
    lines = [
        b"\xef\xbb\xbf# a comment",
        b"",
        f"{server.url('/picture/1.jpg')} grey  cat ".encode(),
        f"  {server.url('/picture/2.jpg')}\tdog\r".encode(),
        f"{server.url('/picture/1.jpg#again')} grey  cat".encode(),
        f"{server.url('/picture/1.jpg')} dog".encode(),
        f"{server.url('/picture/3.jpg')}".encode(),
        f"{server.url('/html')} cat".encode(),
        f"{server.url('/absent')} cat".encode(),
        b"www.example.com/a.jpg cat",
        b"ftp://example.com/a.jpg cat",
        f"{server.url('/picture/4.jpg')} ..".encode(),
        f"{server.url('/picture/5.jpg')} ".encode() + b"caf\xe9",
        f"{server.url('/ünï/bild ö.jpg').replace(' ', '%20')} 猫".encode(),
        b"http://example.com/\xff cat",
    ]
    write_list(tmp_path, b"\n".join(lines))
    result = run(tmp_path)
    assert [(row["label"], row["url"].removeprefix(server.url(""))) for row in result.rows] == [
        ("dog", "/picture/2.jpg"),
        ("dog", "/picture/1.jpg"),
        ("grey  cat", "/picture/1.jpg"),
        ("猫", "/%C3%BCn%C3%AF/bild%20%C3%B6.jpg"),
    ]
    assert all(row["source_path"] == row["url"] and row["source"] == "0-urls" for row in result.rows)
    rejects = {(r["source_path"].removeprefix(server.url("")), r["reason"]): r["detail"] for r in result.rejects}
    assert rejects == {
        ("/absent", "http-404"): "line 9: Not Found",
        ("/html", "not-an-image"): rejects["/html", "not-an-image"],
        ("/picture/1.jpg", "duplicate-url"): "line 5: the same URL and label as line 3",
        ("/picture/3.jpg", "no-label"): "line 7: there is no label",
        ("/picture/4.jpg", "bad-label"): "line 12: '..': '..' is no name; change it in the list",
        ("/picture/5.jpg", "bad-label"): "line 13: 'caf\\\\xe9': it is not UTF-8; change it in the list",
        ("ftp://example.com/a.jpg", "unsupported-scheme"): (
            "line 11: ftp://example.com/a.jpg is ftp:, only http: and https: are fetched"
        ),
        ("http://example.com/\\udcff", "bad-url"): (
            "line 15: http://example.com/\\udcff holds a control character, a backslash or bytes that are no UTF-8"
        ),
        ("www.example.com/a.jpg", "bad-url"): (
            "line 10: www.example.com/a.jpg does not start with http:// or https://"
        ),
    }
    assert len(result.rows) + len(result.rejects) == len(lines) - 2  # a comment and an empty line
    assert server.hits["/picture/1.jpg"] == 1
    order = [(r["label"], r["url"]) for r in result.records]
    assert order == sorted(order)
    assert len(order) == 9  # every URL and label, but for lines without a label and the one that says the same again


def test_a_csv_list_carries_licences_and_credits(server: HostileServer, tmp_path: Path) -> None:
    text = (
        "Creator,label,note, URL ,license\r\n"
        f'"Doe, Jane",cat,x,{server.url("/picture/1.jpg")},CC0\r\n'
        f'"two\nlines",dog,,{server.url("/picture/2.jpg")},CC BY\r\n'
        "\r\n"
        f",cat,,{server.url('/picture/3.jpg')}\r\n"
        ",cat,,,\r\n"
        f'"a"b,cat,,{server.url("/picture/4.jpg")},\r\n'
        f",dog,,{server.url('/picture/5.jpg')},\r\n"
    )
    write_list(tmp_path, "\ufeff" + text, "list.csv")
    result = run(tmp_path, name="list.csv")
    found = {
        row["url"].removeprefix(server.url("")): (row["label"], row["license"], row["creator"]) for row in result.rows
    }
    assert found == {
        "/picture/1.jpg": ("cat", "CC0", "Doe, Jane"),
        "/picture/2.jpg": ("dog", "CC BY", "two lines"),
        "/picture/5.jpg": ("dog", "", ""),
    }
    assert {(r["reason"], r["detail"]) for r in result.rejects} == {
        ("bad-row", "line 6: 4 values; the header names 5 columns"),
        ("no-url", "line 7: there is no URL"),
        ("bad-row", "line 8: no row of CSV (',' expected after '\"')"),
    }
    assert result.records[0]["license"] == "CC0"
    assert result.records[0]["creator"] == "Doe, Jane"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("absent.txt", None, "path: absent.txt does not exist; correct it"),
        ("list.txt", b"# nothing\n\n", "holds no URL; write one with its label on each line"),
        ("list.csv", b"url,label\n", "holds no URL"),
        ("list.csv", b"url;label\nhttp://h/x;cat\n", "the header 'url;label' names 0 columns 'url'"),
        ("list.csv", b"url,label,label\n", "names 2 columns 'label'"),
        ("list.csv", b'url,label\n"http://h/x,cat\n', "line 2: no CSV (unexpected end of data)"),
        ("list.txt", "http://h/x cat".encode("utf-16"), "is no UTF-8 (it looks like UTF-16); save it as UTF-8"),
    ],
)
def test_a_list_that_cannot_be_used_is_named(tmp_path: Path, name: str, content: bytes | None, says: str) -> None:
    if content is not None:
        write_list(tmp_path, content, name)
    with pytest.raises(InputError) as caught:
        run(tmp_path, name=name)
    assert says in str(caught.value)
    assert str(caught.value).startswith(f"ingest.sources[0].path: {name}")


def test_a_list_of_which_nothing_comes_says_why_and_is_tried_again(server: HostileServer, tmp_path: Path) -> None:
    server.add("/later", at_first(2, Answer(b"", 503), picture(1)))
    write_list(tmp_path, f"{server.url('/absent')} cat\n{server.url('/later')} cat\n")
    with pytest.raises(InputError) as caught:
        run(tmp_path)
    assert str(caught.value).startswith(
        "source 0-urls: none of its 2 files can be used (1 http-404, 1 http-503); the first is "
        f"{server.url('/absent')}: line 1: Not Found."
    )
    result = run(tmp_path)
    assert len(result.rows) == 1
    # what failed for good was not asked for again, what failed for a moment was
    assert (server.hits["/absent"], server.hits["/later"]) == (1, 3)


# runs that end early, and runs after them -------------------------------------------------------------------------

CHILD = """
import json, sys
from pathlib import Path
from pipelines.params.ingest import IngestParams
from pipelines.ingest import ingest
root = Path(sys.argv[2])
ingest(IngestParams.model_validate_json(sys.argv[1]), root=root, cache=root / "cache", out_dir=root / "out")
"""


def big_list(server: HostileServer, tmp_path: Path) -> None:
    """60 slow pictures, 10 that are gone for good, 10 that redirect."""

    def slow(hit: Any) -> bytes:
        time.sleep(0.01)
        return picture(int(hit.path.split("/")[2]))

    server.add("/slow/*", slow)
    server.add("/moved/*", lambda hit: redirect("/slow/" + hit.path.split("/")[2]))
    server.add("/gone/*", Answer(b"", 410))
    paths = [f"/slow/{n}" for n in range(60)] + [f"/gone/{n}" for n in range(10)]
    paths += [f"/moved/{n}" for n in range(100, 110)]
    write_list(tmp_path, "".join(f"{server.url(path)} class-{n % 3}\n" for n, path in enumerate(paths)))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_ended_half_way_is_continued(server: HostileServer, tmp_path: Path, how: signal.Signals) -> None:
    big_list(server, tmp_path)
    unbroken = run(tmp_path, cache="other-cache", out="other")
    server.hits.clear()
    command = [sys.executable, "-c", CHILD, json.dumps(section()), str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": "."}) as child:
        while server.total < 30:
            time.sleep(0.005)
            assert child.poll() is None
        child.send_signal(how)
        child.communicate()
    assert child.returncode != 0
    (journal,) = (tmp_path / "cache" / "downloads" / "1").glob("*.sqlite")
    with closing(sqlite3.connect(journal)) as database:
        written = [url.removeprefix(server.url("")) for (url,) in database.execute("SELECT url FROM records")]
    assert 20 <= len(written) < 80
    result = run(tmp_path)
    assert all(server.hits[path] == 1 for path in written)
    # at most what was under way on the four connections was asked for twice
    assert server.total <= 60 + 10 + 2 * 10 + 2 * 4
    assert result.timeless == unbroken.timeless
    assert result.bytes == unbroken.bytes


def test_a_finished_snapshot_needs_no_server(tmp_path: Path) -> None:
    with HostileServer() as server:
        big_list(server, tmp_path)
        first = run(tmp_path)
    again = run(tmp_path, out="again")
    assert again.bytes == first.bytes
    assert again.records == first.records


def test_two_runs_without_a_common_cache_give_the_same_bytes(server: HostileServer, tmp_path: Path) -> None:
    big_list(server, tmp_path)
    first, second = run(tmp_path, cache="a", connections=1), run(tmp_path, cache="b", out="second", connections=16)
    assert first.bytes == second.bytes
    assert first.timeless == second.timeless


def test_a_longer_list_fetches_only_what_is_new(server: HostileServer, tmp_path: Path) -> None:
    lines = [f"{server.url(f'/picture/{number}.jpg')} cat\n" for number in range(4)] + [f"{server.url('/410')} cat\n"]
    write_list(tmp_path, "".join(lines))
    run(tmp_path)
    write_list(tmp_path, "".join([*lines, f"{server.url('/picture/9.jpg')} dog\n", f"{server.url('/same/x')} dog\n"]))
    server.add("/same/x", picture(2))
    shutil.rmtree(tmp_path / "cache" / "snapshots")  # a run that did not end well: a finished one keeps its name
    result = run(tmp_path)
    assert len(result.rows) == 6
    assert all(count == 1 for path, count in server.hits.items() if path != "/robots.txt")
    # other rules may bring other pictures: what failed is tried again, what came is not
    result = run(tmp_path, robots="ignore", snapshot="1")
    assert len(result.rows) == 6
    assert all(count == 1 for path, count in server.hits.items() if path != "/robots.txt")


def test_a_new_snapshot_reads_everything_anew_and_an_old_one_comes_back(server: HostileServer, tmp_path: Path) -> None:
    server.add("/news.jpg", lambda hit: picture(100 + hit.count))
    write_list(tmp_path, f"{server.url('/news.jpg')} cat\n")
    first = run(tmp_path, snapshot="1")
    second = run(tmp_path, snapshot="2", out="second")
    assert first.rows[0]["image_id"] != second.rows[0]["image_id"]
    assert run(tmp_path, snapshot="1", out="third").bytes == first.bytes
    assert server.hits["/news.jpg"] == 2


def test_pictures_that_are_gone_from_the_list_are_kept_if_wanted(server: HostileServer, tmp_path: Path) -> None:
    def write(*numbers: int, label: str = "cat") -> None:
        write_list(tmp_path, "".join(f"{server.url(f'/picture/{n}.jpg')} {label}\n" for n in numbers))

    def kept_from(result: Result) -> dict[str, str]:
        return {record["url"][-5:]: record["kept_from"] for record in result.records}

    write(1, 2, 3)
    run(tmp_path, snapshot="a", gone="keep")
    write(2, 4)
    second = run(tmp_path, snapshot="b", gone="keep", out="second")
    paths = {row["url"].removeprefix(server.url("/picture")): row["label"] for row in second.rows}
    assert paths == {"/1.jpg": "cat", "/2.jpg": "cat", "/3.jpg": "cat", "/4.jpg": "cat"}
    assert {r["url"][-5:]: r["kept_from"] for r in second.records} == {
        "1.jpg": "a",
        "2.jpg": "",
        "3.jpg": "a",
        "4.jpg": "",
    }
    write(3, label="dog")  # what is named again is no longer kept as it was
    third = run(tmp_path, snapshot="c", gone="keep", out="third")
    assert {row["url"][-5:]: row["label"] for row in third.rows} == {
        "1.jpg": "cat", "2.jpg": "cat", "3.jpg": "dog", "4.jpg": "cat",
    }  # fmt: skip
    assert {r["url"][-5:]: r["kept_from"] for r in third.records} == {
        "1.jpg": "a",
        "2.jpg": "b",
        "3.jpg": "",
        "4.jpg": "b",
    }
    dropped = run(tmp_path, snapshot="d", gone="drop", out="fourth")
    assert [row["url"][-5:] for row in dropped.rows] == ["3.jpg"]
    # a later snapshot changes nothing of an earlier one
    write(2, 4)
    assert run(tmp_path, snapshot="b", gone="keep", out="again").bytes == second.bytes


# journals, readers, and the door for other sources ----------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path, tmp_path / "cache", IngestParams.model_validate_json(json.dumps(section())))


def ok(url: str, label: str = "cat") -> FetchRecord:
    return FetchRecord(url, label, image_id="ab" * 32, bytes=0)


@pytest.fixture
def new_journal(tmp_path: Path) -> Callable[[], Journal]:
    content = object_path(tmp_path / "objects", "ab" * 32)
    content.parent.mkdir(parents=True)
    content.touch()
    return lambda: Journal(tmp_path / "journal.sqlite", objects=tmp_path / "objects", source="0-urls")


def test_a_journal_keeps_the_newest_record_of_each_url_and_label(new_journal: Callable[[], Journal]) -> None:
    with new_journal() as journal:
        journal.append(FetchRecord("http://h/1", "cat", outcome="timeout", seconds=0.5, rank=3, detail="猫"))
        journal.append(ok("http://h/1", "dog"))
        journal.keep_note("page", [1, 2])
    with new_journal() as journal:
        assert journal.last("http://h/1", "cat") == FetchRecord(
            "http://h/1", "cat", outcome="timeout", seconds=0.5, rank=3, detail="猫"
        )
        journal.append(ok("http://h/1"))
        assert sorted((record.label, record.outcome) for record in journal.records) == [("cat", "ok"), ("dog", "ok")]
        assert (journal.note("page"), journal.note("none")) == ([1, 2], None)


def test_a_journal_that_is_none_is_named(new_journal: Callable[[], Journal], tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite").write_bytes(b"\x01" * 70_000)
    with pytest.raises(InputError, match=r"journal.sqlite: file is not a database; .*delete that file"):
        new_journal()


def test_a_journal_of_the_former_layout_is_learned_from(place: Place) -> None:
    former = place.cache / "downloads" / "1" / ("f" * 32)
    former.mkdir(parents=True)
    content = object_path(place.cache / "downloads" / "objects", "ab" * 32)
    content.parent.mkdir(parents=True)
    content.touch()
    lines = [
        json.dumps(record.to_json()) for record in (ok("http://h/1"), FetchRecord("http://h/2", "cat", outcome="x"))
    ]
    (former / "journal.jsonl").write_text("\n".join([*lines, '{"note": "n", "value": 1}', '{"url": "http']))
    with Journal.open(place, source="0-urls", key="k" * 32) as journal:
        assert journal.get("http://h/1", "dog") == ok("http://h/1")
        assert journal.get("http://h/2", "cat") is None


def test_what_a_journal_knows(new_journal: Callable[[], Journal], tmp_path: Path) -> None:
    with new_journal() as journal:
        for outcome in ("http-404", "http-503", "timeout", "too-large"):
            journal.append(FetchRecord(f"http://h/{outcome}", "cat", outcome=outcome))
        journal.append(ok("http://h/x"))
        assert journal.get("http://h/x", "cat") == journal.get("http://h/x", "dog") == ok("http://h/x")
        assert journal.get("http://h/http-404", "cat") is not None
        assert journal.get("http://h/http-503", "cat") is journal.get("http://h/timeout", "cat") is None
        assert not journal.finished
        journal.finish()
        assert journal.finished
        object_path(tmp_path / "objects", "ab" * 32).unlink()
        assert not journal.finished
        assert journal.get("http://h/x", "cat") is None
        with pytest.raises(InputError, match="another run is fetching this very source"):
            new_journal()


def test_a_full_disk_below_the_journal(new_journal: Callable[[], Journal]) -> None:
    with new_journal() as journal:
        (num_pages,) = journal._database.execute("PRAGMA page_count").fetchone()
        journal._database.execute(f"PRAGMA max_page_count = {num_pages}")
        with pytest.raises(InputError, match=r"journal.sqlite: database or disk is full; .*free some space"):
            journal.append(ok("http://h/" + "x" * 100_000))


def test_the_key_tells_settings_lists_and_rules_apart(place: Place) -> None:
    entry = place.params.sources[0]

    def with_rule(**changes: Any) -> Place:
        download = place.params.download.model_copy(update=changes)
        return replace(place, params=place.params.model_copy(update={"download": download}))

    keys = [
        source_key(entry, place, b"list"),
        source_key(entry, place, b"longer list"),
        source_key(entry.model_copy(update={"gone": "keep"}), place, b"list"),
        source_key(entry, with_rule(robots="ignore"), b"list"),
        source_key(entry, with_rule(max_attempts=9), b"list"),
        source_key(entry, with_rule(private_hosts=("h.example",)), b"list"),
    ]
    assert len(set(keys)) == 6
    assert keys[0] == source_key(entry, with_rule(connections=1, delay_seconds=9.0, contact="me"), b"list")


def test_other_sources_hand_in_requests_and_get_a_listing(server: HostileServer, place: Place) -> None:
    known = Origin(given_subset="test", factors='{"a": 1}')
    rows = [
        FetchRequest(server.url("/picture/1.jpg"), "male×warrior", known, place="row 1"),
        FetchRequest(server.url("/absent"), "cat", place="row 2"),
        FetchRequest("no url", "cat", place="row 3"),
        FetchRequest(server.url("/picture/1.jpg"), "cat", place="row 4"),
        FetchRequest(server.url("/picture/1.jpg"), "cat", place="row 5"),
    ]
    bad = [Reject("0-table", "row 6", "", "no-label", "")]
    listing = download_listing(rows, bad, source="0-table", place=place, key="k" * 32, title="test")
    url = server.url("/picture/1.jpg")
    assert (listing.paths, listing.labels) == ([url, url], ["cat", "male×warrior"])
    assert listing.origins == [Origin(url=url), Origin(url=url, given_subset="test", factors='{"a": 1}')]
    assert [(r.source_path, r.reason, r.detail) for r in listing.rejects] == [
        (server.url("/absent"), "http-404", "row 2: Not Found"),
        (url, "duplicate-url", "row 5: the same URL and label as row 4"),
        ("no url", "bad-url", "row 3: no url does not start with http:// or https://"),
        ("row 6", "no-label", ""),
    ]
    assert listing.stamps is not None
    assert listing.stamps.shape == (2, 3)
    assert listing.stamps[0].tolist() == listing.stamps[1].tolist()
    reader = pickle.loads(pickle.dumps(listing.read))  # noqa: S301 - our own, as for a worker
    assert reader(url) == picture(1)
    assert len(pickle.dumps(listing.read)) < 1000


def test_a_reader_believes_no_cache(tmp_path: Path) -> None:
    content = b"picture"
    image_id = "2b47a82b4ad2c8bbd0f0bd9b1ff9f0b8a6bd6ea4c8c5c0eef6b0d29ca2ee39cb"
    path = object_path(tmp_path, image_id)
    path.parent.mkdir()
    path.write_bytes(content)
    with Journal(tmp_path / "journal.sqlite", objects=tmp_path, source="0-urls") as journal:
        journal.append(replace(ok("http://h/x"), image_id=image_id))
        journal.append(ok("http://h/7"))
        journal.append(FetchRecord("http://h/bad", "cat", outcome="timeout"))
    reader = ObjectReader(str(tmp_path), str(journal.path), changed_at=0, max_file_bytes=100)
    with pytest.raises(ImageError, match=r"unreadable: .*damaged in the cache; run again"):
        reader("http://h/x")
    assert not path.exists()
    with pytest.raises(ImageError, match=r"unreadable: .*gone from the cache \(No such file or directory\)"):
        reader("http://h/7")
    path.write_bytes(bytes(101))
    with pytest.raises(ImageError, match="too-large: 101 bytes; ingest.max_file_bytes is 100"):
        reader("http://h/x")
    for url in ("http://h/bad", "http://h/never-listed"):
        with pytest.raises(KeyError):
            reader(url)
