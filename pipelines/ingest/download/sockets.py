"""Connections to a given address whose every read ends when the whole try must end.

urllib3's own timeouts count from byte to byte, so that a server which drips would be waited for for ever. Here every
read waits for what is left of the whole try, headers included.
"""

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from pipelines.ingest.download.trouble import TroubleError

_this_thread = threading.local()


class Budget:
    """The time that one try may take; waiting for one's turn is not counted.

    Args:
        seconds: of the whole try.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.left = seconds

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count, and end every read of this thread when nothing is left."""
        started = time.monotonic()
        _this_thread.at = started + self.left
        try:
            yield
        finally:
            _this_thread.at = None
            self.left -= time.monotonic() - started

    def seconds_left(self) -> float:
        """What is left while it is running."""
        at: float = _this_thread.at
        return at - time.monotonic()

    def trouble(self) -> TroubleError:
        return TroubleError("timeout", f"not whole after {self.seconds:g} s", again=True)


def _set_timeout(sock: socket.socket) -> None:
    at: float | None = getattr(_this_thread, "at", None)
    if at is not None:
        left = at - time.monotonic()
        if left <= 0:
            raise TimeoutError("the try took too long")
        sock.settimeout(left)


class _Socket(socket.socket):
    """A socket each of whose reads ends at the deadline of its thread."""

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        _set_timeout(self)
        return super().recv_into(*args, **kwargs)


class TlsSocket(ssl.SSLSocket):
    """The same for TLS."""

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        _set_timeout(self)
        return super().recv_into(*args, **kwargs)


def _connect(connection: HTTPConnection) -> socket.socket:
    """Like urllib3's own, with a socket of ours; the host is an address, so that nothing is resolved."""
    found = socket.getaddrinfo(
        connection._dns_host, connection.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
    )
    family, kind, protocol, _, address = found[0]
    sock = _Socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(connection.timeout)
        sock.connect(address)
    except TimeoutError as error:
        sock.close()
        raise ConnectTimeoutError(connection, "no answer") from error
    except OSError as error:
        sock.close()
        raise NewConnectionError(connection, "refused") from error
    return sock


class _Counted(HTTPConnection):
    """Knows whether it has carried an answer before: a server may close such a connection at any moment, rightly."""

    num_requests = 0

    def _new_conn(self) -> socket.socket:
        return _connect(self)

    def connect(self) -> None:
        self.num_requests = 0
        super().connect()

    def request(self, *args: Any, **kwargs: Any) -> None:
        _this_thread.reused = self.sock is not None and self.num_requests > 0
        super().request(*args, **kwargs)
        self.num_requests += 1


class PlainConnection(_Counted):
    """For http."""


class TlsConnection(_Counted, HTTPSConnection):
    """For https."""


def was_reused() -> bool:
    """Whether the last request of this thread went over a connection that had carried another one."""
    return getattr(_this_thread, "reused", False)


def tls_context() -> ssl.SSLContext:
    """Certificates are checked against the system's authorities; certifi's where the system has none."""
    context = ssl.create_default_context()
    paths = ssl.get_default_verify_paths()
    if paths.cafile is None and paths.capath is None and not context.cert_store_stats()["x509_ca"]:
        import certifi

        context.load_verify_locations(certifi.where())
    return context
