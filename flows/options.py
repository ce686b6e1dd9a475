"""What a run of the pipeline may be told, and a copy of the repository in which values of params.yaml differ."""

import contextlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipelines.core.errors import InputError, ParamsError
from pipelines.core.git import git
from pipelines.core.layout import Layout
from pipelines.params import Params, load_params

Stage = Literal[
    "params", "ingest", "dedupe", "validate", "split", "augment", "train", "students", "evaluate", "report"
]  # fmt: skip


class PipelineOptions(BaseModel):
    """The form of a run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stop_after: Stage = Field("report", description="The last stage; those that it reads come before it.")
    force: bool = Field(False, description="Run every stage even when nothing changed.")
    overrides: tuple[str, ...] = Field(
        (),
        max_length=20,
        description="Values for this run alone, each as KEY=VALUE: train.seed=2. params.yaml stays as it is: the run "
        "works in a copy of the repository, and is kept as a DVC experiment.",
    )
    members: tuple[str, ...] = Field(
        (), max_length=50, description="Only these members, by their recipes' names; those of params.yaml when empty."
    )

    @property
    def changes(self) -> tuple[str, ...]:
        """All overrides, `members` among them."""
        return (*self.overrides, *([f"train.members=[{', '.join(self.members)}]"] if self.members else []))

    @property
    def title(self) -> str:
        """The name of a run with these options."""
        last = "whole pipeline" if self.stop_after == "report" else f"up to {self.stop_after}"
        return ", ".join([last, *(["forced"] * self.force), *self.changes])


def overridden(path: Path, changes: Sequence[str]) -> Any:
    """The document of params.yaml with `changes` in it, each `a.b=c`; checked against the models.

    Raises:
        ParamsError: a change is not of that form, its key is unknown, or its value breaks a rule.
    """
    yaml = YAML()
    document = yaml.load(path.read_text(encoding="utf-8")) or {}
    for change in changes:
        key, equals, text = change.partition("=")
        *parents, last = [int(part) if part.isdecimal() else part for part in key.strip().split(".")]
        if not equals or not key.strip():
            raise ParamsError(f"override {change!r}: write KEY=VALUE, for instance train.seed=2")
        try:
            value = YAML(typ="safe", pure=True).load(text)
            node = document
            for part in parents:
                node = node.setdefault(part, {}) if isinstance(node, dict) else node[part]
            node[last] = value
        except (YAMLError, LookupError, TypeError) as error:
            raise ParamsError(f"override {change!r} cannot be set: {error}; see docs/params.md for the keys") from error
    with tempfile.TemporaryDirectory() as folder:
        checked = Path(folder) / "params.yaml"
        with checked.open("w", encoding="utf-8") as file:
            yaml.dump(document, file)
        try:
            load_params(checked)
        except ParamsError as error:
            raise ParamsError(f"with {', '.join(changes)}: {error}") from error
    return document


@contextlib.contextmanager
def copy_with(root: Path, changes: Sequence[str]) -> Generator[Path]:
    """A git worktree with the present state of `root` and `changes` in its params.yaml; gone after the block.

    It shares DVC's cache, `.miwake` and what relative paths of sources name with `root`, whose files stay as they are.

    Raises:
        ParamsError: a change breaks a rule of params; before anything is copied.
        InputError: there is no commit that git could copy.
    """
    document = overridden(root / "params.yaml", changes)
    try:
        git("-C", str(root), "rev-parse", "--verify", "HEAD")
    except InputError as error:
        raise InputError(
            "overrides run in a copy that git makes of the last commit: `git init`, add all and commit first"
        ) from error
    (root / ".prefect").mkdir(exist_ok=True)
    copy = Path(tempfile.mkdtemp(prefix="run-", dir=root / ".prefect"))
    try:
        git("-C", str(root), "worktree", "add", "--detach", "--force", str(copy), "HEAD")
        for name in git("-C", str(root), "ls-files", "-z", "-m", "-o", "--exclude-standard").split("\0"):
            source, target = root / name, copy / name
            if name and source.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)
            elif name and not source.exists():
                target.unlink(missing_ok=True)
        with (copy / "params.yaml").open("w", encoding="utf-8") as file:
            YAML().dump(document, file)
        _share(root, copy, load_params(copy / "params.yaml"))
        # what the cache does not hold is made anew
        _dvc(copy, "checkout", "--quiet", "--force")
        yield copy
    finally:
        shutil.rmtree(copy, ignore_errors=True)
        git("-C", str(root), "worktree", "prune")


def _share(root: Path, copy: Path, params: Params) -> None:
    """Let the copy use what `root` has beside the tracked files."""
    cache = _dvc(root, "cache", "dir").strip() or str(root / ".dvc" / "cache")
    _dvc(copy, "cache", "dir", "--local", cache)
    Layout(root).cache.mkdir(exist_ok=True)
    paths = [str(path) for source in params.ingest.sources if (path := getattr(source, "path", None))]
    for name in (Layout(root).cache.name, *paths):
        target = copy / name
        if not Path(name).is_absolute() and (root / name).exists() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to((root / name).resolve())


def keep_experiment(copy: Path, changes: Sequence[str]) -> str:
    """Save the copy as an experiment of DVC, which `dvc exp show` lists; its name."""
    readable = re.sub(r"[^a-z0-9]+", "-", "-".join(changes).lower()).strip("-")[:40].strip("-")
    name = f"{readable}-{copy.name.removeprefix('run-').lower().replace('_', 'x')}"
    _dvc(copy, "exp", "save", "--quiet", "--name", name, "--message", ", ".join(changes), check=True)
    return name


def _dvc(folder: Path, *words: str, check: bool = False) -> str:
    done = subprocess.run([sys.executable, "-m", "dvc", *words], cwd=folder, capture_output=True, text=True)
    if check and done.returncode:
        raise InputError(f"dvc {' '.join(words[:2])}: {done.stderr.strip()}")
    return done.stdout
