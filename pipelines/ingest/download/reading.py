"""The body of one answer: within the byte cap, whole, and not compressed behind our back."""

import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import urllib3
from urllib3.exceptions import HTTPError

from pipelines.ingest.download.trouble import TroubleError

_CHUNK = 1 << 16
_ENCODINGS = {"gzip": 31, "x-gzip": 31, "deflate": 15}


class Sink(Protocol):
    """Takes a body as it comes."""

    size: int

    def write(self, data: bytes) -> None: ...


class Memory:
    """A body in memory.

    Args:
        keep: bytes beyond this are not kept.
    """

    def __init__(self, keep: int) -> None:
        self.data = bytearray()
        self.size = 0
        self._keep = keep

    def write(self, data: bytes) -> None:
        self.size += len(data)
        self.data += data[: max(0, self._keep - len(self.data))]


def read_body(response: urllib3.BaseHTTPResponse, sink: Sink, *, max_bytes: int, cut: bool = False) -> None:
    """Read a body into `sink`.

    Args:
        response: whose headers have come.
        sink: takes the decoded bytes.
        max_bytes: of the body, both as sent and decoded.
        cut: end there in silence, in place of an error.

    Raises:
        TroubleError: `too-large`, `truncated` or `unsupported-encoding`.
    """
    announced = response.length_remaining
    if announced is not None and announced > max_bytes and not cut:
        raise _too_large(f"{announced} bytes announced", max_bytes, response.status)
    decode = _decoder(response.headers.get("Content-Encoding", ""), response.status)
    num_raw = 0
    while True:
        data = response.read1(_CHUNK, decode_content=False)
        if not data:
            break
        num_raw += len(data)
        decode(data, sink, max_bytes)
        if num_raw > max_bytes or sink.size > max_bytes:
            if cut:
                return
            raise _too_large("more bytes came", max_bytes, response.status)
    decode(b"", sink, max_bytes)


def drain(response: urllib3.BaseHTTPResponse) -> None:
    """Read what little is left, so that the connection can be used again."""
    if response.length_remaining is not None and response.length_remaining <= _CHUNK:
        with suppress(HTTPError, OSError):  # then it is closed
            while response.read1(_CHUNK, decode_content=False):
                pass


def _too_large(what: str, max_bytes: int, status: int) -> TroubleError:
    return TroubleError("too-large", f"{what}; the limit is {max_bytes} (ingest.max_file_bytes)", status=status)


def _decoder(encoding: str, status: int) -> Callable[[bytes, Sink, int], None]:
    """Undo a Content-Encoding, though none was asked for; b"" says that no more comes."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):

        def plain(data: bytes, sink: Sink, max_bytes: int) -> None:  # noqa: ARG001
            if data:
                sink.write(data)

        return plain
    if encoding not in _ENCODINGS:
        raise TroubleError(
            "unsupported-encoding", f"Content-Encoding: {encoding[:40]!r}, though none was asked for", status=status
        )
    return _Inflate(_ENCODINGS[encoding], status)


class _Inflate:
    """gzip (also several members one after the other) and deflate, with or without zlib's header; never past a cap."""

    def __init__(self, window: int, status: int) -> None:
        self._window = window
        self._status = status
        self._inflate = zlib.decompressobj(window)
        self._fresh = True

    def __call__(self, data: bytes, sink: Sink, max_bytes: int) -> None:
        if not data:
            if not (self._inflate.eof or self._fresh):
                raise TroubleError("truncated", "its compressed data end early", status=self._status, again=True)
            return
        while data and sink.size <= max_bytes:
            try:
                sink.write(self._step(data, max_bytes + 1 - sink.size))
            except zlib.error as error:
                raise TroubleError(
                    "unsupported-encoding", "its compressed data are broken", status=self._status
                ) from error
            data = self._inflate.unconsumed_tail
            if self._inflate.eof and self._inflate.unused_data:
                if self._window != _ENCODINGS["gzip"]:
                    return
                data, self._inflate = self._inflate.unused_data, zlib.decompressobj(self._window)

    def _step(self, data: bytes, limit: int) -> bytes:
        limit = min(limit, 1 << 20)
        try:
            found = self._inflate.decompress(data, limit)
        except zlib.error:
            if not self._fresh or self._window != _ENCODINGS["deflate"]:
                raise
            # many servers mean by deflate the bare stream, without zlib's header
            self._window = -15
            self._inflate = zlib.decompressobj(-15)
            found = self._inflate.decompress(data, limit)
        self._fresh = False
        return found
