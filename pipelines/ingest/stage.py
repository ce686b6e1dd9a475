"""Ingest: sources → shards, manifest, thumbnails, rejects. Each file is opened once; none is lost without a word."""

import errno
import os
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from pipelines.core.cycles import no_search_for_cycles
from pipelines.core.errors import InputError, count
from pipelines.core.executor import Side
from pipelines.core.files import empty_folder
from pipelines.core.memory import keep_memory
from pipelines.core.params.ingest import IngestParams
from pipelines.core.params.sources import ArchiveSource, FolderSource, Source, TableSource, UrlsSource
from pipelines.ingest.cropping import check_crop
from pipelines.ingest.listing import Place
from pipelines.ingest.run import run
from pipelines.ingest.sources import list_source

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
            f"{self.num_images:,} of {count(self.num_files, 'file')} accepted ({self.num_rejected:,} rejected), "
            f"{count(self.num_classes, 'class', 'classes')}, {count(self.num_shards, 'shard')}"
        )


def ingest(
    params: IngestParams, *, root: Path, cache: Path, out_dir: Path, workers: int | None = None
) -> IngestArtifact:
    """Read every source once and write what later stages need; files that an earlier run read are taken over.

    Called from a program of your own, photographs take up to 1.6 times as long unless OPENBLAS_NUM_THREADS=1 was set
    before numpy was imported, as `python -m pipelines.ingest` does: threads of BLAS hold the cores that decoders need.

    Args:
        params: sources and limits.
        root: where relative paths of sources start: the folder of params.yaml.
        cache: for downloads, and for what a later run takes over (`pipelines.ingest.snapshots`); deleting it changes
            no picture and no row, but which shard holds a picture.
        out_dir: emptied, then written; empty again if this fails.
        workers: processes; MIWAKE_WORKERS or all cores when None. Results do not depend on it.

    Raises:
        InputError: a source is missing or empty, none of its files is an image, an extra is missing, or the disk is
            full.
    """
    check_crop(params.crop)
    keep_memory()
    # one allocator for all: arrow's own takes and clears pieces of 2 MB
    pa.set_memory_pool(pa.system_memory_pool())
    with no_search_for_cycles(), Side(workers) as side:
        return _ingest(params, Place(root, cache, params, side), out_dir=out_dir, workers=workers)


def _ingest(params: IngestParams, place: Place, *, out_dir: Path, workers: int | None) -> IngestArtifact:
    listings = []
    for index, entry in enumerate(params.sources):
        source = f"{index}-{entry.kind}"
        _refuse_own_output(entry, source=source, root=place.root, out_dir=out_dir)
        listings.append(list_source(entry, source=source, place=place))
    empty_folder(out_dir)
    try:
        state = run(params, listings, cache=place.cache, out_dir=out_dir, workers=workers, side=place.side)
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
    num_files, num_shards = state.num_images + state.num_rejected, len(list(out_dir.glob("images-*.tar")))
    return IngestArtifact(out_dir, num_files, state.num_images, state.num_rejected, state.num_classes, num_shards)


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
