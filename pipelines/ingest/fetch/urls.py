"""URLs in their one form, and the addresses that a host name may lead to.

A URL is taken apart once, strictly: what can be read in two ways is refused. A host is connected to only at addresses
that `PublicResolver` has checked, so a name server that changes its answer reaches nothing.
"""

import asyncio
import hashlib
import ipaddress
import re
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from urllib.parse import quote

from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from pipelines.core.errors import ImageError

MAX_URL = 8000  # characters; servers rarely take more
LOOKUP_SECONDS = 60.0  # a looked-up name is known for so long
DEFAULT_PORTS = {"http": 80, "https": 443}
Resolve = Callable[[str, int], Sequence[str]]
"""Gives the addresses of a host name and port; may raise OSError."""

_UNRESERVED = "!$&'()*+,;=:@/%-._~"
_MAX_ADDRESSES = 8
_LABEL = re.compile(r"[a-z0-9_-]{1,63}")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# 6to4, Teredo, local NAT64 (each carries an IPv4 address of anybody's choice) and the former site-local addresses
_NEVER_V6 = [ipaddress.IPv6Network(network) for network in ("2002::/16", "2001::/32", "64:ff9b:1::/48", "fec0::/10")]


def clean_url(url: str) -> str:
    """The one form of a URL, by which equal URLs are recognised.

    Raises:
        ImageError: `bad-url`, or `unsupported-scheme` for anything but http and https.
    """
    return str(parse_url(url))


@lru_cache(maxsize=1 << 14)  # each URL is looked at three times on its way
def parse_url(url: str) -> URL:
    """Take `url` apart; fragment and default port are dropped, Unicode is encoded, `.` and `..` are resolved.

    Raises:
        ImageError: `bad-url`, or `unsupported-scheme` for anything but http and https.
    """
    url = url.strip(" \t\r\n")
    if len(url) > MAX_URL:
        raise ImageError("bad-url", f"{len(url)} characters are more than {MAX_URL}: {shorten(url)}")
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", url)
    if match is None:
        raise ImageError("bad-url", f"{shorten(url)} does not start with http:// or https://")
    scheme = match[1].lower()
    if scheme not in DEFAULT_PORTS:
        raise ImageError("unsupported-scheme", f"{shorten(url)} is {scheme}:, only http: and https: are fetched")
    if re.search(r"[\x00-\x1f\x7f\\]", url) or any(0xD800 <= ord(character) <= 0xDFFF for character in url):
        raise ImageError("bad-url", f"{shorten(url)} holds a control character, a backslash or bytes that are no UTF-8")
    parts = re.fullmatch(r"//([^/?]*)([^?]*)(\?.*)?", url[match.end() :].partition("#")[0])
    if parts is None or not parts[1]:
        raise ImageError("bad-url", f"{shorten(url)} names no host")
    authority = _clean_authority(parts[1], DEFAULT_PORTS[scheme], url)
    path = _without_dots(_encode(parts[2] or "/", _UNRESERVED))
    return URL(f"{scheme}://{authority}{path}{_encode(parts[3] or '', _UNRESERVED + '?')}", encoded=True)


def as_given(url: str) -> str:
    """A URL that has no one form, for a record: valid Unicode, without its password, and not megabytes of data:."""
    text = _without_password(url.encode("utf-8", "backslashreplace").decode())
    if len(text) <= MAX_URL:
        return text
    return f"{text[:200]}… ({len(text)} characters, sha256 {hashlib.sha256(text.encode()).hexdigest()})"


def shorten(url: str) -> str:
    """A URL for a message: printable, at most 200 characters."""
    text = _without_password(url if url.isprintable() else ascii(url)[1:-1])
    return text if len(text) <= 200 else text[:199] + "…"


def is_public(address: str) -> bool:
    """Whether `address` (IPv4 or IPv6) is the same machine for everybody on the internet."""
    try:
        found = _address(address)
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        if found in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)))
        if found.ipv4_mapped is not None or any(found in network for network in _NEVER_V6):
            return False
    return found.is_global and not (found.is_multicast or found.is_reserved or found.is_unspecified)


def private_host(entry: str) -> str:
    """An entry of ingest.download.private_hosts in the form in which hosts are compared: `host` or `host:port`."""
    entry = entry.strip().lower()
    found = re.fullmatch(r"\[(.+)\](:[0-9]+)?|([^:]+)(:[0-9]+)?", entry)
    if found is None:  # an IPv6 address without brackets
        return str(_address(entry)) if _is_address(entry) else entry
    host, port = found[1] or found[3], found[2] or found[4] or ""
    return (str(_address(host)) if _is_address(host) else _ascii_host(host, entry)) + port


