"""One try of one URL, through all its redirects: every hop is checked and waited for as if it were the first."""

import datetime
import email.utils
import random
import socket
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass

import urllib3
from urllib3.exceptions import HTTPError

from pipelines.core.errors import ImageError
from pipelines.ingest.download.addresses import (
    Lookups,
    Resolve,
    check_addresses,
    join_url,
    open_host,
    parse_url,
    shorten,
    system_resolve,
)
from pipelines.ingest.download.agent import user_agent
from pipelines.ingest.download.gate import Gate
from pipelines.ingest.download.reading import Memory, Sink, drain, read_body
from pipelines.ingest.download.robots import MAX_BYTES, Robots
from pipelines.ingest.download.sockets import Budget
from pipelines.ingest.download.transport import Transport
from pipelines.ingest.download.trouble import TroubleError, plain
from pipelines.params.ingest import DownloadParams

_FIRST_PAUSE_SECONDS = 0.5
_ERROR_PAGE_BYTES = 1 << 16
_REDIRECTS = {301, 302, 303, 307, 308}
# what a site may say to those who collect pictures for models, beside robots.txt
_NO_AI = {"noai", "noimageai"}


@dataclass(frozen=True)
class Answer:
    """What stands above the body of an answer.

    Args:
        status: of HTTP.
        final_url: after redirects.
        type: what the server calls it.
    """

    status: int
    final_url: str
    type: str


