"""`miwake params`: every value of the next run, or the meaning of one key."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.core.layout import Layout


def params(
    key: Annotated[str, typer.Argument(help="Explain this one; its last word may do: test_fraction.")] = "",
) -> None:
    """Print every value that the next run uses, defaults too; or explain one key: meaning, values, default."""
    from pipelines.params.load import load_params, read_yaml
    from pipelines.params.reference import explain_key
    from pipelines.params.resolve import resolved_text
    from pipelines.params.schema import params_schema

    path = Layout(Path.cwd()).params
    found = load_params(path)
    if not key:
        print(resolved_text(found), end="")
        return
    values = found.model_dump(mode="json", by_alias=True)
    for line in explain_key(key, schema=params_schema(), values=values, written=read_yaml(path)):
        print(line)
