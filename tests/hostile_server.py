"""A web server on this machine that does what servers do on a bad day, and counts who asked for what.

    with HostileServer() as server:
        server.add("/a.jpg", lambda hit: picture(1))
        server.url("/a.jpg"); server.hits["/a.jpg"]; server.headers["/a.jpg"][0]["User-Agent"]

`misbehave` adds one path for each kind of trouble.
"""

import email.utils
import functools
import gzip
import io
import socket
import ssl
import struct
import threading
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Hit:
    """One request: path, values of the query, headers, and how often the path was asked for."""

    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    count: int


@dataclass(frozen=True)
class Answer:
    """What is sent back.

    Args:
        body: sent with its Content-Length.
        status, type, headers: of HTTP; no Content-Type when `type` is empty.
        length: Content-Length to announce in place of the true one; none when -1, and the connection ends the body.
        chunked: send the body in chunks of 1,000 bytes.
        close: end the connection after the answer without saying so before.
        raw: does the sending instead of all this.
    """

    body: bytes = b""
    status: int = 200
    type: str = "image/jpeg"
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None
    chunked: bool = False
    close: bool = False
    raw: "Callable[[Wire], None] | None" = None


Handler = Callable[[Hit], Answer | bytes]


@dataclass(frozen=True)
class Wire:
    """A connection, for answers that are not HTTP as it should be."""

    connection: socket.socket
    stopping: threading.Event

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def reset(self) -> None:
        """End the connection as a crashed machine does."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def drip(self, data: bytes, seconds: float) -> None:
        """Send byte by byte, with a pause after each."""
        for position in range(len(data)):
            self.send(data[position : position + 1])
            if self.stopping.wait(seconds):
                return


class HostileServer:
    """Serves until its `with` block ends.

    Args:
        host: an address of this machine.
        port: a free one when 0.
        tls: speaks HTTPS with it.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0, *, tls: ssl.SSLContext | None = None) -> None:
        self.routes: dict[str, Handler] = {}
        self.hits: Counter[str] = Counter()
        self.headers: dict[str, list[dict[str, str]]] = defaultdict(list)
        self.times: dict[str, list[float]] = defaultdict(list)
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        kind = type("Server", (_Server,), {"address_family": family})
        self._server: _Server = kind((host, port), type("Handler", (_Handler,), {"server_of": self}))
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.scheme = "http" if tls is None else "https"
        self.host = f"[{host}]" if ":" in host else host
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def url(self, path: str, *, host: str = "") -> str:
        return f"{self.scheme}://{host or self.host}:{self.port}{path}"

    def add(self, path: str, handler: Handler | bytes | Answer) -> None:
        """Answer `path` (all below it, if it ends with *) by a handler, or always the same."""
        self.routes[path] = handler if callable(handler) else functools.partial(_same, handler)

    @property
    def total(self) -> int:
        """Requests so far, robots.txt not counted."""
        return sum(count for path, count in self.hits.items() if path != "/robots.txt")

    def answer(self, path: str, query: str, headers: dict[str, str]) -> Answer:
        """Find and call the handler of one request, and count it."""
        with self._lock:
            self.hits[path] += 1
            self.headers[path].append(headers)
            self.times[path].append(time.monotonic())
            hit = Hit(path, parse_qs(query, keep_blank_values=True), headers, self.hits[path])
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            handler = self.routes.get(path)
            if handler is None:
                prefixes = [p for p in self.routes if p.endswith("*") and path.startswith(p[:-1])]
                handler = (
                    self.routes[max(prefixes, key=len)] if prefixes else functools.partial(_same, Answer(b"no", 404))
                )
            found = handler(hit)
        finally:
            with self._lock:
                self._at_once -= 1
        return Answer(found) if isinstance(found, bytes) else found

    def wire(self, connection: socket.socket) -> Wire:
        return Wire(connection, self._stopping)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _same(answer: Answer | bytes, hit: Hit) -> Answer | bytes:  # noqa: ARG001 - a handler
    return answer


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are part of the game."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_of: HostileServer
    timeout = 30
    wbufsize = 1 << 16  # headers and body in one packet: two wait 40 ms for each other

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        answer = self.server_of.answer(parts.path, parts.query, dict(self.headers))
        if answer.raw is not None:
            self.close_connection = True
            with suppress(OSError):
                answer.raw(self.server_of.wire(self.connection))
            return
        self.send_response(answer.status)
        if answer.type:
            self.send_header("Content-Type", answer.type)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        length = len(answer.body) if answer.length is None else answer.length
        if answer.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif length >= 0:
            self.send_header("Content-Length", str(length))
        if length < 0 or length != len(answer.body) or answer.close:
            self.close_connection = True
        self.end_headers()
        with suppress(OSError):
            self.wfile.write(_chunks(answer.body) if answer.chunked else answer.body)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


