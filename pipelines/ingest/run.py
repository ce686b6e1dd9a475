"""One run over what was listed: from scratch, on top of an earlier run, or, with nothing changed, by links alone.

What is not taken over is inspected in chunks of work, one label after the other, so that one label at a time is held,
sorted and packed.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.core.errors import InputError, count
from pipelines.core.files import empty_folder, write_csv, write_text
from pipelines.core.progress import progress
from pipelines.ingest.changes import refuse_other_files, refuse_other_pictures
from pipelines.ingest.cropping import asks_for_crop
from pipelines.ingest.file_reader import FolderReader
from pipelines.ingest.incremental import DamagedRunError, Places, PreviousRun, TakenOver
from pipelines.ingest.inspection import Chunk, inspect_chunk
from pipelines.ingest.labels import printable
from pipelines.ingest.listing import Listing, Refused, Reject, finished_table, listing_digest, listing_table
from pipelines.ingest.output import Output
from pipelines.ingest.snapshots import (
    FinishedRun,
    SourceState,
    State,
    find_finished,
    find_previous,
    keep,
    link,
    made_by,
    source_key,
)
from pipelines.parallel.pool import dask_address, map_chunks
from pipelines.params.ingest import FaceCrop, IngestParams
from pipelines.params.sources import SampleSource

_RECORDS, _TRUTH = "sources.jsonl", "truth.csv"


@dataclass(frozen=True)
class IngestJob:
    """One run of ingest: listings, and the earlier runs that it starts from or must agree with.

    Args:
        params: of ingest.
        listings: one for each source.
        sources: name and key of each.
        digest: of all listings, where it was held against that of an earlier run; None where it is not known.
        made_by: see `snapshots.made_by`.
        previous: the run to start from.
        record: the finished run of this snapshot's name.
        workers: processes.
    """

    params: IngestParams
    listings: Sequence[Listing]
    sources: tuple[SourceState, ...]
    digest: str | None
    made_by: str
    previous: FinishedRun | None
    record: FinishedRun | None
    workers: int | None

    @property
    def is_unchanged(self) -> bool:
        """Whether the earlier run has all, from the same files."""
        return self.previous is not None and self.digest is not None and self.digest == self.previous.state.listing


def make_job(params: IngestParams, listings: Sequence[Listing], *, cache: Path, workers: int | None) -> IngestJob:
    """Compare what was listed with earlier runs.

    Raises:
        InputError: the snapshot's name has other files.
    """
    sources = tuple(
        SourceState(name=listing.source, key=source_key(entry), num_files=len(listing.paths))
        for entry, listing in zip(params.sources, listings, strict=True)
    )
    code = made_by(params)
    finished = find_previous(cache, snapshot=params.snapshot, made_by=code)
    comparable = finished is not None and finished.state.sources == sources
    digest = listing_digest(_tables(listings), listings) if comparable else None
    record = find_finished(cache, params.snapshot)
    job = IngestJob(params, listings, sources, digest, code, finished, record, workers)
    if record is not None and not (job.is_unchanged and record.folder == getattr(finished, "folder", None)):
        refuse_other_files(record, _tables(listings), sources)
    return job


def run(job: IngestJob, *, cache: Path, out_dir: Path) -> State:
    """Write everything into `out_dir`, which is empty, and leave it in the cache for later runs.

    Raises:
        InputError: the snapshot's name has other pictures; none of a source's files can be used.
    """
    if job.previous and job.is_unchanged:
        return _take_over(job, job.previous, cache=cache, out_dir=out_dir)
    state, listing = _read(job, out_dir=out_dir)
    refuse_other_pictures(job.record, out_dir / "manifest.parquet", made_by=job.made_by, params=job.params, cache=cache)
    keep(cache, state, out_dir=out_dir, listing=listing)
    return state


def _tables(listings: Sequence[Listing]) -> list[pa.Table]:
    """Make the tables whenever they are needed: keeping them would cost 100 bytes a file all the time."""
    return [listing_table(listing) for listing in listings]


def _take_over(job: IngestJob, finished: FinishedRun, *, cache: Path, out_dir: Path) -> State:
    """Link all files of the earlier run, whose listing is that of this run."""
    for name in finished.state.files:
        if name not in (_RECORDS, _TRUTH, "listing.arrow"):
            link(finished.folder / name, out_dir / name)
    _write_sources(job, out_dir)
    if finished.state.snapshot == job.params.snapshot:
        return finished.state
    state = finished.state.model_copy(update={"snapshot": job.params.snapshot})
    keep(cache, state, out_dir=out_dir, listing=finished.listing)
    return state


def _read(job: IngestJob, *, out_dir: Path) -> tuple[State, pa.Table]:
    """Inspect what the earlier run does not have; the state, and the finished listing."""
    finished = job.previous
    if finished is not None:
        from pipelines.ingest.incremental import match_previous

        try:
            previous = match_previous(finished, _tables(job.listings), job.sources)
            _say(previous)
            return _inspect_and_write(job, previous, out_dir=out_dir)
        except DamagedRunError as error:
            print(f"ingest: {finished.folder} is damaged ({error}): every file is read anew", file=sys.stderr)
            empty_folder(out_dir)
    return _inspect_and_write(job, None, out_dir=out_dir)


def _say(previous: PreviousRun) -> None:
    """One line on what became of the earlier run's files; none where no source can tell changed files from others."""
    snapshot = previous.finished.state.snapshot
    num_taken = sum(len(match.rows) + len(match.refused) for match in previous.matches)
    if num_taken:
        num_left = sum(len(match.todo) for match in previous.matches)
        print(f"ingest: {count(num_taken, 'file')} as in snapshot {snapshot}, {num_left:,} to read", file=sys.stderr)


