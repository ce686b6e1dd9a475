"""Refuses to read other files under a snapshot's name: compares the sources with what a finished run read.

Files are known by path below their source and label, so that a folder that was moved or copied is the same. Other names
or sizes are other files; where only times or inodes differ, the pictures that come out are compared instead. Drawn
samples are left alone: params alone make them again.
"""

import itertools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipelines.core.errors import InputError, MiwakeError
from pipelines.ingest.labels import printable
from pipelines.ingest.listing import STAMP, UNKNOWN_STAMP, Place, listing_table
from pipelines.ingest.snapshots import FinishedRun, SourceState, find_finished, list_snapshots, source_key
from pipelines.params.base import path_below
from pipelines.params.ingest import IngestParams
from pipelines.params.sources import ArchiveSource, FolderSource, TableSource, UrlsSource

_SHOWN = 3


@dataclass
class Changes:
    """Files that differ from those of a snapshot: paths below their sources.

    Args:
        changed: of another size, or with other bytes.
        touched: of the same size, but another time, inode or description: perhaps the same bytes.
    """

    new: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    touched: list[str] = field(default_factory=list)

    def describe(self) -> str:
        """ "3 files are new (cat/1.jpg, …), 1 changed (…)"; "" for none; touched ones do not count."""
        moved = {*self.new} & {*self.gone}
        return ", ".join(
            f"{len(paths):,} {word if len(paths) == 1 else words} ({_some(paths)})"
            for paths, word, words in (
                ([path for path in self.new if path not in moved], "file is new", "files are new"),
                (self.changed, "changed", "changed"),
                (sorted(moved), "file has another label", "files have other labels"),
                ([path for path in self.gone if path not in moved], "is gone", "are gone"),
            )
            if paths
        )


def _some(paths: Sequence[str]) -> str:
    shown = [printable(path) for path in paths[:_SHOWN]]
    return ", ".join([*shown, f"and {len(paths) - _SHOWN:,} more"] if len(paths) > _SHOWN else shown)


def compare(
    record: FinishedRun, tables: Sequence[pa.Table], sources: Sequence[SourceState], *, whole: bool = True
) -> Changes:
    """Compare what is listed now, `listing_table` of each source, with what a finished run met.

    Args:
        whole: these are all sources; otherwise, no more is said of those of the record that are none of them.
    """
    from pipelines.ingest.incremental import index_in, keys, numbers_of

    changes = Changes()
    starts = np.cumsum([0, *(source.num_files for source in record.state.sources)])
    pairs = _pairs(record.state.sources, sources)
    for place, table in enumerate(tables):
        old = pairs.get(place)
        listed = record.listing.slice(starts[old], starts[old + 1] - starts[old]) if old is not None else None
        if listed is None or not listed.num_rows:
            changes.new += _paths(table)
            continue
        there = index_in(keys(table["path"], table["label"]), keys(listed["path"], listed["label"]))  # -1: new
        known = there >= 0
        now, before = ({name: numbers_of(one, name) for name in STAMP} for one in (table, listed))
        old_row = np.maximum(there, 0)
        told = known & (now["size"] != UNKNOWN_STAMP) & (before["size"][old_row] != UNKNOWN_STAMP)
        resized = told & (now["size"] != before["size"][old_row])
        other = known & ~np.logical_and.reduce([now[name] == before[name][old_row] for name in STAMP])
        changes.new += _paths(table, ~known)
        changes.changed += _paths(table, resized)
        changes.touched += _paths(table, other & told & ~resized)
        gone = np.ones(listed.num_rows, bool)
        gone[there[known]] = False
        changes.gone += _paths(listed, gone)
    for old in set(range(len(record.state.sources))) - set(pairs.values()) if whole else ():
        changes.gone += _paths(record.listing.slice(starts[old], starts[old + 1] - starts[old]))
    return changes


def _pairs(before: Sequence[SourceState], now: Sequence[SourceState]) -> dict[int, int]:
    """Place of a source now → place of the one that it was: of the same params, else the next of its kind, or of any.

    A folder that was packed into an archive holds the same files.
    """
    pairs: dict[int, int] = {}
    for same in (lambda one: one.key, _kind, lambda _: ""):
        for place, source in enumerate(now):
            for old, other in enumerate(before):
                if place not in pairs and old not in pairs.values() and same(source) == same(other):
                    pairs[place] = old
    return pairs


def _kind(source: SourceState) -> str:
    return source.name.partition("-")[2]


def _paths(table: pa.Table, some: "np.ndarray[tuple[int], np.dtype[np.bool_]] | None" = None) -> list[str]:
    rows = table["path"] if some is None else table["path"].filter(pa.array(some))
    return sorted(os.fsdecode(path) for path in rows.to_pylist())


def refuse_other_files(record: FinishedRun | None, tables: Sequence[pa.Table], sources: Sequence[SourceState]) -> None:
    """Stop before files are read under a name that has other ones.

    Raises:
        InputError: files are new, gone or of another size.
    """
    if record is not None and not _is_drawn(record):
        said = compare(record, tables, sources).describe()
        if said:
            raise InputError(_taken(record.state.snapshot, record.folder.parents[1], said))


