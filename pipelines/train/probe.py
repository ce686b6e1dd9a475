"""features.parquet: what a frozen backbone makes of the pictures, for evaluate's suspects and leak premium."""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.augmentation.packs import PackIndex, Rows
from pipelines.core.tables import FEATURES
from pipelines.params.recipes import TtaView

MAX_PICTURES = 20_000
"""of larger sets whole groups are drawn: 102 MB of features at most with Lite0. Evaluate looks for wrong labels among
all of them, and measures the leak premium on 5,000 files"""


def probe_rows(groups: Sequence[str]) -> Rows:
    """Rows of the index, sorted, whose features are kept: all, or whole groups by the hash of their names.

    Args:
        groups: of each row of the index.
    """
    if len(groups) <= MAX_PICTURES:
        return np.arange(len(groups))
    members: dict[str, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    found: list[int] = []
    for group in sorted(members, key=lambda name: hashlib.sha256(name.encode()).digest()):
        if len(found) + len(members[group]) <= MAX_PICTURES:
            found += members[group]
    return np.array(sorted(found), np.int64)


def feature_table(
    index: PackIndex, rows: Rows, features: Sequence[npt.NDArray[np.float16]], views: Sequence[TtaView]
) -> pa.Table:
    """The table FEATURES.

    Args:
        rows: n rows of the index.
        features: (n, D) of these in each of `views`. Near copies are stood in for by the last view but the original.
    """
    plain = views.index("original") if "original" in views else 0
    edited = max((i for i in range(len(views)) if i != plain), default=plain)
    columns = {
        "image_id": pa.array(index.image_id[rows].tolist(), pa.string()),
        "class_index": pa.array(index.class_index[rows], pa.int32()),
        "plain": pa.array([line.tobytes() for line in features[plain]], pa.binary()),
        "edited": pa.array([line.tobytes() for line in features[edited]], pa.binary()),
    }
    return pa.table(columns, schema=FEATURES).sort_by([("image_id", "ascending"), ("class_index", "ascending")])
