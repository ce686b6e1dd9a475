"""From requests to what ingest visits: the one way of every source that names URLs."""

import asyncio
from collections import deque
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipelines.core.progress import Advance, progress
from pipelines.ingest.fetch.fetcher import Fetcher, run_async
from pipelines.ingest.fetch.journal import Journal, ObjectReader, objects_folder
from pipelines.ingest.fetch.records import FetchRecord, FetchRequest, labelled, one_form
from pipelines.ingest.listing import Listing, Place, Reject

Key = tuple[str, str]
"""URL in its one form, and label."""
WAITING_PER_CONNECTION = 4  # requests under way or waiting for each connection: second tries leave work for the others
_HOSTS_AT_ONCE = 1000


def download_listing(
    requests: Iterable[FetchRequest],
    rejects: Sequence[Reject],
    *,
    source: str,
    place: Place,
    key: str,
    title: str,
    gone: Literal["keep", "drop"] = "drop",
) -> Listing:
    """Fetch what a list or a table names, or read it from the cache if that was done before.

    Args:
        requests: one for each line or row. The second with the same URL and label is a reject `duplicate-url`; one
            URL under two labels is fetched once and becomes two files.
        rejects: what the list itself refused; they become part of the listing.
        source: name of the entry: "0-urls".
        place: with the rules and the cache.
        key: of `source_key`.
        title: of the progress bar.
        gone: whether pictures that an earlier snapshot fetched, and that are not named any more, stay.

    Raises:
        InputError: the cache cannot be written, or another run is fetching the same source.
    """
    wanted: dict[Key, FetchRequest] = {}
    refused = list(rejects)
    for request in requests:
        url = one_form(request.url)
        first = wanted.setdefault((url, request.label), request)
        if first is not request:
            detail = f"the same URL and label as {first.place or 'before'}"
            refused.append(Reject(source, url, request.label, "duplicate-url", _placed(request, detail)))
    with Journal.open(place, source=source, key=key) as journal:
        known = {(record.url, record.label) for record in journal.records}
        if not journal.finished or not known.issuperset(wanted):
            records = _download(wanted, place, journal, title)
            if any(record.ok for record in records):  # a machine without a network must not be remembered as a result
                if gone == "keep":
                    journal.keep_removed(url for url, _ in wanted)
                journal.finish()
        found = [record for record in journal.records if record.kept_from or (record.url, record.label) in wanted]
    return listing(found, source=source, place=place, journal=journal.path, rejects=refused, requests=wanted)


def _download(wanted: Mapping[Key, FetchRequest], place: Place, journal: Journal, title: str) -> list[FetchRecord]:
    async def download() -> list[FetchRecord]:
        params = place.params
        async with Fetcher(
            params.download, max_file_bytes=params.max_file_bytes, objects=objects_folder(place)
        ) as fetcher:
            return await fetch_all(wanted, fetcher=fetcher, journal=journal, title=title)

    return run_async(download)


async def fetch_all(
    wanted: Mapping[Key, FetchRequest], *, fetcher: Fetcher, journal: Journal, title: str
) -> list[FetchRecord]:
    """Fetch what the journal does not know yet; each URL once, whatever its labels.

    Args:
        wanted: requests by URL in its one form and label.
        fetcher: with the rules.
        journal: gets every record as it happens.
        title: of the progress bar.

    Returns:
        A record of each URL and label, in the order of `wanted`.

    Raises:
        InputError: the cache cannot be written. What was fetched is in the journal, as after Ctrl-C.
    """
    unknown: dict[str, list[FetchRequest]] = {}
    for (url, label), request in wanted.items():
        known = journal.get(url, label)
        if known is None:
            unknown.setdefault(url, []).append(request)
        elif (record := labelled(known, request)) != journal.last(url, label):
            journal.append(record)
    num_known = len(wanted) - sum(map(len, unknown.values()))
    if unknown:
        with progress(title, len(wanted), unit="URLs", done=num_known) as advance:
            await _fetch_by_host(unknown, fetcher, journal, advance)
    ended = (journal.last(url, label) for url, label in wanted)
    return [record for record in ended if record is not None]


async def _fetch_by_host(
    unknown: Mapping[str, list[FetchRequest]], fetcher: Fetcher, journal: Journal, advance: Advance
) -> None:
    """Fetch each URL for the requests that name it; the first error ends everything and is raised here."""
    queues: dict[str, deque[list[FetchRequest]]] = {}
    for url, requests in unknown.items():
        queues.setdefault(url.split("/")[2] if url.count("/") > 2 else "", deque()).append(requests)
    hosts = deque(queues.values())

    async def work(queue: deque[list[FetchRequest]]) -> None:
        while queue:
            requests = queue.popleft()
            record = await fetcher.fetch(requests[0])
            for request in requests:
                journal.append(labelled(record, request))
            advance(len(requests), record.bytes)

    async def serve_hosts() -> None:
        while hosts:
            queue = hosts.popleft()
            num_workers = min(len(queue), WAITING_PER_CONNECTION * fetcher.params.connections_per_host)
            await _together(work(queue) for _ in range(num_workers))

    await _together(serve_hosts() for _ in range(min(len(hosts), _HOSTS_AT_ONCE)))


async def _together(coroutines: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all; the first error ends the others and is raised, as it is and not in a group."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def listing(
    records: Iterable[FetchRecord],
    *,
    source: str,
    place: Place,
    journal: Path,
    rejects: Sequence[Reject] = (),
    requests: Mapping[Key, FetchRequest] | None = None,
) -> Listing:
    """What ingest visits of a source on the network; its order is that of its content, never that of arrival.

    Args:
        records: of every URL and label, each once; one that gave nothing becomes a reject.
        source: name of the entry: "0-urls".
        place: with the cache that holds what came.
        journal: its file, closed.
        rejects: what was refused before anything was asked.
        requests: by URL in its one form and label, where they know more than records do: a table's columns, the line.
    """
    ordered = sorted(records, key=lambda record: (record.url, record.label))
    good = [record for record in ordered if record.ok]
    asked = requests or {}
    refused = list(rejects)
    for record in ordered:
        if not record.ok:
            request = asked.get((record.url, record.label))
            refused.append(Reject(source, record.url, record.label, record.outcome, _placed(request, record.detail)))
    origins = []
    for record in good:
        request = None if record.kept_from else asked.get((record.url, record.label))
        origins.append(record.origin if request is None else request.origin._replace(url=record.url))
    # the stamp of a file: its size, and half of its sha256
    stamps = b"".join(record.bytes.to_bytes(8) + bytes.fromhex(record.image_id)[:16] for record in good)
    return Listing(
        source=source,
        paths=[record.url for record in good],
        labels=[record.label for record in good],
        read=ObjectReader(
            str(objects_folder(place)), str(journal), journal.stat().st_mtime_ns, place.params.max_file_bytes
        ),
        rejects=sorted(refused, key=lambda reject: (reject.source_path, reject.label, reject.detail)),
        origins=origins,
        stamps=np.frombuffer(stamps, ">i8").reshape(-1, 3).astype(np.int64),
        records=[
            record.to_json()
            for record in sorted(ordered, key=lambda one: (one.label, one.url, one.engine, one.page, one.rank))
        ],
    )


def _placed(request: FetchRequest | None, detail: str) -> str:
    if request is None or not request.place:
        return detail
    return f"{request.place}: {detail}" if detail else request.place
