"""One exchange with one server, on urllib3: at a given address, within a given time, and it can be stopped."""

import http.client
import logging
import os
import socket
import ssl
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection
from urllib3.exceptions import (
    ClosedPoolError,
    ConnectTimeoutError,
    HTTPError,
    IncompleteRead,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
    SSLError,
)

from pipelines.ingest.download.addresses import Target
from pipelines.ingest.download.sockets import Budget, PlainConnection, TlsConnection, TlsSocket, tls_context, was_reused
from pipelines.ingest.download.trouble import StoppedError, TroubleError

# idle connections are kept to so many sites; every one of them is an open file
_MAX_POOLS = 64


class Transport:
    """Connections, kept open between requests to one site. Thread-safe.

    Args:
        headers: of every request.
        connections_per_host: kept open to one site.
        tls: how certificates are checked.
    """

    def __init__(self, headers: Mapping[str, str], connections_per_host: int, tls: ssl.SSLContext | None) -> None:
        self._headers = dict(headers)
        self._share = connections_per_host
        self._tls = tls
        self._pools: OrderedDict[tuple[str, str], urllib3.HTTPConnectionPool] = OrderedDict()
        self._live: weakref.WeakSet[HTTPConnection] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._stopped = False
        # what it warns of (odd headers, one connection too many) is in the records, or nobody's concern
        logging.getLogger("urllib3").setLevel(logging.ERROR)

    @contextmanager
    def get(self, target: Target, addresses: Sequence[str], budget: Budget) -> Iterator[urllib3.BaseHTTPResponse]:
        """GET `target` at the first of `addresses` that takes a connection; the headers of the answer have come.

        Raises:
            TroubleError: of the network, here or while the body is read.
            StoppedError: `stop` was called.
        """
        try:
            with budget.running():
                response = self._first_answer(target, addresses, budget)
                try:
                    yield response
                finally:
                    response.close()  # of a body that was read whole, the connection is kept
                    response.release_conn()
        except (HTTPError, OSError) as error:
            if self._stopped:
                raise StoppedError from error
            raise _translate(error, budget) from error

    def stop(self) -> None:
        """End every exchange under way, and let none begin."""
        self._stopped = True
        with self._lock:
            live = list(self._live)
        for connection in live:
            sock = connection.sock
            if sock is not None:
                with suppress(OSError):
                    # of the plain class: TLS would take leave of the other side first, below a reader's hands
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close idle connections."""
        with self._lock:
            while self._pools:
                self._pools.popitem()[1].close()

    def _first_answer(self, target: Target, addresses: Sequence[str], budget: Budget) -> urllib3.BaseHTTPResponse:
        for number, address in enumerate(addresses, 1):
            left = budget.seconds_left()
            if left <= 0:
                break
            try:
                return self._ask(target, address, left / (len(addresses) - number + 1))
            except (NewConnectionError, ConnectTimeoutError):
                if number == len(addresses):
                    raise
        raise budget.trouble()

    def _ask(self, target: Target, address: str, connect_seconds: float) -> urllib3.BaseHTTPResponse:
        while True:
            if self._stopped:
                raise StoppedError
            try:
                return self._pool(target, address).urlopen(
                    "GET",
                    target.path,
                    headers={"Host": target.authority, **self._headers},
                    retries=False,
                    redirect=False,
                    preload_content=False,
                    decode_content=False,
                    timeout=urllib3.Timeout(connect=connect_seconds, read=connect_seconds),
                )
            except ClosedPoolError:  # others pushed it out since it was taken
                continue
            except ProtocolError as error:
                # the server had closed the idle connection: that is no try. It is gone from the pool, a new one is not
                if not was_reused() or not any(isinstance(cause, ConnectionError) for cause in error.args):
                    raise

    def _pool(self, target: Target, address: str) -> urllib3.HTTPConnectionPool:
        key = (target.site, address)
        with self._lock:
            pool = self._pools.pop(key, None)
            if pool is None:
                pool = self._new_pool(target, address)
            self._pools[key] = pool
            if len(self._pools) > _MAX_POOLS:
                self._pools.popitem(last=False)[1].close()
        return pool

    def _new_pool(self, target: Target, address: str) -> urllib3.HTTPConnectionPool:
        if target.scheme == "http":
            plain = urllib3.HTTPConnectionPool(address, target.port, maxsize=self._share, block=False)
            plain.ConnectionCls = self._tracked(PlainConnection)  # type: ignore[assignment]
            return plain
        if self._tls is None:
            self._tls = tls_context()
        self._tls.sslsocket_class = TlsSocket
        secure = urllib3.HTTPSConnectionPool(
            address,
            target.port,
            maxsize=self._share,
            block=False,
            cert_reqs="CERT_REQUIRED",
            ssl_context=self._tls,
            server_hostname=target.host,
        )
        secure.ConnectionCls = self._tracked(TlsConnection)  # type: ignore[assignment]
        return secure

    def _tracked(self, kind: type[HTTPConnection]) -> Callable[..., HTTPConnection]:
        """Makes connections that `stop` knows of."""

        def make(*args: Any, **kwargs: Any) -> HTTPConnection:
            connection = kind(*args, **kwargs)
            with self._lock:
                self._live.add(connection)
            return connection

        return make


def _translate(error: Exception, budget: Budget) -> TroubleError:
    """What a person needs to know, without what differs from run to run (addresses of objects, byte counts)."""
    if isinstance(error, NewConnectionError):  # before timeouts: in urllib3 2 it is one of them
        return TroubleError("connection-error", _reason(error.__cause__), again=True)
    if isinstance(error, ReadTimeoutError | ConnectTimeoutError | TimeoutError):
        return budget.trouble()
    if isinstance(error, SSLError):
        cause = error.args[0] if error.args else error
        if isinstance(cause, ssl.SSLCertVerificationError):
            return TroubleError("tls-error", f"its certificate: {cause.verify_message}")
        return TroubleError("tls-error", _reason(cause), again=True)
    causes = [error, *(arg for arg in error.args if isinstance(arg, Exception))]
    if any(isinstance(cause, IncompleteRead | http.client.IncompleteRead) for cause in causes):
        return TroubleError("truncated", "it ended before its announced length", again=True)
    for cause in causes:
        if isinstance(cause, OSError):  # among them RemoteDisconnected
            return TroubleError("connection-error", _reason(cause), again=True)
    return TroubleError("bad-answer", f"this is not HTTP as it should be ({type(causes[-1]).__name__})", again=True)


def _reason(error: BaseException | object) -> str:
    if isinstance(error, ssl.SSLError):
        return f"TLS: {(error.reason or type(error).__name__).lower().replace('_', ' ')}"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    return "closed before an answer"
