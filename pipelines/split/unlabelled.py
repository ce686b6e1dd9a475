"""Pictures without a label: they lie in no subset, and none is near a picture that something is measured on.

A recipe may learn from them by what a former run takes them for (its pseudo_labels). One that is a copy of a test
picture, or of the same person where split.group_by says so, would teach the test set: it is left out. So is one that is
bound to a picture that validates, and with folds every labelled picture validates once.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.core.tables import SPLITS
from pipelines.params.split import SplitParams
from pipelines.split.links import read_pairs
from pipelines.split.units import Pictures, kept_rows, link, read_files

SUBSET = "unlabelled"


@dataclass(frozen=True)
class Unlabelled:
    """What became of the pictures without a label.

    Args:
        rows: those that stay, as rows of SPLITS.
        num_left_out: those bound to a labelled picture outside of what always trains.
    """

    rows: pa.Table
    num_left_out: int


def read_unlabelled(manifest: Path, duplicates: Path, params: SplitParams, splits: pa.Table) -> Unlabelled:
    """The pictures under the label split.unlabelled.

    Args:
        splits: SPLITS of the labelled pictures, sorted.
    """
    nothing = Unlabelled(SPLITS.empty_table(), 0)
    if params.unlabelled is None:
        return nothing
    files = read_files(manifest, params.group_by)
    rows = kept_rows(files.filter(pc.equal(files["label"], params.unlabelled)))
    if rows.num_rows == 0:
        return nothing
    # a labelled file of any verdict binds: a copy that dedupe left out is of a picture that takes part
    linked = link(files, params.group_by, pairs=read_pairs(duplicates)[0])
    trains = pc.and_(pc.equal(splits["subset"], "train"), pc.equal(splits["fold"], -1))
    measured = pc.unique(splits.filter(pc.invert(trains))["image_id"])
    labelled = pc.not_equal(linked.files["label"], params.unlabelled)
    binds = pc.and_(labelled, pc.is_in(linked.files["image_id"], measured)).to_numpy(zero_copy_only=False)
    unit_of = Pictures(rows, linked).unit_of
    bound = np.isin(unit_of, linked.unit_of[binds])
    columns = {
        **{"image_id": rows["image_id"], "label": rows["label"]},
        "group": pa.array(linked.units, pa.string()).take(pa.array(unit_of)),
        "subset": pa.repeat(SUBSET, rows.num_rows),
        "fold": pa.repeat(pa.scalar(-1, pa.int16()), rows.num_rows),
        "factors": pa.repeat("", rows.num_rows),
    }
    found = pa.table([columns[name] for name in SPLITS.names], schema=SPLITS)
    return Unlabelled(found.filter(pa.array(~bound)), int(bound.sum()))


def with_unlabelled(splits: pa.Table, unlabelled: Unlabelled) -> pa.Table:
    """Both, sorted by (label, image_id)."""
    if unlabelled.rows.num_rows == 0:
        return splits
    table = pa.concat_tables([splits, unlabelled.rows])
    # an image may stand on two sides of a given split
    return table.sort_by([(name, "ascending") for name in ("label", "image_id", "subset", "fold")]).combine_chunks()


def as_training(splits: pa.Table) -> pa.Table:
    """For the audit: pictures without a label are on the side of what always trains."""
    at = splits.schema.get_field_index("subset")
    subset = pc.if_else(pc.equal(splits["subset"], SUBSET), "train", splits["subset"])
    return splits.set_column(at, splits.schema.field("subset"), subset)
