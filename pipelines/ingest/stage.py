"""Ingest: sources → shards, manifest, thumbnails, rejects. Each file is opened once; none is lost without a word."""

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from threadpoolctl import threadpool_limits

from pipelines.core.errors import InputError, count
from pipelines.core.files import empty_folder
from pipelines.core.layout import Layout
from pipelines.ingest.cropping import check_crop
from pipelines.ingest.listing import Listing, Place
from pipelines.ingest.run import make_job, run
from pipelines.ingest.sources import list_source
from pipelines.params.base import path_below
from pipelines.params.ingest import IngestParams
from pipelines.params.inputs import refuse_path_in, rows_in_output
from pipelines.params.sources import Source, TableSource, TorchvisionSource

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
        num_litter: files and folders that systems left in the sources, skipped and counted nowhere else.
    """

    out_dir: Path
    num_files: int
    num_images: int
    num_rejected: int
    num_classes: int
    num_shards: int
    num_litter: int = 0

    def __str__(self) -> str:
        return (
            f"{self.num_images:,} of {count(self.num_files, 'file')} accepted ({self.num_rejected:,} rejected), "
            f"{count(self.num_classes, 'class', 'classes')}, {count(self.num_shards, 'shard')}"
            + (f", {count(self.num_litter, 'litter file')} skipped" if self.num_litter else "")
        )


def ingest(
    params: IngestParams, *, root: Path, cache: Path, out_dir: Path, workers: int | None = None
) -> IngestArtifact:
    """Read every source once and write what later stages need; files that an earlier run read are taken over.

    Args:
        params: sources and limits.
        root: where relative paths of sources start: the folder of params.yaml.
        cache: for downloads, and for what a later run takes over (`pipelines.ingest.snapshots`); deleting it changes
            no picture and no row, but which shard holds a picture.
        out_dir: emptied, then written; empty again if this fails.
        workers: processes; MIWAKE_WORKERS or all cores when None. Results do not depend on it.

    Raises:
        InputError: a source is missing or empty, `params.snapshot` names other files, none of its files is an image,
            an extra is missing, or the disk is full.
    """
    check_crop(params.crop)
    # threads of BLAS spin after each small product and hold the cores that decoders need: photographs took 1.6 times
    # as long
    with threadpool_limits(1, user_api="blas"):
        return _ingest(params, Place(root, cache, params), out_dir=out_dir, workers=workers)


def _ingest(params: IngestParams, place: Place, *, out_dir: Path, workers: int | None) -> IngestArtifact:
    listings = []
    for index, entry in enumerate(params.sources):
        where = f"ingest.sources[{index}]"
        _refuse_own_output(entry, where=where, root=place.root, out_dir=out_dir)
        listings.append(list_source(entry, source=f"{index}-{entry.kind}", place=place))
        _refuse_rows_in_outputs(entry, listings[-1], where=where, root=place.root, out_dir=out_dir)
    job = make_job(params, listings, cache=place.cache, workers=workers)
    empty_folder(out_dir)
    try:
        state = run(job, cache=place.cache, out_dir=out_dir)
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
    counts = (num_files, state.num_images, state.num_rejected, state.num_classes, num_shards)
    return IngestArtifact(out_dir, *counts, num_litter=sum(listing.num_litter for listing in listings))


def _refuse_own_output(entry: Source, *, where: str, root: Path, out_dir: Path) -> None:
    for key in ("path", "root"):
        name = getattr(entry, key, None)
        if name is not None:
            refuse_path_in([out_dir], f"{where}.{key}", name, root=root, holds=entry.kind == "folder")


def _refuse_rows_in_outputs(entry: Source, listing: Listing, *, where: str, root: Path, out_dir: Path) -> None:
    """A table's `root` may lie above the outputs; none of its rows may lead into one."""
    if not isinstance(entry, TableSource | TorchvisionSource):
        return
    base = os.path.realpath(path_below(root, entry.root))
    inner = [os.path.relpath(os.path.realpath(one), base) + "/" for one in (out_dir, *Layout(root).outputs)]
    found = next((path for path in listing.paths if path.startswith(tuple(inner))), None)
    if found is not None:
        raise InputError(rows_in_output(where, next(one for one in inner if found.startswith(one))))
