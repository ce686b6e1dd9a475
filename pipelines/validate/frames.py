"""The tables that the rules look at: files of the manifest, pictures kept, its columns, and all files seen.

And what helps where dedupe holds pictures that stand under two labels: more pictures would not.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.core.errors import InputError
from pipelines.core.tables import DEDUPED, read_schema, read_table, short_id
from pipelines.validate.checks import tally
from pipelines.validate.rule import SETTLE, FrameName, Rule
from pipelines.validate.rules import columns_of

if TYPE_CHECKING:
    import pandas as pd

Pairs = tuple[dict[str, str], ...]
REJECT_COLUMNS = ("source", "source_path", "label", "reason", "detail")
NAMES = ("image_id", "label", "source_path")
"""By these offenders are named; every frame has them ("" where it has none), beside the columns asked for."""


@dataclass(frozen=True)
class Frames:
    """Each frame's rows are numbered from 0.

    Args:
        files: one row a file of the manifest, whatever its verdict, with its columns.
        pictures: the files of verdict keep.
        labelled_files, labelled_pictures: these without the label of split.unlabelled, which is no class.
        columns: one row a column of the manifest: label (its name), type, expected.
        classes: the verdicts of the labelled files, and a row of verdict `refused` for each class of which ingest
            accepted nothing.
        refused_classes: these classes, with the reasons of their rejects.
        conflicts: the rows of duplicates.csv that are one picture under two labels.
        seen: one row a file that ingest saw, but those that a source's `hidden: skip` leaves out: source, whether it
            was refused, and the reason ("" for none). Its label is the one that it came with, before
            data/decisions/relabel.csv.
    """

    files: "pd.DataFrame"
    pictures: "pd.DataFrame"
    labelled_files: "pd.DataFrame"
    labelled_pictures: "pd.DataFrame"
    classes: "pd.DataFrame"
    refused_classes: dict[str, str]
    columns: "pd.DataFrame"
    seen: "pd.DataFrame"
    conflicts: Pairs = ()


def read_frames(manifest: Path, rejects: Path, rules: list[Rule], *, unlabelled: str | None = None) -> Frames:
    """Read dedupe's manifest and ingest's rejects as far as `rules` look at them.

    Args:
        manifest: with duplicates.csv beside it.
        rules: on files and pictures, of which the labelled ones have the same columns.
        unlabelled: split.unlabelled.

    Raises:
        InputError: a file is missing, or not what its stage writes.
    """
    wanted = dict.fromkeys((*NAMES, "verdict", "best_id", "group", "source", "original_label"))
    for rule in rules:
        if rule.frame in ("files", "pictures"):
            wanted |= dict.fromkeys(name for one in rule.expectations for name in columns_of(one))
    table = read_table(manifest, DEDUPED, columns=[name for name in DEDUPED.names if name in wanted])
    refused = _read_rejects(rejects)
    kept = table.filter(pc.fill_null(pc.equal(table["verdict"], "keep"), False))
    pictures = kept.select([*NAMES, *_asked(rules, "pictures")])
    files, kept_files = _pandas(table), _pandas(pictures)
    conflicts = read_conflicts(manifest.with_name("duplicates.csv"))
    labelled = [_labelled(one, unlabelled) for one in (files, kept_files)]
    seen = _seen(table, refused)
    lost = _refused_classes(seen, {unlabelled, *files["label"].dropna().unique()})
    classes = _classes(labelled[0], list(lost))
    return Frames(files, kept_files, labelled[0], labelled[1], classes, lost, _columns(manifest), seen, conflicts)


def _labelled(frame: "pd.DataFrame", unlabelled: str | None) -> "pd.DataFrame":
    return frame if unlabelled is None else frame[frame["label"] != unlabelled].reset_index(drop=True)


def _asked(rules: list[Rule], frame: FrameName) -> list[str]:
    """The columns beside NAMES that rules on `frame` look at or tally."""
    asked = [rule for rule in rules if rule.frame == frame]
    names = dict.fromkeys(name for rule in asked for one in rule.expectations for name in columns_of(one))
    return [name for name in names if name not in NAMES]


def _pandas(table: pa.Table) -> "pd.DataFrame":
    wide: dict[pa.DataType, pa.DataType] = {pa.int32(): pa.int64(), pa.float32(): pa.float64()}
    # Great Expectations compares columns of other numbers value by value, in Python: 1.5 s a million
    schema = pa.schema([(field.name, wide.get(field.type, field.type)) for field in table.schema])
    frame: pd.DataFrame = table.cast(schema).to_pandas()
    return frame


def _seen(table: pa.Table, refused: "pd.DataFrame") -> "pd.DataFrame":
    import pandas as pd

    accepted = _pandas(table.select(["image_id", "source_path", "source", "original_label"]))
    accepted = accepted.rename(columns={"original_label": "label"}).assign(refused=False, reason="")
    refused = refused[refused["reason"] != "hidden"]
    return pd.concat([accepted, refused[list(accepted.columns)]], ignore_index=True)


def _refused_classes(seen: "pd.DataFrame", known: set[str | None]) -> dict[str, str]:
    """Classes of which ingest refused everything, with the reasons; `known` ones have a file, or are no class.

    The label of a file that lies beside class folders (`Gibson/notes.txt`, `Gibson/SG/1.jpg`) is no class.
    """
    accepted = seen[~seen["refused"]]
    refused = seen[seen["refused"] & ~seen["label"].isin({"", *known, *accepted["label"].unique()})]
    if not len(refused):
        return {}
    folders = {
        (source, above.as_posix())
        for source, path in zip(accepted["source"], accepted["source_path"], strict=True)
        for above in PurePosixPath(path).parents[1:]
    }
    where = [PurePosixPath(path).parent.as_posix() for path in refused["source_path"]]
    beside = [
        (source, folder) in folders and f"/{folder}".endswith(f"/{label}")
        for source, folder, label in zip(refused["source"], where, refused["label"], strict=True)
    ]
    refused = refused[~np.array(beside)]
    return {str(label): tally(rows["reason"]) for label, rows in refused.groupby("label")}


def _classes(files: "pd.DataFrame", refused: list[str]) -> "pd.DataFrame":
    import pandas as pd

    names = [*NAMES, "verdict"]
    rows = pd.DataFrame({"image_id": "", "label": refused, "source_path": "", "verdict": "refused"}, dtype="str")
    return pd.concat([files[names], rows], ignore_index=True) if refused else files[names]


def _read_rejects(path: Path) -> "pd.DataFrame":
    import pandas as pd

    try:
        # a file name that is not UTF-8 stands in the table byte for byte, and is shown with a replacement sign
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            reader = csv.DictReader(file)
            found = list(reader)
            header = tuple(reader.fieldnames or ())
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist: run the stage that writes it (`dvc repro ingest`)") from error
    if header != REJECT_COLUMNS:
        raise InputError(
            f"{path} has the columns {', '.join(header) or '(none)'}, not {', '.join(REJECT_COLUMNS)}: "
            "run `dvc repro --force ingest`"
        )
    return pd.DataFrame(found, columns=list(REJECT_COLUMNS), dtype="str").assign(image_id="", refused=True)


def _columns(manifest: Path) -> "pd.DataFrame":
    import pandas as pd

    schema = read_schema(manifest)
    return pd.DataFrame(
        {
            "image_id": "",
            "label": DEDUPED.names,
            "source_path": "",
            "type": [str(schema.field(name).type) for name in DEDUPED.names],
            "expected": [str(kind) for kind in DEDUPED.types],
        }
    )


ON_CLASSES = ("min_classes", "min_images_per_class", "max_imbalance")


def read_conflicts(duplicates: Path) -> Pairs:
    """The rows of duplicates.csv that are one picture under two labels; none where there is no file."""
    if not duplicates.exists():
        return ()
    with duplicates.open(encoding="utf-8", errors="replace", newline="") as file:
        return tuple(row for row in csv.DictReader(file) if row.get("verdict") == "conflict")


def held_of(rule: Rule, labels: Sequence[str], frames: "Frames") -> "pd.DataFrame":
    """The files that are held, of the classes that break `rule`, a rule on classes: without `labels` of all."""
    files = frames.files
    held = files[(files["verdict"] == "conflict").fillna(False)]
    return held[held["label"].isin(labels)] if rule.name != "min_classes" else held


def what_helps(rule: Rule, labels: Sequence[str], frames: "Frames", mirroring: Sequence[str]) -> str:
    """`rule.cure`, or how to settle the pictures that are held.

    Args:
        labels: of the offenders.
        mirroring: what to change so that training mirrors no picture.
    """
    if rule.name == "max_conflict_fraction":
        return _turned(frames.conflicts, mirroring) + rule.cure
    held = held_of(rule, labels, frames) if rule.name in ON_CLASSES else frames.files[:0]
    if held.empty:
        return rule.cure
    first = held.sort_values(["label", "source_path"]).iloc[0]
    settle = SETTLE.replace("{image_id}", short_id(first["image_id"])).replace(
        "{file}", csv_value(first["source_path"])
    )
    named = sorted(set(held["label"]))
    pairs = tuple(row for row in frames.conflicts if {row["label_a"], row["label_b"]} & set(named))
    of = "" if len(named) > 3 else " of " + " and ".join(map(repr, named))
    found = f"{held['image_id'].nunique():,} pictures{of} are held, since they stand under other labels too: "
    return found + _turned(pairs, mirroring) + settle + ("" if _enough(rule, labels, frames) else f"; or {rule.cure}")


def printable(text: str) -> str:
    """Names come from outside: what a terminal would obey is shown as a replacement sign."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def csv_value(text: str) -> str:
    """As a value of a CSV line, for a terminal."""
    doubled = printable(text).replace('"', '""')
    return f'"{doubled}"' if set(text) & set(',;"') else doubled


