"""What git says."""

import subprocess
from pathlib import Path

from pipelines.core.errors import InputError


def committed_text(path: Path) -> str | None:
    """The text of `path` in the last commit; None where there is no git, no repository, no commit or no such file."""
    folder = next((one for one in path.absolute().parents if one.is_dir()), Path())
    relative = path.absolute().relative_to(folder).as_posix()
    try:
        found = subprocess.run(["git", "-C", str(folder), "show", f"HEAD:./{relative}"], capture_output=True)
    except FileNotFoundError:
        return None
    return found.stdout.decode("utf-8", "replace") if found.returncode == 0 else None


def git(*words: str, cwd: Path | None = None) -> str:
    """What `git` prints, in the working folder or another; InputError with its message when it fails."""
    try:
        done = subprocess.run(
            ["git", "-c", "core.quotepath=off", *words], cwd=cwd, capture_output=True, check=False, encoding="utf-8"
        )
    except FileNotFoundError as error:
        raise InputError("git is not installed: without it there is no commit to go back to") from error
    if done.returncode:
        command = next((word for word in words if not word.startswith("-") and "=" not in word), "")
        raise InputError(f"git {command}: {done.stderr.strip() or f'status {done.returncode}'}")
    return done.stdout
