"""The crawl source: classes and search words in, pictures with their provenance out."""

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.core.errors import ImageError, InputError
from pipelines.ingest.crawl.answers import SearchEngine
from pipelines.ingest.crawl.engines import PageOutcome, make_engines
from pipelines.ingest.crawl.run import make_request, run_searches
from pipelines.ingest.crawl.search import ClassSearch, FetchStep, PageStep
from pipelines.ingest.fetch import FetchRecord, Journal, listing, source_key
from pipelines.ingest.fetch.records import blank_record
from pipelines.ingest.labels import clean_label
from pipelines.ingest.listing import Listing, Place, Reject
from pipelines.params.sources import CrawlSource

# outcomes of rows of sources.jsonl that are no picture's failure
OVER_LIMIT = "over-limit"
ENGINE_FAILED = "engine-failed"
DUPLICATE_URL = "duplicate-url"
DUPLICATE_CONTENT = "duplicate-content"
NO_URL = "no-image-url"
# more of them stand in sources.jsonl
MAX_WARNINGS = 20
_ROWS = "rows of sources.jsonl"


@dataclass(frozen=True)
class CrawlRow:
    """A row of sources.jsonl: what came of a picture, or of a page that failed.

    Args:
        record: of it.
        title, width, height: as the engine gives them.
    """

    record: FetchRecord
    title: str = ""
    width: int = 0
    height: int = 0

    def to_json(self) -> dict[str, Any]:
        return {**self.record.to_json(), "title": self.title, "width": self.width, "height": self.height}

    @classmethod
    def from_json(cls, value: Any) -> "CrawlRow":
        """Read what `to_json` gave.

        Raises:
            ValueError, TypeError: it is something else.
        """
        rest = dict(value)
        told = {name: rest.pop(name, None) for name in ("title", "width", "height")}
        return cls(FetchRecord(**rest), **told)


def list_crawl(params: CrawlSource, *, source: str, place: Place, homes: Mapping[str, str] | None = None) -> Listing:
    """ClassSearch for every class and fetch what is found; a finished crawl of this snapshot is read from the cache.

    Args:
        params: the entry of ingest.sources.
        source: its name in manifest and rejects: "0-crawl".
        place: with the cache, the limits and the snapshot.
        homes: see `make_engines`.

    Raises:
        InputError: a label or search is no good, a key is missing, the cache cannot be written, or classes end
            with too few pictures (see `fail_when`); what was fetched is kept, and the next run goes on.
    """
    where = f"ingest.sources[{source.split('-')[0]}]"
    classes = check_classes(params, where=where)
    with Journal.open(place, source=source, key=source_key(params, place)) as journal:
        rows = _finished_rows(journal)
        if rows is None:
            engines = make_engines(params.engines, where=where, homes=homes)
            rows = _crawl(params, classes, engines, source=source, where=where, place=place, journal=journal)
    return _listing(rows, source=source, place=place, journal=journal.path)


def check_classes(params: CrawlSource, *, where: str) -> dict[str, list[str]]:
    """Labels in their one form, and their searches.

    Raises:
        InputError: a label or search is no good, or comes twice.
    """
    classes: dict[str, list[str]] = {}
    for raw, searches in params.classes.items():
        try:
            label = clean_label(raw, remedy="change it under classes")
        except ImageError as error:
            raise InputError(f"{where}.classes: {error.detail}") from error
        if label in classes:
            raise InputError(f"{where}.classes: {raw!r} and another class are both {label!r}; join their searches")
        words = [" ".join(search.split()) for search in searches]
        if not all(words) or len(set(words)) < len(words):
            raise InputError(
                f"{where}.classes: {label!r} has an empty search or the same one twice: {words}; remove it"
            )
        classes[label] = words
    return classes


def _finished_rows(journal: Journal) -> list[CrawlRow] | None:
    if not journal.finished:
        return None
    try:
        return [CrawlRow.from_json(row) for row in journal.note(_ROWS)]
    except (KeyError, ValueError, TypeError):
        return None  # written by other code, or by nobody we know: searched anew, from what was fetched


def _crawl(
    params: CrawlSource,
    classes: Mapping[str, list[str]],
    engines: Sequence[SearchEngine],
    *,
    source: str,
    where: str,
    place: Place,
    journal: Journal,
) -> list[CrawlRow]:
    """Search, fetch, judge; the journal is finished if nothing is wrong.

    Raises:
        InputError: see `list_crawl`.
    """
    searches = [
        ClassSearch(label, words, len(engines), params.images_per_class, params.max_pages)
        for label, words in sorted(classes.items())
    ]
    records = run_searches(searches, engines, place=place, journal=journal, title=f"ingest: {source}")
    rows = [row for search in searches for row in _rows(search, engines, records)]
    _judge(params, searches, rows, where=where)
    if params.gone == "keep":
        journal.keep_removed({row.record.url for row in rows})
        rows = _with_kept(rows, journal.records)
    journal.keep_note(_ROWS, [row.to_json() for row in rows])
    journal.finish()
    return rows


