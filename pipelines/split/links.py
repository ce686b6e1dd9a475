"""What must stay together beside copies: pairs that dedupe found, and what `split.group_by` may name.

That is a column of the manifest, the host of an address, a group of a table, or one of its label columns (factors).
"""

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.core.errors import InputError
from pipelines.core.factors import parse_factors
from pipelines.core.layout import repro_of
from pipelines.core.tables import DEDUPED
from pipelines.params.split import FACTOR, HOSTS


def read_pairs(path: Path) -> tuple[pa.Table, int]:
    """The columns image_a, image_b and kind of the pairs of duplicates.csv that belong together, and how many do not.

    Those of verdict `apart` only look alike, and dedupe left them in two groups: all that resemble a neighbour would
    be one group otherwise.

    Raises:
        InputError: the file is missing, or holds no pairs of images.
    """
    from pyarrow import csv

    columns = ["image_a", "image_b", "kind", "verdict"]
    try:
        found = csv.read_csv(
            path,
            # a path in quotes may hold a line break
            parse_options=csv.ParseOptions(newlines_in_values=True),
            convert_options=csv.ConvertOptions(
                include_columns=columns, column_types=dict.fromkeys(columns, pa.string()), strings_can_be_null=False
            ),
        )
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist: run the stage that writes it (`{repro_of(path)}`)") from error
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise InputError(f"{path} holds no pairs of images ({error}): run `dvc repro --force dedupe`") from error
    together = found.filter(pc.not_equal(found["verdict"], "apart"))
    return together.drop_columns(["verdict"]), found.num_rows - together.num_rows


def current_factors(table: pa.Table) -> pa.ChunkedArray:
    """The factors of the label that each file has now; "" where a relabelled one's new label has none, or several.

    The manifest's are of the label that a file came with.
    """
    factors = pc.fill_null(table["factors"], "")
    moved = pc.not_equal(table["label"], table["original_label"])
    if not pc.any(moved).as_py():
        return factors
    known: dict[str, set[str]] = {}
    told = pa.table({"label": table["original_label"], "factors": factors}).filter(pc.not_equal(factors, ""))
    for pair in told.group_by(["label", "factors"]).aggregate([]).to_pylist():
        known.setdefault(pair["label"], set()).add(pair["factors"])
    sure = {label: found.pop() for label, found in known.items() if len(found) == 1}
    at = pc.index_in(table["label"], pa.array(list(sure), pa.string()))
    return pc.if_else(moved, pc.fill_null(pa.array(list(sure.values()), pa.string()).take(at), ""), factors)


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
        found = parse_factors(text)
    except ValueError:  # validate reports it, and params say whether that stops the run
        return ""
    known.update(found)
    return found.get(name, "").strip()
