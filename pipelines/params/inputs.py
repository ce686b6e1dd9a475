"""What params name must not lie where stages write: DVC empties these folders before it runs a stage."""

import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel

from pipelines.core.errors import InputError
from pipelines.core.layout import Layout
from pipelines.params.base import path_below
from pipelines.params.load import Params


def refuse_input_in_outputs(params: Params, layout: Layout) -> None:
    """Refuse sources, weights and references in a folder that stages write, before anything there is deleted.

    Raises:
        InputError: params name such a path.
    """
    sources = {f"ingest.sources[{place}]": entry for place, entry in enumerate(params.ingest.sources)}
    for where, name in _paths(params, ""):
        entry = sources.get(where.rpartition(".")[0])
        is_folder = entry is not None and entry.kind in ("folder", "table") and where.endswith(".path")
        refuse_path_in(layout.outputs, where, name, root=layout.root, holds=is_folder)
    for where, entry in sources.items():
        # ingest refuses rows that name other outputs; of its own, DVC has left nothing by then
        if entry.kind == "table" and entry.image_is == "path":
            base = os.path.realpath(path_below(layout.root, entry.root))
            inner = os.path.relpath(os.path.realpath(layout.stage("ingest")), base)
            if not inner.startswith("..") and _holds_text(path_below(layout.root, entry.path), inner.encode() + b"/"):
                raise InputError(rows_in_output(where, inner))


def refuse_path_in(outputs: Sequence[Path], where: str, name: str, *, root: Path, holds: bool) -> None:
    """Refuse a path that lies in one of `outputs`.

    Args:
        where: its key in params.yaml, for the message.
        name: as it stands there, from `root` or absolute.
        holds: whether everything below it is read, so that it may not hold one of `outputs` either.

    Raises:
        InputError: it lies there.
    """
    path = path_below(root, name)
    for output in outputs:
        shown = os.path.relpath(output, root)
        if lies_in(path, output):
            raise InputError(
                f"{where}: {name} lies in {shown}, which the pipeline empties before it writes there: files of "
                "yours would be deleted. Move them to a folder outside of data/ and name that one"
            )
        if holds and lies_in(output, path):
            raise InputError(
                f"{where}: {name} holds {shown}, where the pipeline writes: it would read its own output as a "
                "source. Move the pictures to a folder of their own outside of data/ and name that one"
            )


def lies_in(path: Path, folder: Path) -> bool:
    """Whether `path` is `folder` or lies below it, under whatever name (a link, another case, a second mount)."""
    inner, outer = (Path(os.path.realpath(one)) for one in (path, folder))
    if inner.is_relative_to(outer):
        return True
    try:
        found = outer.stat()
    except OSError:
        return False
    return any(os.path.samestat(found, above.stat()) for above in (inner, *inner.parents) if above.exists())


def _paths(value: object, where: str) -> Iterator[tuple[str, str]]:
    """Every path that params name, with its key, wherever a section has a field `path`, `root` or `drift_from`."""
    if isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            key, found = f"{where}.{field.alias or name}".lstrip("."), getattr(value, name)
            if name in ("path", "root", "drift_from") and isinstance(found, str):
                yield key, found
            yield from _paths(found, key)
    elif isinstance(value, Mapping):
        for key, found in value.items():
            yield from _paths(found, f"{where}.{key}")
    elif isinstance(value, tuple):
        for place, found in enumerate(value):
            yield from _paths(found, f"{where}[{place}]")


def _holds_text(path: Path, text: bytes) -> bool:
    if not path.is_file() or not path.stat().st_size:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(text) >= 0


def rows_in_output(where: str, inner: str) -> str:
    """The message for a table (or data set) whose `root` is no output, but whose rows lead into one."""
    return (
        f"{where} names pictures in {inner}, which the pipeline empties before it writes there: files of yours would "
        "be deleted. Move them to a folder outside of data/ and correct the rows"
    )
