"""The rules as a Great Expectations suite that Great Expectations itself loads and runs, and `miwake validate`."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from test_validate import PARAMS, fraction, good, ratio, row, run, sha

from pipelines.cli import main
from pipelines.core.errors import BrokenRulesError
from pipelines.core.tables import DEDUPED, write_table
from pipelines.params.validate import CountRule, FormatRule, LicenseRule, ValidateParams
from pipelines.validate.rules import RULES
from pipelines.validate.suite import quiet_libraries, suite_json, write_suite

ROOT = Path(__file__).parents[1]

EVERYTHING = {
    "formats": FormatRule(allowed=("JPEG",), severity="error"),
    "licenses": LicenseRule(allowed=("CC BY 4.0",), severity="warn"),
    "provenance": "warn",
    "max_unassigned_fraction": fraction(0.5),
    "max_near_duplicate_fraction": fraction(0.1),
}


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> ValidateParams:
    """Params that switch every rule on, drift from ten good pictures among them."""
    folder = tmp_path_factory.mktemp("then")
    write_table(pa.Table.from_pylist(good(), schema=DEDUPED), folder / "manifest.parquet")
    return PARAMS.model_copy(update=EVERYTHING | {"drift_from": str(folder)})


@pytest.fixture(scope="module")
def written(everything: ValidateParams, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The suite of `everything`, as it is written."""
    path = tmp_path_factory.mktemp("suite") / "suite.json"
    write_suite(everything, path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def context() -> Any:
    with quiet_libraries():
        import great_expectations as gx

        return gx.get_context(mode="ephemeral")


def run_by_hand(context: Any, suite: dict[str, Any], manifest: Path) -> dict[str, bool]:
    """What a team does that has Great Expectations and the file: each rule's verdict."""
    with quiet_libraries():
        import great_expectations as gx

        loaded = context.suites.add_or_update(gx.ExpectationSuite(**suite))
        asset = context.data_sources.add_or_update_pandas("pandas").add_dataframe_asset("manifest")
        batch = asset.add_batch_definition_whole_dataframe("all")
        report = batch.get_batch(batch_parameters={"dataframe": pd.read_parquet(manifest)}).validate(loaded)
    found: dict[str, bool] = {}
    for result in report.results:
        rule = result.expectation_config.meta["rule"]
        found[rule] = found.get(rule, True) and bool(result.success)
    return found


BREAKS: dict[str, list[dict[str, Any]]] = {
    "nothing": [],
    "sizes": [row("a", "dog", height=8), row("b", "cat", aspect=9.0), row("c", "cat", bytes_per_pixel=0.001)],
    "dropped ones": [row("a", "dog", width=8, format="GIF", contrast=0.0, verdict="drop")],
    "quality": [row("a", "dog", brightness=2.0, entropy=0.1, sharpness=1.0), row("b", "cat", brightness=254.0)],
    "shares": [row(name, "dog", greyscale=True, transparent=True, best_id=sha("dog0")) for name in "abcdef"],
    "classes": [row(name, "Cat") for name in "abc"] + [row("d", "owl")],
    "origins": [row(f"o{n}", "owl", license="CC0", source="1-table", format="PNG") for n in range(9)],
    "conflicts": [row("a", label, verdict="conflict") for label in ("cat", "dog")] + [row("b", " x ")],
    "ids": [row("a", "cat", image_id="a", verdict="maybe", factors="[]", given_subset="dev")],
}


@pytest.mark.parametrize("case", BREAKS)
def test_great_expectations_finds_what_the_stage_finds(
    tmp_path: Path, everything: ValidateParams, written: bytes, context: Any, case: str
) -> None:
    try:
        rules = run(tmp_path, good() + BREAKS[case], **dict(everything))[1]
    except BrokenRulesError:
        found = json.loads((tmp_path / "validate" / "expectations.json").read_text(encoding="utf-8"))
        rules = {entry["rule"]: entry for entry in found["rules"]}
    verdicts = run_by_hand(context, json.loads(written), tmp_path / "manifest.parquet")
    refusals = {"max_reject_fraction", "max_class_reject_fraction", "max_source_reject_fraction"}
    assert verdicts == {name: entry["success"] for name, entry in rules.items() if name not in refusals}
    # the other sources of the good pictures have no licence, no page and no subset
    broken = {name for name, success in verdicts.items() if not success}
    assert bool(broken - {"licenses", "provenance", "max_unassigned_fraction"}) == (
        case not in ("nothing", "dropped ones")
    )


def test_the_plain_suite_is_the_other_without_what_needs_ours(everything: ValidateParams, written: bytes) -> None:
    whole, plain = json.loads(written), suite_json(everything, plain=True)
    ours = [one for one in whole["expectations"] if "needs" in one["meta"]]
    assert {one["meta"]["needs"] for one in ours} == {"pipelines.validate.expectations"}
    assert plain["expectations"] == [one for one in whole["expectations"] if "needs" not in one["meta"]]
    assert any("import that module before the suite is loaded" in note for note in whole["notes"])


def test_a_process_of_its_own_loads_the_plain_suite_alone_and_runs_the_documented_program(tmp_path: Path) -> None:
    run(tmp_path, good())
    write_suite(PARAMS, tmp_path / "suite.json")
    num_plain = write_suite(PARAMS, tmp_path / "plain.json", plain=True)
    text = (ROOT / "docs" / "validation.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    look = (
        "import json, sys, great_expectations as gx\n"
        "plain = gx.ExpectationSuite(**json.load(open('plain.json')))\n"
        "print(len(plain.expectations), any(name.startswith('pipelines') for name in sys.modules))\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", look + program]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(num_plain), "False", "True"]


