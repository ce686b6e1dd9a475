"""Fetches URLs on one aiohttp session by the rules of ingest.download: checked, within limits, politely."""

import asyncio
import datetime
import importlib.metadata
import os
import random
import socket
import ssl
import time
import tomllib
import zlib
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import cache
from io import BytesIO
from pathlib import Path
from tempfile import SpooledTemporaryFile, gettempdir
from types import TracebackType
from typing import IO, Any, Self, TypeVar
from urllib.parse import urljoin

import aiohttp
from yarl import URL

from pipelines.core.errors import ImageError
from pipelines.ingest.fetch.politeness import (
    AGENT,
    FIRST_PAUSE_SECONDS,
    ROBOTS_BYTES,
    HostTurns,
    RobotsRules,
    parse_retry_after,
)
from pipelines.ingest.fetch.records import OK, FetchError, FetchRecord, FetchRequest, blank_record, printable
from pipelines.ingest.fetch.store import cache_errors, keep_content, open_store
from pipelines.ingest.fetch.urls import PublicResolver, Resolve, parse_url, private_host, shorten
from pipelines.params.ingest import DownloadParams

T = TypeVar("T")
PAGE_BYTES = 4 << 20
_MEMORY_BYTES = 1 << 20  # a longer body goes to a temporary file while it comes
_ERROR_PAGE_BYTES = 1 << 16
_IDLE_SECONDS = 2.0  # an idle connection is kept for so long beyond delay_seconds; each is an open file
_REDIRECTS = {301, 302, 303, 307, 308}
_NO_AI = {"noai", "noimageai"}  # what a site may say to those who collect pictures for models, beside robots.txt
_WINDOWS = {"gzip": 31, "x-gzip": 31, "deflate": 15}  # wbits of zlib


@dataclass(frozen=True)
class FetchedPage:
    """An answer that is read at once: a page of search results.

    Args:
        status: of HTTP; 0 without an answer.
        final_url: after redirects.
        type: Content-Type.
        body: as sent; of an error too, since engines explain themselves there.
        outcome: "ok", or in kebab-case why it cannot be used.
        detail: what a person needs to know.
    """

    status: int
    final_url: str
    type: str
    body: bytes
    outcome: str
    detail: str


@dataclass
class _Reply:
    """What came of a URL after all its attempts."""

    error: FetchError | None = None
    final_url: str = ""
    status: int = 0
    type: str = ""
    tries: int = 0
    seconds: float = 0.0

    @asynccontextmanager
    async def timed(self, limit: float) -> AsyncIterator[None]:
        """Count the seconds of the block; together with those before, they may be `limit`.

        Raises:
            TimeoutError: they are more.
        """
        started = time.monotonic()
        try:
            async with asyncio.timeout(limit - self.seconds):
                yield
        finally:
            self.seconds += time.monotonic() - started