def _rows(
    search: ClassSearch, engines: Sequence[SearchEngine], records: Mapping[FetchStep, FetchRecord]
) -> list[CrawlRow]:
    """Everything that was found for one class, in order, and every page that failed."""
    taken = set(search.taken())
    first = {search.good[number]: search.found[number].url for number in sorted(taken)}
    rows = []
    for number, found in enumerate(search.found):
        request = make_request(search, found, engines[found.engine].name)
        record = records.get(FetchStep(search.label, number))
        if record is None:
            outcome = OVER_LIMIT if number >= search.next else DUPLICATE_URL if found.url else NO_URL
            record = replace(blank_record(request), outcome=outcome, detail=_DETAILS[outcome])
        elif number in search.good and number not in taken:
            detail = f"the same bytes as {first[record.image_id]}"
            record = replace(record, outcome=DUPLICATE_CONTENT, detail=detail)
        rows.append(CrawlRow(record, found.hit.title, found.hit.width, found.hit.height))
    return rows + [CrawlRow(_failure(search, engines, asked, result)) for asked, result in search.failures]


_DETAILS = {
    OVER_LIMIT: "not fetched: the class has its pictures",
    DUPLICATE_URL: "found before for this class; fetched once",
    NO_URL: "this result names no picture",
}


def _failure(search: ClassSearch, engines: Sequence[SearchEngine], asked: PageStep, result: PageOutcome) -> FetchRecord:
    what = f"{result.outcome}: {result.remedy}" + (f'; it showed "{result.seen}"' if result.seen else "")
    return FetchRecord(
        result.url, search.label, query=search.words[asked.word], engine=engines[asked.engine].name,
        page=asked.page + 1, status=result.status, outcome=ENGINE_FAILED, detail=what,
    )  # fmt: skip


def _judge(params: CrawlSource, searches: Iterable[ClassSearch], rows: Sequence[CrawlRow], *, where: str) -> None:
    """Say what went wrong: as an error where `fail_when` asks for it, else as warnings on standard error.

    Raises:
        InputError: classes have too few pictures.
    """
    counts = {search.label: len(search.taken()) for search in searches}
    wanted = params.images_per_class
    short = {label: count for label, count in counts.items() if count < wanted}
    failures = [row.record for row in rows if row.record.outcome == ENGINE_FAILED]
    said = [
        f"{one.engine}, searching {one.query!r} for {one.label!r}, page {one.page}"
        + (f" (HTTP {one.status})" if one.status else "")
        + f": {one.detail}"
        for one in failures
    ]
    why = {label: _why(label, rows) for label in short}
    failing = short if params.fail_when == "any" else {label for label, count in counts.items() if not count}
    if failing:
        few = "no picture at all" if params.fail_when == "empty" else f"fewer pictures than images_per_class = {wanted}"
        lines = [f"{where}: {len(failing)} of {len(counts)} classes have {few} (fail_when: {params.fail_when})"]
        lines += [f"  {label}: {count} of {wanted}{why.get(label, '')}" for label, count in counts.items()]
        lines += (
            ["What the engines answered:"]
            if said
            else ["Every engine answered; within max_pages there was no more to find."]
        )
        lines += [f"  {line}" for line in said]
        again = said or any(row.record.momentary for row in rows)
        lines += [
            "What was fetched is kept"
            + (": run again to go on from there. Or give" if again else ", but another run would find the same. Give")
            + " these classes more search words or engines, raise max_pages, or lower images_per_class"
            + (", or set fail_when: empty" if params.fail_when == "any" and all(counts.values()) else "")
        ]
        raise InputError("\n".join(lines))
    for line in [f"class {label!r} has {count} of {wanted} pictures{why[label]}" for label, count in short.items()]:
        print(f"warning: {where}: {line}", file=sys.stderr)
    for line in said[:MAX_WARNINGS]:
        print(f"warning: {where}: {line}", file=sys.stderr)
    if len(said) > MAX_WARNINGS:
        print(f"warning: {where}: {len(said) - MAX_WARNINGS} more such answers, in sources.jsonl", file=sys.stderr)


def _why(label: str, rows: Iterable[CrawlRow]) -> str:
    """What became of the URLs that were found for a class that has too few pictures."""
    found = Counter(row.record.outcome for row in rows if row.record.label == label)
    del found["ok"], found[ENGINE_FAILED]
    counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(found.items()))
    return f" ({counts})" if counts else ""


def _with_kept(rows: list[CrawlRow], records: Iterable[FetchRecord]) -> list[CrawlRow]:
    """Add the pictures of earlier snapshots, but for those whose bytes the class has by now."""
    had = {(row.record.label, row.record.image_id) for row in rows if row.record.ok}
    kept = []
    for record in sorted(records, key=lambda record: (record.label, record.url)):
        if record.kept_from and record.ok:
            if (record.label, record.image_id) in had:
                record = replace(
                    record, outcome=DUPLICATE_CONTENT, detail="this snapshot found the same bytes elsewhere"
                )
            had.add((record.label, record.image_id))
            kept.append(CrawlRow(record))
    return rows + kept


def _listing(rows: Sequence[CrawlRow], *, source: str, place: Place, journal: Path) -> Listing:
    """Pictures as files, all other URLs that were tried as rejects, everything as rows of sources.jsonl."""
    tried, rejects = [], []
    for row in rows:
        one = row.record
        if one.outcome in (DUPLICATE_URL, NO_URL):
            path = one.url or f"{one.engine}: {one.query}: page {one.page}, result {one.rank + 1}"
            rejects.append(Reject(source, path, one.label, one.outcome, one.detail))
        elif one.outcome not in (OVER_LIMIT, ENGINE_FAILED):
            tried.append(one)
    found = listing(tried, source=source, place=place, journal=journal, rejects=rejects)
    return replace(found, records=[row.to_json() for row in rows])
