"""The stage params: every value in data/params.yaml, and no input in an output, before DVC deletes anything."""

import functools
import hashlib
import operator
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from test_end_to_end import DVC, ENVIRONMENT, edit, small_pipeline, stages_run
from test_ingest import picture, put

from pipelines.core.errors import InputError, ParamsError
from pipelines.core.layout import OUTPUTS, Layout
from pipelines.ingest import ingest
from pipelines.params import Params, load_params
from pipelines.params.inputs import lies_in, refuse_input_in_outputs
from pipelines.params.resolve import load_resolved, resolve, resolved_text

FOLDER = {"kind": "folder", "label_from": "last_folder", "symlinks": "skip", "hidden": "skip"}
ARCHIVE = {"kind": "archive", "label_from": "last_folder", "hidden": "skip", "max_files": 100, "max_bytes": 10_000_000}
TABLE = {
    "kind": "table", "format": "csv", "image_column": "file", "image_is": "path", "label_columns": ["label"],
    "joined_by": "×", "subset_column": None, "box": None, "license_column": None, "creator_column": None,
    "page_url_column": None,
}  # fmt: skip
URLS = {"kind": "urls", "format": "text", "gone": "keep"}
TORCHVISION = {"kind": "torchvision", "dataset": "CIFAR10", "splits": ["train"], "options": {}, "download": False}
SHA = "0" * 64


def sources(*entries: dict[str, Any]) -> Callable[[Any], None]:
    return lambda params: params["ingest"].update(sources=list(entries))


ROOT = Path(__file__).parents[1]
FILES = ["params.yaml", *sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("presets/*/params.yaml"))]


@pytest.mark.parametrize("name", FILES)
def test_data_params_yaml_says_all_and_says_the_same(name: str, tmp_path: Path) -> None:
    """Sorted, a value a line, no comments; itself a params.yaml, of which the same follows."""
    shutil.copy(ROOT / name, tmp_path / "params.yaml")
    layout = Layout(tmp_path)
    assert resolve(layout).startswith("data/params.yaml, ")
    text = layout.resolved.read_text(encoding="utf-8")
    assert "#" not in re.sub(r"'.*'", "", text)
    sections = re.findall(r"^(\w+):$", text, flags=re.MULTILINE)
    assert sections == sorted(field.alias or name for name, field in Params.model_fields.items())
    params = load_params(layout.params)
    assert load_params(layout.resolved) == params
    assert load_resolved(layout, by_dvc=False) == params
    assert resolved_text(load_params(layout.resolved)) == text


def test_a_comment_changes_nothing_and_a_value_its_line_alone(tmp_path: Path) -> None:
    shutil.copy(ROOT / "tests" / "whole_params.yaml", tmp_path / "params.yaml")
    layout = Layout(tmp_path)
    resolve(layout)
    before = layout.resolved.read_text()
    layout.params.write_text("# said anew\n" + layout.params.read_text())
    resolve(layout)
    assert layout.resolved.read_text() == before
    edit(tmp_path, lambda params: params["split"].update(test_fraction=0.3))
    resolve(layout)
    changed = [pair for pair in zip(before.splitlines(), layout.resolved.read_text().splitlines(), strict=True)
               if pair[0] != pair[1]]  # fmt: skip
    assert changed == [("  test_fraction: 0.2", "  test_fraction: 0.3")]


