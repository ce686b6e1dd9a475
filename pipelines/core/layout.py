"""Where everything lies, below one root, and what must not lie there. No other module spells a path of data/."""

import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.core.errors import InputError

if TYPE_CHECKING:
    from pipelines.core.params import Params
    from pipelines.core.params.train import TrainParams

OUTPUTS = ("ingest", "dedupe", "validate", "split", "augment", "train", "students", "evaluate", "report")
"""folders of data/ that stages empty, and that DVC deletes before it runs a stage"""


WRITERS = ("ingest", "dedupe", "validate", "split", "augment", "train", "students", "evaluate", "report")
"""the stages of dvc.yaml; each writes the folder of data/ that has its name"""


def repro_of(path: Path) -> str:
    """The command that makes `path`, a file that a stage writes: `dvc repro` and the name of that stage."""
    above = pairwise(path.absolute().parts)
    return " ".join(["dvc repro", *[name for data, name in above if data == "data" and name in WRITERS][-1:]])


@dataclass(frozen=True)
class Layout:
    """The paths of one pipeline.

    Args:
        root: the folder that holds params.yaml and data/; the working folder when DVC runs a stage.
    """

    root: Path

    @property
    def params(self) -> Path:
        return self.root / "params.yaml"

    @property
    def decisions(self) -> Path:
        return self.root / "data" / "decisions"

    @property
    def cache(self) -> Path:
        """Features, downloads and the like, keyed by content: deleting it changes no result."""
        return self.root / ".miwake"

    def stage(self, name: str) -> Path:
        """The folder that stage `name` writes."""
        return self.root / "data" / name

    @property
    def checked(self) -> Path:
        """Says that no input lies in an output; always the same."""
        return self.root / "data" / "check.json"

    @property
    def outputs(self) -> list[Path]:
        return [self.stage(name) for name in OUTPUTS]

    # what stages hand to each other ----------------------------------------------------------

    @property
    def ingest_manifest(self) -> Path:
        return self.stage("ingest") / "manifest.parquet"

    @property
    def thumbnails(self) -> Path:
        return self.stage("ingest") / "thumbnails.npy"

    @property
    def rejects(self) -> Path:
        return self.stage("ingest") / "rejected.csv"

    @property
    def truth(self) -> Path:
        """What the sample source planted; absent for real pictures."""
        return self.stage("ingest") / "truth.csv"

    @property
    def manifest(self) -> Path:
        """The manifest after dedupe: what every later stage reads."""
        return self.stage("dedupe") / "manifest.parquet"

    @property
    def duplicates(self) -> Path:
        return self.stage("dedupe") / "duplicates.csv"

    @property
    def expectations(self) -> Path:
        return self.stage("validate") / "expectations.json"

    @property
    def splits(self) -> Path:
        return self.stage("split") / "splits.parquet"

    @property
    def pack_index(self) -> Path:
        return self.stage("augment") / "index.parquet"

    def member(self, train: "TrainParams", member: str, fold: int) -> Path:
        """The folder that training `member` on `fold` writes; students have one that their teachers are not in."""
        return self.stage("students" if member in train.students else "train") / f"{member}-{fold}"

    def members(self, train: "TrainParams") -> dict[tuple[str, int], Path]:
        """The folder of every member and fold that params name: members, then students, fold by fold."""
        return {
            (member, fold): self.member(train, member, fold) for member in train.all_members for fold in train.folds
        }


def refuse_input_in_outputs(params: "Params", layout: Layout) -> None:
    """Refuse sources, weights and references in a folder that stages write, before anything there is deleted.

    Raises:
        InputError: params name such a path.
    """
    from pipelines.core.params.base import path_below  # this module is light: processes that read files import it too

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
    from pipelines.core.params.base import path_below  # this module is light

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
    from pydantic import BaseModel  # this module is light: processes that only read files import it too

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
