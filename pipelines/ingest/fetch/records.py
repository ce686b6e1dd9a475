"""What is asked of the network, what came of it, and what went wrong."""

from dataclasses import dataclass, fields, replace
from typing import Any

from pipelines.core.errors import ImageError
from pipelines.ingest.fetch.urls import as_given, clean_url
from pipelines.ingest.listing import UNKNOWN, Origin

OK = "ok"
_MOMENTARY = {
    "timeout", "connection-error", "tls-error", "bad-answer", "truncated", "unknown-host", "robots-unavailable",
    "retry-later", "http-408", "http-429",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """One URL that a source names.

    Args:
        url: as written there; checked and brought into its one form when it is fetched.
        label: clean (see `clean_label`).
        origin: what else is known; its `url` is filled in later.
        engine: which search engine named it.
        page: of that engine's results, from its own first page on.
        rank: position on that page, from 0.
        place: where in a list it is: "line 12".
    """

    url: str
    label: str
    origin: Origin = UNKNOWN
    engine: str = ""
    page: int = 0
    rank: int = 0
    place: str = ""


@dataclass(frozen=True, slots=True)
class FetchRecord:
    """One URL tried for one label, and what came; a row of sources.jsonl.

    Args:
        url: in its one form (`clean_url`); as it was given if it has none.
        label: of the picture.
        final_url: after redirects; where the attempts ended, if they failed. "" if nothing was asked.
        query, page_url, license, creator: see `Origin`.
        engine, page, rank: see `FetchRequest`.
        status: of HTTP; 0 without an answer.
        bytes: of the picture; 0 if none came.
        type: Content-Type; not believed.
        fetched_at: UTC, ISO 8601, seconds.
        seconds: of the last attempt, from connecting to the last byte.
        tries: requests made for it, redirects not counted; 0 if none was.
        outcome: "ok", or in kebab-case why nothing came.
        detail: what a person needs to know of this very URL.
        image_id: sha256 of what came, 64 hex digits; "" if nothing did.
        kept_from: the earlier snapshot that fetched it, if the source no longer names it; else "".
    """

    url: str
    label: str
    final_url: str = ""
    query: str = ""
    engine: str = ""
    page: int = 0
    rank: int = 0
    page_url: str = ""
    license: str = ""
    creator: str = ""
    status: int = 0
    bytes: int = 0
    type: str = ""
    fetched_at: str = ""
    seconds: float = 0.0
    tries: int = 0
    outcome: str = OK
    detail: str = ""
    image_id: str = ""
    kept_from: str = ""

    @property
    def ok(self) -> bool:
        return self.outcome == OK

    @property
    def momentary(self) -> bool:
        """Whether another run may succeed."""
        return self.outcome in _MOMENTARY or self.outcome.startswith("http-5")

    @property
    def origin(self) -> Origin:
        return Origin(self.url, self.page_url, self.query, self.license, self.creator)

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in RECORD_FIELDS}


RECORD_FIELDS = [field.name for field in fields(FetchRecord)]


class FetchError(Exception):
    """An attempt that gave nothing.

    Args:
        outcome, detail, status: of the record; free of times and counts, so that two runs say the same.
        again: whether a later attempt may succeed.
        wait_seconds: Retry-After, if the server sent it.
        body, type: of the answer.
    """

    def __init__(
        self,
        outcome: str,
        detail: str,
        *,
        status: int = 0,
        again: bool = False,
        wait_seconds: float | None = None,
        body: bytes = b"",
        type: str = "",
    ) -> None:
        super().__init__(f"{outcome}: {detail}")
        self.outcome = outcome
        self.detail = printable(detail)
        self.status = status
        self.again = again
        self.wait_seconds = wait_seconds
        self.body = body
        self.type = type


def printable(text: str) -> str:
    """What a server says, fit for a terminal and for UTF-8."""
    return text if text.isprintable() else "".join(one if one.isprintable() else "?" for one in text)


def one_form(url: str) -> str:
    """A URL in its one form; as it was given if it has none."""
    try:
        return clean_url(url)
    except ImageError:
        return as_given(url)


def blank_record(request: FetchRequest) -> FetchRecord:
    """A record of `request` before anything is known of it."""
    return labelled(FetchRecord(one_form(request.url), request.label), request)


def labelled(record: FetchRecord, request: FetchRequest) -> FetchRecord:
    """The record of a URL under the label of `request`, with what that request knows beside it."""
    origin = request.origin
    return replace(
        record, label=request.label, query=origin.query, engine=request.engine, page=request.page, rank=request.rank,
        page_url=origin.page_url, license=origin.license, creator=origin.creator, kept_from="",
    )  # fmt: skip
