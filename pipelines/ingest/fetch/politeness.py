"""Politeness: when a host may be asked, over how many connections, and what its robots.txt allows (RFC 9309)."""

import asyncio
import datetime
import email.utils
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from yarl import URL

from pipelines.ingest.fetch.records import FetchError
from pipelines.params.ingest import DownloadParams

AGENT = "miwake"
ROBOTS_BYTES = 500 << 10  # what RFC 9309 asks crawlers to read at least; the rest is not looked at
FIRST_PAUSE_SECONDS = 0.5


@dataclass(eq=False)
class _Host:
    slots: asyncio.Semaphore
    delay: float
    next_at: float = 0.0
    """of time.monotonic"""


class HostTurns:
    """Lets requests through host by host; a request that waits for its host holds no connection.

    Args:
        params: connections, connections_per_host, delay_seconds and max_wait_seconds.
    """

    def __init__(self, params: DownloadParams) -> None:
        self._params = params
        self._hosts: dict[str, _Host] = {}
        self._connections = asyncio.Semaphore(params.connections)

    @asynccontextmanager
    async def turn(self, host: str) -> AsyncIterator[None]:
        """Wait until `host` may be asked; hold one of its connections until the block ends.

        Raises:
            FetchError: `retry-later`: it asked for a longer pause than ingest.download.max_wait_seconds.
        """
        state = self._host(host)
        async with state.slots:
            while True:
                await self._wait(host, state)
                async with self._connections:
                    if state.next_at > time.monotonic():  # others asked it, or it asked for a pause, in the meantime
                        continue
                    state.next_at = time.monotonic() + state.delay
                    yield
                    return

    def slow_down(self, host: str, delay: float) -> None:
        """Leave at least `delay` seconds between two requests to `host` (Crawl-delay)."""
        state = self._host(host)
        state.delay = max(state.delay, delay)
        self.pause(host, delay)

    def pause(self, host: str, seconds: float) -> None:
        """Ask nothing of `host` for so long."""
        state = self._host(host)
        state.next_at = max(state.next_at, time.monotonic() + seconds)

    async def _wait(self, host: str, state: _Host) -> None:
        longest = self._params.max_wait_seconds
        while (wait := state.next_at - time.monotonic()) > 0:
            if wait > longest + state.delay:
                raise FetchError(
                    "retry-later",
                    f"{host} asked for a pause of more than {longest:g} s (ingest.download.max_wait_seconds); "
                    "it was left alone",
                )
            await asyncio.sleep(wait)

    def _host(self, host: str) -> _Host:
        if host not in self._hosts:
            slots = asyncio.Semaphore(self._params.connections_per_host)
            self._hosts[host] = _Host(slots, self._params.delay_seconds)
        return self._hosts[host]


@dataclass(eq=False)
class _Site:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    asked: bool = False
    text: bytes | None = None
    """robots.txt, compressed: parsed rules take up to a hundred times as much, and there may be many sites"""
    unavailable: str = ""
    """why it could not be had; then nothing is allowed for now"""


class RobotsRules:
    """robots.txt of every site met so far, each asked for once.

    Args:
        read: gives status and first bytes of a URL; raises FetchError if there is no answer below 500.
        turns: is told of a site's Crawl-delay.
        max_delay: a longer Crawl-delay counts as not allowed, seconds.
    """

    def __init__(self, read: Callable[[URL], Awaitable[tuple[int, bytes]]], turns: HostTurns, max_delay: float) -> None:
        self._read = read
        self._turns = turns
        self._max_delay = max_delay
        self._sites: dict[URL, _Site] = {}

    async def check(self, target: URL) -> None:
        """Let pass what the site allows.

        Raises:
            FetchError: `robots-disallowed`, or `robots-unavailable`: the site could not say.
        """
        address = target.origin() / "robots.txt"
        site = self._sites.setdefault(address, _Site())
        async with site.lock:
            if not site.asked:
                await self._ask(site, address)
                site.asked = True
        if site.unavailable:
            raise FetchError(
                "robots-unavailable",
                f"{address}: {site.unavailable}; a site that cannot say what it allows is left alone",
            )
        if site.text is None:
            return
        rules = _parse(site.text)
        if not rules.can_fetch(str(target), AGENT):
            raise FetchError("robots-disallowed", f"{address} does not allow it")
        delay = rules.crawl_delay(AGENT) or 0.0
        if delay > self._max_delay:
            raise FetchError(
                "robots-disallowed",
                f"{address} allows one request in {delay:g} s, more than {self._max_delay:g} s "
                "(ingest.download.max_wait_seconds)",
            )

    async def _ask(self, site: _Site, address: URL) -> None:
        try:
            status, body = await self._read(address)
        except FetchError as error:
            site.unavailable = f"{error.outcome}, {error.detail}"
            return
        if status < 400:  # otherwise there is none: everything is allowed
            site.text = zlib.compress(body, 1)
            delay = _parse(site.text).crawl_delay(AGENT) or 0.0
            if 0 < delay <= self._max_delay:
                self._turns.slow_down(address.raw_host or "", delay)


@lru_cache(maxsize=64)
def _parse(text: bytes) -> Any:
    from protego import Protego

    return Protego.parse(zlib.decompress(text).decode("utf-8-sig", "replace"))


def parse_retry_after(header: str) -> float | None:
    """Seconds to wait, from a number of seconds or a date; None for anything else."""
    header = header.strip()
    if header.isascii() and header.isdigit():
        return float(min(int(header[:12]), 10**9))
    try:
        at = email.utils.parsedate_to_datetime(header)
    except ValueError:
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=datetime.UTC)
    return max(0.0, at.timestamp() - time.time())
