"""What a model says of pictures with known labels that it did not learn from: test and validation ones of its run.

A model folder holds a part of them, so that labels can be audited where the run's data is not.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa

from pipelines.core.layout import Layout
from pipelines.core.tables import LABEL, PREDICTIONS, read_table, write_table
from pipelines.evaluate.metrics import Floats, Ints
from pipelines.params.load import load_params

KNOWN = "known.parquet"
MAX_NUMBERS = 2_000_000
"""of a model folder, 8 MB before compression: 2,000 pictures of 1,000 classes"""


def known_predictions(where: Path) -> tuple[Ints, Floats] | None:
    """(M,) labels and (M, K) predictions, of a project or a model folder; None where they are not there.

    Raises:
        InputError: files of the project do not fit each other.
    """
    if (where / KNOWN).is_file():
        table = read_table(where / KNOWN, PREDICTIONS)
        likely = table["probabilities"].combine_chunks().flatten().to_numpy().astype(np.float64)
        return table["class_index"].to_numpy().astype(np.int64), likely.reshape(table.num_rows, -1)
    layout = Layout(where)
    return _of_run(layout) if layout.resolved.is_file() and layout.pack_index.is_file() else None


def write_known(where: Path, path: Path, *, classes: tuple[str, ...]) -> None:
    """Write what `known_predictions` finds in `where`, of many rows every n-th; nothing where it finds none."""
    known = known_predictions(where)
    if known is None:
        return
    actual, likely = known
    step = -(-likely.size // MAX_NUMBERS)
    actual, likely = actual[::step], likely[::step]
    columns = {
        "image_id": pa.array([""] * len(actual), pa.string()),
        "subset": pa.array(["known"] * len(actual), pa.string()),
        "class_index": pa.array(actual, pa.int32()),
        "probabilities": pa.array(list(likely.astype(np.float32)), pa.list_(pa.float32())),
    }
    write_table(pa.table(columns, schema=PREDICTIONS), path, classes=list(classes))


def _of_run(layout: Layout) -> tuple[Ints, Floats]:
    """Of the run's members together, combined as evaluate combines them."""
    from pipelines.evaluate.ensemble import calibrate, combine
    from pipelines.evaluate.members import join_factors, read_factors, read_index, read_members

    params = load_params(layout.resolved)
    packed = read_index(layout.pack_index)
    members = [calibrate(one) for one in read_members(layout.members(params.train), packed.classes)]
    label_members = [one for one in members if one.target == LABEL]
    if len(label_members) < len(members):
        factors = read_factors(layout.pack_index, packed.classes)
        others = [one for one in members if one.target != LABEL]
        label_members.append(calibrate(join_factors(others, factors, packed)))
    groups = packed.group_numbers(label_members[0].val.image_ids)
    found = combine(params.evaluate.ensemble, label_members, val_groups=groups, seed=params.evaluate.seed)
    return (
        np.concatenate([found.test.actual, found.val.actual]),
        np.concatenate([found.test.probabilities, found.val.probabilities]),
    )
