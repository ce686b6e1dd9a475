"""A server of pictures and of all engines, crawls of it, and what they tell."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hostile_server import Answer, Hit, HostileServer, at_first, picture
from search_pages import Picture, SearchSite
from test_crawl_engines import JSON
from test_ingest import DOWNLOAD

from pipelines.ingest.crawl import list_crawl
from pipelines.ingest.listing import Listing, Place
from pipelines.params.ingest import IngestParams
from pipelines.params.sources import CrawlSource


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
        rules = {**DOWNLOAD, "private_hosts": ["127.0.0.1"], "max_attempts": 2, **download}
        given = {
            "snapshot": snapshot, "sources": [entry.model_dump(mode="json")], "download": rules,
            "crop": {"kind": "none"}, "max_file_bytes": 1 << 20, "max_pixels": 1_000_000, "min_side": 8,
            "shard_bytes": 1 << 20,
        }  # fmt: skip
        return IngestParams.model_validate_json(json.dumps(given))

    def crawl(self, entry: CrawlSource, **more: Any) -> Listing:
        place = Place(self.folder, self.folder / "cache", self.params(entry, **more))
        home = {name: self.server.url(f"/{name}") for name in ("bing", "google", "baidu", "flickr")}
        return list_crawl(entry, source="0-crawl", place=place, homes=home)

    def paths(self, listing: Listing) -> list[str]:
        """Paths of the pictures, in the order in which the engines named them."""
        rows = [row for row in listing.records or [] if row["outcome"] == "ok"]
        assert sorted((row["url"], row["label"]) for row in rows) == sorted(
            zip(listing.paths, listing.labels, strict=True)
        )
        return [row["url"].removeprefix(self.server.url("")) for row in rows]

    def asked(self, prefix: str = "/picture/") -> dict[str, int]:
        return {path: count for path, count in self.server.hits.items() if path.startswith(prefix)}


def outcomes(listing: Listing) -> Counter[str]:
    return Counter(row["outcome"] for row in listing.records or [])


def reasons(listing: Listing) -> Counter[str]:
    return Counter(reject.reason for reject in listing.rejects)
