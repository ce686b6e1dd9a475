"""`python -m pipelines.params.preflight`, before DVC: what would stop it is put right, or said in a sentence."""

import configparser
import getpass
import os
import subprocess
import sys
from pathlib import Path

from pipelines.core.errors import InputError, MiwakeError, ParamsError
from pipelines.core.layout import Layout
from pipelines.params.command import check_project
from pipelines.params.load import load_params, read_yaml


def preflight(root: Path) -> list[str]:
    """Look at the project in `root` before its first stage; what was put right, a line each.

    Raises:
        InputError: it cannot be written, DVC cannot work at its path, or the user has no name or home.
        ParamsError: params.yaml breaks a rule.
    """
    check_project(root, by_dvc=True)
    _check_user()
    params = Layout(root).params
    load_params(params)
    written = read_yaml(params).get("train") or {}
    if lacking := [f"train.{key}" for key in ("members", "students", "folds") if key not in written]:
        raise ParamsError(
            f"{params.name}: {', '.join(lacking)} must be written, default or not: DVC reads which trainings there "
            "are; `members: [linear_probe]`, `students: []`, `folds: [0]` are the defaults"
        )
    return _agree_on_git(root)


def _check_user() -> None:
    """DVC asks for both, and ends with a traceback where there is none."""
    lacks = {}
    try:
        getpass.getuser()
    except (KeyError, OSError):
        lacks["name"] = "USER=miwake"
    if os.path.expanduser("~") == "~":  # noqa: PTH111  (Path.home raises)
        lacks["home folder"] = "HOME=/tmp"
    if lacks:
        raise InputError(
            f"user {os.getuid()} has no {' and no '.join(lacks)} on this machine (a container's?), and DVC needs both: "
            f"run `export {' '.join(lacks.values())}` first"
        )


def _agree_on_git(root: Path) -> list[str]:
    """Tell DVC to do without git where there is no repository, as in a downloaded zip, and to use one that came."""
    config = configparser.ConfigParser(strict=False)
    config.read(root / ".dvc" / "config.local", encoding="utf-8")
    without = config.get("core", "no_scm", fallback="false").strip().lower() == "true"
    has_git = any((folder / ".git").exists() for folder in (root, *root.parents))
    if without != has_git:
        return []
    change = ["--unset", "core.no_scm"] if has_git else ["core.no_scm", "true"]
    subprocess.run([sys.executable, "-m", "dvc", "config", "--local", *change], cwd=root, check=True)
    if has_git:
        return ["a git repository is here now: DVC uses it"]
    return ["no git repository is here (a downloaded zip?): DVC does without; `git init` lets it compare and go back"]


if __name__ == "__main__":
    try:
        for line in preflight(Path.cwd()):
            print(line)
    except MiwakeError as error:
        print(error, file=sys.stderr)
        raise SystemExit(1) from None
