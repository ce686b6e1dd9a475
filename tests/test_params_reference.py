"""`miwake params` and docs/params.md: what a key means, may be and is, from the models alone."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.core.errors import InputError, ParamsError
from pipelines.params import load_params
from pipelines.params.load import read_yaml
from pipelines.params.reference import _paths, explain_key, reference_page
from pipelines.params.resolve import resolved_text
from pipelines.params.schema import params_schema

ROOT = Path(__file__).parents[1]
SCHEMA = params_schema()
FILES = ["params.yaml", *sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("presets/*/params.yaml"))]


def values(name: str = "params.yaml") -> dict[str, Any]:
    return load_params(ROOT / name).model_dump(mode="json", by_alias=True)


def explained(key: str) -> list[str]:
    return explain_key(key, schema=SCHEMA, values=values(), written=read_yaml(ROOT / "params.yaml"))


def test_the_committed_page_is_that_of_the_models() -> None:
    committed = (ROOT / "docs" / "params.md").read_text(encoding="utf-8")
    assert committed == reference_page(SCHEMA), "docs/params.md is old: run `make schema`"


def test_the_page_has_a_table_for_each_section_and_a_row_for_each_key() -> None:
    page = reference_page(SCHEMA)
    assert "\n## split\n" in page
    assert "\n### train.recipes.NAME.optimizer\n" in page
    assert "| `kind` | which one it is | `sample`, `folder`, `archive`, " in page
    assert "| `max_files` (archive) | an archive with more members is refused | whole number from 1 |" in page
    assert "| number above 0, below 1 |" in page


def test_a_key_is_explained_with_its_value_and_how_to_try_another() -> None:
    lines = explained("split.test_fraction")
    assert lines[0] == "split.test_fraction = 0.2"
    assert lines[1].startswith("  meaning  of all pictures kept")
    assert lines[2] == "  values   number above 0, below 1"
    assert explained("test_fraction") == lines


def test_what_is_not_written_needs_a_plus_to_be_tried() -> None:
    """`dvc exp run -S split.seed=1` is refused by DVC where params.yaml does not say split.seed."""
    for written, way in ({"split": {"seed": 42}}, ""), ({}, "+"):
        lines = explain_key("split.seed", schema=SCHEMA, values=values(), written=written)
        assert lines[-1] == f"  to try another: dvc exp run -S {way}split.seed=VALUE"


def test_a_section_is_explained_by_its_keys() -> None:
    lines = explained("ingest.sources[0]")
    assert lines[0] == "ingest.sources[0]"
    assert any(line.startswith("  images_per_class = 60  pictures drawn of each") for line in lines)


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("split.test_fractoin", "split.test_fractoin: unknown key; did you mean split.test_fraction"),
        ("trian", "trian: unknown key; did you mean train"),
        ("folds", "folds: more than one key ends so; did you mean split.folds, train.folds?"),
        ("qqqqqq", "qqqqqq: unknown key; sections: ingest, dedupe, "),
    ],
)
def test_an_unknown_key_names_the_nearest(key: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        explained(key)
    assert str(caught.value).startswith(says)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("  - linear_probe\n", "  - linear_prob\n", "drop it from members; did you mean 'linear_probe'?"),
        ("report:\n", "  recipes:\n    a: {base: finetune, augmentation: stong}\nreport:\n", "did you mean 'strong'?"),
    ],
)
def test_a_name_that_is_nearly_a_known_one_is_told(tmp_path: Path, old: str, new: str, says: str) -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    (tmp_path / "params.yaml").write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ParamsError) as caught:
        load_params(tmp_path / "params.yaml")
    assert str(caught.value).endswith(says)


@pytest.mark.parametrize("name", FILES)
def test_every_value_of_a_run_can_be_explained(name: str) -> None:
    found = values(name)
    for path in _paths(found):
        key = ".".join(map(str, path))
        lines = explain_key(key, schema=SCHEMA, values=found, written={})
        assert len(lines) > 1, key
        assert not any(line == "  values   " for line in lines), key


def test_the_command_prints_all_or_explains_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(app, ["params"]).stdout == resolved_text(load_params(ROOT / "params.yaml"))
    assert CliRunner().invoke(app, ["params", "split.seed"]).stdout.startswith("split.seed = 42\n")
