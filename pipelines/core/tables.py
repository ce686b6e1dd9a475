"""The tables that stages hand to each other: their columns, what each means, and how they are written.

All are Parquet, sorted by content, without a clock or a path of this machine, so equal content gives equal bytes.

MANIFEST    one row per *file* that ingest accepted. Equal files have equal `image_id`; bytes are packed once per
            (label, image_id). Sorted by (label, image_id, source, source_path). `thumbnails.npy` (N, 32, 32) uint8,
            grey, upright, has the same order: row i of one is row i of the other.
DEDUPED     the manifest after dedupe: same rows, same order, five more columns.
SPLITS      one row per picture that takes part: verdict keep, one row per (image_id, label). Sorted by
            (label, image_id).
PACK_INDEX  one row per packed picture, in the order of its pack: sorted by (subset, position). index.parquet has train,
            val and test; copies.parquet and unlabelled.parquet have the rows of their own packs.
PREDICTIONS one row per predicted picture. Sorted by (subset, image_id).
FEATURES    one row per picture whose features a frozen member leaves: all, or whole groups of a large set. Sorted by
            (image_id, class_index).
PENULTIMATE likewise, of a member that was trained as a whole: its features are of use for finding neighbours, but know
            the labels of their training pictures, so that no classifier may be cross-validated on them.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.core.errors import InputError
from pipelines.core.files import whole_file
from pipelines.core.layout import repro_of

_WRITER_VERSION = "2.6"
LABEL = "label"
"""the target of members that tell labels apart, not one factor of them"""
ROW_GROUP = 1 << 14
"""rows of a table that is written in parts; about 4 MB of a manifest"""
_NEARLY_UNIQUE = ("image_id", "source_path", "url")

MANIFEST = pa.schema(
    [
        ("image_id", pa.string()),  # sha256 of the file's bytes, 64 hex digits
        ("label", pa.string()),  # NFC-normalised, without leading or trailing spaces
        ("shard", pa.string()),  # file name of the tar that holds the bytes
        ("offset", pa.int64()),  # of the first byte of the file inside the shard
        ("size", pa.int64()),  # bytes
        ("format", pa.string()),  # by content: JPEG, PNG, …
        ("mode", pa.string()),  # as stored: L, RGB, CMYK, P, …
        ("width", pa.int32()),  # pixels, upright
        ("height", pa.int32()),  # pixels, upright
        ("orientation", pa.int8()),  # EXIF, 1 to 8; 1 where there is none
        ("num_frames", pa.int32()),  # 1 for a still picture; more for an animation, of which the first is used
        ("brightness", pa.float32()),  # mean of the thumbnail, 0 to 255
        ("contrast", pa.float32()),  # standard deviation of the thumbnail, grey levels
        ("sharpness", pa.float32()),  # see pipelines.ingest.quality; low: blurred
        ("entropy", pa.float32()),  # of the thumbnail's grey levels, bits, 0 to 8
        ("aspect", pa.float32()),  # longer side over shorter side, from 1
        ("bytes_per_pixel", pa.float32()),
        ("greyscale", pa.bool_()),  # no pixel has a colour, however it is stored
        ("transparent", pa.bool_()),  # at least one pixel is not opaque
        ("crop_left", pa.float32()),  # the part that counts: fractions of width and height, upright, from the top left
        ("crop_top", pa.float32()),
        ("crop_right", pa.float32()),
        ("crop_bottom", pa.float32()),
        ("source", pa.string()),  # index and kind of the entry of ingest.sources: "0-folder"
        ("source_path", pa.string()),  # path below that source, with /; the URL where it came over the network
        # provenance, each "" where it is not known
        ("url", pa.string()),  # of the picture
        ("page_url", pa.string()),  # of a page that shows it
        ("query", pa.string()),  # search words that found it
        ("license", pa.string()),  # as its source names it
        ("creator", pa.string()),  # whom to credit
        ("given_subset", pa.string()),  # train, val or test, as its source says
        ("factors", pa.string()),  # a JSON object of the label columns that were joined to the label
        ("given_groups", pa.string()),  # a JSON object: name of the table's group_column → whose picture it is
    ]
)

DEDUPED = pa.schema(
    [
        *MANIFEST,
        ("original_label", pa.string()),  # as ingested; `label` is after relabel.csv
        ("group", pa.string()),  # smallest image_id of the duplicate group; the row's own where it has no copies
        ("verdict", pa.string()),  # keep | copy | conflict | drop
        ("best_id", pa.string()),  # image_id of the group's best picture; the row's own for it
        # "", "drop: <reason>", "relabel: <reason>" or "keep: <reason>" (a person says that the label is right); ends in
        # " (copy of <12 digits>)" where the decision was on a copy
        ("decision", pa.string()),
    ]
)

SPLITS = pa.schema(
    [
        ("image_id", pa.string()),
        ("label", pa.string()),
        ("group", pa.string()),
        # train | val | test; with folds > 1 there is no val: all but test is train. unlabelled: of split.unlabelled
        ("subset", pa.string()),
        ("fold", pa.int16()),  # the fold in which the picture validates: 0 for val when folds = 1; -1 for never
        ("factors", pa.string()),  # as in MANIFEST, of the label that the picture has now; "" where none is known
    ]
)

PACK_INDEX = pa.schema(
    [
        ("image_id", pa.string()),
        ("label", pa.string()),
        ("class_index", pa.int32()),  # position of the label among the classes of the schema's metadata; -1: none
        ("group", pa.string()),
        ("subset", pa.string()),  # as in SPLITS, or copies
        ("fold", pa.int16()),  # a copy has its picture's
        ("position", pa.int32()),  # row of <subset>.npy
        ("factors", pa.string()),  # as in SPLITS
        ("copy", pa.int32()),  # 0 for the picture itself, from 1 for its fixed augmented copies
    ]
)

PREDICTIONS = pa.schema(
    [
        ("image_id", pa.string()),
        ("subset", pa.string()),  # val (out of fold) | test | unlabelled
        ("class_index", pa.int32()),  # the true class, of the file's target; -1 where it is not known
        ("probabilities", pa.list_(pa.float32())),  # (K,), sums to 1, in the order of the classes
    ]
)

FEATURES = pa.schema(
    [
        ("image_id", pa.string()),
        ("class_index", pa.int32()),  # the true class
        ("plain", pa.binary()),  # D half-precision numbers, little-endian: of the picture
        ("edited", pa.binary()),  # the same of its mirror image, where the member looks at it; else of the picture
    ]
)

PENULTIMATE = pa.schema(
    [
        ("image_id", pa.string()),
        ("class_index", pa.int32()),  # the true class
        ("plain", pa.binary()),  # D half-precision numbers, little-endian: what the last layer of the network is given
    ]
)


def write_table(table: pa.Table, path: Path, *, classes: list[str] | None = None, target: str | None = None) -> None:
    """Write `table` whole or not at all.

    Args:
        table: the rows, already sorted.
        classes: the K class labels in order of class_index; stored in the file, read by `read_classes`.
        target: what the classes are, where they are not labels but the values of a factor; read by `read_target`.
    """
    # pandas and arrow leave their own metadata; ours alone keeps bytes stable
    metadata = {} if classes is None else {"classes": json.dumps(classes, ensure_ascii=False)}
    metadata |= {} if target in (None, LABEL) else {"target": str(target)}
    table = table.replace_schema_metadata(None)
    with (
        whole_file(path) as file,
        _writer(file, table.schema) as writer,
    ):
        writer.write_table(table)
        # without arrow's own schema the table's metadata would not be written
        writer.add_key_value_metadata(metadata)


def _writer(file: BinaryIO, schema: pa.Schema) -> pq.ParquetWriter:
    """Dictionaries only for values that repeat: a manifest is an eighth smaller, and takes a quarter less time."""
    with_dictionary = [
        field.name for field in schema if pa.types.is_string(field.type) and field.name not in _NEARLY_UNIQUE
    ]
    return pq.ParquetWriter(
        file, schema, version=_WRITER_VERSION, compression="zstd", store_schema=False, use_dictionary=with_dictionary
    )


class TableWriter:
    """Writes a long table in parts, in the memory of one row group; equal rows give equal bytes however they are cut.

    Args:
        file: open for writing, as `whole_file` gives it.
        schema: of every part.
    """

    def __init__(self, file: BinaryIO, schema: pa.Schema) -> None:
        self.num_rows = 0
        self._schema = schema
        self._held: list[pa.RecordBatch] = []
        self._num_held = 0
        self._writer = _writer(file, schema)

    def write(self, rows: pa.RecordBatch) -> None:
        """Append rows."""
        self._held.append(rows)
        self._num_held += rows.num_rows
        self.num_rows += rows.num_rows
        if self._num_held >= ROW_GROUP:
            held = pa.Table.from_batches(self._held, self._schema)
            whole = held.num_rows // ROW_GROUP * ROW_GROUP
            for start in range(0, whole, ROW_GROUP):
                self._group(held.slice(start, ROW_GROUP))
            # a copy, or the slice would keep all of it
            self._held = held.slice(whole).combine_chunks().to_batches()
            self._num_held = held.num_rows - whole

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what is left; after an error nothing, since the file's owner discards it."""
        if error is None:
            if self._num_held or not self.num_rows:
                self._group(pa.Table.from_batches(self._held, self._schema))
            self._writer.add_key_value_metadata({})  # as write_table does
            self._writer.close()
        self._writer.is_open = False  # or it would try to end the file when it is collected

    def _group(self, rows: pa.Table) -> None:
        self._writer.write_table(rows.combine_chunks(), row_group_size=ROW_GROUP)


