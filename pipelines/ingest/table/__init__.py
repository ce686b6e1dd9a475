"""The table source: CSV, Parquet or JSON Lines with a row a picture; read row by row, never whole.

Every row ends as a row of the manifest or as a reject whose detail names its line: `bad-row`, `no-path`, `unsafe-path`,
`missing-file`, `symlink`, `not-a-file`, `no-label`, `bad-label`, `bad-subset`, `bad-box`, `duplicate-row` (path and
label stand above already), `several-boxes` (so, but with another box). One path under two labels stays as two rows:
dedupe finds the conflict.

Paths start at `root` and stay below it; an absolute path that lies below it counts, and so does one with backslashes.
Links are refused. The values of several label columns are joined to one label and kept as factors.
"""

import hashlib
import json
from array import array
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipelines.core.errors import ImageError, InputError
from pipelines.core.params.sources import TableSource
from pipelines.ingest.file_reader import FolderReader
from pipelines.ingest.labels import clean_label, printable
from pipelines.ingest.listing import Listing, Origin, Place, Reject
from pipelines.ingest.paths import Files, FileStamp
from pipelines.ingest.table.cells import Cell, box_of, subset_of, text_of
from pipelines.ingest.table.row import Row
from pipelines.ingest.table.rows import read_rows
from pipelines.ingest.table.seen import Seen


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
    path = place.root / params.path
    if not path.is_file():
        what = "is no file" if path.exists() else "does not exist"
        raise InputError(
            f"{entry}.path: {params.path} {what}; name the table (a relative path starts at the folder of params.yaml)"
        )
    rows = _Rows(params, source, f"{entry}.path: {params.path}", path)
    return _list_urls(rows, place) if params.image_is == "url" else _list_files(rows, entry, place)


@dataclass
class _Rows:
    """The rows of a table, and what is remembered from one to the next."""

    params: TableSource
    source: str
    where: str
    path: Path
    rejects: list[Reject] = field(default_factory=list)
    labels: dict[tuple[str, ...], tuple[str, str] | ImageError] = field(default_factory=dict)
    origins: dict[Origin, Origin] = field(default_factory=dict)

    def columns(self) -> list[str]:
        params = self.params
        optional = (params.subset_column, params.license_column, params.creator_column, params.page_url_column)
        boxes = params.box.columns if params.box else ()
        named = [params.image_column, *params.label_columns, *(name for name in optional if name), *boxes]
        return list(dict.fromkeys(named))

    def __iter__(self) -> Iterator[tuple[int, dict[str, Cell]]]:
        """Line and cells of each row that could be read; the others are rejects."""
        columns = self.columns()
        empty = True
        for row in read_rows(self.path, self.params.format, columns, self.where):
            empty = False
            if row.problem:
                self.reject(row, "", "", ImageError("bad-row", row.problem))
            else:
                yield row.line, dict(zip(columns, row.cells, strict=True))
        if empty:
            raise InputError(f"{self.where} has no rows; write one for each picture")

    def reject(self, row: Row | int, name: str, label: str, error: ImageError) -> None:
        line = row if isinstance(row, int) else row.line
        name = printable(name) or f"line {line}"
        self.rejects.append(Reject(self.source, name, label, error.reason, f"line {line}: {error.detail}"))

    def label(self, cells: dict[str, Cell]) -> tuple[str, str]:
        """The label, and its factors as JSON."""
        values = tuple(text_of(cells, column) for column in self.params.label_columns)
        known = self.labels.get(values)
        if known is None:
            try:
                known = self._join(values)
            except ImageError as error:
                known = error
            self.labels[values] = known
        if isinstance(known, ImageError):
            raise known
        return known

    def shown_label(self, cells: dict[str, Cell]) -> str:
        """The label that a refused row counts under: as it stands there if it is no good."""
        try:
            return self.label(cells)[0]
        except ImageError:
            with suppress(ImageError):
                values = [text_of(cells, column) for column in self.params.label_columns]
                return printable(self.params.joined_by.join(values)).strip() if all(values) else ""
            return ""

    def _join(self, values: tuple[str, ...]) -> tuple[str, str]:
        joined_by = self.params.joined_by
        factors: dict[str, str] = {}
        for column, value in zip(self.params.label_columns, values, strict=True):
            if not value:
                raise ImageError("no-label", f"{column} is empty")
            factors[column] = clean_label(value, remedy="change it in the table")
            if len(values) > 1 and joined_by in factors[column]:
                raise ImageError(
                    "bad-label",
                    f"{column} {printable(value)!r} holds {joined_by!r}, which joins labels; change joined_by",
                )
        label = clean_label(joined_by.join(factors.values()), remedy="change joined_by or the table")
        return label, json.dumps(factors, ensure_ascii=False)

    def origin(self, cells: dict[str, Cell], factors: str) -> Origin:
        params = self.params
        found = Origin(
            page_url=_known(cells, params.page_url_column),
            license=_known(cells, params.license_column),
            creator=_known(cells, params.creator_column),
            given_subset=subset_of(cells, params.subset_column) if params.subset_column else "",
            factors=factors,
            box=box_of(cells, params.box) if params.box else None,
        )
        # rows that know nothing of their own share one object: 1,000,000 of them would take 300 MB
        return found if found.page_url or found.box else self.origins.setdefault(found, found)


def _known(cells: dict[str, Cell], column: str | None) -> str:
    return printable(text_of(cells, column)) if column else ""


def _list_files(rows: _Rows, entry: str, place: Place) -> Listing:
    params = rows.params
    root = place.root / params.root
    if not root.is_dir():
        what = "is no folder" if root.exists() else "does not exist"
        raise InputError(f"{entry}.root: {params.root} {what}; name the folder where the paths of the table start")
    files = Files(root)
    seen = Seen()
    paths: list[str] = []
    labels: list[str] = []
    origins: list[Origin] = []
    stamps = array("q")
    for line, cells in rows:
        name = label = ""
        try:
            name = text_of(cells, params.image_column, only_text=True)
            if not name:
                raise ImageError("no-path", f"{params.image_column} is empty")
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
    order = sorted(range(len(paths)), key=lambda row: (paths[row], labels[row]))
    return Listing(
        source=rows.source,
        paths=[paths[row] for row in order],
        labels=[labels[row] for row in order],
        read=FolderReader(str(root), place.params.max_file_bytes, follow=False),
        rejects=rows.rejects,
        origins=[origins[row] for row in order],
        stamps=np.array(stamps, np.int64).reshape(-1, len(FileStamp._fields))[order],
    )


def _list_urls(rows: _Rows, place: Place) -> Listing:
    from pipelines.ingest.download import Request, download_listing, source_key

    seen = Seen()
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
        requests.append(Request(url, label, origin, place=f"line {line}"))
    with rows.path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
    return download_listing(
        requests,
        rows.rejects,
        source=rows.source,
        place=place,
        key=source_key(rows.params, place, digest),
        title=f"ingest: fetching {rows.source}",
    )
