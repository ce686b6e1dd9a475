"""The rules of the house: who may import whom, what is light, and what dvc.yaml, code and Makefile must agree on."""

import ast
import contextlib
import re
import runpy
import subprocess
import sys
import tomllib
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

import pipelines
from pipelines.core.layout import OUTPUTS, Layout
from pipelines.params import Params, load_params

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
    todo = [*(ROOT / "pipelines" / stage).rglob("*.py")]
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
    assert [name for name in dvc_stages() if name not in ("params", "students")] == STAGES
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


def test_what_dvc_deletes_lies_in_the_folders_that_no_input_may_lie_in() -> None:
    outs = [out for stage in dvc_stages().values() for out in [*stage["outs"], *stage.get("metrics", [])]]
    paths = {(out if isinstance(out, str) else next(iter(out))) for out in outs} - {"data/params.yaml"}
    assert {path.split("/")[1] for path in paths} == set(OUTPUTS)
    assert all(path.startswith("data/") for path in paths)


@pytest.mark.parametrize("stage", ["params", *STAGES])
def test_dvc_deps_list_the_code_that_a_stage_imports(stage: str) -> None:
    """But for pipelines/params: all that it does to a stage stands in data/params.yaml, whose values DVC compares."""
    deps = {dep for dep in dvc_stages()[stage]["deps"] if dep.startswith("pipelines/")}
    code = {file for file in code_of(stage) if stage == "params" or not file.startswith("pipelines/params/")}

    def covered(file: str) -> bool:
        return any(file == dep or file.startswith(dep + "/") for dep in deps)

    missing = sorted(file for file in code if not covered(file))
    assert not missing, f"{stage} imports these, but dvc.yaml does not list them among its deps"
    needless = sorted(dep for dep in deps if not any(file == dep or file.startswith(dep + "/") for file in code))
    assert not needless, f"dvc.yaml lists these among the deps of {stage}, which does not import them"


MIRRORING = dict.fromkeys(
    ("augment.policies", "augment.copies", "train.members", "train.students", "train.recipes"),
    "what mirrors pictures in training is named in messages, and in no file",
)
UNDECLARED = {
    "dedupe": MIRRORING,
    "validate": MIRRORING,
    "train": {
        "train.max_device_cache_bytes": "where pictures lie; a test compares results",
        "train.trackers": "told of every epoch; a test compares results",
        "train.members": "the matrix: which stages there are",
        "train.students": "the matrix, and so which folder a stage writes",
        "train.folds": "the matrix",
    },
}
"""keys that a stage is given and dvc.yaml does not list for it, because its results do not depend on them"""


class HandedOn(Exception):  # noqa: N818 - no error
    """The stage's function was called: nothing that follows reads params."""


class Watched:
    """A section of params that notes which keys are read; handed on whole, all of them may be."""

    def __init__(self, section: BaseModel, path: str, read: set[str]) -> None:
        self._section, self._path, self._read = section, path, read

    def __getattr__(self, name: str) -> Any:
        kind = type(self._section)
        if name not in kind.model_fields:
            return getattr(kind, name).fget(self)  # a property reads what it is made of
        value, path = getattr(self._section, name), ".".join(filter(None, [self._path, name.rstrip("_")]))
        if isinstance(value, BaseModel):
            return Watched(value, path, self._read)
        self._read.add(path)
        return value

    def handed_on(self) -> None:
        self._read |= {f"{self._path}.{name}" for name in type(self._section).model_fields}


