"""Which URLs may be asked for, in which form, and at which addresses: nothing of this is left to a library's mercy.

A URL is taken apart once, strictly; what was checked is what is connected to. Names are resolved here, and every
address of the answer must be public: a connection goes to that very address, so a second answer of a hostile name
server is never asked for.
"""

import hashlib
import ipaddress
import re
import socket
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote, urljoin

from pipelines.core.errors import ImageError

MAX_URL = 8000  # characters; servers rarely take more
LOOKUP_SECONDS = 60.0  # as long as the shortest times to live that are in use; a connection stays pinned in any case
DEFAULT_PORTS = {"http": 80, "https": 443}
Resolve = Callable[[str, int], Sequence[str]]

_UNRESERVED = "!$&'()*+,;=:@/%-._~"
_MAX_ADDRESSES = 8
_LABEL = re.compile(r"[a-z0-9_-]{1,63}")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NEVER_V6 = [
    ipaddress.IPv6Network("2002::/16"),  # 6to4 and Teredo carry an IPv4 address of anybody's choice
    ipaddress.IPv6Network("2001::/32"),
    ipaddress.IPv6Network("64:ff9b:1::/48"),
    ipaddress.IPv6Network("fec0::/10"),
]


@dataclass(frozen=True)
class Target:
    """One URL, taken apart.

    Args:
        scheme: http or https.
        host: lower case, punycode, without a dot at its end; an IPv6 address without brackets.
        port: 1 to 65535.
        path: what is asked of the server: path and query, percent-encoded, from /.
    """

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def site(self) -> str:
        """Scheme, host and port: what one robots.txt speaks for."""
        return f"{self.scheme}://{self.authority}"

    @property
    def url(self) -> str:
        return self.site + self.path


def clean_url(url: str) -> str:
    """The one form of a URL: equal pictures of one list are told by it.

    Raises:
        ImageError: `bad-url`, or `unsupported-scheme` for anything but http and https.
    """
    return parse_url(url).url


@lru_cache(maxsize=1 << 14)  # each URL is looked at three times on its way
def parse_url(url: str) -> Target:
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
    rest = url[match.end() :].partition("#")[0]
    parts = re.fullmatch(r"//([^/?]*)([^?]*)(\?.*)?", rest)
    if parts is None or not parts[1]:
        raise ImageError("bad-url", f"{shorten(url)} names no host")
    host, port = _split_authority(parts[1], url)
    path = _without_dots(_encode(parts[2] or "/", _UNRESERVED))
    return Target(scheme, host, port or DEFAULT_PORTS[scheme], path + _encode(parts[3] or "", _UNRESERVED + "?"))


def join_url(base: str, location: str) -> str:
    """Where a redirect from `base` leads; not yet checked."""
    try:
        return urljoin(base, location.strip(" \t"))
    except ValueError:  # brackets that do not match
        return location


def as_given(url: str) -> str:
    """A URL that has no form of its own, for a record: valid Unicode, and not megabytes of data:."""
    text = _without_password(url.encode("utf-8", "backslashreplace").decode())
    if len(text) <= MAX_URL:
        return text
    return f"{text[:200]}… ({len(text)} characters, sha256 {hashlib.sha256(text.encode()).hexdigest()})"


def shorten(url: str) -> str:
    """A URL for a message: printable, at most 200 characters."""
    text = _without_password(url if url.isprintable() else ascii(url)[1:-1])
    return text if len(text) <= 200 else text[:199] + "…"


def _without_password(url: str) -> str:
    return re.sub(r"(?<=//)[^/?#]*@", "…@", url)


def check_addresses(target: Target, resolve: Resolve, private_hosts: Collection[str]) -> list[str]:
    """The addresses to connect to for `target`, in the resolver's order, each once.

    Args:
        target: whose host is asked for.
        resolve: gives the addresses of a host; may raise OSError.
        private_hosts: `host` or `host:port` that may lie anywhere.

    Raises:
        ImageError: `unknown-host`, or `private-address` if the host, or one of its addresses, is not public.
    """
    is_open = target.host in private_hosts or f"{target.host}:{target.port}" in private_hosts
    if not is_open and (target.host == "localhost" or target.host.endswith(".localhost")):
        raise ImageError("private-address", _closed(target.host, target.host))
    try:
        found = [str(_address(target.host))]
    except ValueError:
        try:
            found = list(dict.fromkeys(resolve(target.host, target.port)))
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ImageError("unknown-host", f"{target.host}: {reason}") from error
        if not found:
            raise ImageError("unknown-host", f"{target.host}: no address") from None
    for address in found:
        if not is_open and not is_public(address):
            raise ImageError("private-address", _closed(target.host, address))
    return found


