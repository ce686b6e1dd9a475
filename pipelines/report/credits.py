"""Credit the images, by creator and licence, with links to their pages."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.core.licenses import canonical_license, license_title, license_url
from pipelines.report.inputs import Inputs

NUM_CREDITS = 100
"""rows shown on the page; all stand in credits.csv"""
NUM_LINKS = 3
"""links shown in a row, each of another host"""
HEADER = ("creator", "license", "link", "pictures")

_MAX_LINK = 2000
_KEYS = ["creator", "license", "key"]


@dataclass(frozen=True)
class CreditLink:
    """The page of an image, or the image where no page is known."""

    url: str
    host: str


@dataclass(frozen=True)
class Credit:
    """One creator and licence; "" where either is not known.

    Args:
        license: as people write it.
        license_url: of a Creative Commons licence, else "".
        num_pictures: different images.
        links: safe ones, one a host, the first few of `num_links` different ones.
    """

    creator: str
    license: str
    license_url: str
    num_pictures: int
    links: list[CreditLink]
    num_links: int


@dataclass(frozen=True)
class Credits:
    """All credits.

    Args:
        shown: the first NUM_CREDITS, the most pictures first.
        table: of credits.csv: HEADER, a row for each different link of each creator and licence, sorted.
        num_credits: different pairs of creator and licence.
        num_creators: that are known.
        num_pictures: that anything is known of.
        num_licensed: of the pictures used, those whose licence is known.
        num_used: pictures used.
    """

    shown: list[Credit]
    table: pa.Table
    num_credits: int
    num_creators: int
    num_pictures: int
    num_licensed: int
    num_used: int


def find_credits(inputs: Inputs) -> Credits | None:
    """Credit every image that no decision dropped, copies too; None where no source says anything of its images.

    What grows with the number of images stays in arrow: only groups become Python objects.
    """
    table = _origins(inputs)
    known = table.filter(pc.not_equal(pc.binary_join_element_wise(*[table[c] for c in (*_KEYS, "link")], ""), ""))
    if not known.num_rows:
        return None
    by_link = _grouped(known, [*_KEYS, "link"]).sort_by([(name, "ascending") for name in (*_KEYS, "link")])
    groups = _grouped(known, _KEYS).sort_by([("pictures", "descending"), *((name, "ascending") for name in _KEYS)])
    first = groups.slice(0, NUM_CREDITS)
    links: dict[tuple[str, str], list[str]] = {}
    for row in by_link.filter(pc.is_in(_joined(by_link), value_set=_joined(first))).to_pylist():
        links.setdefault((row["creator"], row["key"]), []).append(row["link"])
    return Credits(
        shown=[_credit(row, links[row["creator"], row["key"]]) for row in first.to_pylist()],
        table=by_link.select(HEADER),
        num_credits=groups.num_rows,
        num_creators=len(set(groups["creator"].unique().to_pylist()) - {""}),
        num_pictures=len(known["image_id"].unique()),
        num_licensed=len(table.filter(pc.and_(table["used"], pc.not_equal(table["key"], "")))["image_id"].unique()),
        num_used=len(inputs.index["image_id"].unique()),
    )


def safe_link(url: str) -> CreditLink | None:
    """`url` if a browser may follow it from the report; None for anything but plain http and https."""
    if len(url) > _MAX_LINK or any(letter.isspace() or not letter.isprintable() for letter in url):
        return None
    try:
        parts = urlsplit(url)
        host, user = parts.hostname, parts.username
    except ValueError:
        return None
    # https://bank.example@evil.example/ reads as what it is not
    if parts.scheme not in ("http", "https") or not host or user is not None or "\\" in url:
        return None
    return CreditLink(url, host.removeprefix("www."))


def _origins(inputs: Inputs) -> pa.Table:
    """Files not dropped: image_id (a number), creator, license (title), key (canonical), link, used (in the pack)."""
    table = inputs.manifest.filter(pc.not_equal(inputs.manifest["verdict"], "drop"))
    creator = pc.utf8_trim_whitespace(pc.fill_null(table["creator"], ""))
    written = pc.fill_null(table["license"], "").combine_chunks().dictionary_encode()
    names = written.dictionary.to_pylist()
    keys = [canonical_license(name) for name in names]
    titles = _titles(names, keys)
    page, url = (pc.fill_null(table[name], "") for name in ("page_url", "url"))
    return pa.table(
        {
            # as numbers, which are counted faster
            "image_id": table["image_id"].combine_chunks().dictionary_encode().indices,
            "creator": pc.replace_substring_regex(creator, r"\s+", " "),
            "key": pa.array(keys, pa.string()).take(written.indices),
            "license": pa.array(titles, pa.string()).take(written.indices),
            "link": pc.if_else(pc.equal(page, ""), url, page),
            "used": pc.is_in(table["image_id"], value_set=inputs.index["image_id"].combine_chunks()),
        }
    )


def _titles(names: Sequence[str], keys: Sequence[str]) -> list[str]:
    """One title for each key: of its spellings, the first by the alphabet."""
    chosen: dict[str, str] = {}
    for name, key in sorted(zip(names, keys, strict=True)):
        chosen.setdefault(key, license_title(name) if key else "")
    return [chosen[key] for key in keys]


def _grouped(table: pa.Table, keys: list[str]) -> pa.Table:
    """The different values of `keys`, and how many different `pictures` each has."""
    counted = table.group_by(keys).aggregate([("image_id", "count_distinct")])
    return counted.rename_columns([*(name for name in counted.column_names[:-1]), "pictures"]).select(
        [*keys, "pictures"]
    )


def _joined(table: pa.Table) -> pa.ChunkedArray:
    """Creator and licence of each row as one text."""
    return pc.binary_join_element_wise(table["creator"], table["key"], "\0")


def _credit(group: dict[str, Any], links: list[str]) -> Credit:
    one_a_host: dict[str, CreditLink] = {}
    for link in filter(None, map(safe_link, links)):
        one_a_host.setdefault(link.host, link)
        if len(one_a_host) == NUM_LINKS:
            break
    title, num_links = group["license"], sum(link != "" for link in links)
    shown = list(one_a_host.values())
    return Credit(group["creator"], title, license_url(title), group["pictures"], shown, num_links)
