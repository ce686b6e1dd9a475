"""The tables that the rules look at: files of the manifest, pictures kept, its columns, and all files seen."""

import csv
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.core.errors import InputError
from pipelines.core.tables import DEDUPED, read_schema, read_table
from pipelines.validate.rule import Rule, tally

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
    asked: dict[str, list[str]] = {"files": [], "pictures": []}
    for rule in rules:
        asked.setdefault(rule.frame.removeprefix("labelled_"), []).extend(rule.columns)
    wanted |= dict.fromkeys([*asked["files"], *asked["pictures"]])
    table = read_table(manifest, DEDUPED, columns=[name for name in DEDUPED.names if name in wanted])
    refused = _read_rejects(rejects)
    kept = table.filter(pc.fill_null(pc.equal(table["verdict"], "keep"), False))
    pictures = kept.select(list(dict.fromkeys([*NAMES, *asked["pictures"]])))
    files, kept_files = _pandas(table), _pandas(pictures)
    conflicts = read_conflicts(manifest.with_name("duplicates.csv"))
    labelled = [_labelled(one, unlabelled) for one in (files, kept_files)]
    seen = _seen(table, refused)
    lost = _refused_classes(seen, {unlabelled, *files["label"].dropna().unique()})
    classes = _classes(labelled[0], list(lost))
    return Frames(files, kept_files, labelled[0], labelled[1], classes, lost, _columns(manifest), seen, conflicts)


def _labelled(frame: "pd.DataFrame", unlabelled: str | None) -> "pd.DataFrame":
    return frame if unlabelled is None else frame[frame["label"] != unlabelled].reset_index(drop=True)


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


def read_conflicts(duplicates: Path) -> Pairs:
    """The rows of duplicates.csv that are one picture under two labels; none where there is no file."""
    if not duplicates.exists():
        return ()
    with duplicates.open(encoding="utf-8", errors="replace", newline="") as file:
        return tuple(row for row in csv.DictReader(file) if row.get("verdict") == "conflict")