def _enough(rule: Rule, labels: Sequence[str], frames: "Frames") -> bool:
    """Whether the rule holds once all that is held counts."""
    files = frames.files[frames.files["verdict"].isin(["keep", "conflict"])]
    limit = rule.limit
    if not isinstance(limit, int) or rule.name == "max_imbalance":
        return False
    if rule.name == "min_classes":
        return bool(files["label"].nunique() >= limit)
    sizes = files.groupby("label")["image_id"].nunique()
    return all(int(sizes.get(label, 0)) >= limit for label in labels)


def _turned(pairs: Pairs, mirroring: Sequence[str]) -> str:
    """Which of the pairs only match mirrored or turned, and what tells dedupe that these are different pictures."""
    moves = [row.get("transform") or "none" for row in pairs]
    mirrored = sum("mirror" in move for move in moves)
    turned = sum(move.startswith("rotate") for move in moves)
    found = ""
    if mirrored:
        training = f", and for training {' and '.join(mirroring)}" if mirroring else ""
        found += (
            f"{mirrored:,} of {len(pairs):,} pairs are mirror images: where left and right tell classes apart, set "
            f"dedupe.mirror: false{training}; else "
        )
    if turned:
        found += (
            f"{turned:,} of {len(pairs):,} pairs are turned by 90, 180 or 270 degrees: where that tells classes apart, "
            "set dedupe.rotations: false; else "
        )
    return found