def test_a_changed_policy_changes_what_the_members_that_use_it_declare_and_no_other(tmp_path: Path) -> None:
    """train reruns for a member when a value changes that dvc.yaml declares for it."""
    layout = Layout(tmp_path)
    layout.params.write_text(
        "ingest: {snapshot: '1', sources: [{kind: sample}]}\n"
        "augment: {policies: {light: {degrees: 3.0}}}\n"
        "train: {members: [linear_probe, scratch, finetune], students: [taught], recipes: {taught: {base: finetune, "
        "augmentation: standard, weights: {kind: member, member: finetune}}}}\n"
    )
    stages = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]

    def declared() -> dict[str, list[Any]]:
        resolve(layout)
        values = YAML(typ="safe").load(layout.resolved.read_text())
        return {
            member: [
                functools.reduce(operator.getitem, key.replace(f"${{item.{kind}}}", member).split("."), values)
                for key in stages[stage]["params"][0]["data/params.yaml"]
            ]
            for stage, kind in (("train", "member"), ("students", "student"))
            for member in values["train"][f"{kind}s"]
        }

    before = declared()
    edit(tmp_path, lambda params: params["augment"]["policies"]["light"].update(degrees=4.0))
    after = declared()
    assert {member for member in before if before[member] != after[member]} == {"finetune"}
    edit(tmp_path, lambda params: params["augment"]["policies"].update(standard={"hflip": 0.0}))
    assert {member for member, values in declared().items() if values != after[member]} == {"scratch", "taught"}


