"""Politeness: when each host may be asked next, by how many at once, and which hosts have asked to be left alone."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pipelines.ingest.download.trouble import StoppedError, TroubleError
from pipelines.params.ingest import DownloadParams


@dataclass
class _Host:
    """What is known of one host; times are those of time.monotonic."""

    delay: float
    next_at: float = 0.0
    active: int = 0


class Gate:
    """Lets requests through one by one, host by host. Thread-safe.

    Args:
        params: connections_per_host, delay_seconds and max_wait_seconds.
    """

    def __init__(self, params: DownloadParams) -> None:
        self._params = params
        self._hosts: dict[str, _Host] = {}
        self._change = threading.Condition()
        self._stopped = False

    @contextmanager
    def turn(self, host: str) -> Iterator[None]:
        """Wait until `host` may be asked, and count as one of its connections until the block ends.

        Raises:
            TroubleError: `retry-later`: it asked for a longer pause than ingest.download.max_wait_seconds.
            StoppedError: `stop` was called.
        """
        with self._change:
            found = self._host(host)
            while True:
                if self._stopped:
                    raise StoppedError
                now = time.monotonic()
                wait = found.next_at - now
                if self._too_long(found):
                    raise TroubleError(
                        "retry-later",
                        f"{host} asked for a pause of more than {self._params.max_wait_seconds:g} s "
                        "(ingest.download.max_wait_seconds); it was left alone",
                    )
                if found.active < self._params.connections_per_host and wait <= 0:
                    break
                self._change.wait(wait if wait > 0 else None)
            found.active += 1
            found.next_at = now + found.delay
        try:
            yield
        finally:
            with self._change:
                found.active -= 1
                self._change.notify_all()

    def ready_at(self, host: str) -> float:
        """When `turn` lets through, by time.monotonic; at once where it refuses, for a pause that is too long."""
        with self._change:
            found = self._hosts.get(host)
            return 0.0 if found is None or self._too_long(found) else found.next_at

    def delay(self, host: str) -> float:
        """Seconds between two requests to `host`."""
        with self._change:
            found = self._hosts.get(host)
            return self._params.delay_seconds if found is None else found.delay

    def slow_down(self, host: str, delay: float) -> None:
        """Leave at least `delay` seconds between two requests to `host` (Crawl-delay)."""
        with self._change:
            found = self._host(host)
            found.delay = max(found.delay, delay)
            found.next_at = max(found.next_at, time.monotonic() + delay)

    def pause(self, host: str, seconds: float) -> None:
        """Ask nothing of `host` for so long, whoever wants to."""
        with self._change:
            found = self._host(host)
            found.next_at = max(found.next_at, time.monotonic() + seconds)

    def sleep(self, seconds: float) -> None:
        """Wait, unless everything ends.

        Raises:
            StoppedError: `stop` was called.
        """
        until = time.monotonic() + seconds
        with self._change:
            while not self._stopped and (left := until - time.monotonic()) > 0:
                self._change.wait(left)
            if self._stopped:
                raise StoppedError

    def stop(self) -> None:
        """Wake everybody who waits, and let nobody through any more."""
        with self._change:
            self._stopped = True
            self._change.notify_all()

    def _too_long(self, found: _Host) -> bool:
        return found.next_at - time.monotonic() > self._params.max_wait_seconds + found.delay

    def _host(self, host: str) -> _Host:
        return self._hosts.setdefault(host, _Host(self._params.delay_seconds))
