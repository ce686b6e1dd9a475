"""The tables that the rules look at: one row a file, one a column, one a class, and one row of figures of the run."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.core.errors import InputError
from pipelines.core.licenses import canonical_license
from pipelines.core.tables import DEDUPED, read_table
from pipelines.validate.labels import spelling, written_well

if TYPE_CHECKING:
    import pandas as pd

REJECT_COLUMNS = ("source", "source_path", "label", "reason", "detail")

COLUMNS = ["image_id", "label", "width", "height", "contrast", "source", "source_path", "group", "verdict", "best_id"]
"""What the rules read of the manifest."""

ORIGIN_COLUMNS = ["license", "url", "page_url"]
"""What the rules on licences and provenance read too; texts of every file, so only if they are on."""


@dataclass(frozen=True)
class Frames:
    """Each frame has the columns image_id, label and source_path, by which offenders are named ("" where it has none).

    Args:
        files: one row a file of the manifest, whatever its verdict: COLUMNS.
        pictures: the files of verdict keep, with side (shorter, pixels), aspect (longer side over shorter), contrast;
            if asked for, license (see pipelines.core.licenses; "" unknown) and traceable (has a url or page_url).
        columns: one row a column of the manifest: label (its name), type, expected.
        classes: one row a class, drops apart: num_images (of verdict keep), imbalance (pictures of the largest class
            for one of this), written, spelling. Imbalance is missing where the class has no picture.
        run: one row: num_classes, and reject_fraction, duplicate_fraction, conflict_fraction in [0, 1].
        rejects: one row a file that ingest refused, with its reason.
        duplicates: the files that are copies of a better one.
        conflicts: the files of pictures under two labels.
    """

    files: "pd.DataFrame"
    pictures: "pd.DataFrame"
    columns: "pd.DataFrame"
    classes: "pd.DataFrame"
    run: "pd.DataFrame"
    rejects: "pd.DataFrame"
    duplicates: "pd.DataFrame"
    conflicts: "pd.DataFrame"


def read_frames(manifest: Path, rejects: Path, *, origins: bool) -> Frames:
    """Read dedupe's manifest and ingest's rejects into the tables that the rules look at.

    Args:
        origins: whether licences and provenance are asked for.

    Raises:
        InputError: a file is missing, or not what its stage writes.
    """
    import pandas as pd

    table = read_table(manifest, DEDUPED, columns=COLUMNS + (ORIGIN_COLUMNS if origins else []))
    files: pd.DataFrame = _with_origins(table).to_pandas() if origins else table.to_pandas()
    refused = _read_rejects(rejects)
    kept = files[files["verdict"] == "keep"]
    sides = kept[["width", "height"]]
    pictures = kept.assign(side=sides.min(axis=1), aspect=sides.max(axis=1) / sides.min(axis=1))
    taking_part = files[files["verdict"].isin(["keep", "copy"])]
    # with `dedupe.copies: keep` a near copy is kept too; its group's best picture tells
    is_copy = (taking_part["verdict"] == "copy") | (taking_part["best_id"] != taking_part["image_id"])
    duplicates = taking_part[is_copy]
    conflicts = _conflicts(files)
    classes = _classes(files)
    num_files = max(len(files), 1)
    run = pd.DataFrame(
        {
            "num_classes": [int((classes["num_images"] > 0).sum())],
            "reject_fraction": [len(refused) / max(len(refused) + len(files), 1)],
            "duplicate_fraction": [len(duplicates) / num_files],
            "conflict_fraction": [len(conflicts) / num_files],
        }
    )
    return Frames(files, pictures, _columns(manifest), classes, run, refused, duplicates, conflicts)


def _with_origins(table: pa.Table) -> pa.Table:
    """`table` with license and traceable in the place of ORIGIN_COLUMNS; both are settled in arrow, where the few
    different licences of a million files are few."""
    written = table["license"].combine_chunks().fill_null("").dictionary_encode()
    names = pa.array([canonical_license(name) for name in written.dictionary.to_pylist()], pa.string())
    known = [pc.not_equal(pc.fill_null(table[name], ""), "") for name in ("url", "page_url")]
    columns = {"license": names.take(written.indices), "traceable": pc.or_(*known)}
    for name, values in columns.items():
        table = table.drop_columns([name] if name in table.column_names else []).append_column(name, values)
    return table.drop_columns(["url", "page_url"])


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
    return pd.DataFrame(found, columns=list(REJECT_COLUMNS)).assign(image_id="")


def _columns(manifest: Path) -> "pd.DataFrame":
    import pandas as pd

    schema = pq.read_schema(manifest)
    return pd.DataFrame(
        {
            "image_id": "",
            "label": DEDUPED.names,
            "source_path": "",
            "type": [str(schema.field(name).type) for name in DEDUPED.names],
            "expected": [str(kind) for kind in DEDUPED.types],
        }
    )


def _classes(files: "pd.DataFrame") -> "pd.DataFrame":
    import pandas as pd

    labels = sorted(files.loc[files["verdict"] != "drop", "label"].dropna().unique())
    counts = files.loc[files["verdict"] == "keep", "label"].value_counts()
    num_images = [int(counts.get(label, 0)) for label in labels]
    largest = max(num_images, default=0)
    return pd.DataFrame(
        {
            "image_id": "",
            "label": pd.Series(labels, dtype="str"),
            "source_path": "",
            "num_images": pd.Series(num_images, dtype="int64"),
            "imbalance": pd.Series([largest / count if count else None for count in num_images], dtype="float64"),
            "written": pd.Series([written_well(label) for label in labels], dtype="str"),
            "spelling": pd.Series([spelling(label) for label in labels], dtype="str"),
        }
    )


def _conflicts(files: "pd.DataFrame") -> "pd.DataFrame":
    """Files held back for their two labels, and with `dedupe.conflicts: keep` equal files that have two."""
    taking_part = files[files["verdict"] != "drop"]
    pairs = taking_part[["image_id", "label"]].drop_duplicates()
    torn = pairs.loc[pairs.duplicated("image_id"), "image_id"]
    return taking_part[(taking_part["verdict"] == "conflict") | taking_part["image_id"].isin(torn)]
