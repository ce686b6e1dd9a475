"""The factors of a picture's label: the label columns of the table that it came with, as its label is now."""

import pyarrow as pa
import pyarrow.compute as pc


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
