"""Writes files whole or not at all: under a temporary name beside the target, then renamed."""

import csv
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

TEMPORARY_SUFFIX = ".partial"
_CODE = (".py", ".json")


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open `path` for writing bytes; it appears under its name only if the block ends without an error.

    A full disk, an exception or a kill leaves the old file, or none. Missing parent folders are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + TEMPORARY_SUFFIX)
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def empty_folder(path: Path) -> Path:
    """Make `path` an empty folder: what an earlier, possibly killed, run left there goes."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.mkdir(parents=True)
    return path


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` whole or not at all."""
    with whole_file(path) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 with \\n line ends, whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON; keys keep their order, labels in any script stay readable."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV table (UTF-8, \\n line ends, quoted where needed), row by row, whole or not at all."""
    with whole_file(path) as file:
        # csv wants text; a wrapper of its own would close the binary file before it is synced
        writer = csv.writer(_Utf8Writer(file), lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def code_digest(*packages: str, root: Path = Path(__file__).parents[1]) -> str:
    """A digest of every module and data file (JSON) of these packages of `root`, the folder `pipelines`, at any depth.

    Part of the key of each cache outside of DVC.
    """
    digest = hashlib.sha256()
    for file in sorted(file for name in packages for file in (root / name).rglob("*") if file.suffix in _CODE):
        digest.update(f"{file.relative_to(root).as_posix()} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


class _Utf8Writer:
    """The one method of a text file that csv.writer calls."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file

    def write(self, text: str) -> int:
        # surrogateescape: a file name that is not UTF-8 is still written, byte for byte
        return self.file.write(text.encode("utf-8", "surrogateescape"))