def test_policies_of_members_are_not_written_by_hand(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    edit(tmp_path, lambda params: params["train"].update(policies={"linear_probe": {"hflip": 1.0}}))
    with pytest.raises(ParamsError, match=r"train.policies differs from augment.policies, .*: take it out"):
        resolve(layout)


def test_the_folder_of_a_member_that_is_none_any_more_is_named(tmp_path: Path) -> None:
    """DVC leaves it, and data/train is what evaluate depends on."""
    layout = Layout(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    for name in ("train/linear_probe-0", "train/former-0", "students/former-1"):
        (tmp_path / "data" / name).mkdir(parents=True)
    line = resolve(layout)
    assert "; data/students/former-1 is of no member that params name: delete it; data/train/former-0 is of no" in line
    assert "linear_probe" not in line


def test_a_stage_by_hand_never_uses_old_values_and_one_by_dvc_those_of_its_run(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    shutil.copy(ROOT / "tests" / "whole_params.yaml", tmp_path / "params.yaml")
    remedy = "run `dvc repro`, or `python -m pipelines.params` before a stage by hand"
    with pytest.raises(ParamsError, match=f"data/params.yaml does not exist: {remedy}"):
        load_resolved(layout, by_dvc=True)
    resolve(layout)
    edit(tmp_path, lambda params: params["split"].update(seed=7))
    with pytest.raises(ParamsError, match=f"params.yaml has other values than .*data/params.yaml.*: {remedy}"):
        load_resolved(layout, by_dvc=False)
    assert load_resolved(layout, by_dvc=True).split.seed != 7  # edited for the next run, while one is under way
    resolve(layout)
    assert load_resolved(layout, by_dvc=False).split.seed == 7
    layout.resolved.write_text(layout.resolved.read_text().replace("\nsplit:\n", "\nsplit:\n  sed: 1\n"))
    with pytest.raises(
        ParamsError, match=rf"is not what this version of the pipeline writes \(.*split.sed: unknown key.*\): {remedy}"
    ):
        load_resolved(layout, by_dvc=True)


def test_params_that_are_refused_leave_the_former_ones(tmp_path: Path) -> None:
    shutil.copy(ROOT / "tests" / "whole_params.yaml", tmp_path / "params.yaml")
    layout = Layout(tmp_path)
    resolve(layout)
    before = layout.resolved.read_bytes()
    edit(tmp_path, lambda params: params["split"].update(seed=-1))
    with pytest.raises(ParamsError, match="split.seed = -1"):
        resolve(layout)
    edit(tmp_path, lambda params: [params["split"].update(seed=1), sources({**FOLDER, "path": "data/split"})(params)])
    with pytest.raises(InputError, match="lies in data/split"):
        resolve(layout)
    assert layout.resolved.read_bytes() == before


# no input in an output --------------------------------------------------------------------------


def weights(path: str) -> Callable[[Any], None]:
    file = {"kind": "file", "path": path, "sha256": SHA}
    return lambda params: params["train"]["recipes"]["linear_probe"].update(weights=file)


def pseudo_labels(path: str) -> Callable[[Any], None]:
    found = {"path": path, "sha256": SHA, "min_confidence": 0.9, "weight": 0.5}
    return lambda params: params["train"]["recipes"]["finetune"].update(pseudo_labels=found)


def against(path: str) -> Callable[[Any], None]:
    return lambda params: params["dedupe"].update(reference_sets=[{"name": "old", "path": path, "found": "drop"}])


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline that was not run, with files of the user's in every output, and in a folder `mine` inside each."""
    root = small_pipeline(tmp_path_factory.mktemp("check") / "pipeline")
    for name in OUTPUTS:
        for index in range(3):
            put(root / "data" / name / "mine" / "cat" / f"{index}.jpg", picture(index))
    put(root / "rows.csv", b"file,label\ndata/ingest/mine/cat/0.jpg,cat\n")
    put(root / "good.csv", b"file,label\npictures/0.jpg,cat\n")
    (root / "linked").symlink_to("data/train/mine")
    return root


def originals(root: Path) -> dict[str, str]:
    files = sorted((root / "data").rglob("mine/**/*.jpg"))
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


CASES = [
    *((sources(FOLDER | {"path": f"data/{name}"}), "ingest.sources[0].path", f"data/{name}") for name in OUTPUTS),
    (sources({**FOLDER, "path": "data/ingest/mine"}), "ingest.sources[0].path", "data/ingest"),
    (sources({**FOLDER, "path": "pictures/../data/split/mine"}), "ingest.sources[0].path", "data/split"),
    (sources({**FOLDER, "path": "linked"}), "ingest.sources[0].path", "data/train"),
    (sources({**FOLDER, "path": "data"}), "ingest.sources[0].path", "data/ingest"),
    (sources({**FOLDER, "path": "."}), "ingest.sources[0].path", "data/ingest"),
    (sources({**FOLDER, "path": "pictures"}, {**ARCHIVE, "path": "data/report/a.zip"}), "ingest.sources[1].path",
     "data/report"),
    (sources({**TABLE, "path": "data/dedupe/rows.csv", "root": "."}), "ingest.sources[0].path", "data/dedupe"),
    (sources({**TABLE, "path": "rows.csv", "root": "data/augment/mine"}), "ingest.sources[0].root", "data/augment"),
    (sources({**TABLE, "path": "rows.csv", "root": "."}), "ingest.sources[0]", "data/ingest"),
    (sources({**URLS, "path": "data/validate/urls.txt"}), "ingest.sources[0].path", "data/validate"),
    (sources({**TORCHVISION, "root": "data/train"}), "ingest.sources[0].root", "data/train"),
    (against("data/split/mine"), "dedupe.reference_sets[0].path", "data/split"),
    (weights("data/train/finetune-0/model.safetensors"), "train.recipes.linear_probe.weights.path", "data/train"),
    (pseudo_labels("data/evaluate/predictions.parquet"), "train.recipes.finetune.pseudo_labels.path",
     "data/evaluate"),
    (lambda params: params["validate"].update(drift_from="data/dedupe/mine"), "validate.drift_from", "data/dedupe"),
]  # fmt: skip


def loaded(root: Path, change: Callable[[Any], None]) -> Params:
    before = (root / "params.yaml").read_text()
    edit(root, change)
    try:
        return load_params(root / "params.yaml")
    finally:
        (root / "params.yaml").write_text(before)


@pytest.mark.parametrize(("change", "key", "output"), CASES)
def test_input_in_an_output_is_refused_by_its_key(project: Path, change: Any, key: str, output: str) -> None:
    with pytest.raises(InputError) as caught:
        refuse_input_in_outputs(loaded(project, change), Layout(project))
    message = str(caught.value)
    assert message.startswith(f"{key}: ") or message.startswith(f"{key} names pictures in ")
    assert output in message
    assert "to a folder" in message


@pytest.mark.parametrize(
    "change",
    [
        sources({**FOLDER, "path": "pictures"}),
        sources({**FOLDER, "path": "data/decisions"}),
        sources({**TABLE, "path": "good.csv", "root": "."}),
        sources({**TORCHVISION, "root": "data"}),
        against("../last/data/ingest/manifest.parquet"),
        lambda params: params["validate"].update(drift_from="0"),
    ],
)
def test_input_elsewhere_is_not(project: Path, change: Any) -> None:
    refuse_input_in_outputs(loaded(project, change), Layout(project))


def test_a_row_that_leads_into_an_output_is_refused_before_that_output_goes(project: Path, tmp_path: Path) -> None:
    """A table's root may lie above the outputs; ingest, which reads the rows, runs before these are deleted."""
    put(project / "split.csv", b"file,label\ndata/split/mine/cat/0.jpg,cat\n")
    changed = loaded(project, sources({**TABLE, "path": "split.csv", "root": "."}))
    refuse_input_in_outputs(changed, Layout(project))
    with pytest.raises(InputError, match=r"ingest\.sources\[0\] names pictures in data/split/"):
        ingest(changed.ingest, root=project, cache=tmp_path, out_dir=tmp_path / "out", workers=1)


def test_another_name_of_the_same_folder_is_seen(tmp_path: Path) -> None:
    """A link beside it, a link above it, a part that leads back, and what is not there yet."""
    (tmp_path / "data" / "split" / "mine").mkdir(parents=True)
    (tmp_path / "other").symlink_to(tmp_path / "data", target_is_directory=True)
    split = tmp_path / "data" / "split"
    assert lies_in(tmp_path / "other" / "split" / "mine", split)
    assert lies_in(tmp_path / "pictures" / ".." / "data" / "split", split)
    assert lies_in(tmp_path / "other" / "split" / "not" / "yet", split)
    assert lies_in(split, tmp_path / "other" / "split")
    assert not lies_in(tmp_path / "data", split)
    assert not lies_in(tmp_path / "data" / "split2", split)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", [0, 1, 3, 9, 11, 13, 18, 21, 22])
def test_dvc_deletes_nothing_before_the_refusal(project: Path, case: int) -> None:
    change, key, _ = CASES[case]
    before, mine = (project / "params.yaml").read_text(), originals(project)
    assert len(mine) == 3 * len(OUTPUTS)
    edit(project, change)
    try:
        done = subprocess.run([*DVC, "repro"], cwd=project, env=ENVIRONMENT, capture_output=True, text=True)
    finally:
        (project / "params.yaml").write_text(before)
    assert done.returncode != 0
    assert f"params: {key}" in done.stderr
    assert stages_run(done.stdout) == ["params"]
    assert originals(project) == mine


@pytest.mark.slow
@pytest.mark.parametrize("stage", [name for name in OUTPUTS if name not in ("train", "students")])
def test_a_stage_by_hand_deletes_nothing_either(project: Path, stage: str) -> None:
    """Even if data/params.yaml came from elsewhere, and the stage params has not looked at it here."""
    before, mine = (project / "params.yaml").read_text(), originals(project)
    edit(project, sources({**FOLDER, "path": f"data/{stage}/mine"}))
    (project / "data" / "params.yaml").write_text(resolved_text(load_params(project / "params.yaml")))
    try:
        command = [sys.executable, "-m", f"pipelines.{stage}"]
        done = subprocess.run(command, cwd=project, env=ENVIRONMENT, capture_output=True, text=True)
    finally:
        (project / "params.yaml").write_text(before)
        (project / "data" / "params.yaml").unlink()
    assert done.returncode == 1
    assert done.stderr.startswith(f"{stage}: ingest.sources[0].path: data/{stage}/mine lies in data/{stage}")
    assert originals(project) == mine
