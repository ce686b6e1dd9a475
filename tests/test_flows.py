"""Prefect's side: DVC's stages as tasks, what they leave behind, retraining and the server."""

import ast
import asyncio
import contextlib
import datetime
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pytest

from flows import artifacts, markdown
from flows.bridge import (
    DvcBusyError,
    DvcStage,
    NetworkError,
    StageFailedError,
    StageRunner,
    StageStoppedError,
    failure,
    in_order,
    read_repository,
    read_stages,
    read_state,
    select,
    try_lock,
)
from flows.settings import folder_name, prefect_environment
from pipelines.core.errors import InputError, MiwakeError, ParamsError
from pipelines.core.files import write_csv, write_json, write_text
from pipelines.core.layout import Layout
from pipelines.core.tables import MANIFEST, write_table
from pipelines.params import load_params

ROOT = Path(__file__).resolve().parent.parent

STAGE = """
import sys, time, subprocess
from pathlib import Path
name, mode = sys.argv[1], Path("mode.txt").read_text().strip()
print(name, "begins")
if mode == "sleep":
    # a child of its own, as a training with workers has
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    Path("pids.txt").write_text(f"{child.pid}")
    time.sleep(300)
while mode == "wait" and not Path("go.txt").exists():
    time.sleep(0.1)
if mode == "fail":
    print("the third picture is broken")
    sys.exit(3)
out = Path("data") / name.replace("@", "/")
out.mkdir(parents=True, exist_ok=True)
(out / "out.txt").write_text(name)
if name == "evaluate":
    import json
    figure = {"value": 0.8, "low": 0.7, "high": 0.9}
    for written in ("metrics.json", "figures.json"):
        (out / written).write_text(json.dumps({"num_images": 2, "num_classes": 2, "confidence": 0.95,
            "accuracy": figure, "balanced_accuracy": figure, "macro_f1": figure, "members": {}, "per_class": {}}))
"""

