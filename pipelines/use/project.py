"""`miwake new`: a project folder of one's own, ready for `miwake run`.

A project holds its code: `pipelines/`, `flows/` and `dvc.yaml` are copied into it (2 MB), since every stage depends on
the code that it runs. So the project is reproduced from its own git history, and a newer miwake elsewhere changes
nothing in it. The environment, which is a thousand times larger, is linked: `.venv` is the one that made the project.
"""

import csv
import datetime
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.core.errors import InputError, count
from pipelines.core.files import write_text

CODE = Path(__file__).parents[2]
"""the folder that holds pipelines/, flows/ and dvc.yaml"""
COPIED = (
    "pipelines", "flows", "dvc.yaml", "Makefile", "pyproject.toml", "requirements.lock", "requirements-dev.lock",
    "params.schema.json", "LICENSE", ".gitignore", ".dvcignore", ".dvc/config", ".dvc/.gitignore", ".dvc/plots.html",
)  # fmt: skip
MAY_LACK = {"requirements-dev.lock", "LICENSE", ".dvc/plots.html"}
DECISIONS = {
    "crop": "image_id,left,top,right,bottom",
    "drop": "image_id,reason",
    "keep": "image_id,other_id,reason",
    "relabel": "image_id,label,reason",
}
IMAGE_NAMES = ("image", "image_path", "path", "file", "file_name", "filename", "img", "image_url", "url")
"""names of a table's column of pictures, in this order, whatever their case"""
LABEL_NAMES = ("label", "labels", "class", "category", "target", "class_name")
FORMATS = {".csv": "csv", ".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl"}


@dataclass(frozen=True)
class Begun:
    """A new project.

    Args:
        folder: where it lies.
        found: what was seen of the source: "12 class folders in /pictures".
        committed: whether its first commit was made.
    """

    folder: Path
    found: str
    committed: bool