def refuse_other_pictures(
    record: FinishedRun | None, manifest: Path, *, made_by: str, params: IngestParams, cache: Path
) -> None:
    """Stop before pictures that were read replace those of the same name, where paths and sizes could not tell.

    Args:
        record: of the name; None: what dvc.lock says of it counts, as in a fresh clone.
        manifest: what this run made of the files.
        made_by: limits and code of this run; where they are those of the record, the same rows must have come out.
        cache: .miwake, which lies beside dvc.lock.

    Raises:
        InputError: a file has other bytes, or is not among those of dvc.lock.
    """
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from pipelines.ingest.incremental import keys

    if record is not None:
        old_manifest = None if _is_drawn(record) else record.folder / "manifest.parquet"
        same_limits = record.state.made_by == made_by
    else:
        old_manifest, same_limits = _locked(params, cache.parent)
    if old_manifest is None:
        return
    columns = ["source_path", "label", "image_id"]
    now, before = (pq.read_table(path, columns=columns) for path in (manifest, old_manifest))
    own, old = (keys(table["source_path"], table["label"]) for table in (now, before))
    known = pc.is_in(own, old)
    same = pc.is_in(keys(own, now["image_id"]), keys(old, before["image_id"]))
    changes = Changes(changed=_names(now, pc.and_(known, pc.invert(same))))
    if same_limits:  # others accept other files
        changes.new = _names(now, pc.invert(known))
        changes.gone = _names(before, pc.invert(pc.is_in(old, own)))
    if said := changes.describe():
        raise InputError(_taken(params.snapshot, cache, said))


def _names(rows: pa.Table, some: pa.ChunkedArray) -> list[str]:
    return sorted(set(rows["source_path"].filter(some).to_pylist()))


def _locked(params: IngestParams, root: Path) -> tuple[Path | None, bool]:
    """The manifest of the snapshot that dvc.lock records, in DVC's cache, and whether its limits were those of now.

    None where dvc.lock has another snapshot or a drawn one, or the cache does not hold it (a clone without `dvc pull`).
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        lock = YAML(typ="safe").load(root / "dvc.lock")["stages"]["ingest"]
        section = lock["params"]["data/params.yaml"]["ingest"]
        if section["snapshot"] != params.snapshot or all(one["kind"] == "sample" for one in section["sources"]):
            return None, False
        objects, digest = root / ".dvc" / "cache" / "files" / "md5", lock["outs"][0]["md5"]
        listed = json.loads((objects / digest[:2] / digest[2:]).read_bytes())
        found = next(one["md5"] for one in listed if one["relpath"] == "manifest.parquet")
    except (OSError, YAMLError, ValueError, KeyError, TypeError, IndexError, StopIteration):
        return None, False
    now = params.model_dump(mode="json", exclude={"snapshot", "sources", "download"})
    path = objects / found[:2] / found[2:]
    return (path if path.is_file() else None), all(section.get(key, value) == value for key, value in now.items())


def _is_drawn(record: FinishedRun) -> bool:
    return all(_kind(source) == "sample" for source in record.state.sources)


def _taken(name: str, cache: Path, said: str) -> str:
    return (
        f"ingest.snapshot {name!r} names the files that were read under it, and the sources hold others: {said}. "
        f"To read them, write a new name: `snapshot: {_next_name(name, cache)}`; of files, only new ones are read. To "
        f"keep {name!r}, bring the old files and settings back"
    )


def _next_name(name: str, cache: Path) -> str:
    """The next name that is free, in the quotes that YAML needs."""
    taken = list_snapshots(cache)
    names = (
        map(str, itertools.count(int(name) + 1)) if name.isdigit() else map(f"{name}-{{}}".format, itertools.count(2))
    )
    return f'"{next(one for one in names if one not in taken)}"'


def status(params: IngestParams, *, root: Path, cache: Path) -> list[str]:
    """What a person should know before `dvc repro` says that all is up to date; [] where sources are as they were.

    One walk over names, sizes and times; lists and archives are known by their own time, and what lies on the network
    is not asked. A source that cannot be looked at is said, never an error.
    """
    from pipelines.ingest.sources import list_source
    from pipelines.ingest.table.rows import table_files

    record = find_finished(cache, params.snapshot)
    if record is None or _is_drawn(record):
        return []
    lines, tables, states = [], [], []
    read_at = (record.folder / "state.json").stat().st_mtime_ns
    place = Place(root, cache, params)
    for index, entry in enumerate(params.sources):
        name = f"{index}-{entry.kind}"
        try:
            if isinstance(entry, FolderSource) or (isinstance(entry, TableSource) and entry.image_is == "path"):
                listing = list_source(entry, source=name, place=place)
                tables.append(listing_table(listing))
                states.append(SourceState(name=name, key=source_key(entry), num_files=len(listing.paths)))
            elif isinstance(entry, ArchiveSource | UrlsSource | TableSource):
                path = path_below(root, entry.path)
                files = table_files(path, entry.format, root)[0] if isinstance(entry, TableSource) else [path]
                found = [one.stat() for one in files or [path]]
                if max(max(one.st_mtime_ns, one.st_ctime_ns) for one in found) > read_at:
                    lines.append(f"ingest.sources[{index}]: {entry.path} was written after snapshot {params.snapshot}")
        except (MiwakeError, OSError) as error:
            lines.append(f"ingest.sources[{index}] cannot be looked at now: {error}")
    changes = compare(record, tables, states, whole=len(states) == len(params.sources))
    changes.changed += changes.touched
    if said := changes.describe():
        lines.append(f"the sources changed since snapshot {params.snapshot!r} was read: {said}")
    if any("cannot be looked at" not in line for line in lines):
        lines.append(
            f"to read them: `snapshot: {_next_name(params.snapshot, cache)}` in params.yaml, then `make repro`"
        )
    return lines
