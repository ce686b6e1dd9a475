"""params.yaml is complete, typed and closed; every mistake is named with its path, the rule and the remedy."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipelines.core.errors import ParamsError
from pipelines.core.params import Params, load, load_params
from pipelines.core.params.schema import params_schema

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "params.yaml").read_text(encoding="utf-8")


def mistake(tmp_path: Path, old: str, new: str) -> str:
    """The message that load_params gives when `old` of the committed params.yaml (its first place) reads `new`."""
    assert old in TEXT, f"params.yaml no longer holds {old!r}; this test must change with it"
    path = tmp_path / "params.yaml"
    path.write_text(TEXT.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ParamsError) as caught:
        load_params(path)
    return str(caught.value)


def test_the_committed_params_load() -> None:
    params = load_params(ROOT / "params.yaml")
    assert params.ingest.sources[0].kind == "sample"
    assert params.train.members[0] in params.train.recipes


def test_params_are_frozen() -> None:
    params = load_params(ROOT / "params.yaml")
    with pytest.raises(ValidationError, match="frozen"):
        params.split.seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("test_fraction: ", "test_fractoin: ", "split.test_fractoin: unknown key; did you mean `test_fraction`?"),
        (
            "images_per_class: 60",
            "images_per_class: 0",
            "ingest.sources[0].images_per_class = 0: input should be greater",
        ),
        ("images_per_class: 60", 'images_per_class: "60"', "should be a valid integer; write a whole number"),
        (
            "learning_rate: 0.01",
            "learning_rate: -1.0",
            "resnet18_scratch.optimizer.learning_rate = -1.0: input should be",
        ),
        ("fit: letterbox", "fit: pad", "augment.fit = \"pad\": input should be 'letterbox', 'crop' or 'stretch'"),
        ("kind: sgd", "kind: lion", "does not match any of the expected tags: 'sgd', 'adam'"),
        ("kind: sample", "kin: sample", "ingest.sources[0] = {"),
        (
            "  gallery: ",
            "  galery: ",
            "report.gallery: required key is missing; add it; params.yaml has no hidden defaults",
        ),
        (
            "    - lite0_frozen\n",
            "    - vgg19\n",
            "train: members names 'vgg19', which is not among recipes (lite0_frozen",
        ),
        (
            "    - lite0_frozen\n",
            "    - lite0_frozen\n    - lite0_frozen\n",
            "members and students names something twice",
        ),
        ("  folds:\n    - 0\n", "  folds:\n    - 3\n", "train.folds names fold 3, but split.folds is 1"),
        (
            "drift_from: null",
            'drift_from: "1"',
            "validate.drift_from '1' is ingest.snapshot itself, from which nothing",
        ),
        ("augmentation: standard", "augmentation: wild", "augmentation 'wild' is not among augment.policies (standard"),
        ('snapshot: "1"', "snapshot: 2026-11-21", '2026-11-21 was read as a date; write it in quotes: "2026-11-21"'),
        ("learning_rate: 0.01", "learning_rate: .inf", "Infinity"),
        ("\nsplit:", "\n split:", "is not valid YAML"),
        ("\nsplit:", "\nsplit:\n  seed: 1", "duplicate key"),
    ],
)
def test_a_mistake_is_named_with_path_rule_and_remedy(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert says in mistake(tmp_path, old, new)


def test_all_mistakes_are_listed_at_once(tmp_path: Path) -> None:
    message = mistake(tmp_path, "seed: 42\n      images_per_class: 60", "sed: 42\n      images_per_class: -1")
    assert message.count("params.yaml: ") == 3  # sed is unknown, seed is missing, -1 is too small
    assert "should have at least 1 item" not in message  # a consequence, not a mistake


def test_fractions_that_leave_nothing_to_train_on_are_refused(tmp_path: Path) -> None:
    message = mistake(tmp_path, "val_fraction: 0.2", "val_fraction: 0.8")
    assert "val_fraction 0.8 + test_fraction 0.2 leave nothing to train on" in message


def test_a_recipe_larger_than_the_pack_is_refused(tmp_path: Path) -> None:
    message = mistake(tmp_path, "augment:\n  image_size: 224", "augment:\n  image_size: 64")
    assert "train.recipes.lite0_frozen.image_size 224 is larger than augment.image_size 64" in message


def test_a_missing_file_says_where_to_run(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="run this in the folder that holds params.yaml"):
        load_params(tmp_path / "params.yaml")


def test_an_empty_file_names_every_section(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("{}\n")
    with pytest.raises(ParamsError) as caught:
        load_params(tmp_path / "params.yaml")
    assert str(caught.value).count("required key is missing") == len(Params.model_fields)


def test_1e_minus_4_is_a_number_as_it_is_to_dvc(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(TEXT.replace("learning_rate: 0.01", "learning_rate: 1e-4", 1))
    recipe = load_params(path).train.recipes["resnet18_scratch"]
    assert recipe.model_dump()["optimizer"]["learning_rate"] == 1e-4


@pytest.mark.parametrize(
    "value",
    ["1e-4", "010", "0o10", "yes", "1_000", "12:30", ".5", "0x1F", "~", "-0", "+1", "1.", ".inf", "2026-11-21", "x#c",
     "{a:1}", "[b:c, d]", "[http://host, e]", "{http://host}", '"\\u00e9"', "😀", "x # c", '{"a":1,"b":[1.0,null]}',
     "&r {b: 1}", ">\n  folded\n  text", "a\tb", "\t- b", "b: c", "@x", "!!python/object:os.system x", "1\na: 2"],
)  # fmt: skip
def test_yaml_reads_as_it_does_to_dvc_whoever_cuts_it_up(value: str) -> None:
    assert made_of(load._parse, f"a: {value}\n") == made_of(YAML(typ="safe", pure=True).load, f"a: {value}\n")


def test_a_file_that_asks_for_yaml_1_1_gets_it() -> None:
    assert load._parse("%YAML 1.1\n---\na: yes\n") == {"a": True}


def made_of(parse: Callable[[str], Any], text: str) -> str:
    try:
        return repr(parse(text))
    except YAMLError as error:
        return str(error)


def test_the_committed_schema_is_that_of_the_models_and_accepts_params_yaml() -> None:
    committed = json.loads((ROOT / "params.schema.json").read_text(encoding="utf-8"))
    assert committed == params_schema(), "params.schema.json is old: run `make schema`"
    raw = YAML(typ="safe", pure=True).load(TEXT)
    jsonschema.validate(raw, committed)
    raw["split"]["sed"] = 1
    with pytest.raises(jsonschema.ValidationError, match="sed"):
        jsonschema.validate(raw, committed)


def test_the_schema_describes_and_editors_find_it() -> None:
    assert TEXT.startswith("# yaml-language-server: $schema=params.schema.json\n")
    split = params_schema()["$defs"]["SplitParams"]["properties"]
    assert "test_fraction" in split
    assert "of all pictures" in split["test_fraction"]["description"]


def test_params_yaml_is_in_block_style_because_experiments_rewrite_flow_lists() -> None:
    body = "\n".join(line.split("#")[0].removesuffix("[]") for line in TEXT.splitlines())  # empty: no other form
    assert "[" not in body
    assert "{" not in body
