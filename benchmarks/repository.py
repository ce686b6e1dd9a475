"""Copies of this repository to measure in: the files that git tracks, a git and a DVC repository, nothing of data/."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent


def environment() -> dict[str, str]:
    """What a command in a copy needs: the programs of the environment that runs this."""
    keep = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {**keep, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}


def copy_repository(target: Path, *, with_lock: bool = False) -> Path:
    """Copy what git tracks to `target` and make it a repository of its own.

    Args:
        with_lock: keep dvc.lock, as a clone has it; without it nothing is known of an earlier run.
    """
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file() and (with_lock or name != "dvc.lock"):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    for command in (
        ["git", "init", "--quiet"],
        ["git", "add", "--all"],
        ["git", "-c", "user.name=miwake", "-c", "user.email=miwake@localhost", "commit", "--quiet", "-m", "copy"],
    ):
        subprocess.run(command, cwd=target, check=True)
    return target


def set_params(root: Path, **changes: Any) -> None:
    """Change params.yaml of a copy; keys are paths with `__` for the dot: `split__folds=3`."""
    yaml = YAML()
    path = root / "params.yaml"
    params = yaml.load(path.read_text(encoding="utf-8"))
    for key, value in changes.items():
        *sections, last = key.split("__")
        section = params
        for name in sections:
            section = section.setdefault(name, {})
        section[last] = value
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(params, file)


def folder_source(path: Path) -> dict[str, str]:
    """An entry of ingest.sources for a folder of class folders."""
    return {
        "kind": "folder",
        "path": str(path.resolve()),
        "label_from": "last_folder",
        "symlinks": "skip",
        "hidden": "skip",
    }
