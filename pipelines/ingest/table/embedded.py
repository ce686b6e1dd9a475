"""Pictures that lie in a Parquet table itself, as model hubs serve them: unpacked once into the cache, one after the
other, since a column can only be read from its beginning."""

import hashlib
import os
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipelines.core.errors import ImageError, InputError
from pipelines.core.files import whole_file
from pipelines.ingest.archive.members import STORED, ArchiveMember
from pipelines.ingest.archive.reader import ArchiveReader, file_stamp, unpacking_to, write_index
from pipelines.ingest.labels import printable
from pipelines.ingest.listing import Listing, Origin, Place
from pipelines.ingest.table.rows import LINE_BITS, TableRows, text_of

# rows at a time: pictures may be large
_BATCH_ROWS = 64


def picture_column(path: Path, column: str) -> tuple[str, str] | None:
    """The column that holds pictures' bytes, `column` or its field `bytes`, and that of their names, or "".

    Returns:
        None where neither holds bytes, or the file is no Parquet file: reading it will say so.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        kind: pa.DataType = pa.struct(list(pq.read_schema(path)))
    except (pa.ArrowException, OSError):
        return None
    for part in column.split("."):
        place = kind.get_field_index(part) if pa.types.is_struct(kind) else -1
        if place < 0:
            return None
        kind = kind.field(place).type
    names = ""
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        names = f"{column}.path" if kind.get_field_index("path") >= 0 else ""
        column, kind = f"{column}.bytes", kind.field("bytes").type
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view)
    return (column, names) if any(test(kind) for test in tests) else None


def _unpack(files: list[Path], column: str, *, folder: Path, where: str) -> tuple[Path, npt.NDArray[np.int64]]:
    """The bytes of all pictures in one file, and how many each of the N rows of `files` has there; -1: no picture.

    Args:
        column: by `picture_column`.
        folder: of the cache; what an earlier state of these files left there goes.

    Raises:
        InputError: a file is broken or has no such column, or the disk is full.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    name = hashlib.sha256(repr([column, *(os.fsencode(file.resolve()) for file in files)]).encode()).hexdigest()[:16]
    state = hashlib.sha256(repr([file_stamp(file) for file in files]).encode()).hexdigest()[:16]
    target, sizes = folder / f"{name}-{state}.bytes", folder / f"{name}-{state}.npy"
    if target.is_file() and sizes.is_file():
        return target, np.load(sizes)
    top, *deeper = column.split(".")
    found: list[int] = []
    with unpacking_to(folder, where):
        for old in folder.glob(f"{name}-*"):
            old.unlink()
        with whole_file(target) as out:
            for path in files:
                try:
                    with pq.ParquetFile(path) as file:
                        for batch in file.iter_batches(_BATCH_ROWS, columns=[top]):
                            array = batch.column(0)
                            for cell in pc.struct_field(array, deeper) if deeper else array:
                                data = cell.as_py()
                                out.write(data or b"")
                                found.append(-1 if data is None else len(data))
                except (pa.ArrowException, ValueError) as error:
                    raise InputError(
                        f"{where}: {path.name} is a broken Parquet file ({error}); write it again"
                    ) from error
        with whole_file(sizes) as out:
            np.save(out, np.array(found, np.int64))
    return target, np.array(found, np.int64)


def list_inside(rows: TableRows, column: str, names: str, place: Place) -> Listing:
    """Of pictures that the table holds in `column`: the path of each is its file and row, and its name in `names`."""
    folder = place.cache / "tables"
    unpacked, sizes = _unpack(rows.paths, column, folder=folder, where=rows.where)
    ends = np.cumsum(np.maximum(sizes, 0))
    rows.image_column = names
    found: list[tuple[str, str, Origin, tuple[int, int]]] = []
    for number, (line, cells) in enumerate(rows):
        name, label = f"{rows.name(line >> LINE_BITS)}/{line % (1 << LINE_BITS):07d}", ""
        try:
            inner = text_of(cells, names, only_text=True) if names else ""
            if inner:
                name += "/" + printable(re.split(r"[/\\]", inner)[-1])
            label, factors = rows.label(cells)
            origin = rows.origin(cells, factors)
            size = int(sizes[number])
            if size < 0:
                raise ImageError("no-picture", f"{column} is empty")
            if size > place.params.max_file_bytes:
                raise ImageError("too-large", f"{size} bytes; ingest.max_file_bytes is {place.params.max_file_bytes}")
        except ImageError as error:
            rows.reject(line, name, label or rows.shown_label(cells), error)
            continue
        found.append((name, label, origin, (int(ends[number]) - size, size)))
    found.sort(key=lambda one: one[0])
    paths = [name for name, *_ in found]
    read, stamps = _reader(unpacked, folder, paths, [where for *_, where in found])
    return Listing(
        source=rows.source,
        paths=paths,
        labels=[label for _, label, *_ in found],
        read=read,
        rejects=rows.rejects,
        origins=[origin for _, _, origin, _ in found],
        stamps=stamps,
    )


def _reader(
    unpacked: Path, folder: Path, paths: list[str], places: list[tuple[int, int]]
) -> tuple[ArchiveReader, npt.NDArray[np.int64]]:
    """What reads the pictures at `places` (offset, size) by their `paths`; and their stamps, (N, 3)."""
    members = [
        ArchiveMember(path, offset, size, size, STORED, -1, None)
        for path, (offset, size) in zip(paths, places, strict=True)
    ]
    index, salt = write_index(folder, paths, members)
    stamps = np.empty((len(paths), 3), np.int64)
    stamps[:, 0] = [size for _, size in places]
    # the name of the file tells the state of the table
    stamps[:, 1] = int.from_bytes(hashlib.sha256(unpacked.name.encode()).digest()[:8], "little", signed=True)
    stamps[:, 2] = [offset for offset, _ in places]
    return ArchiveReader(str(unpacked), file_stamp(unpacked), str(index), salt, is_zip=False), stamps
