"""What icrawler's threads lose, each beside what a crawl does here."""

import logging
import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import icrawler
import pytest
from crawling import Web
from hostile_server import Answer, Hit, HostileServer, picture
from icrawler.storage import BaseStorage
from icrawler.utils import CachedQueue, Signal
from test_crawl_engines import BING

from pipelines.core.errors import InputError
from pipelines.ingest.fetch.fetcher import Fetcher


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    with HostileServer() as server:
        yield Web(server, tmp_path)


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
    """Here: see that not one more is fetched, in test_crawl."""
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
    """Here: rejects duplicate-url and duplicate-content, in test_crawl."""
    tasks = CachedQueue(5)
    tasks.put({"file_url": "http://h/a.jpg"})
    tasks.put({"file_url": "http://h/a.jpg"})
    assert tasks.qsize() == 1


def test_icrawler_names_files_by_their_arrival() -> None:
    """Here: by their content; and the same rows at any speed, in test_crawl."""
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

    async def broken(self: Fetcher, request: Any) -> Any:  # noqa: ARG001
        raise RuntimeError(f"lost {request.url}")

    monkeypatch.setattr(Fetcher, "fetch", broken)
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
