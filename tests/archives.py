"""Archives for tests, packed in memory in every way there is."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
from test_ingest import Result, params, picture

from pipelines.ingest.archive import list_archive
from pipelines.ingest.listing import Listing, Place
from pipelines.params.ingest import IngestParams
from pipelines.params.sources import ArchiveSource

FILES = {
    "pets/cat/0.jpg": picture(0),
    "pets/cat/1.jpg": picture(1),
    "pets/dog/2.jpg": picture(2),
    "pets/dog/old/3.jpg": picture(3),
}


def settings(path: str, **changes: Any) -> IngestParams:
    source = {
        "kind": "archive", "path": path, "label_from": "last_folder", "hidden": "skip", "max_files": 1000,
        "max_bytes": 1 << 24, "subset_from": None,
    }  # fmt: skip
    source |= {key: changes.pop(key) for key in list(changes) if key in source}
    return params(sources=[source], **changes)


def listing(root: Path, own: IngestParams) -> Listing:
    entry = own.sources[0]
    assert isinstance(entry, ArchiveSource)
    return list_archive(entry, source="0-archive", place=Place(root, root / "cache", own))


def tar_bytes(files: dict[str, bytes], format: int = tarfile.PAX_FORMAT, **kwargs: Any) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format, **kwargs) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def zip_bytes(files: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return buffer.getvalue()


def zstd(data: bytes) -> bytes:
    compressed: bytes = pa.compress(data, "zstd", asbytes=True)
    return compressed


KINDS: dict[str, Callable[[], bytes]] = {
    "stored.zip": lambda: zip_bytes(FILES),
    "deflate.zip": lambda: zip_bytes(FILES, zipfile.ZIP_DEFLATED),
    "bzip2.zip": lambda: zip_bytes(FILES, zipfile.ZIP_BZIP2),
    "lzma.zip": lambda: zip_bytes(FILES, zipfile.ZIP_LZMA),
    "program.zip": lambda: b"#!/bin/sh\nexit\n" + zip_bytes(FILES),
    "ustar.tar": lambda: tar_bytes(FILES, tarfile.USTAR_FORMAT),
    "gnu.tar": lambda: tar_bytes(FILES, tarfile.GNU_FORMAT),
    "pax.tar": lambda: tar_bytes(FILES, pax_headers={"comment": "a header that stands for all members"}),
    "tar.gz": lambda: gzip.compress(tar_bytes(FILES)),
    "tar.gz in two parts": lambda: gzip.compress(tar_bytes(FILES)[:999]) + gzip.compress(tar_bytes(FILES)[999:]),
    "tar.bz2": lambda: bz2.compress(tar_bytes(FILES)),
    "tar.xz": lambda: lzma.compress(tar_bytes(FILES)),
    "tar.zst": lambda: zstd(tar_bytes(FILES)),
}


def without_manifest(result: Result) -> dict[str, str]:
    return {name: digest for name, digest in result.bytes.items() if name != "manifest.parquet"}


def comparable(result: Result) -> tuple[list[dict[str, Any]], list[tuple[str, ...]]]:
    """Rows without where they came from; rejects without their names."""
    source = {
        "source", "source_path", "url", "page_url", "query", "license", "creator", "given_subset", "factors",
        "given_groups",
    }  # fmt: skip
    rows = [{key: value for key, value in row.items() if key not in source} for row in result.rows]
    return rows, sorted((row["label"], row["reason"]) for row in result.rejects)


def files_of(folder: Path, *, keep: str) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).as_posix().startswith(keep) and not path.name.startswith(".")
    )