def read_table(path: Path, schema: pa.Schema, *, columns: list[str] | None = None) -> pa.Table:
    """Read a table that another stage wrote, and check that it has the columns of `schema`.

    Raises:
        InputError: the file is missing or has other columns.
    """
    names = read_schema(path).names
    missing = [name for name in schema.names if name not in names]
    if missing:
        raise InputError(
            f"{path} has no column {', '.join(missing)}: it was written by another version; run `dvc repro`"
        )
    # pq.read_table would import pyarrow.dataset, a tenth of a second, to read one file
    wanted = columns or schema.names
    with _explained(path), pq.ParquetFile(path) as file:
        return file.read(columns=wanted).select(wanted)


def read_schema(path: Path) -> pa.Schema:
    """Of a table that another stage wrote.

    Raises:
        InputError: the file is missing or broken.
    """
    with _explained(path):
        return pq.read_schema(path)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Name the file in Arrow's errors, which are OSErrors without a file name or kinds of their own."""
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist: run the stage that writes it (`{repro_of(path)}`)") from error
    except PermissionError as error:
        raise InputError(f"{path} cannot be read: permission denied; let this user read it") from error
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} is no Parquet file ({error}): delete it and run `{repro_of(path)}`") from error


def short_id(image_id: str) -> str:
    """The first 12 digits, or more until no spreadsheet reads them as a number."""
    length = 12
    while re.fullmatch(r"[0-9]+(e[0-9]+)?", image_id[:length]) and length < len(image_id):
        length += 1
    return image_id[:length]


def read_classes(path: Path) -> list[str]:
    """The class labels, in order of class_index, that `write_table` stored in a pack index or predictions."""
    metadata: dict[bytes, bytes] = read_schema(path).metadata or {}
    if b"classes" not in metadata:
        raise InputError(f"{path} names no classes: it was written by another version; run `dvc repro`")
    classes: list[str] = json.loads(metadata[b"classes"])
    return classes


def read_target(path: Path) -> str:
    """What the classes of predictions are: label, or the factor that `write_table` stored."""
    metadata: dict[bytes, bytes] = read_schema(path).metadata or {}
    return metadata.get(b"target", LABEL.encode()).decode()


def rows(table: pa.Table) -> list[dict[str, Any]]:
    """The rows as dictionaries: for tables small enough for a person to read."""
    found: list[dict[str, Any]] = table.to_pylist()
    return found