def _inspect_and_write(job: IngestJob, previous: PreviousRun | None, *, out_dir: Path) -> tuple[State, pa.Table]:
    matches = _nothing_known(job) if previous is None else previous.matches
    accepted = Counter({one.source: len(match.rows) for one, match in zip(job.listings, matches, strict=True)})
    refused = [dict(match.refused) for match in matches]
    with Output(out_dir, job.params.shard_bytes, previous) as output:
        spool = None if dask_address() else output.spool
        work = plan_work(job.params, job.listings, [match.todo for match in matches], spool)
        with progress("ingest", work.num_files, unit="files") as advance:
            results = map_chunks(inspect_chunk, work.chunks, workers=job.workers, threads=work.threads)
            for chunk, (index, places), found in zip(work.chunks, work.where, results, strict=True):
                output.add(chunk, found)
                accepted[chunk.source] += len(found.places)
                refused[index] |= {int(places[place]): (reason, detail) for place, reason, detail in found.rejects}
                advance(len(chunk.paths))
        rejects = _rejects(job.listings, refused)
        for listing in job.listings:
            if not accepted[listing.source]:
                raise InputError(_nothing_usable(listing, rejects))
        tables = _tables(job.listings)
        digest, listed = job.digest or listing_digest(tables, job.listings), finished_table(tables, refused)
        output.finish()
    header = ("source", "source_path", "label", "reason", "detail")
    write_csv(
        out_dir / "rejected.csv", header, ((r.source, r.source_path, r.label, r.reason, r.detail) for r in rejects)
    )
    _write_sources(job, out_dir)
    state = State(
        snapshot=job.params.snapshot, made_by=job.made_by, sources=job.sources, listing=digest, files={},
        num_images=accepted.total(), num_rejected=len(rejects), num_classes=output.num_classes,
    )  # fmt: skip
    return state, listed


def _nothing_known(job: IngestJob) -> list[TakenOver]:
    return [TakenOver(np.arange(len(one.paths)), np.zeros(0, np.int64), {}) for one in job.listings]


def _rejects(listings: Iterable[Listing], refused: Iterable[Refused]) -> list[Reject]:
    """All rejects in the order of rejected.csv: those of the listings, and those of reading."""
    found = []
    for listing, words in zip(listings, refused, strict=True):
        found += listing.rejects
        for place, (reason, detail) in words.items():
            path = printable(listing.paths[place])
            found.append(Reject(listing.source, path, listing.labels[place], reason, detail))
    return sorted(found, key=lambda reject: (reject.source, reject.source_path, reject.label, reject.reason))


def _write_sources(job: IngestJob, out_dir: Path) -> None:
    """sources.jsonl, where a source used the network, and truth.csv of a sample."""
    if any(listing.records is not None for listing in job.listings):
        records = [{"source": one.source, **record} for one in job.listings for record in one.records or []]
        text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        write_text(out_dir / _RECORDS, text)
    for entry in job.params.sources:
        if isinstance(entry, SampleSource):
            from pipelines.ingest.sample import write_truth

            write_truth(entry, out_dir / _TRUTH)


def _nothing_usable(listing: Listing, rejects: Iterable[Reject]) -> str:
    own = [reject for reject in rejects if reject.source == listing.source]
    counts = ", ".join(f"{count} {reason}" for reason, count in sorted(Counter(r.reason for r in own).items()))
    first = min(own, key=lambda reject: reject.source_path)
    remedies = {
        "folder": ", or put pictures there: a folder for each class",
        "archive": ", or pack pictures: a folder for each class",
        "table": " (path, root, image_column, label_columns, …) or the table",
        "urls": " or the list",
    }
    return (
        f"source {listing.source}: none of its {len(own)} files can be used ({counts}); "
        f"the first is {first.source_path}: {first.detail}. Correct ingest.sources"
        + remedies.get(listing.source.partition("-")[2], "")
    )