def begin(folder: Path, *, source: dict[str, Any], found: str, title: str) -> Begun:
    """Make the project `folder`.

    Args:
        folder: absent or empty.
        source: one entry of `ingest.sources`, checked by the params models.
        found: what was seen of the source.
        title: of the report.

    Raises:
        InputError: the folder holds something, or the code is installed without dvc.yaml.
        ParamsError: the source breaks a rule of the params models.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not empty: name a new folder")
    if lacking := [name for name in COPIED if not (CODE / name).exists() and name not in MAY_LACK]:
        raise InputError(f"{CODE} has no {', '.join(lacking)}: run miwake from a clone of its repository")
    text = params_text(source, title=title)
    _check(text)
    for name in COPIED:
        if (CODE / name).is_dir():
            shutil.copytree(CODE / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        elif (CODE / name).exists():
            # with its time of change, by which make knows whether the environment is as old as the lock
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CODE / name, folder / name)
    write_text(folder / "params.yaml", text)
    write_text(folder / "README.md", readme_text(title, found))
    for name, header in DECISIONS.items():
        write_text(folder / "data" / "decisions" / f"{name}.csv", header + "\n")
    for stage in ("train", "students"):  # evaluate depends on both, trainings or none
        write_text(folder / "data" / stage / ".gitkeep", "")
    if sys.prefix != sys.base_prefix:
        (folder / ".venv").symlink_to(sys.prefix)
    return Begun(folder, found, _first_commit(folder))


def _check(text: str) -> None:
    import tempfile

    from pipelines.params import load_params

    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "params.yaml"
        write_text(path, text)
        load_params(path)


def _first_commit(folder: Path) -> bool:
    """A repository with one commit; without the commit where git lacks a name or is not there."""

    def git(*words: str) -> bool:
        return subprocess.run(["git", "-C", str(folder), *words], capture_output=True, check=False).returncode == 0

    if shutil.which("git") is None or not git("init", "--quiet") or not git("add", "--all"):
        return False
    return git("commit", "--quiet", "--message", "A new project")


# Sources -----------------------------------------------------------------------------------------


def folder_source(pictures: Path, *, project: Path) -> tuple[dict[str, Any], str]:
    """The source of a folder with a folder for each class; and what was seen there.

    Raises:
        InputError: it is no folder, or holds fewer than two.
    """
    if not pictures.is_dir():
        raise InputError(f"{pictures} is no folder: name the one that holds a folder of pictures for each class")
    with os.scandir(pictures) as entries:
        classes = sorted(one.name for one in entries if one.is_dir() and not one.name.startswith("."))
    if len(classes) < 2:
        have = f"only {classes[0]!r}" if classes else "none"
        raise InputError(
            f"{pictures} must hold a folder for each class, two at least, and has {have}: sort the pictures into "
            "folders named by their class; for labels in a table use --table"
        )
    shown = ", ".join(classes[:4]) + (", …" if len(classes) > 4 else "")
    subsets = {"train", "val", "test", "valid", "validation"}
    if set(map(str.lower, classes)) <= subsets:
        return (
            {"kind": "folder", "path": _path(pictures, project), "subset_from": "first_folder"},
            f"the subsets {shown}",
        )
    return {"kind": "folder", "path": _path(pictures, project)}, f"{count(len(classes), 'class', 'classes')}: {shown}"


def table_source(
    table: Path, *, image_column: str | None, label_columns: Sequence[str], project: Path
) -> tuple[dict[str, Any], str]:
    """The source of a table with a row a picture; columns that are not named are known by their names.

    Raises:
        InputError: it is missing, of another kind, or has no such columns.
    """
    if table.suffix.lower() not in FORMATS:
        raise InputError(f"{table} is of no kind known here: give {', '.join(FORMATS)}")
    kind = FORMATS[table.suffix.lower()]
    names, first = _head_of(table, kind)
    image = image_column or _named(names, IMAGE_NAMES)
    labels = list(label_columns) or [name for name in (_named(names, LABEL_NAMES),) if name]
    if image is None or not labels:
        lacks = "pictures: name it with --image-column" if image is None else "labels: name it with --label-column"
        raise InputError(f"{table}: none of its columns {', '.join(names)} is known for {lacks}")
    if unknown := [name for name in (image, *labels) if name not in names]:
        raise InputError(f"{table} has no column {', '.join(unknown)}; it has {', '.join(names)}")
    value = first.get(image)
    kind_of_image = "url" if isinstance(value, str) and value.lower().startswith(("http://", "https://")) else "path"
    source = {"kind": "table", "path": _path(table, project), "format": kind, "image_column": image}
    source |= {} if kind_of_image == "path" else {"image_is": "url"}
    if kind_of_image == "path" and isinstance(value, str):
        source["root"] = _path(table.parent, project)
    return source | {
        "label_columns": labels
    }, f"column {image!r} for pictures, {', '.join(map(repr, labels))} for labels"


def search_source(words: Sequence[str]) -> tuple[dict[str, Any], str]:
    """The source of pictures that a search engine finds: each of `words` is a class and what is searched for.

    Raises:
        InputError: fewer than two, or one twice.
    """
    if len(set(words)) < 2 or len(set(words)) < len(words):
        raise InputError(f"--search needs two different classes at least, and was given {', '.join(map(repr, words))}")
    return {"kind": "crawl", "classes": {word: [word] for word in words}}, f"to be searched for: {', '.join(words)}"


def _head_of(table: Path, kind: str) -> tuple[list[str], dict[str, Any]]:
    """The names of the columns, and the first row."""
    try:
        if kind == "csv":
            with table.open(encoding="utf-8-sig", newline="") as file:
                rows = csv.DictReader(file)
                return list(rows.fieldnames or []), next(rows, {})
        if kind == "jsonl":
            import json

            with table.open(encoding="utf-8-sig") as file:
                row = json.loads(file.readline() or "{}")
            return list(row), row
        import pyarrow.parquet as pq

        return list(pq.read_schema(table).names), {}
    except OSError as error:
        raise InputError(f"{table} cannot be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, ValueError, AttributeError, TypeError) as error:
        raise InputError(
            f"{table} is no {kind} in UTF-8 ({error}): docs/sources.md says how to name its form"
        ) from error


def _named(names: Sequence[str], known: Sequence[str]) -> str | None:
    lower = {name.lower(): name for name in names}
    return next((lower[name] for name in known if name in lower), None)


def _path(target: Path, project: Path) -> str:
    """As params.yaml has it: relative where it lies in the project, else whole."""
    whole = target.expanduser().absolute()
    return whole.relative_to(project.absolute()).as_posix() if whole.is_relative_to(project.absolute()) else str(whole)


def next_snapshot(before: str, taken: Collection[str]) -> str:
    """The name after `before`, which none of `taken` is: the next number after a number, else today's date.

    A name never changes its pictures, so that an old one is not given again.
    """
    if before.isascii() and before.isdigit():
        names = (str(number) for number in itertools.count(int(before) + 1))
    else:
        day = datetime.date.today().isoformat()
        names = (f"{day}-{number}" if number > 1 else day for number in itertools.count(1))
    return next(name for name in names if name != before and name not in taken)


# Texts -------------------------------------------------------------------------------------------


def params_text(source: dict[str, Any], *, title: str) -> str:
    """The params.yaml of a new project: the source, and the keys worth knowing."""
    from io import StringIO

    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.allow_unicode = True
    yaml.width = 1000
    value = {
        "ingest": {"snapshot": "1", "sources": [source]},
        "split": {"folds": 1},
        "augment": {"image_size": 224},
        "train": {"members": ["linear_probe"], "students": [], "folds": [0]},
        "report": {"title": title},
    }
    out = StringIO()
    yaml.dump(value, out)
    text = out.getvalue()
    remarks = {
        "  snapshot:": "A new value reads the source anew: `miwake refresh` names one.",
        "  folds: 1": "1: one validation set. k > 1: k-fold; then list the folds to train in train.folds.",
        "  image_size:": "Pixels: the largest at which any recipe trains.",
        "  members:": "linear_probe (seconds), linear_probe_large, finetune (minutes, better), or one of your own.",
    }
    lines = []
    for line in text.splitlines():
        said = next((remark for start, remark in remarks.items() if line.startswith(start)), None)
        lines += [f"  # {said}"] * (said is not None) + [line]
    head = (
        "# yaml-language-server: $schema=params.schema.json\n"
        "# What differs from the defaults. `miwake params` prints all values, `miwake params KEY` explains one.\n"
    )
    return head + "\n".join(lines) + "\n"


def readme_text(title: str, found: str) -> str:
    """The README.md of a new project."""
    return f"""# {title}

A [miwake](pipelines/__init__.py) project: {found}.

    miwake run                 # what changed of the pipeline; at the end the verdict and where the report lies
    miwake review              # look at suspects, duplicates and mistakes, and decide
    miwake status              # what is new in the sources, what a run would do
    miwake refresh             # read the sources anew, then run
    miwake predict PICTURE…    # ask the model
    miwake export onnx DIR     # take it elsewhere

`params.yaml` says what differs from the defaults, `data/decisions/` what people decided about pictures; both belong
in git, as do `dvc.lock`, `data/params.yaml` and `data/evaluate/metrics.json`, which a run writes. In a fresh clone,
`make env` makes the environment that `.venv` is a link to here.
"""