def test_the_same_params_give_the_same_bytes_without_random_ids(
    tmp_path: Path, everything: ValidateParams, written: bytes
) -> None:
    write_suite(everything, tmp_path / "again.json")
    assert written == (tmp_path / "again.json").read_bytes()
    assert b'"id"' not in written
    severities = {one["meta"]["rule"]: one["severity"] for one in json.loads(written)["expectations"]}
    assert (severities["formats"], severities["provenance"]) == ("critical", "warning")


@pytest.fixture
def miwake(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """`miwake validate …` in a folder: status, output, errors."""

    def call(*words: str, cwd: Path) -> tuple[int, str, str]:
        monkeypatch.chdir(cwd)
        monkeypatch.setattr("sys.argv", ["miwake", "validate", *words])
        with quiet_libraries(), pytest.raises(SystemExit) as ended:
            main()
        return (int(ended.value.code or 0), *capsys.readouterr())

    return call


def project(folder: Path, table: list[dict[str, Any]]) -> Path:
    """A folder as dedupe leaves it, with the committed params."""
    (folder / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    write_table(pa.Table.from_pylist(table, schema=DEDUPED), folder / "data" / "dedupe" / "manifest.parquet")
    (folder / "data" / "ingest").mkdir()
    rejected = "source,source_path,label,reason,detail\n"
    (folder / "data" / "ingest" / "rejected.csv").write_text(rejected, encoding="utf-8")
    return folder


def test_the_command_says_what_is_broken_and_writes_nothing(tmp_path: Path, miwake: Callable[..., Any]) -> None:
    folder = project(tmp_path, [*good(), row("owl", "owl", contrast=0.0)])
    before = sorted(tmp_path.rglob("*"))
    status, said, _ = miwake(cwd=folder)
    assert status == 1
    assert "error: min_images_per_class: 1 class has fewer than 5 pictures; limit 5, observed 1" in said
    assert "warning: min_contrast: 1 picture is blank" in said
    assert said.endswith("rules hold, 1 broken with an error, 1 broken with a warning, 2 without data\n")
    assert sorted(tmp_path.rglob("*")) == before


def test_the_command_writes_the_suite(tmp_path: Path, miwake: Callable[..., Any]) -> None:
    folder = project(tmp_path, good())
    done = miwake("--write-suite", "suite.json", cwd=folder)
    count = len(json.loads((folder / "suite.json").read_text(encoding="utf-8"))["expectations"])
    assert done == (0, f"suite.json: {count} expectations\n", "")
    assert miwake("--write-suite", "plain.json", "--plain", cwd=folder)[0] == 0
    complaint = "miwake: --plain says what --write-suite leaves out: name its file too\n"
    assert miwake("--plain", cwd=folder) == (1, "", complaint)


def test_the_documentation_names_every_rule() -> None:
    text = (ROOT / "docs" / "validation.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`(\w+)`", text.split("## ")[0])) >= set(ValidateParams.model_fields)
    fixed = [rule.name for rule in RULES if rule.name not in ValidateParams.model_fields]
    assert (len(fixed), "Eight more are always on" in text) == (8, True)


def test_a_limit_of_one_class_is_kept_by_both(tmp_path: Path, context: Any) -> None:
    params = PARAMS.model_copy(update={"min_classes": CountRule(limit=3, severity="warn"), "min_contrast": ratio(40.0)})
    rules = run(tmp_path, good(), **dict(params))[1]
    verdicts = run_by_hand(context, suite_json(params), tmp_path / "manifest.parquet")
    assert (rules["min_classes"]["success"], verdicts["min_classes"]) == (False, False)
    assert (rules["min_contrast"]["success"], verdicts["min_contrast"]) == (True, True)
