"""How Prefect is set up here: at home in the repository, on this machine only, telling nobody."""

import hashlib
import os
import re
from pathlib import Path

HOST = "127.0.0.1"
SERVED_BY = "MIWAKE_SERVED_BY"
"""the environment variable that tells a run the process id of the `flows.serve` that started it"""


REPORTS_AT, REPORTS_IN = "MIWAKE_REPORTS_AT", "MIWAKE_REPORTS_IN"
"""the environment variables that tell a run where `flows.serve` serves reports, and from which folder"""


def folder_name(root: Path) -> str:
    """The name of `root`'s deployments, and the tag of its runs: one folder, one name, on a server of many."""
    where = root.resolve()
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", where.name)
    return f"{readable}-{hashlib.sha256(os.fsencode(where)).hexdigest()[:8]}"


def prefect_environment(root: Path) -> dict[str, str]:
    """The environment variables under which Prefect runs, but for those that the user has set.

    Prefect reads them while it is imported, so they must stand in `os.environ` before that.

    Args:
        root: the repository; the database and Prefect's profile go to `.prefect/` below it, not to the user's home.
    """
    return {
        "PREFECT_HOME": str(root.resolve() / ".prefect"),
        # the server's telemetry and the client's
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        # a copy of the pages that `flows.serve` may change: they ask an analytics host whatever the settings say
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(root.resolve() / ".prefect" / "ui"),
        # the server that a flow brings along when none runs; 20 s are too few on a busy machine
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        # seconds until a click on "Run" starts a run; Prefect waits 10
        "PREFECT_RUNNER_POLL_FREQUENCY": "2",
    }


def set_up_prefect(root: Path) -> None:
    """Put `prefect_environment` into this process's environment; what the user has set stays."""
    for name, value in prefect_environment(root).items():
        os.environ.setdefault(name, value)