# small enough to balance work over cores, large enough that handing one over costs nothing beside it
FILES_PER_CHUNK = 1024
BYTES_PER_CHUNK = 4 << 20
# for threads, to which handing over costs nothing: less memory at a time
BYTES_PER_THREADS_CHUNK = 1 << 20
# where sizes are not known
FILES_OF_ANY_SIZE = 64
# from this average size on, reading, hashing and decoding release the GIL nearly all the time
THREADS_FROM_BYTES = 32 << 10


@dataclass(frozen=True)
class WorkPlan:
    """The work of one run.

    Args:
        chunks: one label after the other, so that one at a time is held, sorted and packed.
        where: for each chunk the index of its listing, and the places of its files there.
        threads: whether threads inspect them as fast as processes.
    """

    chunks: list[Chunk]
    where: list[tuple[int, Places]]
    threads: bool

    @property
    def num_files(self) -> int:
        return sum(len(places) for _, places in self.where)


def plan_work(
    params: IngestParams, listings: Sequence[Listing], todo: Sequence[Places], spool: Path | None
) -> WorkPlan:
    """Cut the files at the places `todo` of each listing into chunks.

    Args:
        params: limits that workers need.
        spool: of `Chunk`.
    """
    found = WorkPlan([], [], _suits_threads(params, listings, todo))
    for label, index, places in _groups(listings, todo):
        listing = listings[index]
        for some in _cut(listing, places, BYTES_PER_THREADS_CHUNK if found.threads else BYTES_PER_CHUNK):
            origins = None if listing.origins is None else [listing.origins[place] for place in some]
            paths = [listing.paths[place] for place in some]
            crop = params.crop if asks_for_crop(params.crop) else None
            limits = (params.max_pixels, params.min_side, crop)
            chunk = Chunk(len(found.chunks), listing.source, label, paths, listing.read, *limits, spool, origins)
            found.chunks.append(chunk)
            found.where.append((index, some))
    return found


def _suits_threads(params: IngestParams, listings: Sequence[Listing], todo: Sequence[Places]) -> bool:
    """Whether files are known to be large, and what works on them lets other threads run; finding faces does not."""
    sizes = [_sizes(listing, places) for listing, places in zip(listings, todo, strict=True) if len(places)]
    known = [one for one in sizes if one is not None]
    if not known or len(known) < len(sizes) or isinstance(params.crop, FaceCrop):
        return False
    return float(np.concatenate(known).mean()) >= THREADS_FROM_BYTES


def _cut(listing: Listing, places: Places, num_bytes: int) -> Iterator[Places]:
    """Places of one chunk each, of about `num_bytes` together where sizes are known."""
    sizes = _sizes(listing, places)
    if sizes is None:
        ends, most = [], min(FILES_PER_CHUNK, FILES_OF_ANY_SIZE)
    else:
        ends, most = (np.flatnonzero(np.diff(np.cumsum(sizes) // num_bytes)) + 1).tolist(), FILES_PER_CHUNK
    for start, stop in pairwise([0, *ends, len(places)]):
        for first in range(start, stop, most):
            yield places[first : min(stop, first + most)]


def _sizes(listing: Listing, places: Places) -> npt.NDArray[np.int64] | None:
    """Bytes of the files at `places`, 0 where that is not known; None where the stamps of a listing are no sizes."""
    if listing.stamps is None or not isinstance(listing.read, FolderReader):
        return None
    sizes: npt.NDArray[np.int64] = np.maximum(listing.stamps[places, 0], 0)
    return sizes


def _groups(listings: Sequence[Listing], todo: Sequence[Places]) -> Iterator[tuple[str, int, Places]]:
    """(label, index of listing, places), sorted; numbers, since a Python object a file would outweigh its path."""
    names = sorted({label for listing in listings for label in set(listing.labels)})
    code_of = dict(zip(names, range(len(names)), strict=True))
    found = []
    for index, (listing, places) in enumerate(zip(listings, todo, strict=True)):
        codes = np.fromiter(map(code_of.__getitem__, listing.labels), np.int32, len(listing.labels))[places]
        order = np.argsort(codes, kind="stable")
        edges = np.flatnonzero(np.diff(codes[order], prepend=-1)).tolist()
        for start, stop in pairwise([*edges, len(order)]):
            found.append((int(codes[order[start]]), index, places[order[start:stop]]))
    for code, index, places in sorted(found, key=lambda group: group[:2]):
        yield names[code], index, places
