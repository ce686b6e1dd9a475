"""What a page of results says: the pictures it names, or why it names none."""

import html
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import quote, quote_plus

from pipelines.ingest.fetch.fetcher import FetchedPage

SEEN_CHARACTERS = 200
REMEDIES = {
    "captcha": "it takes us for a robot: wait some hours, raise ingest.download.delay_seconds, or use another engine",
    "consent-page": "it asks a person for consent first; use another engine (flickr or json need none)",
    "no-results": "change the search words or loosen the engine's filters",
    "unknown-answer": "its pages have changed or are not what was expected; use another engine (flickr or json)",
}
_TITLE = re.compile(r"<title[^<>]*>([^<]*)", re.IGNORECASE)
_TAGS = re.compile(r"<[^<>]*>")
# words of pages that are shown in place of results, in lower case; looked for only if there are no results
_CAPTCHAS = (
    "captcha", "unusual traffic", "one last step", "are you a robot", "not a robot", "verify you are human",
    "百度安全验证", "forbid spider", '"antiflag":1', '"antiflag": 1', "/sorry/",
)  # fmt: skip
_CONSENTS = ("before you continue", "consent.google", "consent.youtube", "bevor sie zu google", "avant d'accéder")


@dataclass(frozen=True)
class SearchHit:
    """A picture that a page of results names; "" and 0 if the page does not say.

    Args:
        url: of the picture; "" if the result names none.
        page_url: of the page that shows it.
        title: as the engine gives it.
        width, height: as the engine gives them, pixels; not believed.
        license: a name like those of SPDX (CC-BY-2.0), or what the engine says.
        creator: whom to credit.
    """

    url: str
    page_url: str = ""
    title: str = ""
    width: int = 0
    height: int = 0
    license: str = ""
    creator: str = ""


class PageTurn(NamedTuple):
    """Which page of results an engine is asked for."""

    words: str
    page: int
    """from 0"""
    start: int
    """results on the pages before"""


@dataclass(frozen=True)
class ResultPage:
    """One page of results.

    Args:
        hits: in the order of the page, each URL once.
        more: whether the engine may have a further page.
    """

    hits: tuple[SearchHit, ...]
    more: bool


class NoResultsError(Exception):
    """A page that holds no results.

    Args:
        reason: short, stable, in kebab-case.
        remedy: what to do about it.
    """

    def __init__(self, reason: str, remedy: str = "") -> None:
        self.reason = reason
        self.remedy = remedy or REMEDIES[reason]
        super().__init__(f"{reason}: {self.remedy}")


class SearchEngine(ABC):
    """A search engine, set up.

    Args:
        name: in sources.jsonl and messages.
        is_api: made for programs; robots.txt speaks of pages for people.
        secret: the key, which is in no record and no message; "" if there is none.
    """

    def __init__(self, name: str, *, is_api: bool = False, secret: str = "") -> None:
        self.name = name
        self.is_api = is_api
        self.secret = secret

    @abstractmethod
    def address(self, turn: PageTurn) -> str:
        """The URL of a page of results."""

    @abstractmethod
    def parse(self, page: FetchedPage, turn: PageTurn) -> ResultPage:
        """The results of a page.

        Raises:
            NoResultsError: there are none.
        """

    def hide(self, text: str) -> str:
        """`text` without the key."""
        for form in {self.secret, quote(self.secret, safe=""), quote_plus(self.secret)} if self.secret else ():
            text = text.replace(form, "***")
        return text


def find_reason(text: str, final_url: str, *, usual: str) -> NoResultsError:
    """Why a page without results has none: a captcha, a consent page, or the `usual` reason.

    Args:
        text: the page.
        final_url: after redirects.
        usual: a key of REMEDIES.
    """
    lower = (final_url + "\n" + _without_scripts(text)).lower()
    if any(word in lower for word in _CAPTCHAS):
        return NoResultsError("captcha")
    return NoResultsError("consent-page" if any(word in lower for word in _CONSENTS) else usual)


def seen(body: bytes) -> str:
    """What a person would see of a page, at most 200 printable characters: its title, then its text."""
    text = body[: 1 << 20].decode("utf-8", "replace")
    title = _TITLE.search(text)
    plain = html.unescape(_TAGS.sub(" ", _without_scripts(text)))
    parts = [title[1]] if title and title[1].strip() not in plain[:SEEN_CHARACTERS] else []
    words = " ".join(" ".join([*parts, plain]).split())
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in words)[:SEEN_CHARACTERS]


def _without_scripts(text: str) -> str:
    for name in ("script", "style"):
        text = " ".join(part for inside, part in elements(text, name) if not inside)
    return text


def elements(text: str, name: str) -> Iterator[tuple[bool, str]]:
    """Cut a page at its elements `name`: each part, and whether it is the inside of one.

    One pass over the tags: a single expression would look from each open tag to the end of a page that closes none.
    """
    position, inside = 0, False
    for tag in re.finditer(rf"<(/?){name}\b", text, re.IGNORECASE):
        if bool(tag[1]) == inside:
            yield inside, text[position : tag.start()]
            position, inside = tag.start(), not inside
    yield inside, text[position:]


def each_once(hits: Iterator[SearchHit]) -> tuple[SearchHit, ...]:
    """Without those of a URL that came before on the page: engines name a picture in several places of it."""
    known: set[str] = set()
    kept = []
    for hit in hits:
        if not hit.url or hit.url not in known:
            kept.append(hit)
            known.add(hit.url)
    return tuple(kept)


def page_text(page: FetchedPage) -> str:
    """The text of a page; what is not UTF-8 is replaced."""
    return page.body.decode("utf-8-sig", "replace")


def read_json(text: str, final_url: str) -> Any:
    """The value that `text` holds; control characters in strings are let pass, as search services send them.

    Raises:
        NoResultsError: it is no JSON.
    """
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError) as error:
        raise find_reason(text, final_url, usual="unknown-answer") from error


def as_text(value: object) -> str:
    """A value of an answer as one line of printable text; "" for anything that is no text and no number."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return ""
    line = " ".join(str(value).encode("utf-8", "replace").decode().split())
    return line if line.isprintable() else "".join(sign for sign in line if sign.isprintable())


def as_words(value: object) -> str:
    """Likewise a title, a name or a licence: at most 300 characters."""
    return as_text(value)[:300]


def as_pixels(value: object) -> int:
    """A width or height of an answer; 0 for what cannot be one."""
    try:
        number = int(value) if isinstance(value, (str, int, float)) else 0
    except (ValueError, OverflowError):
        return 0
    return number if 0 < number < 1_000_000 else 0