class Fetcher:
    """Fetches URLs within its `async with` block, many at the same time.

    Args:
        params: the rules.
        max_file_bytes: of ingest; larger pictures are refused, mostly unread.
        objects: the folder that keeps what came, by its sha256.
        resolve: gives the addresses of a host; the system's resolver when None.
        tls: how certificates are checked; by the system's authorities when None.

    Raises:
        InputError: `objects` cannot be written.
    """

    def __init__(
        self,
        params: DownloadParams,
        *,
        max_file_bytes: int,
        objects: Path,
        resolve: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        open_store(objects)
        self.params = params
        self._max_file_bytes = max_file_bytes
        self._objects = objects
        self._tls = tls
        self._resolver = PublicResolver(resolve, {private_host(entry) for entry in params.private_hosts})
        self._turns = HostTurns(params)
        self._robots = RobotsRules(self._read_robots, self._turns, params.max_wait_seconds)

    async def __aenter__(self) -> Self:
        # threads for lookups of names: by default there are few
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(self.params.connections))
        connector = aiohttp.TCPConnector(
            resolver=self._resolver,
            use_dns_cache=False,
            ssl=self._tls or _tls_context(),
            limit=0,  # HostTurns limits both
            keepalive_timeout=self.params.delay_seconds + _IDLE_SECONDS,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers={"User-Agent": user_agent(self.params.contact), "Accept": "*/*", "Accept-Encoding": "identity"},
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            auto_decompress=False,
            middlewares=[_send_once],
            trace_configs=[_note_reuse()],
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def fetch(self, request: FetchRequest) -> FetchRecord:
        """Fetch one picture with all its attempts; its content goes into the store.

        Raises:
            InputError: the store cannot be written.
        """
        outcome, detail, image_id, size = OK, "", "", 0
        with SpooledTemporaryFile(_MEMORY_BYTES) as file:
            reply = await self._get(request.url, file, max_bytes=self._max_file_bytes, robots=True)
            if reply.error is None:
                image_id, size = keep_content(self._objects, file)
            else:
                outcome, detail = reply.error.outcome, reply.error.detail
        if reply.error is None and not size:
            outcome, detail, image_id = "empty-file", "an answer without a body", ""
        return replace(
            blank_record(request),
            final_url=reply.final_url,
            status=reply.status,
            type=reply.type if outcome == OK else "",
            bytes=size,
            image_id=image_id,
            outcome=outcome,
            detail=detail,
            fetched_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            seconds=round(reply.seconds, 3),
            tries=reply.tries,
        )

    async def get_page(self, url: str, *, api: bool, max_bytes: int = PAGE_BYTES) -> FetchedPage:
        """Read a page of search results by the same rules.

        Args:
            url: of the page.
            api: a documented interface, used by its own terms: robots.txt, which speaks to crawlers, is not asked.
            max_bytes: a larger one is refused.
        """
        body = BytesIO()
        reply = await self._get(url, body, max_bytes=max_bytes, robots=not api)
        if reply.error is not None:
            error = reply.error
            return FetchedPage(reply.status, reply.final_url, reply.type, error.body, error.outcome, error.detail)
        return FetchedPage(reply.status, reply.final_url, reply.type, body.getvalue(), OK, "")

    async def _read_robots(self, address: URL) -> tuple[int, bytes]:
        body = BytesIO()
        reply = await self._get(str(address), body, max_bytes=ROBOTS_BYTES, robots=False, cut=True)
        if reply.error is not None and (reply.status // 100 not in (2, 4) or reply.error.again):
            raise reply.error
        return reply.status, body.getvalue()

    async def _get(self, url: str, file: IO[bytes], *, max_bytes: int, robots: bool, cut: bool = False) -> _Reply:
        """Try `url` as often as params allow.

        Args:
            url: where to begin.
            file: gets the body of a good answer.
            max_bytes: of the body, as sent and decoded.
            robots: whether robots.txt has a say.
            cut: take the first max_bytes of a longer body, in place of an error.
        """
        tries = 0
        while True:
            reply = _Reply()
            file.seek(0)
            file.truncate()
            try:
                await self._follow(url, reply, file, max_bytes=max_bytes, robots=robots, cut=cut)
                wait = None
            except FetchError as error:
                reply.error, reply.status, reply.type = error, error.status, error.type
                wait = self._wait_before_next(error, tries)
            reply.tries = tries + 1 if reply.seconds else tries
            if wait is None:
                return reply
            await asyncio.sleep(wait)
            tries += 1

    async def _follow(
        self, url: str, reply: _Reply, file: IO[bytes], *, max_bytes: int, robots: bool, cut: bool
    ) -> None:
        """One attempt, through all redirects: every hop is checked and waited for as if it were the first.

        Raises:
            FetchError: nothing came, whatever is wrong with the network or the URL.
        """
        here, asked = url, set[str]()
        obey = robots and self.params.robots == "obey"
        try:
            for _ in range(self.params.max_redirects + 1):
                target = parse_url(here)
                if str(target) in asked:
                    raise FetchError("redirect-loop", f"leads back to {shorten(str(target))}")
                host = target.raw_host or ""
                await self._resolver.check(host, target.port or 0)
                if obey:
                    await self._robots.check(target)
                async with self._turns.turn(host):
                    asked.add(str(target))
                    reply.final_url = str(target)
                    async with (
                        reply.timed(self.params.timeout_seconds),
                        self._session.get(target, allow_redirects=False) as response,
                    ):
                        location = await self._judge(response, host, obey=obey)
                        if location is None:
                            reply.status, reply.type = response.status, _content_type(response)
                            await _read(response, file, max_bytes, cut=cut)
                            return
                here = _join(str(target), location)
            raise FetchError(
                "too-many-redirects", f"more than {self.params.max_redirects} (ingest.download.max_redirects)"
            )
        except ImageError as error:
            where = f"redirected to {shorten(here)}: " if asked else ""
            raise FetchError(error.reason, where + error.detail, again=_is_dns_momentary(error.__cause__)) from error
        except TimeoutError as error:
            detail = f"not whole after {self.params.timeout_seconds:g} s"
            raise FetchError("timeout", detail, again=True) from error
        except (aiohttp.ClientError, ValueError) as error:
            raise _translate(error, reply.status) from error

    async def _judge(self, response: aiohttp.ClientResponse, host: str, *, obey: bool) -> str | None:
        """Where a redirect leads; None for an answer with a body that is wanted.

        Raises:
            FetchError: any other answer.
        """
        status = response.status
        if status in (200, 203):
            said = {
                word.strip().lower() for line in response.headers.getall("X-Robots-Tag", ()) for word in line.split(",")
            }
            if obey and said & _NO_AI:
                refusal = "X-Robots-Tag: " + ", ".join(sorted(said & _NO_AI))
                raise FetchError("robots-disallowed", refusal, status=status)
            return None
        page = BytesIO()
        with suppress(FetchError, aiohttp.ClientError):  # what the page of an error is like changes nothing
            await _read(response, page, _ERROR_PAGE_BYTES, cut=True)
        if status in _REDIRECTS:
            location = response.headers.get("Location")
            if not location:
                raise FetchError("bad-answer", f"a redirect ({status}) to nowhere", status=status)
            return _as_utf8(location)
        again = status in (408, 429) or status >= 500
        wait = parse_retry_after(response.headers.get("Retry-After", "")) if again else None
        if wait is not None:
            self._turns.pause(host, wait)  # what one URL is told to wait, the whole host is left alone
        elif status == 429:
            self._turns.pause(host, min(self.params.max_wait_seconds, FIRST_PAUSE_SECONDS))
        raise FetchError(
            f"http-{status}", _as_utf8(response.reason or "")[:100], status=status, again=again, wait_seconds=wait,
            body=page.getvalue(), type=_content_type(response),
        )  # fmt: skip

    def _wait_before_next(self, error: FetchError, tries: int) -> float | None:
        """Seconds to wait before another attempt; None if there is to be none."""
        longest = self.params.max_wait_seconds
        if not error.again or tries + 1 >= self.params.max_attempts:
            return None
        asked_for = error.wait_seconds or 0.0
        if asked_for > longest:
            asked = f"it asks to wait longer than {longest:g} s (ingest.download.max_wait_seconds)"
            error.detail = f"{error.detail}; {asked}" if error.detail else asked
            return None
        return max(asked_for, min(longest, FIRST_PAUSE_SECONDS * 2.0**tries * random.uniform(0.5, 1.5)))


_reused: ContextVar[bool] = ContextVar("_reused")
"""Whether the last request of this task went over a connection that had carried another one."""


def _note_reuse() -> aiohttp.TraceConfig:
    async def note(*_: object) -> None:
        _reused.set(True)

    trace = aiohttp.TraceConfig()
    trace.on_connection_reuseconn.append(note)
    return trace


async def _send_once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Send a request once: aiohttp itself would ask twice if a new connection breaks.

    A server may close an idle connection at any moment; that costs no attempt.
    """
    while True:
        _reused.set(False)
        try:
            return await handler(request)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            if isinstance(error, aiohttp.ClientConnectorError):
                raise
            if not _reused.get():
                raise FetchError("connection-error", _reason(error), again=True) from error


def run_async(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine to its end; inside a running event loop (a notebook) in a thread of its own."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(make())
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(make())).result()


def user_agent(contact: str) -> str:
    """`miwake/0.1.0 (+contact)`: a name, a version, and where to complain."""
    return f"{AGENT}/{_version()}" + (f" (+{contact})" if contact else "")


@cache
def _version() -> str:
    """Of the installed package; in a checkout, of its pyproject.toml."""
    try:
        return importlib.metadata.version("miwake")
    except importlib.metadata.PackageNotFoundError:
        pyproject = Path(__file__).parents[3] / "pyproject.toml"
        return str(tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]["version"])


@cache
def _tls_context() -> ssl.SSLContext:
    """Certificates are checked against the system's authorities; certifi's if the system has none."""
    context = ssl.create_default_context()
    paths = ssl.get_default_verify_paths()
    if paths.cafile is None and paths.capath is None and not context.cert_store_stats()["x509_ca"]:
        import certifi

        context.load_verify_locations(certifi.where())
    return context


async def _read(response: aiohttp.ClientResponse, file: IO[bytes], max_bytes: int, *, cut: bool = False) -> None:
    """Read and decode a body.

    Args:
        response: of which the headers have come.
        file: empty; gets the body.
        max_bytes: of the body, as sent and decoded.
        cut: end there in silence, in place of an error.

    Raises:
        FetchError: `too-large`, `truncated` or `unsupported-encoding`.
    """
    status = response.status
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in ("", "identity", *_WINDOWS):
        asked = f"Content-Encoding: {encoding[:40]!r}, though none was asked for"
        raise FetchError("unsupported-encoding", asked, status=status)
    announced = response.content_length or 0
    if announced > max_bytes and not cut:
        raise _too_large(f"{announced} bytes announced", max_bytes, status)
    num_read = 0
    async for data in response.content.iter_any():
        with cache_errors(Path(gettempdir())):
            file.write(data[: max_bytes - num_read])
        num_read += len(data)
        if num_read > max_bytes and not cut:
            raise _too_large("more bytes came", max_bytes, status)
        if num_read >= max_bytes and cut:
            break
    if encoding in _WINDOWS:
        file.seek(0)
        decoded = _decode(file.read(), encoding, max_bytes, status=status, cut=cut)
        file.seek(0)
        file.truncate()
        file.write(decoded)


def _decode(data: bytes, encoding: str, max_bytes: int, *, status: int, cut: bool) -> bytes:
    """Undo gzip (also several members one after the other) or deflate (with or without zlib's header)."""
    window, decoded = _WINDOWS[encoding], b""
    if encoding == "deflate" and data[:1] and (data[0] & 15 != zlib.DEFLATED or int.from_bytes(data[:2]) % 31):
        window = -15
    while data and len(decoded) <= max_bytes:
        one = zlib.decompressobj(window)
        try:
            decoded += one.decompress(data, max_bytes + 1 - len(decoded))
        except zlib.error as error:
            raise FetchError("unsupported-encoding", "its compressed data are broken", status=status) from error
        if not one.eof and not one.unconsumed_tail and not cut:
            raise FetchError("truncated", "its compressed data end early", status=status, again=True)
        data = one.unused_data if window > 15 else b""
    if len(decoded) > max_bytes and not cut:
        raise _too_large("more bytes came", max_bytes, status)
    return decoded[:max_bytes]


def _too_large(what: str, max_bytes: int, status: int) -> FetchError:
    return FetchError("too-large", f"{what}; the limit is {max_bytes} (ingest.max_file_bytes)", status=status)


def _join(base: str, location: str) -> str:
    """Where a redirect from `base` leads; not yet checked."""
    try:
        return urljoin(base, location.strip(" \t"))
    except ValueError:  # brackets that do not match
        return location


def _as_utf8(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _content_type(response: aiohttp.ClientResponse) -> str:
    return printable(_as_utf8(response.headers.get("Content-Type", ""))[:200])


def _is_dns_momentary(error: BaseException | None) -> bool:
    return isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN


def _translate(error: Exception, status: int) -> FetchError:
    """What a person needs to know, without what differs from run to run (addresses of objects, byte counts)."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        cause = error.certificate_error
        return FetchError("tls-error", f"its certificate: {getattr(cause, 'verify_message', cause)}")
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return FetchError("tls-error", _reason(error), again=True)
    if isinstance(error, aiohttp.ClientPayloadError):
        return FetchError("truncated", "it ended before its announced length", status=status, again=True)
    if isinstance(error, OSError):
        return FetchError("connection-error", _reason(error), again=True)
    return FetchError("bad-answer", f"this is not HTTP as it should be ({type(error).__name__})", again=True)


def _reason(error: BaseException) -> str:
    found = getattr(error, "os_error", None) or error
    if isinstance(found, ssl.SSLError):
        return f"TLS: {(found.reason or type(found).__name__).lower().replace('_', ' ')}"
    if isinstance(found, OSError) and found.errno:
        return os.strerror(found.errno).lower()
    return "closed before an answer"
