"""Who we say we are."""

import importlib.metadata
import tomllib
from functools import cache
from pathlib import Path

from pipelines.ingest.download.robots import AGENT


def user_agent(contact: str) -> str:
    """`miwake/0.1.0 (+contact)`: a name, a version, and where to complain."""
    return f"{AGENT}/{version()}" + (f" (+{contact})" if contact else "")


@cache
def version() -> str:
    """Of the installed package; in a checkout, of its pyproject.toml."""
    try:
        return importlib.metadata.version("miwake")
    except importlib.metadata.PackageNotFoundError:
        pyproject = Path(__file__).parents[3] / "pyproject.toml"
        return str(tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]["version"])