@pytest.mark.parametrize("stage", STAGES)
def test_dvc_params_list_what_a_stage_reads(stage: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The stage's command is run with a stand-in for its function, which takes every section that it is given whole."""
    read: set[str] = set()

    def stand_in(*values: Any, **named: Any) -> None:
        for value in (*values, *named.values()):
            if isinstance(value, Watched):
                value.handed_on()
        raise HandedOn

    def run_stage(name: str, wired: Any, **_: Any) -> None:
        wired.__globals__[name] = stand_in
        wired.__globals__.get("run", wired).__globals__[name] = stand_in
        with contextlib.suppress(HandedOn):
            wired(Watched(load_params(ROOT / "params.yaml"), "", read), Layout(tmp_path))

    monkeypatch.setattr("pipelines.params.command.run_stage", run_stage)
    monkeypatch.setattr(sys, "argv", ["", "linear_probe", "0"])
    runpy.run_module(f"pipelines.{stage}.__main__", run_name="__main__")
    assert read
    (declared_in,) = dvc_stages()[stage]["params"]
    assert list(declared_in) == ["data/params.yaml"], "nothing but the stage params reads params.yaml"
    declared = [name.split(".${")[0] for name in declared_in["data/params.yaml"]]

    def is_declared(key: str) -> bool:
        return any(key == name or key.startswith(f"{name}.") for name in declared)

    missing = {key for key in read if not is_declared(key) and key not in UNDECLARED.get(stage, {})}
    assert not missing, f"{stage} reads these, but dvc.yaml does not list them among its params"
    needless = {name for name in declared if not any(key == name or key.startswith(f"{name}.") for key in read)}
    assert not needless, f"dvc.yaml lists these among the params of {stage}, which does not read them"


COMPARED = "test_end_to_end compares results with and without it"
TRACKER = "of a tracker, which no result depends on"
VARIABLES = {
    "MIWAKE_WORKERS": COMPARED,
    "MIWAKE_KEEP_MEMORY": COMPARED,
    "MIWAKE_DASK": "test_dask compares results with and without it",
    "OMP_NUM_THREADS": COMPARED,
    "OMP_WAIT_POLICY": COMPARED,
    "GOMP_SPINCOUNT": COMPARED,
    "CUBLAS_WORKSPACE_CONFIG": "torch refuses values with which a run would not repeat",
    "TORCHELASTIC_RUN_ID": "set by the torchrun that train starts; another number of processes is refused",
    "LOCAL_RANK": "likewise",
    "DVC_ROOT": "set by DVC; one reason more, and one less, to refuse to run",
    **dict.fromkeys(("MLFLOW_DISABLE_TELEMETRY", "MLFLOW_ALLOW_FILE_STORE", "MLFLOW_TRACKING_URI"), TRACKER),
    **dict.fromkeys(("MLFLOW_EXPERIMENT_NAME", "WANDB_ERROR_REPORTING", "WANDB_MODE"), TRACKER),
    **dict.fromkeys(("WANDB_API_KEY", "WANDB_PROJECT"), TRACKER),
    "GX_ANALYTICS_ENABLED": "no telemetry",
    "PATH": "handed on by `miwake run`, behind the folder of this Python",
}
"""every environment variable that the stages read or set by name, and why no result depends on it"""


def test_no_result_depends_on_an_environment_variable() -> None:
    """Those that params name (keys of search engines, paths with $NAME) stand in params.yaml."""
    named = re.compile(r"""environ(?:\.\w+\(|\[)"(\w+)"|"(\w+)" (?:not )?in os\.environ""")
    code = "\n".join(file.read_text(encoding="utf-8") for file in sorted((ROOT / "pipelines").rglob("*.py")))
    assert {one or other for one, other in named.findall(code)} == set(VARIABLES)


SHARED = {
    "core": set(),
    "params": {"core"},
    "images": {"core"},
    "parallel": {"core"},
    "augmentation": {"core", "params"},
    "features": {"core", "images", "parallel", "params"},
}
"""the packages that stages share, and what each may import"""
RUNS_NETWORKS = {"evaluate": "train"}
"""who loads trained members and runs them, beside the stage that trains"""
ABOVE = ["use", "commands", "cli.py"]
"""what stands above the stages and may import all of them, each what stands before it too"""


def test_imports_go_down_never_back_or_sideways() -> None:
    for file in sorted((ROOT / "pipelines").rglob("*.py")):
        layer = file.relative_to(ROOT).parts[1]
        for name in imported(file):
            never = "prefect|dvc" if layer == "commands" else "prefect|dvc|flows"
            assert not re.match(rf"({never})(\.|$)", name), f"{file} imports {name}"
            if name.startswith("pipelines."):
                other = name.split(".")[1]
                allowed = {layer, RUNS_NETWORKS.get(layer)} | SHARED.get(layer, set(SHARED))
                if layer in ABOVE:
                    allowed |= set(STAGES) | set(ABOVE[: ABOVE.index(layer)])
                assert other in allowed, f"{file} imports {name}"


def test_a_class_is_found_by_its_name() -> None:
    """No two of the project have one name, so that a search for it finds its definition."""
    places: dict[str, list[str]] = {}
    for file in sorted(path for folder in ("pipelines", "flows") for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name.lstrip("_"), []).append(file.relative_to(ROOT).as_posix())
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


@pytest.mark.parametrize("stage", LIGHT_STAGES)
def test_a_light_stage_imports_nothing_heavy(stage: str) -> None:
    look = f"import sys, pipelines.{stage}.__main__; print(*[m for m in {HEAVY_PACKAGES} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_importing_changes_nothing_of_the_process() -> None:
    """Neither the garbage collector, nor the environment, nor what can be imported, even for a command."""
    look = "import gc, os, sys; before = dict(os.environ), sys.meta_path[:]; import pipelines.cli; print(gc.isenabled(), before == (dict(os.environ), sys.meta_path))"  # noqa: E501
    found = subprocess.run([sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["True", "True"]
    assert len(ast.parse((ROOT / "pipelines/__init__.py").read_text(encoding="utf-8")).body) == 1, (
        "more than the legend"
    )


def test_no_test_depends_on_how_fast_the_machine_is() -> None:
    """A busy machine fails it; speed is what benchmarks/ measure, side by side."""
    timed = re.compile(r"assert .*(monotonic|perf_counter|process_time|time\.time)\(\) - \w+ <")
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


def pins_of(name: str) -> dict[str, str]:
    """Package to version of a lock, in which every one has hashes and nothing names a host."""
    lock = (ROOT / name).read_text(encoding="utf-8")
    pins = re.findall(r"^([a-z0-9][a-z0-9._-]*)==(\S+).*\\\n    --hash=sha256:", lock, flags=re.MULTILINE)
    assert len(pins) == len(re.findall(r"^[a-z0-9]", lock, flags=re.MULTILINE))
    assert "://" not in lock
    return dict(pins)


def test_the_locks_pin_every_dependency_with_hashes_and_agree() -> None:
    run, dev = pins_of("requirements.lock"), pins_of("requirements-dev.lock")
    assert run.items() <= dev.items()
    assert not {"pytest", "ruff", "mypy", "playwright", "wandb"} & run.keys()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    wanted = {"requirements.lock": project["dependencies"], "requirements-dev.lock": extras}
    for name, lines in wanted.items():
        names = {re.split(r"[^a-z0-9-]", line)[0] for line in lines} - {"miwake", "dvc-s3", "dvc-gs", "dvc-azure"}
        missing = names - pins_of(name).keys()
        assert not missing, f"{missing} of pyproject.toml are not in {name}: run `make lock`"
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
