"""The stage: every picture of the split decoded once, and packed at training size."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipelines.augment.copies import plan_copies, write_copies
from pipelines.augment.packing import Row, locate, write_pack
from pipelines.augmentation.packs import COPIES, SUBSETS, UNLABELLED
from pipelines.core.errors import count
from pipelines.core.files import empty_folder, write_json
from pipelines.core.progress import progress
from pipelines.core.tables import PACK_INDEX, write_table
from pipelines.params.augment import AugmentParams
from pipelines.params.ingest import CropParams, FileCrop

MAX_NAMED = 10
"""classes that a line of output names"""


@dataclass(frozen=True)
class AugmentArtifact:
    """What augment wrote.

    Args:
        num_images: pictures of train, val and test.
        num_copies: fixed copies of training pictures.
        filled: of each class that was filled up its training pictures and its copies, by label.
        num_unlabelled: pictures without a label.
    """

    folder: Path
    num_images: int
    num_classes: int
    image_size: int
    num_copies: int
    filled: dict[str, tuple[int, int]]
    num_unlabelled: int

    def __str__(self) -> str:
        copies = count(self.num_copies, "augmented copy", "augmented copies")
        more = f", {copies} for {len(self.filled):,} of them" if self.num_copies else ""
        more += f", {count(self.num_unlabelled, 'picture')} without a label" if self.num_unlabelled else ""
        filled = [f"{label} {own} + {copies}" for label, (own, copies) in self.filled.items()]
        if len(filled) > MAX_NAMED:
            filled[MAX_NAMED:] = [f"and {len(filled) - MAX_NAMED} more"]
        classes = count(self.num_classes, "class", "classes")
        line = f"{count(self.num_images, 'picture')} of {classes} at {self.image_size} px{more}"
        return f"{line}; {', '.join(filled)}" if filled else line


def augment(
    params: AugmentParams, *, crop: CropParams, splits: Path, ingest_dir: Path, decisions_dir: Path, out_dir: Path
) -> AugmentArtifact:
    """Decode, crop, resize and pack every picture of `splits`, once.

    The part of a picture that counts stands in ingest's manifest; a row of crop.csv overrides it.

    Args:
        crop: `ingest.crop`, which says whether a picture may lack a row of crop.csv.
        splits: split's table (tables.SPLITS).
        ingest_dir: ingest's manifest and shards.
        decisions_dir: with crop.csv.
        out_dir: is emptied; receives {train,val,test,copies,unlabelled}.npy, {index,copies,unlabelled}.parquet,
            pack.json and preview.png.

    Raises:
        InputError: an input is missing, or a picture of the split is not in the shards.
        DecisionError: crop.csv breaks a rule, or lacks pictures that it must have.
    """
    every_picture = isinstance(crop, FileCrop) and crop.without == "error"
    found = locate(splits, ingest_dir, decisions_dir, every_picture=every_picture)
    classes = sorted({row.label for row in found if row.subset != UNLABELLED})
    members = {name: [row for row in found if row.subset == name] for name in (*SUBSETS, UNLABELLED)}
    number = {label: i for i, label in enumerate(classes)}
    train = members["train"]
    plan = plan_copies(
        np.array([number[row.label] for row in train], np.int64), params.copies.share if params.copies else 0.0
    )
    empty_folder(out_dir)
    with progress("augment", len(found) + len(plan.source), unit="pictures") as advance:
        for name, rows in members.items():
            write_pack(params, rows, ingest_dir=ingest_dir, path=out_dir / f"{name}.npy", advance=advance)
        image_ids = np.array([row.image_id for row in train], np.str_)
        write_copies(params, plan=plan, image_ids=image_ids, out_dir=out_dir, advance=advance)
    tables = {"index": [row for name in sorted(SUBSETS) for row in members[name]], UNLABELLED: members[UNLABELLED]}
    for name, rows in tables.items():
        _write_index(rows, [0] * len(rows), number, out_dir / f"{name}.parquet")
    copied = [train[i]._replace(subset=COPIES) for i in plan.source.tolist()]
    _write_index(copied, plan.copy.tolist(), number, out_dir / f"{COPIES}.parquet")
    # what a person's own picture needs to become like these
    write_json(out_dir / "pack.json", {"image_size": params.image_size, "resize_mode": params.resize_mode})

    from pipelines.augment.preview import write_preview  # imports torch, since it runs what training runs

    write_preview(params, augment_dir=out_dir, path=out_dir / "preview.png")
    return AugmentArtifact(
        folder=out_dir,
        num_images=len(tables["index"]),
        num_classes=len(classes),
        image_size=params.image_size,
        num_copies=len(copied),
        filled=_filled([row.label for row in train], [row.label for row in copied]),
        num_unlabelled=len(members[UNLABELLED]),
    )


def _filled(train: Sequence[str], copied: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Of each class with copies its pictures and its copies, by label."""
    own, copies = Counter(train), Counter(copied)
    return {label: (own[label], copies[label]) for label in sorted(copies)}


def _write_index(rows: Sequence[Row], copies: Sequence[int], number: dict[str, int], path: Path) -> None:
    """Write rows of PACK_INDEX, in the order of their packs.

    Args:
        copies: the number of each row's copy.
        number: class_index by label.
    """
    positions: dict[str, int] = {}
    table = []
    for row, copy in zip(rows, copies, strict=True):
        position = positions.setdefault(row.subset, 0)
        positions[row.subset] += 1
        table.append(
            {
                **{"image_id": row.image_id, "label": row.label, "group": row.group, "factors": row.factors},
                **{"class_index": -1 if row.subset == UNLABELLED else number[row.label], "subset": row.subset},
                **{"fold": row.fold, "position": position, "copy": copy},
            }
        )
    write_table(pa.Table.from_pylist(table, schema=PACK_INDEX), path, classes=list(number))
