"""What the documentation shows is what the code takes."""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydantic import TypeAdapter
from ruamel.yaml import YAML

from pipelines.core.params.ingest import IngestParams
from pipelines.core.params.load import load_params
from pipelines.core.params.recipes import FullRecipe
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


TRAINING = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
RECIPE_EXAMPLES = re.findall(r"```yaml\n(.*?)```", TRAINING, flags=re.DOTALL)


def test_the_recipe_that_is_shown_is_the_committed_one() -> None:
    shown = YAML(typ="safe", pure=True).load(RECIPE_EXAMPLES[0])
    committed = YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    assert shown == {"lite0_full": committed["train"]["recipes"]["lite0_full"]}


@pytest.mark.parametrize("example", RECIPE_EXAMPLES[1:], ids=lambda text: text.split(":")[0])
def test_every_part_of_a_recipe_that_is_shown_is_valid(example: str) -> None:
    ((name, part),) = YAML(typ="safe", pure=True).load(example).items()
    field = FullRecipe.model_fields[name]
    annotation: Any = field.annotation
    TypeAdapter(annotation).validate_json(json.dumps(part))


@pytest.mark.parametrize("script", sorted(path.name for path in (ROOT / "benchmarks").glob("*.py")))
def test_every_benchmark_says_how_it_is_run(script: str) -> None:
    """By path, from any folder, with nothing on Python's path: as their first lines say."""
    path = ROOT / "benchmarks" / script
    text = path.read_text(encoding="utf-8")
    if "argparse" not in text or "__main__" not in text:
        pytest.skip("no command")
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, str(path), "--help"], cwd="/", env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: {script}")


def test_the_picture_of_the_readme_is_of_the_committed_run() -> None:
    """`python docs/picture.py` makes it anew after a run whose figures are other ones."""
    metrics = (ROOT / "data" / "evaluate" / "metrics.json").read_bytes()
    with Image.open(ROOT / "docs" / "report.png") as picture:
        assert picture.info.get("metrics-sha256") == hashlib.sha256(metrics).hexdigest()