class PublicResolver(AbstractResolver):
    """Resolves host names for aiohttp; every address that it gives is public, or of a host that params open.

    Args:
        resolve: asked for names; the system's resolver when None.
        private_hosts: `host` or `host:port`, in the form of `private_host`, that may have any address.
    """

    def __init__(self, resolve: Resolve | None, private_hosts: Collection[str]) -> None:
        self._resolve = resolve or _system_resolve
        self._private_hosts = private_hosts
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._known: dict[str, tuple[float, list[str] | OSError | UnicodeError]] = {}

    async def check(self, host: str, port: int) -> list[str]:
        """The addresses of `host` (a name or an address without brackets), each once, in the resolver's order.

        Raises:
            ImageError: `unknown-host`, or `private-address` if one of the addresses is not public.
        """
        is_open = host in self._private_hosts or f"{host}:{port}" in self._private_hosts
        if not is_open and (host == "localhost" or host.endswith(".localhost")):
            raise ImageError("private-address", _refusal(host, host))
        found = [str(_address(host))] if _is_address(host) else await self._look_up(host, port)
        for address in found:
            if not is_open and not is_public(address):
                raise ImageError("private-address", _refusal(host, address))
        return found

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """What aiohttp connects to; see `check`."""
        return [
            ResolveResult(
                hostname=host, host=address, port=port, proto=0, flags=socket.AI_NUMERICHOST,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
            )
            for address in await self.check(host, port)
            if family in (socket.AF_UNSPEC, socket.AF_INET6 if ":" in address else socket.AF_INET)
        ]  # fmt: skip

    async def close(self) -> None:
        """Nothing to close."""

    async def _look_up(self, host: str, port: int) -> list[str]:
        async with self._locks[host]:
            looked_up_at, found = self._known.get(host, (0.0, []))
            if not found or time.monotonic() - looked_up_at > LOOKUP_SECONDS:
                try:
                    given = await asyncio.get_running_loop().run_in_executor(None, self._resolve, host, port)
                    found = list(dict.fromkeys(given))[:_MAX_ADDRESSES]
                except (OSError, UnicodeError) as error:
                    found = error
                self._known[host] = (time.monotonic(), found)
        if isinstance(found, Exception):
            raise ImageError("unknown-host", f"{host}: {getattr(found, 'strerror', None) or found}") from found
        if not found:
            raise ImageError("unknown-host", f"{host}: no address")
        return found


def _system_resolve(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=getattr(socket, "AI_ADDRCONFIG", 0))
    return [str(address[0]) for *_, address in found]


def _refusal(host: str, address: str) -> str:
    where = host if host == address else f"{host} is {address}:"
    return f"{where} is not a public address; ingest.download.private_hosts may name hosts that are"[:400]


def _without_password(url: str) -> str:
    return re.sub(r"(?<=//)[^/?#]*@", "…@", url)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    if "%" in host:
        raise ValueError("an address with a scope (fe80::1%eth0) is of one machine's network only")
    return ipaddress.ip_address(host)


def _is_address(host: str) -> bool:
    try:
        _address(host)
    except ValueError:
        return False
    return True


def _clean_authority(authority: str, default_port: int, url: str) -> str:
    """Host and port in their one form.

    Raises:
        ImageError: `bad-url`.
    """
    if "@" in authority:
        raise ImageError("bad-url", f"{shorten(url)} holds a user name or password; such hosts are not asked")
    found = re.fullmatch(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::([0-9]*))?", authority)
    if found is None:
        raise ImageError("bad-url", f"{shorten(url)}: {shorten(authority)} is no host and port")
    port = int(found[2][:6]) if found[2] else default_port
    if not 1 <= port <= 65535:
        raise ImageError("bad-url", f"{shorten(url)}: there is no port {found[2][:20]}")
    host = found[1]
    if host.startswith("["):
        if not _is_address(host[1:-1]) or ":" not in host:
            raise ImageError("bad-url", f"{shorten(url)}: {shorten(host)} is no IPv6 address")
        host = f"[{_address(host[1:-1])}]"
    else:
        host = _ascii_host(host, url)
    return host if port == default_port else f"{host}:{port}"


def _ascii_host(host: str, url: str) -> str:
    if not host.isascii():
        try:
            host = URL.build(scheme="http", host=host).raw_host or ""
        except ValueError as error:
            raise ImageError("bad-url", f"{shorten(url)}: {shorten(host)} is no host name ({error})") from error
    host = host.lower().removesuffix(".")
    labels = host.split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ImageError("bad-url", f"{shorten(url)}: {shorten(host)!r} is no host name")
    if _NUMBER.fullmatch(labels[-1]) and not _is_address(host):
        # resolvers read 2130706433, 0x7f.1 and 0177.0.0.1 as addresses, each in its own way
        raise ImageError("bad-url", f"{shorten(url)}: {shorten(host)} is neither a host name nor a.b.c.d")
    return host


def _encode(text: str, safe: str) -> str:
    text = re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", text)
    return re.sub(r"%[0-9a-f]{2}", lambda found: found[0].upper(), quote(text, safe=safe), flags=re.IGNORECASE)


def _without_dots(path: str) -> str:
    """Resolve `.` and `..` as browsers do, so that robots.txt is asked about the path that the server sees."""
    parts = [
        part if part.replace("%2E", ".") not in (".", "..") else part.replace("%2E", ".") for part in path.split("/")
    ]
    kept: list[str] = []
    for part in parts:
        if part == "..":
            kept = kept[: max(1, len(kept) - 1)]
        elif part != ".":
            kept.append(part)
    return "/".join([*kept, ""] if parts[-1] in (".", "..") else kept)
