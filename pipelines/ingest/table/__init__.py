"""The table source: CSV, Parquet or JSON Lines with a row a picture; read row by row, never whole.

Every row ends as a row of the manifest or as a reject whose detail names its line: `bad-row`, `no-path`, `unsafe-path`,
`missing-file`, `symlink`, `not-a-file`, `no-label`, `bad-label`, `bad-subset`, `bad-box`, `duplicate-row` (path and
label stand above already), `several-boxes` (so, but with another box). One path under two labels stays as two rows:
dedupe finds the conflict.

Paths start at `root` and stay below it; an absolute path that lies below it counts, and so does one with backslashes,
and one that misses one file alone by letter case, Unicode form, spaces, %-escapes or a missing suffix (`Files.find`).
Links are followed as `symlinks` says. The values of several label columns are joined to one label and kept as factors.
"""

import hashlib
import re
import sys
from array import array
from dataclasses import replace

import numpy as np

from pipelines.core.errors import ImageError, InputError
from pipelines.ingest.file_reader import FolderReader
from pipelines.ingest.labels import printable, refuse_subset_labels
from pipelines.ingest.listing import Listing, Origin, Place
from pipelines.ingest.paths import Files, FileStamp, is_litter
from pipelines.ingest.table.embedded import list_inside, picture_column
from pipelines.ingest.table.rows import Seen, TableRows, table_files, text_of
from pipelines.params.base import path_below
from pipelines.params.sources import TableSource


def list_table(params: TableSource, *, source: str, place: Place) -> Listing:
    """List the rows of a table source; pictures behind URLs are fetched now.

    Args:
        params: the entry of ingest.sources.
        source: its name in manifest and rejects: "0-table".
        place: root, cache and limits.

    Raises:
        InputError: the table or `root` is missing, the table cannot be read, lacks a column or has no row.
    """
    entry = f"ingest.sources[{source.split('-')[0]}]"
    path = path_below(place.root, params.path)
    paths, num_litter = table_files(path, params.format, place.root)
    if not paths:
        what = f"holds no file of {params.format}" if path.exists() else "does not exist"
        raise InputError(
            f"{entry}.path: {params.path} {what}; name the table (a relative path starts at the folder of params.yaml)"
        )
    rows = TableRows(params, source, f"{entry}.path: {params.path}", paths)
    inside = picture_column(paths[0], params.image_column) if params.format == "parquet" else None
    if inside:
        found = list_inside(rows, *inside, place)
    elif params.image_is == "bytes":
        raise InputError(
            f"{rows.where} has no column {params.image_column!r} of bytes, or of {{bytes, path}}; correct "
            "image_column, or set image_is: path or url"
        )
    else:
        found = _list_urls(rows, place) if params.image_is == "url" else _list_files(rows, entry, place)
    if params.subset_column is None and params.subset_from is None:
        remedy = f"name the column as subset_column in {entry}, and another one in label_columns"
        refuse_subset_labels(found.labels, rows.where, remedy)
    return replace(found, num_litter=found.num_litter + num_litter)


def _list_files(rows: TableRows, entry: str, place: Place) -> Listing:
    params = rows.params
    root = path_below(place.root, params.root)
    if not root.is_dir():
        what = "is no folder" if root.exists() else "does not exist"
        raise InputError(f"{entry}.root: {params.root} {what}; name the folder where the paths of the table start")
    files = Files(root, params.symlinks, params.encoding)
    seen = Seen(rows.at)
    paths: list[str] = []
    labels: list[str] = []
    origins: list[Origin] = []
    stamps = array("q")
    num_litter = 0
    for line, cells in rows:
        name = label = ""
        try:
            value = cells[params.image_column]
            # a number may be an id, whose file has a suffix
            name = str(value) if type(value) is int else text_of(cells, params.image_column, only_text=True)
            if not name:
                raise ImageError("no-path", f"{params.image_column} is empty")
            if any(map(is_litter, re.split(r"[/\\]", name))):
                num_litter += 1
                continue
            label, factors = rows.label(cells)
            origin = rows.origin(cells, factors)
            name, stamp = files.find(name)
            seen.add(name, line, label, origin, labels, origins)
        except ImageError as error:
            rows.reject(line, name, label or rows.shown_label(cells), error)
            continue
        paths.append(name)
        labels.append(label)
        origins.append(origin)
        stamps.extend(stamp)
    if files.others:
        named, found = map(printable, files.others[0])
        num = len(files.others)
        print(
            f"ingest: {rows.source}: {num:,} path{'' if num == 1 else 's'} found under a name that differs in letter "
            f"case, Unicode form, spaces or suffix alone; the first: {named} is {found}",
            file=sys.stderr,
        )
    order = sorted(range(len(paths)), key=lambda row: (paths[row], labels[row]))
    return Listing(
        source=rows.source,
        paths=[paths[row] for row in order],
        labels=[labels[row] for row in order],
        read=FolderReader(str(root), place.params.max_file_bytes, follow=params.symlinks != "skip"),
        rejects=rows.rejects,
        origins=[origins[row] for row in order],
        stamps=np.array(stamps, np.int64).reshape(-1, len(FileStamp._fields))[order],
        num_litter=num_litter,
    )


def _list_urls(rows: TableRows, place: Place) -> Listing:
    from pipelines.ingest.fetch import FetchRequest, download_listing, source_key

    seen = Seen(rows.at)
    requests = []
    labels: list[str] = []
    origins: list[Origin] = []
    for line, cells in rows:
        url = label = ""
        try:
            url = text_of(cells, rows.params.image_column, only_text=True)
            if not url:
                raise ImageError("no-path", f"{rows.params.image_column} is empty")
            label, factors = rows.label(cells)
            origin = rows.origin(cells, factors)
            seen.add(url, line, label, origin, labels, origins)
        except ImageError as error:
            rows.reject(line, url, label or rows.shown_label(cells), error)
            continue
        labels.append(label)
        origins.append(origin)
        requests.append(FetchRequest(url, label, origin, place=rows.at(line)))
    digests = []
    for path in rows.paths:
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").digest())
    return download_listing(
        requests,
        rows.rejects,
        source=rows.source,
        place=place,
        key=source_key(rows.params, place, b"".join(digests)),
        title=f"ingest: fetching {rows.source}",
    )
