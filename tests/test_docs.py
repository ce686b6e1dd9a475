"""What the documentation shows is what the code takes."""

import json
import re
from pathlib import Path

import pytest
from pydantic import TypeAdapter
from ruamel.yaml import YAML

from pipelines.core.params.ingest import IngestParams
from pipelines.core.params.load import load_params
from pipelines.core.params.sources import Source

ROOT = Path(__file__).resolve().parents[1]
SOURCES = (ROOT / "docs" / "sources.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```yaml\n(.*?)```", SOURCES, flags=re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: text.split()[2])
def test_every_example_of_a_source_is_a_valid_entry(example: str) -> None:
    (entry,) = YAML(typ="safe", pure=True).load(example)
    TypeAdapter[Source](Source).validate_json(json.dumps(entry))


def test_every_kind_of_source_has_an_example() -> None:
    kinds = set(re.findall(r"^- kind: (\w+)", "\n".join(EXAMPLES), flags=re.MULTILINE))
    schema = IngestParams.model_json_schema()
    known = set(schema["properties"]["sources"]["items"]["discriminator"]["mapping"])
    assert kinds == known - {"sample"}


def test_the_committed_params_show_the_sample() -> None:
    assert [source.kind for source in load_params(ROOT / "params.yaml").ingest.sources] == ["sample"]
