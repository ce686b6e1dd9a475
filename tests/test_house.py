"""The rules of the house: who may import whom, what is light, and what dvc.yaml, code and Makefile must agree on."""

import ast
import os
import re
import subprocess
import sys
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import pytest
from ruamel.yaml import YAML

import pipelines
from pipelines.core.params import Params

ROOT = Path(__file__).parents[1]
STAGES = ["ingest", "dedupe", "validate", "split", "augment", "train", "evaluate", "report"]
LIGHT_STAGES = ["ingest", "dedupe", "split", "report"]
HEAVY_PACKAGES = ["torch", "torchvision", "great_expectations", "pandas", "sklearn", "prefect", "dvc", "matplotlib"]


@cache
def imported(file: Path) -> frozenset[str]:
    """The dotted names that `file` imports anywhere in it, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module} | {f"{node.module}.{name.name}" for name in node.names}
    return frozenset(found)


def module_file(name: str) -> Path | None:
    """The file of the dotted module `name` of this repository, None for anything else."""
    path = ROOT / name.replace(".", "/")
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def code_of(stage: str) -> set[str]:
    """Every file that running `stage` may import, relative to the root: the whole package, and what it reaches."""
    todo = list((ROOT / "pipelines" / stage).rglob("*.py"))
    seen: set[Path] = set()
    while todo:
        file = todo.pop()
        if file in seen:
            continue
        seen.add(file)
        todo += [found for name in imported(file) if name.startswith("pipelines.") and (found := module_file(name))]
    return {file.relative_to(ROOT).as_posix() for file in seen} - {"pipelines/__init__.py"}


@cache
def dvc_stages() -> dict[str, Any]:
    stages: dict[str, Any] = YAML(typ="safe", pure=True).load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    return stages


def test_one_name_everywhere() -> None:
    """dvc stage = package = params section = line of the legend = test file."""
    assert [name for name in dvc_stages() if name != "students"] == STAGES
    sections = [field.alias or name for name, field in Params.model_fields.items()]
    assert sections[: len(STAGES)] == STAGES
    assert re.findall(r"^([a-z]+)  ", pipelines.__doc__ or "", flags=re.MULTILINE) == STAGES
    for stage in STAGES:
        assert (ROOT / "pipelines" / stage / "__main__.py").is_file()
        assert (ROOT / "tests" / f"test_{stage}.py").is_file()


def test_students_are_trained_as_members_are_and_after_them() -> None:
    """The second half of train differs in whom it trains, where to, and that it reads what the first half wrote."""
    text = str(dvc_stages()["train"])
    for old, new in (("members", "students"), ("member", "student"), ("data/train/", "data/students/")):
        text = text.replace(old, new)
    train, students = ast.literal_eval(text), dvc_stages()["students"]
    train["deps"] = sorted([*train["deps"], "data/train"])
    assert students == train
    assert (ROOT / "data" / "students" / ".gitkeep").is_file()


@pytest.mark.parametrize("stage", STAGES)
def test_dvc_deps_list_the_code_that_a_stage_imports(stage: str) -> None:
    deps = {dep for dep in dvc_stages()[stage]["deps"] if dep.startswith("pipelines/")}
    code = code_of(stage)

    def covered(file: str) -> bool:
        return any(file == dep or file.startswith(dep + "/") for dep in deps)

    missing = sorted(file for file in code if not covered(file))
    assert not missing, f"{stage} imports these, but dvc.yaml does not list them among its deps"
    needless = sorted(dep for dep in deps if not any(file == dep or file.startswith(dep + "/") for file in code))
    assert not needless, f"dvc.yaml lists these among the deps of {stage}, which does not import them"


def test_imports_go_down_never_back_or_sideways() -> None:
    for file in sorted((ROOT / "pipelines").rglob("*.py")):
        layer = file.relative_to(ROOT).parts[1]
        for name in imported(file):
            assert not re.match(r"(prefect|dvc|flows)(\.|$)", name), f"{file} imports {name}"
            if name.startswith("pipelines."):
                other = name.split(".")[1]
                allowed = {layer, "core"} if layer != "use" else {"use", "core", "train", "evaluate"}
                assert other in allowed or layer in ("__init__.py", "cli.py"), f"{file} imports {name}"


@pytest.mark.parametrize("stage", LIGHT_STAGES)
def test_a_light_stage_imports_nothing_heavy(stage: str) -> None:
    look = f"import sys, pipelines.{stage}.__main__; print(*[m for m in {HEAVY_PACKAGES} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


@pytest.mark.parametrize(
    ("command", "searches"),
    [
        (["-c", "import pipelines.core.params"], True),
        (["-m", "pipelines.core.params"], False),  # one that ends before there is garbage
        (["-m", "pipelines.ingest"], True),
        (["-m", "pipelines.cli", "validate"], True),
    ],
)
def test_a_command_imports_without_a_search_for_cycles_and_then_has_one(
    tmp_path: Path, command: list[str], searches: bool
) -> None:
    text = "import atexit, gc; atexit.register(lambda: print('searches', gc.isenabled(), gc.get_stats()[2]))"
    (tmp_path / "sitecustomize.py").write_text(text)
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    found = subprocess.run(
        [sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert f"searches {searches}" in found.stdout
    if "-m" in command:
        assert "'collections': 0" in found.stdout


BLAS_AT_EXIT = """
import atexit, os

