"""One URL after the other, each with everything that a stranger's server is owed and may try."""

import datetime
import ssl
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from pipelines.core.errors import ImageError
from pipelines.ingest.download.addresses import Resolve, as_given, parse_url
from pipelines.ingest.download.follow import Follower, next_try
from pipelines.ingest.download.reading import Memory
from pipelines.ingest.download.records import OK, Record, Request
from pipelines.ingest.download.sockets import Budget
from pipelines.ingest.download.store import Body, open_store
from pipelines.ingest.download.trouble import TroubleError
from pipelines.params.ingest import DownloadParams

PAGE_BYTES = 4 << 20


@dataclass(frozen=True)
class Page:
    """An answer that is read at once: a page of search results.

    Args:
        status: of HTTP; 0 where there was no answer.
        final_url: after redirects.
        type: what the server calls it.
        body: as sent; of an error too, since engines explain themselves there.
        outcome: "ok", or in kebab-case why it cannot be used.
        detail: what a person needs to know.
    """

    status: int
    final_url: str
    type: str
    body: bytes
    outcome: str
    detail: str


@dataclass(frozen=True)
class Attempt:
    """One try of one request.

    Args:
        record: of it.
        wait_seconds: after which another try may succeed; None where that is of no use.
    """

    record: Record
    wait_seconds: float | None


class Downloader:
    """Fetches URLs by the rules of ingest.download. Thread-safe; its `with` block closes what is open.

    Args:
        params: the rules.
        max_file_bytes: of ingest; larger pictures are refused, mostly unread.
        objects: the folder that keeps what came, by its sha256.
        resolve: gives the addresses of a host; the system's resolver when None.
        tls: how certificates are checked; by the system's authorities when None.

    Raises:
        InputError: `objects` cannot be written.
    """

    def __init__(
        self,
        params: DownloadParams,
        *,
        max_file_bytes: int,
        objects: Path,
        resolve: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.params = params
        self._max_file_bytes = max_file_bytes
        self._objects = objects
        self._follower = Follower(params, resolve=resolve, tls=tls)
        self.gate = self._follower.gate
        open_store(objects)

    def fetch(self, request: Request) -> Record:
        """Fetch one picture, with as many tries as it may take; its content goes into the store.

        Raises:
            InputError: the store cannot be written.
            StoppedError: `stop` was called.
        """
        tries = 0
        while True:
            attempt = self.attempt(request, tries)
            if attempt.wait_seconds is None:
                return attempt.record
            self.gate.sleep(attempt.wait_seconds)
            tries += 1

    def attempt(self, request: Request, tries: int) -> Attempt:
        """Try `request` once.

        Args:
            request: what is wanted.
            tries: how often it was tried before.

        Raises:
            InputError: the store cannot be written.
            StoppedError: `stop` was called.
        """
        budget = Budget(self.params.timeout_seconds)
        body = Body(self._objects)
        blank = blank_record(request)
        try:
            answer = self._follower.get(request.url, body, budget, max_bytes=self._max_file_bytes, robots=True)
            if not body.size:
                empty = TroubleError("empty-file", "an answer without a body", status=answer.status)
                empty.final_url = answer.final_url
                raise empty
            record = replace(
                blank,
                final_url=answer.final_url,
                status=answer.status,
                type=answer.type,
                bytes=body.size,
                image_id=body.finish(),
            )
            wait = None
        except TroubleError as trouble:
            body.drop()
            wait, detail = next_try(trouble, tries, self.params)
            record = replace(
                blank, final_url=trouble.final_url, status=trouble.status, outcome=trouble.outcome, detail=detail
            )
        except BaseException:
            body.drop()
            raise
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        asked = budget.left < budget.seconds
        record = replace(
            record,
            fetched_at=now,
            seconds=round(budget.seconds - budget.left, 3),
            tries=tries + 1 if asked else tries,
        )
        return Attempt(record, wait)

    def get_page(self, url: str, *, api: bool, max_bytes: int = PAGE_BYTES) -> Page:
        """Read a page of search results by the same rules.

        Args:
            url: of the page.
            api: a documented interface, used by its own terms: robots.txt, which speaks to crawlers, is not asked.
            max_bytes: a larger one is refused.

        Raises:
            StoppedError: `stop` was called.
        """
        tries = 0
        while True:
            memory = Memory(max_bytes)
            budget = Budget(self.params.timeout_seconds)
            try:
                answer = self._follower.get(url, memory, budget, max_bytes=max_bytes, robots=not api)
                return Page(answer.status, answer.final_url, answer.type, bytes(memory.data), OK, "")
            except TroubleError as trouble:
                wait, detail = next_try(trouble, tries, self.params)
                if wait is None:
                    return Page(trouble.status, trouble.final_url, trouble.type, trouble.body, trouble.outcome, detail)
            self.gate.sleep(wait)
            tries += 1

    def stop(self) -> None:
        """End everything under way: whoever waits or reads gets a StoppedError. For another thread to call."""
        self._follower.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._follower.close()


def blank_record(request: Request) -> Record:
    """A record of `request` of which nothing is known yet."""
    try:
        url = parse_url(request.url).url
    except ImageError:
        url = as_given(request.url)
    origin = request.origin
    return Record(
        url,
        request.label,
        query=origin.query,
        engine=request.engine,
        page=request.page,
        rank=request.rank,
        page_url=origin.page_url,
        license=origin.license,
        creator=origin.creator,
    )