def _chunks(body: bytes) -> bytes:
    parts = [body[start : start + 1000] for start in range(0, len(body), 1000)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


@functools.cache
def picture(seed: int, *, size: int = 40) -> bytes:
    """A JPEG of noise, the same for the same seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


@functools.cache
def bomb() -> bytes:
    """50 KB that unpack to 50 MB."""
    return gzip.compress(bytes(50 << 20))


def at_first(times: int, first: Answer, then: Answer | bytes) -> Handler:
    """`first` for so many requests of the path, `then` ever after."""
    return lambda hit: first if hit.count <= times else then


def redirect(location: str, status: int = 302) -> Answer:
    return Answer(b"", status, "", {"Location": location})


def misbehave(server: HostileServer, other: str = "") -> None:
    """Add a path for each kind of trouble; every good picture is `picture(number)`.

    Args:
        server: gets the paths.
        other: the root of another server, for redirects across hosts.
    """
    head = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n"
    good = picture(1)

    def endless(wire: Wire) -> None:
        wire.send(head + b"\r\n")
        while not wire.stopping.is_set():
            wire.send(bytes(1 << 16))

    def half_then_reset(wire: Wire) -> None:
        wire.send(head + b"Content-Length: %d\r\n\r\n" % len(good) + good[: len(good) // 2])
        time.sleep(0.02)
        wire.reset()

    def drip_body(wire: Wire) -> None:
        wire.send(head + b"Content-Length: %d\r\n\r\n" % len(good))
        wire.drip(good, 0.05)

    def silent(wire: Wire) -> None:
        wire.stopping.wait(30)

    answers: dict[str, Handler | Answer | bytes] = {
        "/picture/*": lambda hit: picture(int(hit.path.split("/")[2].split(".")[0])),
        "/same/*": good,
        "/%C3%BCn%C3%AF/bild%20%C3%B6.jpg": good,
        "/403": Answer(b"no", 403, "text/plain"),
        "/410": Answer(b"gone", 410, "text/plain"),
        "/500-once": at_first(1, Answer(b"", 500), good),
        "/503": Answer(b"", 503),
        "/408-once": at_first(1, Answer(b"", 408), good),
        "/429-seconds": at_first(1, Answer(b"", 429, headers={"Retry-After": "1"}), good),
        "/429-date": lambda hit: (
            Answer(b"", 429, headers={"Retry-After": email.utils.formatdate(time.time() + 1.5, usegmt=True)})
            if hit.count == 1
            else Answer(good)
        ),
        "/429-hour": Answer(b"", 429, headers={"Retry-After": "3600"}),
        "/drip": Answer(raw=drip_body),
        "/drip-headers": Answer(raw=lambda wire: wire.drip(head, 0.05)),
        "/silent": Answer(raw=silent),
        "/endless": Answer(raw=endless),
        "/large": Answer(b"x", length=1 << 40),
        "/short": Answer(good, length=len(good) + 10),
        "/long": Answer(good + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", length=len(good)),
        "/reset": Answer(raw=half_then_reset),
        "/no-length": Answer(good, length=-1),
        "/chunked": Answer(good, chunked=True),
        "/closing": Answer(good, close=True),
        "/bomb": Answer(bomb(), headers={"Content-Encoding": "gzip"}),
        "/gzip": Answer(gzip.compress(good), headers={"Content-Encoding": "gzip"}),
        "/gzip-twice": Answer(
            gzip.compress(good[:100]) + gzip.compress(good[100:]), headers={"Content-Encoding": "gzip"}
        ),
        "/gzip-cut": Answer(gzip.compress(good)[:-20], headers={"Content-Encoding": "gzip"}),
        "/gzip-no": Answer(good, headers={"Content-Encoding": "gzip"}),
        "/deflate": Answer(zlib.compress(good), headers={"Content-Encoding": "deflate"}),
        "/deflate-bare": Answer(zlib.compress(good)[2:-4], headers={"Content-Encoding": "deflate"}),
        "/brotli": Answer(good, headers={"Content-Encoding": "br"}),
        "/html": Answer(b"<html><body>Not found</body></html>", type="image/jpeg"),
        "/lies": Answer(good, type="text/html"),
        "/empty": Answer(b""),
        "/204": Answer(b"", 204, ""),
        "/noise": Answer(raw=lambda wire: wire.send(b"\x00\xffwhat\r\n\r\n")),
        "/cookie": Answer(good, headers={"Set-Cookie": "id=1; Path=/"}),
        "/noai": Answer(good, headers={"X-Robots-Tag": "noindex, noai"}),
        "/to/one": redirect("/picture/1.jpg"),
        "/to/relative": redirect("../picture/./2.jpg#part"),
        "/to/other": redirect(other + "/picture/3.jpg"),
        "/to/private": redirect("http://10.0.0.1/secret.jpg"),
        "/to/file": redirect("file:///etc/passwd"),
        "/to/nowhere": Answer(b"", 302, ""),
        "/to/user": redirect("http://me:secret@127.0.0.1/x.jpg"),
        "/to/loop": redirect("/to/back"),
        "/to/back": redirect("/to/loop"),
        "/to/0": good,
    }
    answers |= {f"/to/{number}": redirect(f"/to/{number - 1}", 301) for number in range(1, 11)}
    for path, answer in answers.items():
        server.add(path, answer)
