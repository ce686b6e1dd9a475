"""From records of the network to what ingest visits: the one way of every source that names URLs."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np

from pipelines.ingest.download.downloader import Downloader, blank_record
from pipelines.ingest.download.gone import keep_gone
from pipelines.ingest.download.journal import Journal, downloads_folder, objects_folder
from pipelines.ingest.download.pictures import ObjectReader
from pipelines.ingest.download.records import Record, Request
from pipelines.ingest.download.schedule import fetch_all
from pipelines.ingest.listing import Listing, Place, Reject

Key = tuple[str, str]
"""URL in its one form, and label."""


def download_listing(
    requests: Iterable[Request],
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
    wanted: dict[Key, Request] = {}
    refused = list(rejects)
    for request in requests:
        url = blank_record(request).url
        first = wanted.setdefault((url, request.label), request)
        if first is not request:
            detail = f"the same URL and label as {first.place or 'before'}"
            refused.append(Reject(source, url, request.label, "duplicate-url", _placed(request, detail)))
    with Journal.open(place, source=source, key=key) as journal:
        known = {(record.url, record.label) for record in journal.records}
        if not journal.finished or not known.issuperset(wanted):
            with Downloader(
                place.params.download, max_file_bytes=place.params.max_file_bytes, objects=objects_folder(place)
            ) as downloader:
                records = fetch_all(wanted.values(), downloader=downloader, journal=journal, title=title)
            if any(record.ok for record in records):  # a machine without a network must not be remembered as a result
                if gone == "keep":
                    keep_gone(journal, (url for url, _ in wanted))
                journal.finish()
        found = [record for record in journal.records if record.kept_from or (record.url, record.label) in wanted]
    return listing(found, source=source, place=place, rejects=refused, requests=wanted)


def listing(
    records: Iterable[Record],
    *,
    source: str,
    place: Place,
    rejects: Sequence[Reject] = (),
    requests: Mapping[Key, Request] | None = None,
) -> Listing:
    """What ingest visits of a source on the network; its order is that of its content, never that of arrival.

    Args:
        records: of every URL and label, each once; one that gave nothing becomes a reject.
        source: name of the entry: "0-urls".
        place: with the cache that holds what came.
        rejects: what was refused before anything was asked.
        requests: by URL in its one form and label, where they know more than records do: a table's columns, the line.

    Raises:
        InputError: the cache cannot be written.
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
    # the content itself is the stamp, behind its size
    digests = b"".join(record.bytes.to_bytes(8) + bytes.fromhex(record.image_id)[:16] for record in good)
    return Listing(
        source=source,
        paths=[record.url for record in good],
        labels=[record.label for record in good],
        read=ObjectReader.of(
            {record.url: record.image_id for record in good},
            objects=objects_folder(place),
            index=downloads_folder(place) / place.params.snapshot / f"{source}.index.npy",
            max_file_bytes=place.params.max_file_bytes,
        ),
        rejects=sorted(refused, key=lambda reject: (reject.source_path, reject.label, reject.detail)),
        origins=origins,
        stamps=np.frombuffer(digests, ">i8").reshape(-1, 3).astype(np.int64),
        records=[
            record.to_json()
            for record in sorted(ordered, key=lambda one: (one.label, one.url, one.engine, one.page, one.rank))
        ],
    )


def _placed(request: Request | None, detail: str) -> str:
    if request is None or not request.place:
        return detail
    return f"{request.place}: {detail}" if detail else request.place
