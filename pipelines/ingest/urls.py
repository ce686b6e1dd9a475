"""The urls source: a list of URLs, each with its label, as text or CSV.

Text: a line is a URL, white space and the label, which may hold spaces. Lines that start with # and empty lines count
for nothing. CSV: a header with the columns url and label, in any order, and if there are any license, creator and
page_url; other columns are ignored. Both are UTF-8. A row that cannot be used is a reject that names its line.
"""

import csv
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass

from pipelines.core.errors import ImageError, InputError
from pipelines.ingest.fetch import FetchRequest, download_listing, source_key
from pipelines.ingest.labels import clean_label
from pipelines.ingest.listing import Listing, Origin, Place, Reject
from pipelines.params.base import path_below
from pipelines.params.sources import UrlsSource

_KNOWN = ("license", "creator", "page_url")


@dataclass(frozen=True)
class UrlRow:
    """One row of a list, before anything is believed.

    Args:
        line: where it starts, from 1.
        url, label, license, creator, page_url: as they stand there.
        problem: why it is no row at all; else "".
    """

    line: int
    url: str
    label: str = ""
    license: str = ""
    creator: str = ""
    page_url: str = ""
    problem: str = ""


def list_urls(params: UrlsSource, *, source: str, place: Place) -> Listing:
    """Fetch the pictures of a list.

    Args:
        params: the entry of ingest.sources.
        source: its name in manifest and rejects: "0-urls".
        place: with the folder of params.yaml, the cache and the rules.

    Raises:
        InputError: the list is missing, empty or no such list; the cache cannot be written.
    """
    where = f"ingest.sources[{source.split('-')[0]}].path: {params.path}"
    data = _read(params, where=where, place=place)
    text = _decode(data, where)
    rows = list(_text_rows(text) if params.format == "text" else _csv_rows(text, where))
    if not rows:
        raise InputError(f"{where} holds no URL; write one with its label on each line")
    requests, rejects = [], []
    for row in rows:
        try:
            requests.append(_request(row))
        except ImageError as error:
            stands = _one_line(row.url) or _one_line(row.label)
            rejects.append(
                Reject(source, stands, _shown_label(row.label), error.reason, f"line {row.line}: {error.detail}")
            )
    return download_listing(
        requests,
        rejects,
        source=source,
        place=place,
        key=source_key(params, place, data),
        title=f"ingest: fetching {source}",
        gone=params.gone,
    )


def _request(row: UrlRow) -> FetchRequest:
    """What a row asks for; its URL is judged when it is fetched.

    Raises:
        ImageError: `bad-row`, `no-url`, `no-label` or `bad-label`.
    """
    if row.problem:
        raise ImageError("bad-row", row.problem)
    if not row.url.strip():
        raise ImageError("no-url", "there is no URL")
    if not row.label.strip():
        raise ImageError("no-label", "there is no label")
    label = clean_label(row.label, remedy="change it in the list")
    origin = Origin(license=_one_line(row.license), creator=_one_line(row.creator), page_url=_one_line(row.page_url))
    return FetchRequest(row.url, label, origin, place=f"line {row.line}")


def _shown_label(label: str) -> str:
    try:
        return clean_label(label)
    except ImageError:
        return _one_line(label)


def _read(params: UrlsSource, *, where: str, place: Place) -> bytes:
    path = path_below(place.root, params.path)
    if path.is_dir():
        raise InputError(f"{where} is a folder; name a file with a URL and its label on each line")
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(
            f"{where} does not exist; correct it (a relative path starts at the folder of params.yaml)"
        ) from error
    except OSError as error:
        raise InputError(f"{where} cannot be read ({os.strerror(error.errno or 0)}); change its permissions") from error


def _decode(data: bytes, where: str) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\x00" in data[:1000]:
        raise InputError(f"{where} is no UTF-8 (it looks like UTF-16); save it as UTF-8")
    # bytes that are not UTF-8 stay visible, so that only their own rows are refused
    return data.decode("utf-8-sig", "surrogateescape")


def _text_rows(text: str) -> Iterator[UrlRow]:
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            url, *label = stripped.split(maxsplit=1)
            yield UrlRow(number, url, *label)


def _csv_rows(text: str, where: str) -> Iterator[UrlRow]:
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    start = 1
    while True:
        start = lines.line_num + 1
        try:
            cells = next(lines)
        except StopIteration:
            break
        except csv.Error as error:
            if header is None or "end of data" in str(error):
                raise InputError(
                    f"{where}, line {start}: no CSV ({error}); a quote that opens here may never be closed"
                ) from error
            yield UrlRow(start, "", problem=f"no row of CSV ({error})")
            continue
        if not any(cell.strip() for cell in cells):
            continue
        if header is None:
            header = _header(cells, where)
            continue
        if len(cells) != len(header):
            yield UrlRow(start, " ".join(cells), problem=f"{len(cells)} values; the header names {len(header)} columns")
            continue
        named = dict(zip(header, cells, strict=True))
        yield UrlRow(start, named["url"], named["label"], *(named.get(name, "") for name in _KNOWN))


def _header(cells: list[str], where: str) -> list[str]:
    header = [cell.strip().lower() for cell in cells]
    for name in ("url", "label"):
        if header.count(name) != 1:
            raise InputError(
                f"{where}: the header {_one_line(','.join(cells))!r} names {header.count(name)} columns {name!r}; "
                "write one url and one label, with commas between columns"
            )
    return header


def _one_line(text: str) -> str:
    """What stands in a cell, as one printable line of at most 2,000 characters."""
    line = " ".join(text.encode("utf-8", "backslashreplace").decode().split())
    line = "".join(character if character.isprintable() else "?" for character in line)
    return line if len(line) <= 2000 else line[:1999] + "…"
