"""What `split.group_by` may name: a column of the manifest, the host of an address, a group or factor of a table."""

import json
from collections.abc import Callable
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.core.errors import InputError
from pipelines.core.tables import DEDUPED
from pipelines.params.split import FACTOR, HOSTS

_GROUPS = "given_groups"


def column_for(group_by: str, names: list[str]) -> str:
    """The manifest's column that `group_by` is read from.

    Args:
        names: of the manifest's columns.
    """
    if group_by.startswith(FACTOR) and "factors" in names:
        return "factors"
    if group_by in HOSTS:
        return HOSTS[group_by]
    return group_by if group_by in names else _GROUPS


def linking_values(column: pa.ChunkedArray, group_by: str, source: str) -> pa.ChunkedArray:
    """Per file the text whose equals must stay on one side; "" where the file has none, which links nothing.

    Args:
        column: of the manifest, of the name `source`: see `column_for`.

    Raises:
        InputError: `group_by` names a group or factor that no file has.
    """
    if group_by in HOSTS:
        return _mapped(column, _host)
    if group_by != source:
        name = group_by.removeprefix(FACTOR)
        known: set[str] = set()
        values = _mapped(column, lambda text: _factor(text, name, known))
        if name not in known and source == _GROUPS:
            raise InputError(
                f"split.group_by is {group_by!r}, which is no column of data/dedupe/manifest.parquet, nor group_column "
                f"of a table: name one of {', '.join([*sorted(known), *DEDUPED.names, *HOSTS])}, or {FACTOR}<name> of "
                "a label column, or null for duplicate groups alone"
            )
        if name not in known:
            raise InputError(
                f"split.group_by is {group_by!r}, but no file of data/dedupe/manifest.parquet has a factor {name!r}: "
                + (f"there are {', '.join(sorted(known))}" if known else "none has any; only tables give factors")
                + "; name another one, or null for duplicate groups alone"
            )
        return values
    return pc.utf8_trim_whitespace(pc.fill_null(pc.cast(column, pa.string()), ""))


def _mapped(column: pa.ChunkedArray, change: Callable[[str], str]) -> pa.ChunkedArray:
    """`change` of every text, computed once for equal ones."""
    encoded = pc.fill_null(column, "").combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    changed = pa.array([change(text) for text in encoded.dictionary.to_pylist()], pa.string())
    return pa.chunked_array([changed.take(encoded.indices)], pa.string())


def _host(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:  # an address that is none, such as http://[
        return ""


def _factor(text: str, name: str, known: set[str]) -> str:
    try:
        found = json.loads(text) if text else {}
    except ValueError:
        return ""
    if not isinstance(found, dict):
        return ""
    known.update(found)
    value = found.get(name)
    return "" if value is None else str(value).strip()
