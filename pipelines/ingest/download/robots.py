"""robots.txt, by RFC 9309: asked once a site, obeyed, and where it cannot be had, the site is left alone."""

import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from pipelines.ingest.download.addresses import Target
from pipelines.ingest.download.trouble import TroubleError

AGENT = "miwake"
MAX_BYTES = 500 << 10  # what RFC 9309 asks crawlers to read at least; the rest is not looked at
_MAX_PARSED = 64


@dataclass
class _Site:
    """What one site says; asked for by one thread while the others of this site wait."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    asked: bool = False
    text: bytes | None = None
    """robots.txt, compressed: parsed rules take up to a hundred times as much, and there may be many sites"""
    unavailable: str = ""
    """why it could not be had; then nothing is allowed for now"""


class Robots:
    """The rules of every site met so far. Thread-safe.

    Args:
        read: gives status and first bytes of a URL; raises TroubleError where there is no answer below 500.
        slow_down: is told of a site's Crawl-delay: host and seconds.
        max_delay: a longer Crawl-delay counts as not allowed, seconds.
    """

    def __init__(
        self,
        read: Callable[[str], tuple[int, bytes]],
        slow_down: Callable[[str, float], None],
        max_delay: float,
    ) -> None:
        self._read = read
        self._slow_down = slow_down
        self._max_delay = max_delay
        self._sites: dict[str, _Site] = {}
        self._lock = threading.Lock()
        self._parse = lru_cache(maxsize=_MAX_PARSED)(_parse)

    def check(self, target: Target) -> None:
        """Let pass what the site allows.

        Raises:
            TroubleError: `robots-disallowed`, or `robots-unavailable`: the site could not say.
        """
        with self._lock:
            site = self._sites.setdefault(target.site, _Site())
        with site.lock:
            if not site.asked:
                self._ask(site, target)
                site.asked = True
        if site.unavailable:
            raise TroubleError(
                "robots-unavailable",
                f"{target.site}/robots.txt: {site.unavailable}; a site that cannot say what it allows is left alone",
            )
        if site.text is None:
            return
        rules = self._parse(site.text)
        if not rules.can_fetch(target.url, AGENT):
            raise TroubleError("robots-disallowed", f"{target.site}/robots.txt does not allow it")
        delay = rules.crawl_delay(AGENT) or 0.0
        if delay > self._max_delay:
            raise TroubleError(
                "robots-disallowed",
                f"{target.site}/robots.txt allows one request in {delay:g} s, more than {self._max_delay:g} s "
                "(ingest.download.max_wait_seconds)",
            )

    def _ask(self, site: _Site, target: Target) -> None:
        try:
            status, body = self._read(f"{target.site}/robots.txt")
        except TroubleError as trouble:
            site.unavailable = f"{trouble.outcome}, {trouble.detail}"
            return
        if status >= 400:  # there is none, or it is nobody's business: everything is allowed
            return
        site.text = zlib.compress(body, 1)
        delay = self._parse(site.text).crawl_delay(AGENT) or 0.0
        if 0 < delay <= self._max_delay:
            self._slow_down(target.host, delay)


def _parse(text: bytes) -> Any:
    from protego import Protego

    return Protego.parse(zlib.decompress(text).decode("utf-8-sig", "replace"))