def is_public(address: str) -> bool:
    """Whether anybody on the internet reaches the same machine at `address` (an IPv4 or IPv6 address)."""
    try:
        found = _address(address)
    except ValueError:
        return False  # among them fe80::1%eth0
    if isinstance(found, ipaddress.IPv6Address):
        if found in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)))
        if found.ipv4_mapped is not None or any(found in network for network in _NEVER_V6):
            return False
    return found.is_global and not (found.is_multicast or found.is_reserved or found.is_unspecified)


class Lookups:
    """A resolver that remembers; a name is not asked for again with each of its pictures. Thread-safe.

    Args:
        resolve: asked where nothing is known.
    """

    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve
        self._known: dict[str, tuple[float, Sequence[str] | OSError]] = {}

    def __call__(self, host: str, port: int) -> Sequence[str]:
        """The addresses of `host`.

        Raises:
            OSError: there are none.
        """
        at, found = self._known.get(host, (0.0, ()))
        if not found or time.monotonic() - at > LOOKUP_SECONDS:
            try:
                found = list(self._resolve(host, port))[:_MAX_ADDRESSES]
            except OSError as error:
                found = error
            self._known[host] = (time.monotonic(), found)
        if isinstance(found, OSError):
            raise found
        return found


def system_resolve(host: str, port: int) -> list[str]:
    """The addresses that the system's resolver gives."""
    flags = socket.AI_ADDRCONFIG if hasattr(socket, "AI_ADDRCONFIG") else 0
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    return [str(address[0]) for *_, address in found]


def open_host(entry: str) -> str:
    """An entry of ingest.download.private_hosts in the form in which hosts are compared."""
    entry = entry.strip().lower()
    found = re.fullmatch(r"\[(.+)\](:[0-9]+)?|([^:]+)(:[0-9]+)?", entry)
    if found is None:  # an IPv6 address without brackets
        return str(ipaddress.IPv6Address(entry)) if _is_address(entry) else entry
    host, port = found[1] or found[3], found[2] or found[4] or ""
    return (str(_address(host)) if _is_address(host) else _ascii_host(host.removesuffix("."), entry)) + port


def _closed(host: str, address: str) -> str:
    where = host if host == address else f"{host} is {address}:"
    return f"{where} is not a public address; ingest.download.private_hosts may name hosts that are"[:400]


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    if "%" in host:
        raise ValueError("a scope is no part of an address that others reach")
    return ipaddress.ip_address(host)


def _is_address(host: str) -> bool:
    try:
        _address(host)
    except ValueError:
        return False
    return True


def _split_authority(authority: str, url: str) -> tuple[str, int | None]:
    """Host in its one form, and port.

    Raises:
        ImageError: `bad-url`.
    """
    if "@" in authority:
        raise ImageError("bad-url", f"{shorten(url)} holds a user name or password; such hosts are not asked")
    found = re.fullmatch(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::([0-9]*))?", authority)
    if found is None:
        raise ImageError("bad-url", f"{shorten(url)}: {shorten(authority)} is no host and port")
    port = int(found[2][:6]) if found[2] else None
    if port is not None and not 1 <= port <= 65535:
        raise ImageError("bad-url", f"{shorten(url)}: there is no port {found[2][:20]}")
    host = found[1]
    if host.startswith("["):
        if not _is_address(host[1:-1]) or ":" not in host:
            raise ImageError("bad-url", f"{shorten(url)}: {shorten(host)} is no IPv6 address")
        return str(_address(host[1:-1])), port
    return _ascii_host(host, url), port


def _ascii_host(host: str, url: str) -> str:
    if not host.isascii():
        import idna

        try:
            host = idna.encode(host, uts46=True).decode("ascii")
        except (idna.IDNAError, UnicodeError) as error:
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
    parts = path.split("/")
    kept: list[str] = []
    for index, part in enumerate(parts):
        plain = part.replace("%2E", ".")
        if plain not in (".", ".."):
            kept.append(part)
            continue
        if plain == ".." and len(kept) > 1:
            kept.pop()
        if index == len(parts) - 1:
            kept.append("")
    return "/".join(kept)