def say():
    from threadpoolctl import threadpool_info
    found = [one["num_threads"] for one in threadpool_info() if one["internal_api"] == "openblas"]
    print(f"threads {os.environ.get('OPENBLAS_NUM_THREADS')}; numpy's {found}")

atexit.register(say)
"""


@pytest.mark.parametrize(
    ("given", "command", "threads"),
    [
        (None, ["-m", "pipelines.ingest"], "1"),
        ("3", ["-m", "pipelines.ingest"], "3"),  # who sets it knows why
        (None, ["-m", "pipelines.evaluate"], None),  # has products worth sharing
        (None, ["-c", "import pipelines.ingest.stage"], None),  # someone else's process
    ],
)
def test_ingest_as_a_command_leaves_all_cores_to_the_decoders(
    tmp_path: Path, given: str | None, command: list[str], threads: str | None
) -> None:
    (tmp_path / "sitecustomize.py").write_text(BLAS_AT_EXIT)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    environment.pop("OPENBLAS_NUM_THREADS", None)
    if given:
        environment["OPENBLAS_NUM_THREADS"] = given
    found = subprocess.run(
        [sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, check=False, env=environment
    )
    assert f"threads {threads};" in found.stdout
    if threads == "1":  # it was set before numpy was imported
        assert "numpy's [1]" in found.stdout or "numpy's []" in found.stdout  # another BLAS, such as Apple's


def test_no_test_depends_on_how_fast_the_machine_is() -> None:
    """A busy machine fails it; speed is what benchmarks/ measure, side by side."""
    timed = re.compile(r"assert .*(monotonic|perf_counter|time\.time)\(\) - \w+ <")
    for path in (ROOT / "tests").glob("*.py"):
        assert not timed.search(path.read_text(encoding="utf-8")), path.name


def test_nothing_unfinished_is_committed() -> None:
    marks = re.compile("|".join(["TO" + "DO", "FIX" + "ME", "X" * 3, "NotImplemented" + "Error"]))
    for folder in ("pipelines", "flows", "tests", "benchmarks"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            assert not marks.search(file.read_text(encoding="utf-8")), file


def test_readme_and_contributing_name_only_targets_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    for name in ("README.md", "CONTRIBUTING.md"):
        named = set(
            re.findall(
                r"\bmake ([a-z]+)\b",
                "".join(re.findall(r"`[^`]+`|^    .*$", (ROOT / name).read_text(encoding="utf-8"), flags=re.MULTILINE)),
            )
        )
        assert named <= targets, name


def test_the_lock_pins_every_dependency_with_hashes_and_names_no_host() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    pins = re.findall(r"^([a-z0-9][a-z0-9._-]*)==\S+.*\\\n    --hash=sha256:", lock, flags=re.MULTILINE)
    assert len(pins) == len(re.findall(r"^[a-z0-9]", lock, flags=re.MULTILINE))
    assert "://" not in lock
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    block = pyproject.split("dependencies = [")[1].split("\n]")[0]
    for name in re.findall(r'^    "([a-z0-9-]+)', block, flags=re.MULTILINE):
        assert name in pins, f"{name} of pyproject.toml is not in requirements.lock: run `make lock`"
    assert not (ROOT / "uv.lock").exists()


ARTIFACTS = ["Ingest", "Dedupe", "Validate", "Split", "Augment", "Train", "Evaluate"]


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("name", ARTIFACTS)
def test_the_line_of_a_stage_counts_in_the_singular_and_the_plural(name: str, number: int) -> None:
    """Every whole number is `number`; "1 groups" and "2 group" are both wrong."""
    artifact = getattr(import_module(f"pipelines.{name.lower()}.stage"), f"{name}Artifact")
    values = {
        int: number, float: 0.5, str: "x", Path: Path("x"), bool: True,
        dict: {"x": (number, number) if name == "Augment" else number}, tuple: ("x",) * number,
    }  # fmt: skip
    types = get_type_hints(artifact)
    made = {field: values[get_origin(kind) or kind] for field, kind in types.items()}
    line = str(artifact(**made | ({"folds": (number, number)} if "folds" in types else {})))
    nouns = "pictures?|files?|groups?|pairs?|class(?:es)?|cop(?:y|ies)|shards?|suspects?|rules?"
    found = re.findall(rf"(?<![.\d]){number} (?:rare |test |augmented )?({nouns})\b", line, re.IGNORECASE)
    assert found
    assert all((noun.lower().endswith("s") and noun.lower() != "class") == (number > 1) for noun in found), line
