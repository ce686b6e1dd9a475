"""What every section of params.yaml has in common."""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A frozen, closed group of params: an unknown key is an error, a wrong type is not converted.

    The default of a field stands here and nowhere else: params.yaml says what differs, data/params.yaml all of it. The
    line under a field is its documentation, and goes into params.schema.json and docs/params.md.

    What checks a file is built once, for all sections, when the first is read: `defer_build`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, defer_build=True)


Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=0)]
PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0.0)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)]
"""A name that becomes part of a path and of a DVC stage's name."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean …?` with the name that `word` is nearly, "" where it is like none."""
    from pipelines.params.mistakes import closest

    return f"; did you mean {near!r}?" if (near := closest(word, list(known))) else ""


def path_below(root: Path, text: str) -> Path:
    """Where a path of params.yaml leads, understood as a shell would: one meaning for every key that holds a path.

    `~` and `~name` at its beginning are home folders, `$NAME` and `${NAME}` environment variables, `$$` is a dollar
    sign; `./` and a slash at the end change nothing.

    Args:
        root: the folder of params.yaml, where relative paths start.

    Raises:
        ValueError: a variable is not set, or there is no such home folder.
    """
    path = text
    if path.startswith("~"):
        path = os.path.expanduser(path)  # noqa: PTH111  (Path takes a folder named ~ for the home folder no less)
        if path.startswith("~"):
            raise ValueError(f"there is no home folder {text.split('/')[0]}: write the path itself, or ./{text}")
    path = re.sub(r"\$(?:(\$)|([A-Za-z_]\w*)|\{([^}]*)\})", _variable, path, flags=re.ASCII)
    if "\0" in path:
        raise ValueError("a path cannot hold a NUL character: write it anew")
    return root / path


def _variable(found: re.Match[str]) -> str:
    if found[1]:
        return "$"
    name = found[2] or found[3]
    if not os.environ.get(name):
        raise ValueError(
            f"the environment variable {name} is not set: set it, or write the path itself ($$ is a dollar sign)"
        )
    return os.environ[name]


def _leads_somewhere(text: str) -> str:
    path_below(Path(), text)
    return text


PathText = Annotated[str, Field(min_length=1), AfterValidator(_leads_somewhere)]
"""A path, for `path_below`."""