DVC_YAML = """
stages:
  ingest:
    cmd: python stage.py ingest
    deps: [mode.txt, stage.py]
    outs: [data/ingest]
  train:
    matrix:
      member: [a, b]
      fold: [0]
    cmd: python stage.py train@${item.member}-${item.fold}
    deps: [data/ingest]
    outs: ["data/train/${item.member}-${item.fold}"]
  students:
    matrix:
      student: ${train.students}
      fold: [0]
    cmd: python stage.py students@${item.student}-${item.fold}
    deps: [data/train]
    outs: ["data/students/${item.student}-${item.fold}"]
  evaluate:
    cmd: python stage.py evaluate
    deps: [data/train, data/students]
    outs: [data/evaluate]
"""


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A repository of four small stages: ingest, train@a-0, train@b-0 and evaluate."""
    return make_repo(tmp_path / "repo")


def make_repo(folder: Path) -> Path:
    (folder / ".dvc").mkdir(parents=True)
    write_text(folder / ".dvc" / "config", "[core]\n    analytics = false\n    no_scm = true\n")
    write_text(folder / "stage.py", STAGE)
    write_text(folder / "dvc.yaml", DVC_YAML)
    write_text(folder / "mode.txt", "work\n")
    write_text(folder / "data" / "students" / ".gitkeep", "")
    write_text(folder / "params.yaml", (ROOT / "tests" / "whole_params.yaml").read_text(encoding="utf-8"))
    return folder


# the bridge -----------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")  # inside DVC
def test_the_stages_come_from_dvc_itself_dependencies_first(repo: Path) -> None:
    assert read_stages(repo) == [
        DvcStage("ingest", (), ("data/ingest",)),
        DvcStage("train@a-0", ("ingest",), ("data/train/a-0",)),
        DvcStage("train@b-0", ("ingest",), ("data/train/b-0",)),
        DvcStage("evaluate", ("train@a-0", "train@b-0"), ("data/evaluate",)),
    ]


@pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")  # inside DVC
def test_what_is_in_order_is_known_at_once_but_not_what_reads_something_else(repo: Path) -> None:
    runner = StageRunner(repo, jobs=1)
    assert read_repository(repo, with_status=True)[1] == frozenset()
    for name in ("ingest", "train@a-0", "train@b-0", "evaluate"):
        runner.run(name, force=False, on_line=lambda _: None)
    assert read_repository(repo, with_status=True)[1] == {"ingest", "train@a-0", "train@b-0", "evaluate"}
    (repo / "data" / "train" / "a-0" / "out.txt").write_text("somebody changed it")
    assert read_repository(repo, with_status=True)[1] == {"ingest", "train@b-0"}
    assert read_repository(repo)[1] == frozenset()  # not asked


@pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")  # inside DVC
def test_the_eight_stages_of_the_house_are_found() -> None:
    stages = read_stages(ROOT)
    groups = list(dict.fromkeys(stage.group for stage in stages))
    assert groups == ["params", "ingest", "dedupe", "validate", "split", "augment", "train", "evaluate", "report"]
    # params are checked before anything is deleted, whichever stage is asked for
    assert all(select(stages, [stage.name])[0].name == "params" for stage in stages)


@pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")  # inside DVC
def test_students_come_between_members_and_evaluation(repo: Path) -> None:
    params = (repo / "params.yaml").read_text(encoding="utf-8")
    assert params.count("  students: []\n") == 1
    write_text(repo / "params.yaml", params.replace("  students: []\n", "  students:\n    - c\n"))
    stages = read_stages(repo)
    assert stages[-2:] == [
        DvcStage("students@c-0", ("train@a-0", "train@b-0"), ("data/students/c-0",)),
        DvcStage("evaluate", ("students@c-0", "train@a-0", "train@b-0"), ("data/evaluate",)),
    ]
    runner = StageRunner(repo, jobs=1)
    for stage in stages:
        assert runner.run(stage.name, force=False, on_line=lambda _: None).state == "ran"
    assert (repo / "data" / "students" / "c-0" / "out.txt").is_file()


def test_a_folder_without_dvc_is_refused_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="DVC cannot read the stages"):
        read_stages(tmp_path)


def test_stages_that_do_not_need_each_other_are_ordered_by_name() -> None:
    found = in_order({"c": ["a"], "b": ["a"], "a": [], "d": ["b", "c"]})
    assert [stage.name for stage in found] == ["a", "b", "c", "d"]


def test_a_target_brings_what_it_reads_and_nothing_else() -> None:
    stages = in_order({"a": [], "t@x": ["a"], "t@y": ["a"], "z": ["t@x", "t@y"]})
    assert [stage.name for stage in select(stages, ["t@y"])] == ["a", "t@y"]
    assert [stage.name for stage in select(stages, ["t"])] == ["a", "t@x", "t@y"]
    assert select(stages, []) == stages


def test_an_unknown_target_is_refused_and_the_known_ones_are_named() -> None:
    with pytest.raises(InputError, match="no stage is named trian; dvc.yaml has ingest, train"):
        select([DvcStage("ingest", ()), DvcStage("train@a-0", ("ingest",))], ["trian"])


def test_only_dvcs_own_words_about_this_stage_tell_the_outcome() -> None:
    assert read_state("Stage 'a' is cached - skipping run, checking out outputs", "a") == "restored"
    assert read_state("Stage 'a' didn't change, skipping", "a") == "unchanged"
    assert read_state("Stage 'ab' didn't change, skipping", "a") is None
    assert read_state("the stage says: Stage 'a' didn't change, skipping", "a") is None


def test_a_stage_ran_then_is_unchanged_then_restored(repo: Path) -> None:
    runner = StageRunner(repo, jobs=1)
    said: list[str] = []
    assert runner.run("ingest", force=False, on_line=said.append).state == "ran"
    assert "ingest begins" in said
    assert runner.run("ingest", force=False, on_line=said.append).state == "unchanged"
    (repo / "data" / "ingest" / "out.txt").write_text("somebody changed it")
    assert runner.run("ingest", force=False, on_line=said.append).state == "restored"
    assert (repo / "data" / "ingest" / "out.txt").read_text() == "ingest"


def test_a_failure_ends_with_the_lines_that_the_stage_printed(repo: Path) -> None:
    write_text(repo / "mode.txt", "fail\n")
    with pytest.raises(StageFailedError, match=r"(?s)ingest failed; its last lines:.*the third picture is broken.*3"):
        StageRunner(repo, jobs=1).run("ingest", force=False, on_line=lambda _line: None)


@pytest.mark.parametrize(
    ("status", "line", "kind"),
    [
        (255, "ERROR: failed to reproduce 'a': 'x' is busy, it is being blocked by:", DvcBusyError),
        (255, "ERROR: Unable to acquire lock. Most likely another DVC process is running", DvcBusyError),
        (255, "ERROR: failed to run: python stage.py, exited with 1", StageFailedError),
        (255, "https://a.example/x: the connection timed out", StageFailedError),
        (143, "", StageStoppedError),
    ],
)
def test_only_a_busy_dvc_counts_as_busy(status: int, line: str, kind: type[MiwakeError]) -> None:
    assert type(failure("a", status, [line])) is kind


def test_only_ingest_is_tried_again_for_the_networks_sake() -> None:
    assert type(failure("ingest", 255, ["https://a.example/x: the connection timed out"])) is NetworkError
    assert type(failure("ingest", 255, ["ingest.snapshot: must not be empty"])) is StageFailedError


def test_stopping_ends_the_stage_and_its_children(repo: Path) -> None:
    write_text(repo / "mode.txt", "sleep\n")
    runner, errors = StageRunner(repo, jobs=1), []

    def work() -> None:
        try:
            runner.run("ingest", force=False, on_line=lambda _line: None)
        except StageStoppedError as error:
            errors.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    child = wait_for_pid(repo)
    runner.stop()
    thread.join(20)
    assert len(errors) == 1
    assert "was stopped after" in errors[0]
    eventually(lambda: not is_alive(child), 5)  # a killed process may take a moment to go
    with pytest.raises(StageStoppedError, match="before this stage started"):
        runner.run("ingest", force=False, on_line=lambda _line: None)


def test_a_run_that_is_killed_leaves_no_stage_behind(repo: Path) -> None:
    """SIGKILL cannot be caught: the guard sees that its caller is gone."""
    write_text(repo / "mode.txt", "sleep\n")
    code = "from flows.bridge import *; StageRunner(Path.cwd(), jobs=1).run('ingest', force=False, on_line=print)"
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=repo, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL
    )
    child = wait_for_pid(repo)
    process.kill()
    process.wait()
    eventually(lambda: not is_alive(child), 15)


def wait_for_pid(repo: Path) -> int:
    eventually(lambda: (repo / "pids.txt").exists() and (repo / "pids.txt").read_text() != "", 30)
    return int((repo / "pids.txt").read_text())


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def eventually(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.1)


# the pages ------------------------------------------------------------------------------------------------------------


def test_a_label_cannot_break_out_of_its_cell() -> None:
    assert markdown.cell("a|b\n<script>*x*") == r"a\|b &lt;script&gt;\*x\*"


def test_a_table_aligns_numbers_and_says_what_it_left_out() -> None:
    assert markdown.table(["class", "n:"], [("a", 1), ("b", 2)], limit=1, more="x.csv").splitlines() == [
        "| class | n |",
        "|---|--:|",
        "| a | 1 |",
        "",
        "1 more in `x.csv`.",
    ]


def test_a_page_never_grows_beyond_what_the_ui_can_list() -> None:
    text = markdown.page("Long", "字 line\n" * 100_000)
    assert len(text.encode()) <= markdown.MAX_BYTES
    assert text.endswith("The rest is left out: a page holds 300 kB.\n")


def test_a_large_picture_is_made_smaller_until_it_fits(tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 256, (900, 900, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    text = markdown.picture((tmp_path / "noise.png").read_bytes(), "noise")
    assert text.startswith("![noise](data:image/png;base64,iVBOR")
    assert len(text) < 250_000


def test_the_pairs_that_are_confused_most_come_first() -> None:
    """Row is the actual class: two of ten a were taken for b."""
    assert artifacts.confused_pairs(["a", "b"], [[8, 2], [5, 5]]) == [("b", "a", 5, 10), ("a", "b", 2, 10)]
    assert artifacts.confused_pairs(["a", "b"], [[8, 0], [0, 5]]) == []


def test_every_stage_without_files_has_a_page_that_says_so(tmp_path: Path) -> None:
    params = load_params(ROOT / "params.yaml")
    for stage in artifacts.PAGES:
        page = artifacts.stage_page(stage, Layout(tmp_path), params)
        assert "does not exist: the stage did not write it" in page or "not trained" in page or "names none" in page


def test_the_ingest_page_counts_by_source_class_and_licence(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    rows = [
        {"image_id": str(n), "label": "cat", "size": 5, "format": "PNG", "source": source, "license": license}
        for n, (source, license) in enumerate([("10-folder", ""), ("2-crawl", "CC0-1.0"), ("2-crawl", "CC0-1.0")])
    ]
    write_table(pa.Table.from_pylist(rows, schema=MANIFEST), layout.ingest_manifest)
    header = ("source", "source_path", "label", "reason", "detail")
    write_csv(layout.rejects, header, [("2-crawl", "http://a.example/x.jpg", "cat", "http-404", "")])
    text = artifacts.stage_page("ingest", layout, load_params(ROOT / "params.yaml"))
    assert "3 files of 1 class, 0.0 MB; 3 pictures, by content; 1 file rejected." in text
    assert text.index("| 2-crawl | 2 | 1 |") < text.index("| 10-folder | 1 | 0 |")
    assert "| CC0-1.0 | 2 |" in text
    assert "| unknown | 1 |" in text
    assert "| http-404 | 1 |" in text


def test_the_evaluation_page_shows_picture_metrics_and_pairs(tmp_path: Path) -> None:
    layout = write_evaluation(tmp_path)
    params = load_params(ROOT / "params.yaml")
    page = artifacts.stage_page("evaluate", layout, params)
    assert "](data:image/png;base64," in page
    assert "| accuracy | 0.800 | 0.700 to 0.900 |" in page
    assert "| b | a | 5 of 10 | 50% |" in page
    assert page.index("| b | 10 | 0.500 |") < page.index("| a | 10 | 0.800 |")


def test_the_evaluation_page_shows_members_alone_and_together(tmp_path: Path) -> None:
    layout = write_evaluation(tmp_path)
    path = tmp_path / "data" / "evaluate" / "figures.json"
    metrics = json.loads(path.read_text(encoding="utf-8"))
    figure = {"value": 0.75, "low": 0.7, "high": 0.9}
    validated = {"num_images": 30, "accuracy": 0.85, "log_loss": 0.4}
    alone = {"accuracy": figure, "log_loss": figure, "out_of_fold": validated}
    metrics |= {
        "log_loss": figure,
        "ensemble": {
            "method": "weighted",
            "num_members": 2,
            "out_of_fold": validated,
            "best_member": "a_net",
            "gain": {"accuracy": {"value": 0.05, "low": 0.01, "high": 0.09}, "log_loss": figure},
        },
        "members": {
            "a_net": {"target": "label", "weight": 0.625, **alone},
            "sex × rank": {"target": "label", "weight": 0.375, **alone},
            "b_net": {"target": "sex", "weight": None, **alone},
        },
    }
    write_json(path, metrics)
    page = artifacts.stage_page("evaluate", layout, load_params(ROOT / "params.yaml"))
    assert "a\\_net, the best alone on validation pictures, tells 75.0" in page
    assert "+5.0 points (+1.0 to +9.0): together they are better." in page
    assert "| all together | label | 0.800 | 0.700 to 0.900 | 0.750 | 0.850 | – |" in page
    assert "| a\\_net | label | 0.750 | 0.700 to 0.900 | 0.750 | 0.850 | 0.625 |" in page
    assert "| b\\_net | sex | 0.750 | 0.700 to 0.900 | 0.750 | 0.850 | – |" in page


def test_students_have_a_page_of_their_own(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    write_text(tmp_path / "params.yaml", text.replace("students: []", "students:\n    - scratch"))
    layout = Layout(tmp_path)
    write_csv(
        tmp_path / "data" / "students" / "scratch-0" / "history.csv",
        ["epoch", "train_loss", "val_loss", "train_accuracy", "val_accuracy"],
        [[1, 0.9, 0.8, 0.5, 0.625], [2, 0.1, 0.9, 1.0, 0.5]],
    )
    params = load_params(layout.params)
    students = artifacts.stage_page("students", layout, params)
    assert "| scratch | 0 | epoch 1 of 2 | 0.500 | 0.625 | 0.900 | 0.800 |" in students
    assert "probe" not in students
    members = artifacts.stage_page("train", layout, params)
    assert "| linear\\_probe | 0 | not trained |" in members
    assert "scratch" not in members


def write_evaluation(root: Path) -> Layout:
    figure = {"value": 0.8, "low": 0.7, "high": 0.9}
    folder = root / "data" / "evaluate"
    per_class = {
        label: {"num_images": 10, "precision": 0.5, "recall": recall, "recall_low": 0.1, "recall_high": 0.9, "f1": 0.5}
        for label, recall in (("a", 0.8), ("b", 0.5))
    }
    write_json(
        folder / "figures.json",
        {
            "num_images": 20,
            "num_classes": 2,
            "confidence": 0.95,
            **dict.fromkeys(("accuracy", "balanced_accuracy", "macro_f1"), figure),
            "members": {},
            "per_class": per_class,
        },
    )
    write_csv(folder / "confusion.csv", ["actual", "a", "b"], [["a", 8, 2], ["b", 5, 5]])
    return Layout(root)


# the flows ------------------------------------------------------------------------------------------------------------


def test_a_failed_pipeline_names_the_stage_its_lines_and_what_could_not_run() -> None:
    from flows.pipeline import StageOutcome, explain

    text = explain(
        [
            StageOutcome("ingest", "ran", "ran in 1.0 s"),
            StageOutcome("train@a-0", "failed", "train@a-0 failed; its last lines:\nNaN"),
            StageOutcome("evaluate", "not run", "a stage that it reads failed"),
        ]
    )
    assert text.startswith("3 stages: 1 ran, 1 failed, 1 not run\n\ntrain@a-0 failed; its last lines:\nNaN")
    assert "Not run: evaluate." in text


def test_the_pages_last_line_of_a_failure_is_the_stages_own() -> None:
    said = "ingest failed; its last lines:\nthe third picture is broken\nERROR: failed to reproduce 'ingest': exited"
    page = artifacts.pipeline_page([("ingest", "failed", said), ("train", "not run", "a stage that it reads failed")])
    assert "| ingest | failed | the third picture is broken |" in page
    assert "| train | not run | a stage that it reads failed |" in page


def test_trainings_side_by_side_have_cores_and_a_gpu_each(tmp_path: Path) -> None:
    from flows.pipeline import device_places, num_jobs

    params = load_params(ROOT / "params.yaml")
    assert num_jobs(params, num_cores=8 * params.train.num_threads) == 8
    assert num_jobs(params, num_cores=1) == 1
    assert device_places(params, {"CUDA_VISIBLE_DEVICES": "2, 5"}) == ["2", "5"]
    assert device_places(params, {"CUDA_VISIBLE_DEVICES": ""}) is None
    for name in ("nvidia0", "nvidia1", "nvidia2", "nvidiactl"):
        (tmp_path / name).touch()
    assert device_places(params, {}, tmp_path) == ["0", "1", "2"]
    train = params.train.model_copy(update={"num_devices": 2})
    assert device_places(params.model_copy(update={"train": train}), {}, tmp_path) == ["0,1"]
    train = params.train.model_copy(update={"device": "cpu"})
    assert device_places(params.model_copy(update={"train": train}), {}, tmp_path) is None


@pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")  # inside DVC
def test_the_form_of_a_run_is_closed_and_says_what_each_field_means() -> None:
    from pydantic import ValidationError

    from flows.options import PipelineOptions

    schema = PipelineOptions.model_json_schema()["properties"]
    stages = [*dict.fromkeys(stage.group for stage in read_stages(ROOT))]
    stages.insert(stages.index("evaluate"), "students")  # params.yaml names none
    assert schema["stop_after"]["enum"] == stages
    assert all(field["description"] for field in schema.values())
    with pytest.raises(ValidationError, match="stop_after"):
        PipelineOptions.model_validate({"stop_after": "trian"})
    options = PipelineOptions(stop_after="train", members=("a", "b"), overrides=("train.seed=2",))
    assert options.title == "up to train, train.seed=2, train.members=[a, b]"


def test_overrides_are_checked_before_anything_runs(repo: Path) -> None:
    from flows.options import overridden

    path = repo / "params.yaml"
    before = path.read_bytes()
    document = overridden(path, ["train.seed=2", "ingest.snapshot='7'", "train.members=[linear_probe]"])
    assert (document["train"]["seed"], document["ingest"]["snapshot"]) == (2, "7")
    for change, message in (
        ("train.seed", "write KEY=VALUE"),
        ("=3", "write KEY=VALUE"),
        ("train.sed=3", "with train.sed=3: params.yaml: train.sed: unknown key; did you mean `seed`"),
        ("train.seed=many", "train.seed"),
        ("ingest.sources.9.path=x", "cannot be set"),
        ("train.seed=[", "cannot be set"),
    ):
        with pytest.raises(ParamsError, match=message):
            overridden(path, [change])
    assert path.read_bytes() == before


@pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")  # inside DVC
def test_a_run_with_overrides_leaves_params_and_data_alone_and_is_kept_as_an_experiment(committed: Path) -> None:
    from flows.options import copy_with, keep_experiment

    before = {name: (committed / name).read_bytes() for name in ("params.yaml", "dvc.lock", "data/evaluate/out.txt")}
    changes = ["ingest.snapshot='other'"]
    with copy_with(committed, changes) as copy:
        assert (copy / "data" / "evaluate" / "out.txt").read_bytes() == before["data/evaluate/out.txt"]  # not HEAD's
        assert StageRunner(copy, jobs=1).run("evaluate", force=False, on_line=print).state == "ran"
        assert "other" in (copy / "data" / "evaluate" / "out.txt").read_text()
        name = keep_experiment(copy, changes)
    assert not copy.exists()
    assert str(copy) not in git(committed, "worktree", "list")
    assert {path: (committed / path).read_bytes() for path in before} == before
    listed = subprocess.run(
        [sys.executable, "-m", "dvc", "exp", "list", "--name-only"], cwd=committed, capture_output=True, text=True
    )
    assert name in listed.stdout.split()


def test_overrides_without_a_commit_are_refused_with_a_remedy(repo: Path) -> None:
    from flows.options import copy_with

    with pytest.raises(InputError, match="`git init`, add all and commit first"), copy_with(repo, ["train.seed=2"]):
        pass


def test_two_folders_of_one_name_have_deployments_of_their_own(tmp_path: Path) -> None:
    assert folder_name(tmp_path / "a" / "miwake") != folder_name(tmp_path / "b" / "miwake")
    assert re.fullmatch(r"my-guitars-[0-9a-f]{8}", folder_name(tmp_path / "my & guitars"))


def test_a_new_snapshot_changes_one_line_of_the_params(repo: Path) -> None:
    from pipelines.params.edit import write_snapshot

    path = repo / "params.yaml"
    before = path.read_text(encoding="utf-8").splitlines()
    write_snapshot(path, "2026-11-21")
    after = path.read_text(encoding="utf-8").splitlines()
    assert [line for line in after if line not in before] == ["  snapshot: '2026-11-21'"]
    assert len(after) == len(before)
    assert load_params(path).ingest.snapshot == "2026-11-21"


def test_a_snapshot_that_was_not_written_becomes_the_first_key_of_ingest(repo: Path) -> None:
    from pipelines.params.edit import write_snapshot

    path = repo / "params.yaml"
    write_text(path, "ingest:\n  # drawn\n  sources:\n  - kind: sample\ntrain:\n  seed: 1\n")
    write_snapshot(path, "b")
    assert path.read_text(encoding="utf-8").splitlines()[:3] == ["ingest:", "  # drawn", "  snapshot: 'b'"]
    assert load_params(path).ingest.snapshot == "b"


def test_a_snapshot_that_params_refuse_leaves_the_file_as_it_was(repo: Path) -> None:
    from pipelines.params.edit import write_snapshot

    path = repo / "params.yaml"
    before = path.read_bytes()
    with pytest.raises(ParamsError, match="ingest.snapshot"):
        write_snapshot(path, "")
    assert path.read_bytes() == before
    write_text(path, "ingest: 3\n")
    with pytest.raises(ParamsError, match="has no ingest.snapshot to set"):
        write_snapshot(path, "2026-11-21")


def git(repo: Path, *arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", *who, *arguments]
    return subprocess.run(command, cwd=repo, check=True, capture_output=True, text=True).stdout


def test_metrics_are_compared_with_the_last_commit(tmp_path: Path) -> None:
    from pipelines.core.git import committed_text

    git(tmp_path, "init")
    assert committed_text(tmp_path / "m.json") is None
    write_text(tmp_path / "m.json", "old")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "old")
    write_text(tmp_path / "m.json", "new")
    assert committed_text(tmp_path / "m.json") == "old"
    assert committed_text(tmp_path / "other.json") is None


@pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")  # inside DVC
def test_a_table_is_read_as_dvc_stored_it_for_the_last_commit(repo: Path) -> None:
    from flows.retrain import committed_table

    write_text(repo / ".dvc" / "config", (ROOT / ".dvc" / "config").read_text(encoding="utf-8"))
    write_text(repo / ".dvc" / ".gitignore", "/cache\n/tmp\n")
    git(repo, "init")
    path = repo / "data" / "table.parquet"
    write_table(pa.table({"n": [1]}), path)
    subprocess.run([sys.executable, "-m", "dvc", "add", "-q", "data/table.parquet"], cwd=repo, check=True)
    git(repo, "add", ".")
    git(repo, "commit", "-m", "old")
    write_table(pa.table({"n": [2]}), path)
    found = committed_table(repo, path)
    assert found is not None
    assert found.to_pydict() == {"n": [1]}
    assert committed_table(repo, repo / "data" / "other.parquet") is None
    (repo / ".dvc" / "cache").rename(repo / "elsewhere")
    assert committed_table(repo, path) is None


# the way back ---------------------------------------------------------------------------------------------------------

ONE_STAGE = """
stages:
  evaluate:
    cmd: grep "^  snapshot" params.yaml | tee data/evaluate/metrics.json > data/evaluate/out.txt
    params: [ingest.snapshot]
    outs: [data/evaluate/out.txt]
    metrics:
      - data/evaluate/metrics.json: {cache: false}
