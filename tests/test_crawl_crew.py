"""The crew that does the work of a crawl: its connections, second tries, errors."""

import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from test_ingest import DOWNLOAD

from pipelines.ingest.crawl.crew import Crew, Job
from pipelines.params.ingest import DownloadParams


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
