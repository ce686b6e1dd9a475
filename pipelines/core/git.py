"""What git holds of a file."""

import subprocess
from pathlib import Path


def committed_text(path: Path) -> str | None:
    """The text of `path` in the last commit; None where there is no git, no repository, no commit or no such file."""
    folder = next((one for one in path.absolute().parents if one.is_dir()), Path())
    relative = path.absolute().relative_to(folder).as_posix()
    try:
        found = subprocess.run(["git", "-C", str(folder), "show", f"HEAD:./{relative}"], capture_output=True)
    except FileNotFoundError:
        return None
    return found.stdout.decode("utf-8", "replace") if found.returncode == 0 else None
