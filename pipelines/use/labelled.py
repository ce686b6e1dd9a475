"""Somebody's labelled pictures, read as ingest reads its sources: class folders, an archive, a table, URLs."""

import csv
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import ValidationError

from pipelines.core.errors import InputError
from pipelines.ingest.listing import Listing, Place
from pipelines.ingest.sources import list_source
from pipelines.params.base import did_you_mean
from pipelines.params.ingest import DownloadParams, IngestParams
from pipelines.params.sources import ArchiveSource, FolderSource, Source, TableSource, UrlsSource
from pipelines.use.model_folder import ModelInfo

IMAGE_COLUMNS = ("path", "file", "filename", "file_name", "image", "image_path", "url", "image_url")
LABEL_COLUMNS = ("label", "class", "category", "target", "model")
"""names by which a table's columns are found where none are given, the first that it has"""
_FORMATS = {".csv": "csv", ".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl"}


@contextmanager
def labelled_pictures(
    path: Path,
    info: ModelInfo,
    *,
    download: DownloadParams,
    image_column: str | None = None,
    label_column: str | None = None,
) -> Iterator[Listing]:
    """The pictures of `path` with their labels, within the block; what was fetched or unpacked is deleted after it.

    Args:
        path: a folder of class folders; a zip or tar of one; a table (.csv, .parquet, .jsonl) with a column of paths
            or URLs and one of labels; a list (.txt) with a URL and its label on each line.
        info: whose limits and crop hold.
        image_column, label_column: of a table; found by their usual names when None.

    Raises:
        InputError: it is none of these, or holds nothing.
    """
    entry = _entry(path.absolute(), image_column, label_column)
    params = IngestParams(
        snapshot="audit", sources=(entry,), download=download, crop=info.crop, **info.limits.model_dump()
    )
    with TemporaryDirectory(prefix="miwake-") as cache:
        try:
            yield list_source(entry, source=f"0-{entry.kind}", place=Place(path.absolute().parent, Path(cache), params))
        except InputError as error:
            # the words of ingest name a key of params.yaml, which nobody wrote here
            raise InputError(re.sub(r"ingest\.sources\[0\]\.path: ", "", str(error))) from error


def _entry(path: Path, image_column: str | None, label_column: str | None) -> Source:
    if not path.exists():
        raise InputError(
            f"{path} does not exist: name a folder of class folders, an archive, a table or a list of URLs"
        )
    suffix = path.suffix.lower()
    # $ and ~ have a meaning in params.yaml
    text = str(path).replace("$", "$$")
    try:
        if path.is_dir():
            return FolderSource(path=text)
        if suffix in _FORMATS:
            columns = _columns(path, _FORMATS[suffix])
            image = _column(path, columns, image_column, IMAGE_COLUMNS, "image")
            label = _column(path, columns, label_column, LABEL_COLUMNS, "label")
            return TableSource(
                path=text,
                format=_FORMATS[suffix],  # type: ignore[arg-type]  # a value of the Literal
                image_column=image,
                image_is="url" if "url" in image.lower() else "path",
                root=str(path.parent).replace("$", "$$"),
                label_columns=(label,),
            )
        if suffix == ".txt":
            return UrlsSource(path=text, format="text")
        return ArchiveSource(path=text)
    except ValidationError as error:
        raise InputError(f"{path} cannot be read as a source: {error.errors()[0]['msg']}") from error


def _columns(path: Path, kind: str) -> list[str]:
    """The names of a table's columns."""
    try:
        if kind == "parquet":
            import pyarrow.parquet as pq

            return list(pq.read_schema(path).names)
        with path.open(encoding="utf-8-sig", newline="") as file:
            if kind == "csv":
                return next(csv.reader(file), [])
            import json

            first: Any = json.loads(file.readline() or "{}")
            return list(first) if isinstance(first, dict) else []
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as {kind} ({error}): name another file, or correct it") from error


def _column(path: Path, columns: list[str], wanted: str | None, usual: tuple[str, ...], what: str) -> str:
    if wanted is not None:
        if wanted in columns:
            return wanted
        raise InputError(
            f"{path} has no column {wanted!r} (--{what}-column), but {', '.join(columns)}"
            + did_you_mean(wanted, columns)
        )
    known = {name.lower().strip(): name for name in reversed(columns)}
    found = next((known[name] for name in usual if name in known), None)
    if found is None:
        raise InputError(
            f"{path} has no column that is called as {what}s usually are ({', '.join(usual)}), but "
            f"{', '.join(columns) or 'none at all'}: name it with --{what}-column"
        )
    return found
