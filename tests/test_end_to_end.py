"""The eight stages through DVC, for real: reproducible, restartable, and skipped when nothing changed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
STAGES = ["params", "ingest", "dedupe", "validate", "split", "augment", "train@linear_probe-0", "evaluate", "report"]
DVC = [sys.executable, "-m", "dvc"]
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "MIWAKE_WORKERS": "1",
    "PYTHONUNBUFFERED": "1",
}

pytestmark = pytest.mark.slow


def small_pipeline(root: Path) -> Path:
    """The code and dvc.yaml of this repository with a sample of 13 x 10 pictures at 64 px, not yet run."""
    root.mkdir()
    for name in ("pipelines", "data/decisions"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", "params.yaml", ".dvcignore", ".gitignore", "data/students/.gitkeep"):
        (root / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    shutil.copy(ROOT / "tests" / "whole_params.yaml", root / "params.yaml")
    (root / ".dvc").mkdir()
    for name in ("config", "plots.html"):
        shutil.copy(ROOT / ".dvc" / name, root / ".dvc" / name)
    yaml = YAML()
    params = yaml.load(root / "params.yaml")
    source = params["ingest"]["sources"][0]
    source["images_per_class"] = 10
    source["image_size"] = 64
    source["flaws"] = {name: 2 if name.startswith(("broken", "foreign")) else 5 for name in source["flaws"]}
    params["augment"]["image_size"] = 64
    params["train"]["recipes"]["linear_probe"]["image_size"] = 64
    params["train"]["recipes"]["scratch"]["image_size"] = 64
    params["validate"]["max_reject_fraction"]["limit"] = 0.2
    yaml.dump(params, root / "params.yaml")
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    return root


def repro(root: Path, *arguments: str) -> str:
    """What `dvc repro` prints; it must succeed."""
    done = subprocess.run([*DVC, "repro", *arguments], cwd=root, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def stages_run(output: str) -> list[str]:
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage '")]


def edit(root: Path, change: Any) -> None:
    yaml = YAML()
    params = yaml.load(root / "params.yaml")
    change(params)
    yaml.dump(params, root / "params.yaml")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small pipeline, run from start to end without a break."""
    root = small_pipeline(tmp_path_factory.mktemp("unbroken") / "pipeline")
    assert stages_run(repro(root)) == STAGES
    return root


