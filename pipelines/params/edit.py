"""Changes one value of params.yaml and nothing else of its text."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode

from pipelines.core.errors import ParamsError
from pipelines.core.files import write_text
from pipelines.params.load import load_params


def write_snapshot(path: Path, snapshot: str) -> None:
    """Set `ingest.snapshot` in params.yaml; every other line, comments too, stays as it is.

    Raises:
        ParamsError: the file has no such key, or would no longer be valid; then it stays as it was.
    """
    text = path.read_text(encoding="utf-8")
    quoted = "'" + snapshot.replace("'", "''") + "'"  # as DVC's own writer quotes it
    try:
        document = YAML().compose(text)
        try:
            start, end = value_span(document, "ingest", "snapshot")
        except KeyError:  # the default so far: it becomes the first key of the section
            start, _ = value_span(document, "ingest")
            indentation = text[text.rfind("\n", 0, start) + 1 : start]
            if indentation.strip():
                raise
            end, quoted = start, f"snapshot: {quoted}\n{indentation}"
    except (YAMLError, KeyError) as error:
        raise ParamsError(f"{path} has no ingest.snapshot to set: {error}") from error
    write_text(path, text[:start] + quoted + text[end:])
    try:
        load_params(path)
    except ParamsError:
        write_text(path, text)
        raise


def value_span(node: Any, *keys: str) -> tuple[int, int]:
    """Where the value at `keys` begins and ends in the text of a YAML document, in characters.

    Raises:
        KeyError: there is no such value.
    """
    for key in keys:
        pairs = node.value if isinstance(node, MappingNode) else []
        found = [value for name, value in pairs if name.value == key]
        if not found:
            raise KeyError(key)
        node = found[0]
    return node.start_mark.index, node.end_mark.index