"""


@pytest.fixture
def committed(repo: Path) -> Path:
    """A git repository with the house's own .dvc/config: one stage, run and committed, then run anew unattended."""
    from pipelines.params.edit import write_snapshot

    write_text(repo / ".dvc" / "config", (ROOT / ".dvc" / "config").read_text(encoding="utf-8"))
    write_text(repo / "dvc.yaml", ONE_STAGE)
    write_text(repo / ".dvc" / ".gitignore", "/cache\n/tmp\n")
    (repo / "data" / "evaluate").mkdir()
    git(repo, "init")
    StageRunner(repo, jobs=1).run("evaluate", force=False, on_line=print)
    git(repo, "add", ".")
    git(repo, "commit", "-m", "old")
    write_snapshot(repo / "params.yaml", "new")
    StageRunner(repo, jobs=1).run("evaluate", force=False, on_line=print)
    return repo


def rollback(repo: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipelines.cli", "rollback", *words],
        cwd=repo, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_run_leaves_gits_index_alone(committed: Path) -> None:
    assert git(committed, "diff", "--cached", "--name-only") == ""
    changed = git(committed, "diff", "--name-only").split()
    assert changed == ["data/evaluate/metrics.json", "dvc.lock", "params.yaml"]


def test_one_command_brings_params_lock_metrics_and_data_back(committed: Path) -> None:
    for name in ("metrics.json", "out.txt"):
        assert "new" in (committed / "data" / "evaluate" / name).read_text()
    found = rollback(committed)
    assert found.returncode == 0, found.stderr
    assert "params.yaml, dvc.lock, data/evaluate/metrics.json and data/ are those of HEAD" in found.stdout
    assert git(committed, "status", "--porcelain") == ""
    for name in ("metrics.json", "out.txt"):
        assert "new" not in (committed / "data" / "evaluate" / name).read_text()
    assert StageRunner(committed, jobs=1).run("evaluate", force=False, on_line=print).state == "unchanged"
    path = committed / "params.yaml"
    write_text(path, path.read_text(encoding="utf-8").replace("confidence: 0.95", "confidence: 0.9"))
    git(committed, "commit", "-am", "later")
    assert rollback(committed, "HEAD~1").returncode == 0
    assert "  confidence: 0.95\n" in path.read_text(encoding="utf-8")
    assert rollback(committed).returncode == 0  # forth again: what HEAD~1 holds is in a commit
    assert "  confidence: 0.9\n" in path.read_text(encoding="utf-8")
    assert "git show: " in rollback(committed, "nowhere").stderr


def test_the_way_back_waits_for_no_run_and_disturbs_none(committed: Path) -> None:
    (committed / ".prefect").mkdir()
    with (committed / ".prefect" / "run.lock").open("a") as file:
        assert try_lock(file)
        found = rollback(committed)
    assert "a run is under way in this folder: wait for its end, or cancel it" in found.stderr
    assert "dvc.lock" in git(committed, "diff", "--name-only")


def test_the_way_back_loses_no_edit_of_the_users(committed: Path) -> None:
    path = committed / "params.yaml"
    edited = path.read_text(encoding="utf-8").replace("confidence: 0.95", "confidence: 0.9")
    write_text(path, edited)
    write_text(committed / "data" / "decisions" / "drop.csv", "image_id,reason\nab,ugly\n")
    found = rollback(committed)
    assert found.returncode == 1
    assert "params.yaml has edits that are in no commit and would be lost" in found.stderr
    assert "+  confidence: 0.9\n" in found.stderr
    assert "snapshot" not in found.stderr  # a scheduled run's own edit
    assert path.read_text(encoding="utf-8") == edited
    found = rollback(committed, "--force")
    assert found.returncode == 0, found.stderr
    assert git(committed, "status", "--porcelain").split() == ["??", "data/decisions/"]


def test_the_schedule_of_the_params_is_checked_field_by_field() -> None:
    from pipelines.params.retrain import RetrainParams

    for cron in ("0 3 * * 1", "*/5 0-6 1,15 jan-mar mon-fri", "59 23 31 12 7"):
        assert RetrainParams(cron=cron, timezone="Asia/Tokyo", refresh=False).cron == cron
    for cron, what in (
        ("60 3 * * 1", "bad minute; write minute 0 to 59"),
        ("0 3 0 * *", "bad day"),
        ("0 9-3 * * *", "bad hour"),
    ):
        with pytest.raises(ValueError, match=what):
            RetrainParams(cron=cron, timezone="UTC", refresh=False)
    with pytest.raises(ValueError, match="'Asia/Kyoto' is no time zone; write UTC or an IANA name"):
        RetrainParams(cron="0 3 * * 1", timezone="Asia/Kyoto", refresh=False)


def test_prefects_server_reckons_the_dates_of_a_schedule() -> None:
    """With whenever before 0.11 its scheduler fails for every cron on Python 3.11 and 3.12, and nothing ever runs."""
    from prefect.server.schemas.schedules import CronSchedule

    schedule = CronSchedule(cron="0 3 * * 1", timezone="Asia/Tokyo")
    start = datetime.datetime(2026, 12, 1, tzinfo=datetime.UTC)
    found = asyncio.run(schedule.get_dates(2, start=start))
    assert [day.isoformat() for day in found] == ["2026-12-07T03:00:00+09:00", "2026-12-14T03:00:00+09:00"]


def test_prefect_stays_at_home_and_tells_nobody(tmp_path: Path) -> None:
    found = prefect_environment(tmp_path)
    assert found["PREFECT_HOME"] == str(tmp_path.resolve() / ".prefect")
    assert (found["DO_NOT_TRACK"], found["PREFECT_SERVER_ANALYTICS_ENABLED"]) == ("1", "false")


def test_no_module_touches_prefect_before_serve_has_set_it_up() -> None:
    """Prefect reads its settings while it is imported."""
    code = "import sys, flows.serve, flows.bridge; print(sorted({'prefect', 'dvc'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ast.literal_eval(found.stdout) == []


# the server -----------------------------------------------------------------------------------------------------------


class Serve:
    """`python -m flows.serve` on a free port, and `repo` that it serves."""

    def __init__(self, repo: Path) -> None:
        self.repo = repo
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}/api"

    def start(self) -> None:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
        log = self.repo / "serve.log"
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "flows.serve", "--port", str(self.port)],
                cwd=self.repo,
                env={**clean, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        eventually(lambda: "miwake is served from" in log.read_text() or self.process.poll() is not None, 130)
        assert self.process.poll() is None, log.read_text()

    def end(self, number: signal.Signals = signal.SIGINT) -> None:
        self.process.send_signal(number)
        self.process.wait(90)
        eventually(lambda: not self.is_listening(), 30)  # the server never outlives flows.serve

    def is_listening(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def pids(self, *words: str) -> list[int]:
        """The processes of this folder, or of this port, whose command line holds `words`."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                command = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
                here = (folder / "cwd").readlink() == self.repo
                if here and set(words) <= set(command) and "guard.py" not in " ".join(command):
                    found.append(int(folder.name))
        return found


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """A repository that is served, and retrains at three on Mondays."""
    serve = Serve(make_repo(tmp_path_factory.mktemp("served") / "repo"))
    serve.start()
    yield serve
    serve.end()


def call(address: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """POST when there is a body, else GET; again while SQLite is busy, which the server answers with 503."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{address}{path}", data, {"content-type": "application/json"})
    for _ in range(10):
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                if error.code != 503:
                    raise
            time.sleep(0.5)
    raise AssertionError(f"{path}: the server is busy")


def start(address: str, flow: str = "pipeline", **parameters: object) -> str:
    """Start the deployment of `flow`, as a click on Run does; the id of the run."""
    found = call(address, "/deployments/filter", {"flows": {"name": {"any_": [flow]}}})
    created = call(address, f"/deployments/{found[0]['id']}/create_flow_run", {"parameters": parameters})
    return str(created["id"])


def until(address: str, run: str, *states: str, seconds: float = 90) -> Any:
    """The state of `run` as soon as it is one of `states`, or a last one."""
    last = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
    eventually(lambda: call(address, f"/flow_runs/{run}")["state_type"] in (*states, *last), seconds)
    return call(address, f"/flow_runs/{run}")["state"]


def stages_of(address: str, run: str) -> dict[str, str]:
    """The state of each task of `run`."""
    found = call(address, "/task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})
    return {task["name"]: task["state_type"] for task in found}


@pytest.fixture
def sleeping(served: Serve) -> tuple[str, int]:
    """A run whose first stage sleeps, and the process id of that stage's child."""
    (served.repo / "pids.txt").unlink(missing_ok=True)
    write_text(served.repo / "mode.txt", "sleep\n")
    return start(served.address), wait_for_pid(served.repo)


def a_new_run_completes(served: Serve) -> None:
    write_text(served.repo / "mode.txt", "work\n")
    state = until(served.address, start(served.address))
    assert state["type"] == "COMPLETED", state["message"]


@pytest.mark.server
@pytest.mark.slow
def test_a_scheduled_run_appears_runs_every_stage_and_leaves_its_pages(served: Serve) -> None:
    due = {
        "flows": {"name": {"any_": ["retrain"]}},
        "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
        "sort": "EXPECTED_START_TIME_ASC",
    }
    eventually(lambda: call(served.address, "/flow_runs/filter", due) != [], 60)
    run = call(served.address, "/flow_runs/filter", due)[0]
    assert run["auto_scheduled"]
    day = datetime.datetime.fromisoformat(run["expected_start_time"])
    assert (day.strftime("%a %H:%M"), day.utcoffset()) == ("Mon 03:00", datetime.timedelta(0))  # retrain.cron
    # nobody waits for Monday
    now = {"type": "SCHEDULED", "state_details": {"scheduled_time": datetime.datetime.now(datetime.UTC).isoformat()}}
    call(served.address, f"/flow_runs/{run['id']}/set_state", {"state": now, "force": True})
    write_text(served.repo / "mode.txt", "work\n")
    state = until(served.address, run["id"])
    assert state["type"] == "COMPLETED", state["message"]
    tasks = call(served.address, "/task_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}})
    assert {task["name"] for task in tasks} == {"ingest", "train@a-0", "train@b-0", "evaluate"}
    assert {task["state_name"] for task in tasks} <= {"Ran", "Restored", "Unchanged"}
    page = call(served.address, "/artifacts/miwake-retrain/latest")
    assert "First run: accuracy 80.0%" in page["data"]
    assert (served.repo / ".prefect" / "prefect.db").exists()


@pytest.mark.server
@pytest.mark.slow
def test_a_cancelled_run_leaves_no_process_and_frees_the_repository(served: Serve, sleeping: tuple[str, int]) -> None:
    run, child = sleeping
    call(served.address, f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})
    eventually(lambda: not is_alive(child), 60)
    assert until(served.address, run)["type"] == "CANCELLED"
    eventually(lambda: set(stages_of(served.address, run).values()) == {"CANCELLED"}, 30)
    write_text(served.repo / "mode.txt", "fail\n")
    failed = start(served.address, options={"stop_after": "evaluate"})
    assert "the third picture is broken" in until(served.address, failed)["message"]
    states = {"ingest": "FAILED", "train@a-0": "CANCELLED", "train@b-0": "CANCELLED", "evaluate": "CANCELLED"}
    eventually(lambda: stages_of(served.address, failed) == states, 30)  # what could not run does not seem to


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_when_serve_is_ended_its_run_ends_and_the_next_one_starts(
    served: Serve, sleeping: tuple[str, int], number: signal.Signals
) -> None:
    run, child = sleeping
    served.end(number)
    eventually(lambda: not is_alive(child) and not served.pids("prefect.engine"), 60)
    served.start()
    assert call(served.address, f"/flow_runs/{run}")["state_type"] in ("CRASHED", "CANCELLED")
    eventually(lambda: not {"RUNNING", "PENDING"} & set(stages_of(served.address, run).values()), 30)
    a_new_run_completes(served)


@pytest.mark.server
@pytest.mark.slow
def test_when_a_run_is_killed_the_next_one_starts(served: Serve, sleeping: tuple[str, int]) -> None:
    run, child = sleeping
    for engine in served.pids("prefect.engine"):
        os.kill(engine, signal.SIGKILL)
    eventually(lambda: not is_alive(child), 60)
    assert until(served.address, run)["type"] == "CRASHED"
    a_new_run_completes(served)
    eventually(lambda: set(stages_of(served.address, run).values()) == {"CRASHED"}, 30)


@pytest.mark.server
@pytest.mark.slow
def test_a_server_that_is_killed_comes_back_and_the_training_goes_on(served: Serve) -> None:
    (served.repo / "go.txt").unlink(missing_ok=True)
    write_text(served.repo / "mode.txt", "wait\n")
    run = start(served.address, options={"force": True})
    eventually(lambda: served.pids("stage.py", "ingest") != [], 60)
    for server in served.pids("prefect", "server"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(server, signal.SIGKILL)
    eventually(lambda: not served.is_listening(), 30)
    eventually(served.is_listening, 130)
    write_text(served.repo / "go.txt", "")
    state = until(served.address, run)
    assert state["type"] == "COMPLETED", state["message"]


@pytest.mark.server
@pytest.mark.slow
def test_a_cancelled_run_ends_after_the_server_was_lost_too(served: Serve, sleeping: tuple[str, int]) -> None:
    """Prefect's own watch for cancelled runs ended with the server of the test above."""
    run, child = sleeping
    call(served.address, f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})
    eventually(lambda: not is_alive(child), 60)
    assert until(served.address, run)["type"] == "CANCELLED"


@pytest.mark.server
@pytest.mark.slow
def test_a_retrain_that_meets_a_run_waits_and_a_second_one_is_not_needed(served: Serve) -> None:
    (served.repo / "go.txt").unlink(missing_ok=True)
    write_text(served.repo / "mode.txt", "wait\n")
    working = start(served.address, options={"force": True})  # DVC may hold what it did before
    eventually(lambda: served.pids("stage.py", "ingest") != [], 60)
    waiting = start(served.address, "retrain")
    until(served.address, waiting, "RUNNING")
    log = served.repo / "serve.log"
    eventually(lambda: "Another run works in" in log.read_text(), 60)
    state = until(served.address, start(served.address, "retrain"))
    assert (state["type"], state["message"][:39]) == ("CANCELLED", "Another retrain of this folder is not d")
    write_text(served.repo / "go.txt", "")
    assert until(served.address, working)["type"] == "COMPLETED"
    assert until(served.address, waiting)["type"] == "COMPLETED"


# no telemetry ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def tab() -> Iterator[Any]:
    """A page of Chromium; `tab.asked` lists the hosts that it and its neighbours asked, "" for files and data."""
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = next((p for p in map(Path, ("/usr/bin/chromium", "/usr/bin/google-chrome")) if p.exists()), None)
    if chromium is None:
        pytest.skip("no Chromium here")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(chromium), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_context().new_page()
        page.asked = []
        page.context.on("request", lambda request: page.asked.append(urlsplit(request.url).hostname or ""))
        page.context.on("weberror", lambda found: page.asked.append(str(found.error)))
        yield page
        browser.close()


@pytest.mark.server
@pytest.mark.browser
@pytest.mark.slow
def test_both_uis_ask_this_machine_alone_and_set_no_cookie(served: Serve, tab: Any) -> None:
    a_new_run_completes(served)
    tabs = []
    for path in ("dashboard", "runs", "artifacts/key/miwake-pipeline"):
        for ui in ("v2/", ""):
            tabs.append(tab.context.new_page())
            tabs[-1].goto(f"{served.address.removesuffix('api')}{ui}{path}")
    for one in tabs:
        one.get_by_text("Deployments").first.wait_for(timeout=60_000)  # the menu of both
    tab.wait_for_timeout(3000)  # analytics were asked for after the page had been drawn
    assert set(tab.asked) <= {"127.0.0.1", ""}
    assert {cookie["name"] for cookie in tab.context.cookies()} <= {"prefect_ui_version"}


PLOTS = """
plots:
  - Confusion:
      template: confusion
      x: {data/told.csv: predicted}
      y: {data/told.csv: actual}
  - Loss:
      template: linear
      y: {data/history.csv: [train_loss, val_loss]}
"""


@pytest.mark.browser
def test_dvcs_plots_are_drawn_without_the_network(repo: Path, tab: Any) -> None:
    write_text(repo / ".dvc" / "plots.html", (ROOT / ".dvc" / "plots.html").read_text(encoding="utf-8"))
    config = (ROOT / ".dvc" / "config").read_text(encoding="utf-8")
    write_text(repo / ".dvc" / "config", config.replace("[core]", "[core]\n    no_scm = true"))
    write_text(repo / "dvc.yaml", PLOTS)
    write_csv(repo / "data" / "told.csv", ["actual", "predicted"], [["a", "a"], ["a", "b"], ["b", "b"], ["b", "b"]])
    write_csv(repo / "data" / "history.csv", ["train_loss", "val_loss"], [[2.0, 2.5], [1.0, 1.5], [0.5, 1.0]])
    subprocess.run([sys.executable, "-m", "dvc", "plots", "show", "-q"], cwd=repo, check=True)
    tab.goto((repo / "dvc_plots" / "index.html").as_uri())
    assert [row.split() for row in tab.locator("tr").all_inner_texts()] == [["a", "b"], ["a", "1", "1"], ["b", "2"]]
    lines = [line.get_attribute("points") for line in tab.locator("polyline").all()]
    assert lines == ["0,75 240,225 480,300", "0,0 240,150 480,225"]
    assert set(tab.asked) == {""}
