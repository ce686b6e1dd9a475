"""Ingest: sources → shards, manifest, thumbnails, rejects. Each file is opened once; none is lost without a word."""

import errno
import gc
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipelines.core.errors import InputError
from pipelines.core.executor import map_chunks
from pipelines.core.files import empty_folder, write_csv, write_text
from pipelines.core.params.ingest import IngestParams
from pipelines.core.params.sources import ArchiveSource, FolderSource, SampleSource, Source, TableSource, UrlsSource
from pipelines.core.progress import progress
from pipelines.ingest.cropping import check_crop
from pipelines.ingest.listing import Listing, Origin, Place, Reject
from pipelines.ingest.output import Output
from pipelines.ingest.sources import list_source
from pipelines.ingest.visit import Chunk, visit

# small enough to balance work over cores, large enough that handing one over costs nothing beside it
FILES_PER_CHUNK = 64
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True)
class IngestArtifact:
    """What ingest wrote.

    Args:
        out_dir: holds images-*.tar, manifest.parquet, thumbnails.npy, rejected.csv and, of a sample, truth.csv.
        num_files: found in all sources: num_images + num_rejected.
        num_images: rows of the manifest.
        num_rejected: rows of rejected.csv.
        num_classes: different labels among the images.
        num_shards: tars.
    """

    out_dir: Path
    num_files: int
    num_images: int
    num_rejected: int
    num_classes: int
    num_shards: int

    def __str__(self) -> str:
        return (
            f"{self.num_images:,} images of {self.num_classes:,} classes from {self.num_files:,} files "
            f"({self.num_rejected:,} rejected), {self.num_shards:,} shard{'' if self.num_shards == 1 else 's'}"
        )


def ingest(
    params: IngestParams, *, root: Path, cache: Path, out_dir: Path, workers: int | None = None
) -> IngestArtifact:
    """Read every source once and write what later stages need.

    Args:
        params: sources and limits.
        root: where relative paths of sources start: the folder of params.yaml.
        cache: for downloads; deleting it changes no result.
        out_dir: emptied, then written; empty again if this fails.
        workers: processes; MIWAKE_WORKERS or all cores when None. Results do not depend on it.

    Raises:
        InputError: a source is missing or empty, none of its files is an image, an extra is missing, or the disk is
            full.
    """
    check_crop(params.crop)
    listings = []
    for index, entry in enumerate(params.sources):
        source = f"{index}-{entry.kind}"
        _refuse_own_output(entry, source=source, root=root, out_dir=out_dir)
        listings.append(list_source(entry, source=source, place=Place(root, cache, params)))
    empty_folder(out_dir)
    try:
        with _no_garbage():
            return _run(params, listings, out_dir, workers)
    except OSError as error:
        empty_folder(out_dir)
        if error.errno in _NO_SPACE:
            raise InputError(
                f"{out_dir}: {os.strerror(error.errno)}; ingest needs about the size of the pictures and "
                "1.5 KB for each there. Free some space and run again; nothing half-written was left"
            ) from error
        raise
    except BaseException:
        empty_folder(out_dir)
        raise


@contextmanager
def _no_garbage() -> Iterator[None]:
    """Rest the cycle collector: it walks the records of all files again and again, a fifth of the time of 60,000
    small ones, and finds nothing, because they hold no cycles."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _refuse_own_output(entry: Source, *, source: str, root: Path, out_dir: Path) -> None:
    if isinstance(entry, ArchiveSource | TableSource | UrlsSource):
        if (root / entry.path).resolve().is_relative_to(out_dir.resolve()):
            raise InputError(
                f"ingest.sources[{source.split('-')[0]}].path: {entry.path} lies in {out_dir}, which ingest empties "
                "before it writes there; move the file elsewhere"
            )
        return
    if not isinstance(entry, FolderSource):
        return
    folder = (root / entry.path).resolve()
    if out_dir.resolve().is_relative_to(folder) or folder.is_relative_to(out_dir.resolve()):
        raise InputError(
            f"ingest.sources[{source.split('-')[0]}].path: {entry.path} and {out_dir}, where ingest writes, lie one "
            "inside the other; move the pictures to a folder of their own"
        )


def _run(params: IngestParams, listings: list[Listing], out_dir: Path, workers: int | None) -> IngestArtifact:
    rejects = [reject for listing in listings for reject in listing.rejects]
    chunks = list(_chunks(params, listings, empty_folder(out_dir / "spool.partial")))
    accepted: Counter[str] = Counter()
    num_paths = sum(len(listing.paths) for listing in listings)
    with Output(out_dir, params.shard_bytes) as output, progress("ingest", num_paths, unit="files") as advance:
        for chunk, visited in zip(chunks, map_chunks(visit, chunks, workers=workers), strict=True):
            output.add(chunk, visited)
            rejects += output.rejects(chunk, visited)
            accepted[chunk.source] += len(visited.paths)
            advance(len(chunk.paths))
        for listing in listings:
            if not accepted[listing.source]:
                raise InputError(_nothing_usable(listing, rejects))
        output.finish()
    rejects.sort(key=lambda reject: (reject.source, reject.source_path))
    write_csv(
        out_dir / "rejected.csv",
        ("source", "source_path", "label", "reason", "detail"),
        ((r.source, r.source_path, r.label, r.reason, r.detail) for r in rejects),
    )
    records = [{"source": one.source, **record} for one in listings for record in one.records or []]
    if any(listing.records is not None for listing in listings):
        text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        write_text(out_dir / "sources.jsonl", text)
    for entry in params.sources:
        if isinstance(entry, SampleSource):
            from pipelines.ingest.sample import write_truth

            write_truth(entry, out_dir / "truth.csv")
    num_images = accepted.total()
    return IngestArtifact(
        out_dir, num_images + len(rejects), num_images, len(rejects), output.num_classes, output.num_shards
    )


def _chunks(params: IngestParams, listings: Iterable[Listing], spool: Path) -> Iterator[Chunk]:
    """All files in order of label, so that one label at a time is held, sorted and packed."""
    groups: dict[tuple[str, int], list[int]] = {}
    listed = list(listings)
    for index, listing in enumerate(listed):
        for place, label in enumerate(listing.labels):
            groups.setdefault((label, index), []).append(place)
    number = 0
    for label, index in sorted(groups):
        places = groups[label, index]
        listing = listed[index]
        for start in range(0, len(places), FILES_PER_CHUNK):
            some = places[start : start + FILES_PER_CHUNK]
            paths = [listing.paths[place] for place in some]
            origins: list[Origin] | None = None
            if listing.origins is not None:
                origins = [listing.origins[place] for place in some]
            yield Chunk(
                number, listing.source, label, paths, listing.read, params.max_pixels, params.min_side, params.crop,
                spool, origins,
            )  # fmt: skip
            number += 1


def _nothing_usable(listing: Listing, rejects: Iterable[Reject]) -> str:
    own = [reject for reject in rejects if reject.source == listing.source]
    counts = ", ".join(f"{count} {reason}" for reason, count in sorted(Counter(r.reason for r in own).items()))
    first = min(own, key=lambda reject: reject.source_path)
    return (
        f"source {listing.source}: none of its {len(own)} files can be used ({counts}); the first is "
        f"{first.source_path}: {first.detail}. Correct ingest.sources, or put pictures there: a folder for each class"
    )
