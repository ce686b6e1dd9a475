"""Sources of several kinds in one run, and the same pictures by several ways."""

import csv
import io
import json
import re
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
from archives import comparable, files_of, without_manifest
from hostile_server import Answer, Hit, HostileServer
from hostile_server import picture as served
from search_pages import Picture, openverse_page
from test_ingest import DOWNLOAD, SHARED, params, picture, put, run

FOLDER = {"kind": "folder", "path": "folder", "label_from": "last_folder", "symlinks": "skip", "hidden": "skip"}
ARCHIVE = {
    "kind": "archive", "path": "a.tar", "label_from": "last_folder", "hidden": "skip", "max_files": 10,
    "max_bytes": 1 << 20,
}  # fmt: skip
TABLE = {
    "kind": "table", "path": "table.csv", "format": "csv", "image_column": "image", "image_is": "path",
    "root": "pictures", "label_columns": ["gender", "status"], "joined_by": "×", "subset_column": "set", "box": None,
    "license_column": None, "creator_column": None, "page_url_column": None,
}  # fmt: skip
URLS = {"kind": "urls", "path": "urls.txt", "format": "text", "gone": "drop"}
SAMPLE = {
    "kind": "sample", "seed": 1, "images_per_class": 1, "image_size": 32, "difficulty": 0.3,
    "flaws": {"exact_copies": 0, "near_copies": 0, "label_conflicts": 0, "wrong_labels": 0, "broken_files": 1,
              "foreign_files": 0},
}  # fmt: skip


def crawl(server: HostileServer) -> dict[str, Any]:
    engine = {
        "engine": "json", "name": "own", "url": server.url("/search?q={words}&page={page}"), "key_from": "",
        "first_page": 1, "items": "results", "image_url": "url", "page_url": "foreign_landing_url", "title": "title",
        "license": "license", "creator": "creator",
    }  # fmt: skip
    return {
        "kind": "crawl", "classes": {"jaguar": ["fender jaguar"]}, "images_per_class": 2, "max_pages": 2,
        "engines": [engine], "fail_when": "any", "gone": "drop",
    }  # fmt: skip


def test_sources_of_every_kind_meet_in_one_manifest(tmp_path: Path) -> None:
    """Each picture knows where it came from; each file, row and URL is counted once, as a picture or as a reject."""
    put(tmp_path / "folder" / "cat" / "0.jpg", picture(0))
    put(tmp_path / "folder" / "cat" / "note.txt", b"not a picture")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, data in {"dog/1.jpg": picture(1), "../../escape.jpg": picture(2)}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    put(tmp_path / "pictures" / "3.png", picture(3, format="PNG"))
    put(tmp_path / "table.csv", b"image,gender,status,set\n3.png,male,warrior,test\n4.png,female,noble,train\n")
    with HostileServer() as server:
        server.add("/5.jpg", served(5))
        server.add("/6.jpg", served(6))
        server.add("/7.jpg", served(7))
        found = [Picture(server.url(f"/{n}.jpg"), page_url=f"https://a.example/{n}", creator="Ann") for n in (6, 7)]
        server.add("/search", lambda hit: openverse_page(found) if hit.query["page"] == ["1"] else openverse_page([]))
        put(tmp_path / "urls.txt", f"{server.url('/5.jpg')} bird\n{server.url('/missing.jpg')} bird\n".encode())
        sources = [FOLDER, ARCHIVE, TABLE, URLS, crawl(server), SAMPLE]
        settings = params(sources=sources, download=DOWNLOAD | {"private_hosts": ["127.0.0.1"]})
        result = run(tmp_path, settings)
    assert Counter(row["source"] for row in result.rows) == {
        "0-folder": 1, "1-archive": 1, "2-table": 1, "3-urls": 1, "4-crawl": 2, "5-sample": 13,
    }  # fmt: skip
    assert Counter((row["source"], row["reason"]) for row in result.rejects if row["source"] != "5-sample") == {
        ("0-folder", "not-an-image"): 1,
        ("1-archive", "unsafe-path"): 1,
        ("2-table", "missing-file"): 1,
        ("3-urls", "http-404"): 1,
    }
    by_label = {row["label"]: row for row in result.rows}
    assert by_label["male×warrior"]["given_subset"] == "test"
    assert json.loads(by_label["male×warrior"]["factors"]) == {"gender": "male", "status": "warrior"}
    assert by_label["bird"]["url"].endswith("/5.jpg")
    jaguars = [row for row in result.rows if row["label"] == "jaguar"]
    assert {row["query"] for row in jaguars} == {"fender jaguar"}
    assert {row["creator"] for row in jaguars} == {"Ann"}
    assert {row["page_url"] for row in jaguars} == {"https://a.example/6", "https://a.example/7"}
    records = [json.loads(line) for line in (result.folder / "sources.jsonl").read_text(encoding="utf-8").splitlines()]
    assert Counter((record["source"], record["outcome"]) for record in records) == {
        ("3-urls", "ok"): 1, ("3-urls", "http-404"): 1, ("4-crawl", "ok"): 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("archive", "inside"),
    [("clothing.tar", r"clothing/(s|hat)"), ("guitars.tar", r"guitars/gibson_.[a-z]"),
     ("stress.tar.gz", r"stress/(pillow|exif|stb)"), ("cifar10.tar.gz", r"cifar10/test/.*[05]0\.jpg")],
)  # fmt: skip
def test_real_pictures_over_http_are_those_of_the_folder(tmp_path: Path, archive: str, inside: str) -> None:
    """Rows, shards and thumbnails are equal but for provenance; so are the rejects."""
    if not (SHARED / archive).is_file():
        pytest.skip(f"{SHARED / archive} is not there")
    with tarfile.open(SHARED / archive) as tar:
        tar.extractall(tmp_path / "pictures", [one for one in tar if re.match(inside, one.name)], filter="data")
    names = files_of(tmp_path / "pictures", keep="")
    limits: dict[str, Any] = {"max_file_bytes": 1 << 26, "max_pixels": 100_000_000}
    folder = run(tmp_path, params(**limits), out="folder")

    def serve(hit: Hit) -> Answer | bytes:
        return Answer((tmp_path / "pictures" / unquote(hit.path).removeprefix("/")).read_bytes())

    with HostileServer() as server:
        server.add("/*", serve)
        server.add("/robots.txt", Answer(b"", 404))
        with (tmp_path / "urls.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            table.writerow(["url", "label"])
            table.writerows((server.url("/" + quote(name)), name.split("/")[-2]) for name in names)
        source = URLS | {"path": "urls.csv", "format": "csv"}
        open_host = {"download": DOWNLOAD | {"private_hosts": ["127.0.0.1"]}}
        urls = run(tmp_path, params(sources=[source], **open_host, **limits, snapshot="2"), out="urls")
    wanted_rows, wanted_rejects = comparable(folder)
    rows, rejects = comparable(urls)
    assert rows == wanted_rows
    assert rejects == [reject for reject in wanted_rejects if reject[1] != "hidden"]
    assert {k: v for k, v in without_manifest(urls).items() if k != "sources.jsonl"} == without_manifest(folder)