class Follower:
    """Follows URLs by the rules of ingest.download. Thread-safe.

    Args:
        params: the rules.
        resolve: gives the addresses of a host; the system's resolver when None.
        tls: how certificates are checked; by the system's authorities when None.
    """

    def __init__(self, params: DownloadParams, *, resolve: Resolve | None, tls: ssl.SSLContext | None) -> None:
        self.gate = Gate(params)
        self._params = params
        self._resolve = Lookups(resolve or system_resolve)
        self._open_hosts = {open_host(entry) for entry in params.private_hosts}
        headers = {"User-Agent": user_agent(params.contact), "Accept": "*/*", "Accept-Encoding": "identity"}
        self._transport = Transport(headers, params.connections_per_host, tls)
        self._robots = Robots(self._read_robots, self.gate.slow_down, params.max_wait_seconds)

    def stop(self) -> None:
        """End everything under way: whoever waits or reads gets a StoppedError."""
        self.gate.stop()
        self._transport.stop()

    def close(self) -> None:
        """Close idle connections."""
        self._transport.close()

    def get(self, url: str, sink: Sink, budget: Budget, *, max_bytes: int, robots: bool, cut: bool = False) -> Answer:
        """Follow `url` to its end.

        Args:
            url: where to begin.
            sink: takes the body.
            budget: the time of the whole try.
            max_bytes: of the body.
            robots: whether robots.txt has a say.
            cut: take the first max_bytes of a longer body, in place of an error.

        Raises:
            TroubleError: nothing came; whatever is wrong with the network or the URL.
            StoppedError: `stop` was called.
        """
        here, asked = url, [""]
        try:
            for _ in range(self._params.max_redirects + 1):
                target = parse_url(here)
                if target.url in asked:
                    raise TroubleError("redirect-loop", f"leads back to {shorten(target.url)}")
                addresses = check_addresses(target, self._resolve, self._open_hosts)
                if robots and self._params.robots == "obey":
                    self._robots.check(target)
                with self.gate.turn(target.host):
                    asked.append(target.url)
                    with self._transport.get(target, addresses, budget) as response:
                        location = self._judge(response, target.host, robots=robots)
                        if location is None:
                            read_body(response, sink, max_bytes=max_bytes, cut=cut)
                            return Answer(response.status, target.url, _content_type(response))
                        drain(response)
                here = join_url(target.url, location)
            raise TroubleError(
                "too-many-redirects", f"more than {self._params.max_redirects} (ingest.download.max_redirects)"
            )
        except ImageError as error:
            where = "" if len(asked) == 1 else f"redirected to {shorten(here)}: "
            lookup = error.__cause__
            again = isinstance(lookup, socket.gaierror) and lookup.errno == socket.EAI_AGAIN
            trouble = TroubleError(error.reason, where + error.detail, again=again)
            trouble.final_url = asked[-1]
            raise trouble from error
        except TroubleError as trouble:
            trouble.final_url = asked[-1]
            raise

    def _judge(self, response: urllib3.BaseHTTPResponse, host: str, *, robots: bool) -> str | None:
        """Where a redirect leads; None for an answer whose body is wanted.

        Raises:
            TroubleError: any other answer.
        """
        status = response.status
        if status in _REDIRECTS:
            location = response.headers.get("Location")
            if not location:
                raise TroubleError("bad-answer", f"a redirect ({status}) to nowhere", status=status)
            # http.client reads headers as Latin-1; browsers take UTF-8 there
            return location.encode("latin-1", "replace").decode("utf-8", "replace")
        if status in (200, 203):
            said = {word.strip().lower() for word in response.headers.get("X-Robots-Tag", "").split(",")}
            if robots and self._params.robots == "obey" and said & _NO_AI:
                raise TroubleError(
                    "robots-disallowed", "X-Robots-Tag: " + ", ".join(sorted(said & _NO_AI)), status=status
                )
            return None
        again = status in (408, 429) or status >= 500
        trouble = TroubleError(f"http-{status}", (response.reason or "")[:100], status=status, again=again)
        if again:
            trouble.wait_seconds = _retry_after(response.headers.get("Retry-After", ""))
            self._slow_down(host, status, trouble.wait_seconds)
        page = Memory(_ERROR_PAGE_BYTES)
        with suppress(TroubleError, HTTPError, OSError):  # what the page is like changes nothing
            read_body(response, page, max_bytes=_ERROR_PAGE_BYTES, cut=True)
        trouble.body, trouble.type = bytes(page.data), _content_type(response)
        raise trouble

    def _slow_down(self, host: str, status: int, wait_seconds: float | None) -> None:
        """What one URL is told to wait, the whole host is left alone."""
        if wait_seconds is not None:
            self.gate.pause(host, wait_seconds)
        elif status == 429:
            self.gate.pause(host, min(self._params.max_wait_seconds, _FIRST_PAUSE_SECONDS))

    def _read_robots(self, url: str) -> tuple[int, bytes]:
        tries = 0
        while True:
            memory = Memory(MAX_BYTES)
            try:
                answer = self.get(
                    url, memory, Budget(self._params.timeout_seconds), max_bytes=MAX_BYTES, robots=False, cut=True
                )
                return answer.status, bytes(memory.data)
            except TroubleError as trouble:
                wait, _ = next_try(trouble, tries, self._params)
                if wait is None:
                    if trouble.status // 100 in (2, 4) and not trouble.again:
                        return trouble.status, b""
                    raise
            self.gate.sleep(wait)
            tries += 1


def next_try(trouble: TroubleError, tries: int, params: DownloadParams) -> tuple[float | None, str]:
    """Whether another try is worth it.

    Args:
        trouble: how this one ended.
        tries: made before this one.
        params: the rules.

    Returns:
        Seconds to wait before it, None if there is to be none; and the detail for a record.
    """
    if not trouble.again or tries + 1 >= params.max_attempts:
        return None, trouble.detail
    longest = params.max_wait_seconds
    asked_for = trouble.wait_seconds or 0.0
    if asked_for > longest:
        asked = f"it asks to wait longer than {longest:g} s (ingest.download.max_wait_seconds)"
        return None, f"{trouble.detail}; {asked}" if trouble.detail else asked
    pause = _FIRST_PAUSE_SECONDS * 2.0**tries * random.uniform(0.5, 1.5)
    return max(asked_for, min(longest, pause)), trouble.detail


def _content_type(response: urllib3.BaseHTTPResponse) -> str:
    return plain(response.headers.get("Content-Type", "")[:200].encode("latin-1", "replace").decode("utf-8", "replace"))


def _retry_after(header: str) -> float | None:
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
