"""What is asked of the network, and what came of it."""

import re
from dataclasses import dataclass, fields
from typing import Any, Self

from pipelines.ingest.listing import UNKNOWN, Origin

OK = "ok"
_MOMENTARY = {
    "timeout",
    "connection-error",
    "tls-error",
    "bad-answer",
    "truncated",
    "unknown-host",
    "robots-unavailable",
    "retry-later",
    "http-408",
    "http-429",
}


@dataclass(frozen=True, slots=True)
class Request:
    """One URL that a source names.

    Args:
        url: as it stands there; checked and brought into its one form when it is fetched.
        label: clean (see `clean_label`).
        origin: what else is known; its `url` is filled in later.
        engine: which search engine named it.
        page: of that engine's results, from its own first page on.
        rank: position on that page, from 0.
        place: where in a list it stands: "line 12".
    """

    url: str
    label: str
    origin: Origin = UNKNOWN
    engine: str = ""
    page: int = 0
    rank: int = 0
    place: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """One URL tried for one label, and what came; a row of sources.jsonl.

    Args:
        url: in its one form (`clean_url`); as it was given where it has none.
        label: of the picture.
        final_url: after redirects; where the tries ended, if they did not end well. "" if nothing was asked.
        query, page_url, license, creator: see `Origin`.
        engine, page, rank: see `Request`.
        status: of HTTP; 0 where there was no answer.
        bytes: of the picture; 0 where none came.
        type: what the server calls it; not believed.
        fetched_at: UTC, ISO 8601, seconds.
        seconds: of the last try, from connecting to the last byte.
        tries: requests made for it, redirects not counted; 0 if none was.
        outcome: "ok", or in kebab-case why nothing came.
        detail: what a person needs to know of this very URL.
        image_id: sha256 of what came, 64 hex digits; "" if nothing did.
        kept_from: the earlier snapshot that fetched it, for one that is gone from the list; else "".
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
        """Whether another run may succeed where this one did not."""
        return self.outcome in _MOMENTARY or self.outcome.startswith("http-5")

    @property
    def origin(self) -> Origin:
        return Origin(self.url, self.page_url, self.query, self.license, self.creator)

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _KINDS}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Read what `to_json` gave.

        Raises:
            ValueError: it has other keys or types.
        """
        if not isinstance(value, dict) or value.keys() != _KINDS.keys():
            raise ValueError("no record: other keys")
        for name, item in value.items():
            if type(item) is not _KINDS[name]:
                raise ValueError(f"no record: {name} is {item!r}")
        if not re.fullmatch(r"[0-9a-f]{64}|", value["image_id"]):  # it becomes a path
            raise ValueError(f"no record: image_id is {value['image_id']!r}")
        return cls(**value)


_KINDS: dict[str, Any] = {field.name: field.type for field in fields(Record)}