@pytest.mark.timeout(600)
def test_killed_in_every_stage_it_continues_to_the_same_lock(unbroken: Path, tmp_path: Path) -> None:
    """kill -9 of DVC and its stage, once in each stage; the last run ends in the lock of an unbroken one,
    in another folder, with nothing left of the broken ones."""
    root = small_pipeline(tmp_path / "killed")
    for stage in STAGES:
        process = subprocess.Popen(
            [*DVC, "repro"],
            cwd=root,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        seen = []
        for line in process.stdout:
            seen.append(line)
            if line.startswith(f"Running stage '{stage}'"):
                time.sleep(0.3)  # into the middle of it: the imports are over in the light stages
                os.killpg(process.pid, signal.SIGKILL)
                break
        process.stdout.close()
        assert process.wait() == -signal.SIGKILL, f"{stage} was not reached:\n{''.join(seen)}"
    repro(root)
    assert (root / "dvc.lock").read_text() == (unbroken / "dvc.lock").read_text()
    assert not list((root / "data").rglob("*.partial"))


ODD_ENVIRONMENT = {
    **{"MIWAKE_WORKERS": "3", "MIWAKE_KEEP_MEMORY": "0"},
    **{"OMP_NUM_THREADS": "3", "OPENBLAS_NUM_THREADS": "2", "MKL_NUM_THREADS": "3", "NUMEXPR_NUM_THREADS": "3"},
    **{
        "OMP_WAIT_POLICY": "passive",
        "OMP_DYNAMIC": "true",
        "OMP_THREAD_LIMIT": "1",
        "OMP_SCHEDULE": "dynamic",
        "GOMP_SPINCOUNT": "7",
    },
    **{"LC_ALL": "C", "LANG": "de_DE.UTF-8", "TZ": "Asia/Tokyo", "HOME": "/nowhere", "PYTHONHASHSEED": "7"},
    **{"COLUMNS": "40", "TERM": "dumb", "MPLBACKEND": "pdf", "SOURCE_DATE_EPOCH": "1"},
}
"""of this project, of the libraries below it, and of the machine: none is a param, so none may change a result"""


@pytest.mark.timeout(600)
def test_no_environment_variable_changes_a_result(unbroken: Path, tmp_path: Path) -> None:
    root = small_pipeline(tmp_path / "odd")
    for stage in STAGES:
        words = f"pipelines.{stage.replace('@', ' ').replace('-', ' ')}".split()
        done = subprocess.run(
            [sys.executable, "-m", *words],
            cwd=root, env={**ENVIRONMENT, **ODD_ENVIRONMENT}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    files = [path.relative_to(root) for path in sorted((root / "data").rglob("*")) if path.is_file()]
    assert len(files) > 30
    assert [name for name in files if (root / name).read_bytes() != (unbroken / name).read_bytes()] == []


def test_nothing_changed_runs_nothing(unbroken: Path) -> None:
    output = repro(unbroken)
    assert stages_run(output) == []
    assert "up to date" in output


def test_a_change_of_a_recipe_reruns_train_and_what_follows(unbroken: Path) -> None:
    before = (unbroken / "params.yaml").read_text()
    edit(unbroken, lambda params: params["train"].update(seed=7))
    assert stages_run(repro(unbroken)) == ["params", "train@linear_probe-0", "evaluate", "report"]
    (unbroken / "params.yaml").write_text(before)
    assert stages_run(repro(unbroken)) == ["params"]  # back to the old values: the cache has all the rest


def test_a_decision_reruns_dedupe_and_never_ingest(unbroken: Path) -> None:
    drop = unbroken / "data" / "decisions" / "drop.csv"
    before = drop.read_text()
    with (unbroken / "data" / "dedupe" / "duplicates.csv").open() as file:
        file.readline()
        image_id = file.readline().split(",")[0]
    drop.write_text(f"{before}{image_id},not a guitar\n")
    ran = stages_run(repro(unbroken, "dedupe"))  # with all that it reads
    drop.write_text(before)
    repro(unbroken, "dedupe")
    assert ran == ["dedupe"]


def test_metrics_and_plots_are_declared(unbroken: Path) -> None:
    shown = subprocess.run(
        [*DVC, "metrics", "show", "--json"], cwd=unbroken, env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    data = json.loads(shown.stdout)[""]["data"]["data/evaluate/metrics.json"]["data"]
    assert 0 <= data["accuracy"]["low"] <= data["accuracy"]["value"] <= data["accuracy"]["high"] <= 1
    done = subprocess.run(
        [*DVC, "plots", "show", "--out", "plots"], cwd=unbroken, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    page = (unbroken / "plots" / "index.html").read_text()
    assert "Confusion" in page
    shutil.rmtree(unbroken / "plots")


def test_a_wrong_param_stops_the_first_stage_and_names_itself(unbroken: Path) -> None:
    before = (unbroken / "params.yaml").read_text()
    edit(unbroken, lambda params: params["ingest"].update(min_side=-1))
    done = subprocess.run([*DVC, "repro"], cwd=unbroken, env=ENVIRONMENT, capture_output=True, text=True)
    (unbroken / "params.yaml").write_text(before)
    assert done.returncode != 0
    assert "ingest.min_side = -1: input should be greater than or equal to 1" in done.stdout + done.stderr


def test_the_report_is_there_and_says_it_was_drawn(unbroken: Path) -> None:
    page = (unbroken / "data" / "report" / "index.html").read_text(encoding="utf-8")
    assert "Drawn, not photographed" in page
    assert (unbroken / "data" / "report" / "confusion_matrix.png").read_bytes().startswith(b"\x89PNG")
