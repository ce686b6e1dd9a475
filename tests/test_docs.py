"""What the documentation shows is what the code takes."""

import csv
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydantic import TypeAdapter
from ruamel.yaml import YAML

from pipelines.params.ingest import IngestParams
from pipelines.params.load import load_params
from pipelines.params.recipes import FinetuneRecipe, LinearProbeRecipe
from pipelines.params.sources import Source

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
    assert shown == {"finetune": committed["train"]["recipes"]["finetune"]}


@pytest.mark.parametrize("example", RECIPE_EXAMPLES[1:], ids=lambda text: text.split(":")[0])
def test_every_part_of_a_recipe_that_is_shown_is_valid(example: str) -> None:
    ((name, part),) = YAML(typ="safe", pure=True).load(example).items()
    field = {**LinearProbeRecipe.model_fields, **FinetuneRecipe.model_fields}[name]
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


# what README.md and its neighbours show to be typed -------------------------------------------------

PROGRAMS = ("make", "miwake", "dvc", "git", "python", "pip", "cp", "export", ".", "source", "cd")
SHOWN_IN = ("README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))


def shown_commands(name: str) -> list[str]:
    """The lines of code blocks, and the pieces of code in the text, that begin with a program's name."""
    text = (ROOT / name).read_text(encoding="utf-8")
    blocks = re.findall(
        r"^(?:    |\t)(.*)$|^```(?:sh|bash|shell|console)?\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL
    )
    lines = [line for block in blocks for part in block for line in part.splitlines()]
    lines += re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    found = [re.split(r"\s+#\s", line.strip().removeprefix("$ "))[0] for line in lines]
    named = (line for line in found if re.match(r"(\.venv/bin/)?(\S+) +\S", line))
    return list(dict.fromkeys(line for line in named if line.split()[0].removeprefix(".venv/bin/") in PROGRAMS))


def tried(command: str) -> str:
    """What is run in place of `command`: itself where that is quick, else what only says what it would do."""
    program, *words = shlex.split(command)
    match program.removeprefix(".venv/bin/"):
        case "make":
            return f"make -n {shlex.join(words)}"
        case "python" if words[0] == "-m":
            stage = words[1].replace("<stage>", "ingest")
            return f"python -c 'import importlib.util as u, sys; sys.exit(u.find_spec(\"{stage}\") is None)'"
        case "dvc" | "miwake" | "python":
            # a word in capitals stands for one of the reader's own
            return f"{program} {shlex.join(words)} --help"
        case "pip":
            return f"grep -E '\"?{words[-1].split('[')[0]}' pyproject.toml"
        case "git":
            return f"git {words[0]} -h > usage || test $? = 129"
        case _:
            return command


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of this project that git knows, with an environment of their own that holds what this one holds."""
    root = tmp_path_factory.mktemp("clone") / "miwake"
    root.mkdir()
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_file():
            (root / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    environment, bin_ = root / ".venv", root / ".venv" / "bin"
    bin_.mkdir(parents=True)
    here = Path(sys.prefix)
    for path in (*(p for p in here.iterdir() if p.name != "bin"), *(here / "bin").iterdir()):
        if path.name not in ("miwake", "activate"):
            (bin_ if path.parent.name == "bin" else environment).joinpath(path.name).symlink_to(path)
    (bin_ / "activate").write_text(f"export VIRTUAL_ENV={environment}\nexport PATH={bin_}:$PATH\n")
    # the command that `make env` makes
    made = (ROOT / "Makefile").read_text(encoding="utf-8").split("define MIWAKE\n")[1].split("endef")[0]
    (bin_ / "miwake").write_text(made.replace("$$", "$"))
    (bin_ / "miwake").chmod(0o755)
    return root


@pytest.mark.parametrize(("name", "command"), [(name, one) for name in SHOWN_IN for one in shown_commands(name)])
def test_every_command_that_is_shown_runs(clone: Path, name: str, command: str) -> None:
    """In a clone with its environment activated; what takes long is asked for its help, which must know its options."""
    instead = tried(command)
    env = {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "PYTHONPATH")}
    done = subprocess.run(
        ["bash", "-c", f"set -e; . .venv/bin/activate; {instead}"],
        cwd=clone, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{name} shows `{command}`; tried as `{instead}`:\n{done.stdout}{done.stderr}"
    if instead.endswith("--help"):
        for option in re.findall(r"(?<!\S)--[a-z-]+", command):
            assert option in done.stdout, f"{name} shows `{command}`, which has no {option}"


def test_commands_are_found_as_they_are_shown() -> None:
    assert {"make repro", "make test"} <= set(shown_commands("README.md"))
    assert tried("dvc metrics diff") == "dvc metrics diff --help"
    assert tried("make env TORCH=cpu") == "make -n env TORCH=cpu"


def test_the_readme_activates_the_environment_before_the_first_command_that_needs_it() -> None:
    shown = shown_commands("README.md")
    assert not [line for line in shown if line.startswith(".venv/bin/")], "once activated, no command needs the path"
    needs = [line for line in shown if line.split()[0] in ("miwake", "dvc", "python", "pip")]
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert ". .venv/bin/activate" in text, "README.md must show `. .venv/bin/activate` once"
    assert text.index(". .venv/bin/activate") < min(text.index(line) for line in needs)


def rejected() -> int:
    with (ROOT / "data/ingest/rejected.csv").open(encoding="utf-8", newline="") as file:
        return len(list(csv.DictReader(file)))


def kept_as(verdict: str) -> int:
    verdicts: list[str] = pq.read_table(ROOT / "data/dedupe/manifest.parquet")["verdict"].to_pylist()
    return verdicts.count(verdict)


def figure(*keys: str) -> tuple[float, ...]:
    value = json.loads((ROOT / "data/evaluate/metrics.json").read_text(encoding="utf-8"))
    for key in keys:
        value = value[key]
    return (value["value"], value["low"], value["high"]) if isinstance(value, dict) else (value,)


FIGURES: dict[str, Callable[[], tuple[float, ...]]] = {
    "classes": lambda: figure("num_classes"),
    "test": lambda: figure("num_images"),
    "accuracy": lambda: figure("accuracy"),
    "balanced accuracy": lambda: figure("balanced_accuracy"),
    "files": lambda: (pq.read_metadata(ROOT / "data/ingest/manifest.parquet").num_rows + rejected(),),
    "copies": lambda: (kept_as("copy"),),
    "files under two labels": lambda: (kept_as("conflict"),),
}
"""by the column of README.md's table: what the committed artifacts say"""
UNCHECKED = {"pictures", "seconds"}
"""names, and what depends on the machine"""


def main_job() -> dict[str, str]:
    """The row of README.md's table of results that names the main job, by column."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    tables = re.findall(r"(?:^\|.*\|\n)+", text, flags=re.MULTILINE)
    for table in tables:
        header, _, *rows = ([cell.strip() for cell in line.strip("|\n").split("|")] for line in table.splitlines())
        for row in rows:
            if "main job" in row[0]:
                return dict(zip(header, row, strict=True))
    pytest.fail("README.md has no table with a row `… (the main job)`")


def test_the_figures_of_the_main_job_are_those_of_the_committed_artifacts() -> None:
    wrong = []
    for column, cell in main_job().items():
        if column in UNCHECKED:
            continue
        assert column in FIGURES, f"README.md has a column {column!r}: say in FIGURES where its figure comes from"
        try:
            actual = FIGURES[column]()
        except FileNotFoundError:
            continue  # outputs of DVC; in .ci/run they are there
        shown = [number.replace(",", "") for number in re.findall(r"\d[\d,]*\.?\d*", cell)]
        scale = 100 if "%" in cell else 1
        should = [f"{value * scale:.{len(text.partition('.')[2])}f}" for value, text in zip(actual, shown, strict=True)]
        if shown != should:
            wrong.append(f"{column}: {cell}, but the artifacts say {' '.join(should)}")
    assert not wrong, "README.md: " + "; ".join(wrong)
