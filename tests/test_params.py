"""params.yaml is complete, typed and closed; every mistake is named with its path, the rule and the remedy."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipelines.core.errors import ParamsError
from pipelines.params import Params, load, load_params
from pipelines.params.base import Section, path_below
from pipelines.params.load import read_yaml
from pipelines.params.optimizers import Sgd
from pipelines.params.renamed import RENAMED_KEYS, RENAMED_VALUES, renamed
from pipelines.params.schema import _subclasses, editor_schema, params_schema
from pipelines.params.split import SplitParams

ROOT = Path(__file__).parents[1]
WHOLE = ROOT / "tests" / "whole_params.yaml"
TEXT = WHOLE.read_text(encoding="utf-8")
RECIPES = ("linear_probe", "finetune", "scratch")


def mistake(tmp_path: Path, old: str, new: str) -> str:
    """The message that load_params gives when `old` of whole_params.yaml (its first place) reads `new`."""
    assert old in TEXT, f"whole_params.yaml no longer holds {old!r}; this test must change with it"
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
            "scratch.optimizer.learning_rate = -1.0: input should be",
        ),
        (
            "resize_mode: letterbox",
            "resize_mode: pad",
            "augment.resize_mode = \"pad\": input should be 'letterbox', 'center_crop'",
        ),
        (
            "  leak_repeats: 5",
            "  leak_repeats: 5\n  suspect_confidence: 0.6",
            "evaluate.suspect_confidence: this key is no more: suspects are found by confident learning, whose "
            "thresholds come from the data; delete its line",
        ),
        ("kind: sgd", "kind: lion", "is none of 'sgd', 'adam'"),
        ("kind: sample", "kin: sample", "ingest.sources[0] = {"),
        (
            "kind: sample",
            "kind: foldr",
            "ingest.sources[0].kind = \"foldr\": is none of 'sample', 'folder'",
        ),
        ("kind: sample", "kind: Folder", "did you mean 'folder'?"),
        (
            "tuning: linear_probe",
            "tuning: linear_prob",
            'train.recipes.linear_probe.tuning = "linear_prob": is none of',
        ),
        ("resize_mode: letterbox", "resize_mode: letterbxo", "did you mean 'letterbox'?"),
        ("- hflip", "- hflp", "train.recipes.linear_probe.tta[1] = \"hflp\": input should be 'original', 'hflip'"),
        ("  formats:\n    allowed: null", "  formats:\n    allowed:\n      - JPG", "did you mean 'JPEG'?"),
        (
            "model: resnet18",
            "model: resnet81",
            "scratch.model: neither timm nor torchvision has a network resnet81; did you mean resnet",
        ),
        ("weights: imagenet", "weights:\n        kind: fil", 'weights.kind = "fil": is none of '),
        (
            "  gallery: ",
            "  galery: ",
            "report.galery: unknown key; did you mean `gallery`?",
        ),
        (
            "    - linear_probe\n",
            "    - vgg19\n",
            "train: members names 'vgg19', which is neither built in nor among recipes (linear_probe",
        ),
        (
            "    - linear_probe\n",
            "    - linear_probe\n    - linear_probe\n",
            "members and students names something twice",
        ),
        ("  folds:\n    - 0\n", "  folds:\n    - 3\n", "train.folds names fold 3, but split.folds is 1"),
        (
            "drift_from: null",
            'drift_from: "1"',
            "validate.drift_from '1' is ingest.snapshot itself, from which nothing",
        ),
        ("augmentation: standard", "augmentation: wild", "augmentation 'wild' is not among augment.policies (standard"),
        ("learning_rate: 0.01", "learning_rate: .inf", "learning_rate = .inf: input should be a finite number"),
        ("\nsplit:", "\n split:", "is not valid YAML"),
        ("\nsplit:", "\nsplit:\n  seed: 1", "duplicate key"),
    ],
)
def test_a_mistake_is_named_with_path_rule_and_remedy(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert says in mistake(tmp_path, old, new)


@pytest.mark.parametrize(("old", "new"), [("model: resnet18", "model: x"), ("weights: imagenet", "weights: imagnet")])
def test_a_word_in_the_place_of_a_word_or_a_group_is_one_mistake(tmp_path: Path, old: str, new: str) -> None:
    assert mistake(tmp_path, old, new).count("params.yaml: ") == 1


CRAWL = """\
    - kind: crawl
      classes:
        CLASSES
      images_per_class: 5
      max_pages: 1
      engines:
        - engine: bing
          size: any
          type: any
          color: any
          license: any
          layout: any
          people: any
          date: any
      fail_when: any
      gone: keep
"""


def crawl(tmp_path: Path, classes: str) -> Path:
    """params.yaml with these classes to search for, each a line."""
    path = tmp_path / "params.yaml"
    source = CRAWL.replace("CLASSES", classes.replace("\n", "\n        "))
    path.write_text(TEXT.replace("  sources:\n", "  sources:\n" + source, 1), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("word", "kind"),
    [("01", "a whole number"), ("1.0", "a number"), ("0x1F", "a whole number"), ("1e3", "a number"),
     ("1_000", "a whole number"), (".inf", "a number"),
     ("true", "true or false"), ("False", "true or false"), ("null", "nothing"), ("~", "nothing"),
     ("2026-11-21", "a date")],
)  # fmt: skip
def test_a_name_that_yaml_takes_for_something_else_is_to_be_put_in_quotes(tmp_path: Path, word: str, kind: str) -> None:
    """As a key, in a list, as a value; the message shows what stands in the file, not what YAML made of it."""
    said = f'{word} was read as {kind}; put it in quotes: "{word}"'
    for classes, where in (
        (f"{word}: [a]", "ingest.sources[0].classes: the key "),
        (f"cat: [{word}]", "ingest.sources[0].classes.cat[0]"),
    ):
        with pytest.raises(ParamsError) as caught:
            load_params(crawl(tmp_path, classes))
        assert str(caught.value).startswith(f"params.yaml: {where}")
        assert str(caught.value).endswith(said)
    if kind != "nothing":  # null is a value there
        assert said in mistake(tmp_path, "merged_label: null", f"merged_label: {word}")
    source = load_params(crawl(tmp_path, f'"{word}": ["{word}"]')).ingest.sources[0]
    assert source.model_dump()["classes"] == {word: (word,)}


def test_two_names_that_yaml_takes_for_one_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        ParamsError, match=r'the key 01 was read as a whole number; put it in quotes: "01"\n.*the key 1 '
    ):
        load_params(crawl(tmp_path, "01: [a]\n1: [b]"))


@pytest.mark.parametrize("word", ["on", "off", "yes", "no", "y", "Norway", "12:30", "-", "1.2.3"])
def test_names_that_only_older_yaml_takes_for_something_else_stay_as_they_are(tmp_path: Path, word: str) -> None:
    """DVC and this code read YAML 1.2."""
    source = load_params(crawl(tmp_path, f"{word}: [{word}]")).ingest.sources[0]
    assert source.model_dump()["classes"] == {word: (word,)}


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("split:\n", "split: &s\n  more: *s\n", "has an alias (*name) inside of what it names"),
        ("merged_label: null", "merged_label: !!binary aGk=", "split.merged_label: !!binary has no place in params"),
        ("trackers: []", "trackers: !!set {wandb}", "train.trackers: !!set has no place in params"),
        ("trackers: []", "trackers: {[a]: b}", "train.trackers: the key is no text; write one"),
    ],
)
def test_what_no_param_can_be_is_no_traceback(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert says in mistake(tmp_path, old, new)


@pytest.mark.parametrize(
    ("encoding", "says"),
    [
        ("utf-16", "is UTF-16: save it as UTF-8"),
        ("cp1252", "line {line}, is not UTF-8 (read as Windows-1252 it says 'title: Grüße'): save the file as UTF-8"),
    ],
)
def test_a_file_in_another_encoding_names_the_line_and_the_remedy(tmp_path: Path, encoding: str, says: str) -> None:
    text = TEXT.replace("title: Thirteen electric guitars", "title: Grüße")
    line = text[: text.index("title: ")].count("\n") + 1
    (tmp_path / "params.yaml").write_text(text, encoding=encoding)
    with pytest.raises(ParamsError) as caught:
        load_params(tmp_path / "params.yaml")
    assert says.format(line=line) in str(caught.value)


# paths ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "leads"),
    [
        ("pics", "/p/pics"),
        ("./pics/", "/p/pics"),
        ("a//b/.", "/p/a/b"),
        ("/data/pics/", "/data/pics"),
        ("~", "/home/me"),
        ("~/pics", "/home/me/pics"),
        ("./~/pics", "/p/~/pics"),
        ("$DATA/pics", "/mnt/pics"),
        ("${DATA}2/pics", "/mnt2/pics"),
        ("a$$DATA", "/p/a$DATA"),
        ("$5 off/100%/{x}", "/p/$5 off/100%/{x}"),
    ],
)
def test_paths_are_understood_as_shells_write_them(monkeypatch: pytest.MonkeyPatch, text: str, leads: str) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("DATA", "/mnt")
    assert path_below(Path("/p"), text) == Path(leads)


def test_the_home_of_another_user_is_known() -> None:
    import pwd

    someone = pwd.getpwuid(os.getuid())
    assert path_below(Path("/p"), f"~{someone.pw_name}/pics") == Path(someone.pw_dir) / "pics"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("$NOWHERE/pics", "drift_from: the environment variable NOWHERE is not set: set it, or write the path itself"),
        ("${NOWHERE}", "drift_from: the environment variable NOWHERE is not set"),
        ("${EMPTY}/pics", "drift_from: the environment variable EMPTY is not set"),
        (
            "~nobody_of_that_name/pics",
            "drift_from: there is no home folder ~nobody_of_that_name: write the path itself",
        ),
        ("${}", "drift_from: the environment variable  is not set"),
        ('"a\\0b"', "drift_from: a path cannot hold a NUL character"),
    ],
)
def test_a_path_that_leads_nowhere_stops_the_first_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, says: str
) -> None:
    monkeypatch.delenv("NOWHERE", raising=False)
    monkeypatch.setenv("EMPTY", "")
    assert says in mistake(tmp_path, "drift_from: null", f"drift_from: {text}")


def test_every_path_of_params_is_of_one_type_and_read_by_one_function() -> None:
    fields = {
        f"{model.__name__}.{name}": repr((field.annotation, field.metadata))
        for model in _subclasses(Section)
        for name, field in model.model_fields.items()
        if name in ("path", "root", "drift_from")
    }
    assert len(fields) >= 10
    assert [name for name, kind in fields.items() if "_leads_somewhere" not in kind] == []
    for file in sorted((ROOT / "pipelines").rglob("*.py")):
        found = re.search(r"root / \w+\.(path|root)\b.*", file.read_text(encoding="utf-8"))
        assert not found, f"{file}: {found[0] if found else ''}: use path_below"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            "  deterministic: true",
            "  fast: false",
            "train.fast: this key is now called deterministic; write `deterministic: true`",
        ),
        (
            "tta:\n        - original\n        - hflip",
            "views:\n        - plain\n        - mirror",
            'train.recipes.linear_probe.views: this key is now called tta; write `tta: ["original", "hflip"]`',
        ),
        (
            "- hflip",
            "- mirror",
            'train.recipes.linear_probe.tta[1] = "mirror": this value is now called hflip; write hflip',
        ),
        (
            "method: stratified",
            "method: exact",
            'split.method = "exact": this value is now called stratified; write stratified',
        ),
        (
            "tuning: finetune",
            "tuning: full",
            'train.recipes.finetune.tuning = "full": this value is now called finetune; write finetune',
        ),
        (
            "div_factor: 25.0",
            "start: 0.04",
            "train.recipes.finetune.schedule.start: this key is now called div_factor; write `div_factor: 25.0`",
        ),
        (
            "in_chans: 3",
            "colour: grey",
            "train.recipes.finetune.colour: this key is now called in_chans; write `in_chans: 1`",
        ),
        (
            "      mixup: 0.0\n      cutmix: 0.0\n      mixup_prob: 1.0",
            "      mixing: null",
            "train.recipes.finetune.mixing: this key is now mixup, cutmix and mixup_prob of the recipe itself: move",
        ),
    ],
)
def test_an_old_name_is_one_mistake_that_names_the_new_one(tmp_path: Path, old: str, new: str, says: str) -> None:
    message = mistake(tmp_path, old, new)
    assert message.startswith(f"params.yaml: {says}")
    assert "\n" not in message


def test_a_recipe_may_have_the_name_that_a_recipe_had(tmp_path: Path) -> None:
    says = 'params.yaml: train.members[0] = "lite0_frozen": this value is now called linear_probe; write linear_probe\n'
    assert says in mistake(tmp_path, "    - linear_probe", "    - lite0_frozen")
    raw = {"train": {"members": ["lite0_full", "lite0_frozen"], "recipes": {"lite0_full": {}}}}
    assert list(renamed(raw)) == ["train.members[1]"]


@pytest.mark.parametrize("old", sorted({*RENAMED_KEYS, *RENAMED_VALUES}))
def test_every_old_name_is_told_with_one_that_exists(old: str) -> None:
    """A new name in the table that no model has would send people from one mistake to the next."""
    properties = json.dumps(params_schema())
    *above, key = old.replace("*", "mine").split(".")
    names = [key] if old in RENAMED_KEYS else []
    values = RENAMED_VALUES.get(old, {})
    for value in [*values, *["anything"] * (not values)]:
        raw: Any = {key: value}
        for name in reversed(above):
            raw = {name: raw}
        line = renamed(raw)[old.replace("*", "mine")]
        new = RENAMED_KEYS.get(old)
        assert f"now {new} of" in line or f"now called {new or values[value]};" in line
    for name in RENAMED_KEYS[old].replace(" and ", ", ").split(", ") if names else []:
        assert f'"{name}": ' in properties
    for value in values.values():
        assert isinstance(value, bool) or value in RECIPES or json.dumps(value) in properties


def test_all_mistakes_are_listed_at_once(tmp_path: Path) -> None:
    message = mistake(tmp_path, "seed: 42\n      images_per_class: 60", "sed: 42\n      images_per_class: -1")
    assert message.count("params.yaml: ") == 2  # sed is unknown, -1 is too small
    assert "should have at least 1 item" not in message  # a consequence, not a mistake


def test_fractions_that_leave_nothing_to_train_on_are_refused(tmp_path: Path) -> None:
    message = mistake(tmp_path, "val_fraction: 0.2", "val_fraction: 0.8")
    assert "val_fraction 0.8 + test_fraction 0.2 leave nothing to train on" in message


def test_a_recipe_larger_than_the_pack_is_refused(tmp_path: Path) -> None:
    message = mistake(tmp_path, "augment:\n  image_size: 224", "augment:\n  image_size: 64")
    assert "train.recipes.linear_probe.image_size 224 is larger than augment.image_size 64" in message


def test_a_missing_file_says_where_to_run(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="run this in the folder that holds params.yaml"):
        load_params(tmp_path / "params.yaml")


def test_a_section_that_is_missing_is_its_defaults_but_sources_have_none(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("{}\n")
    with pytest.raises(ParamsError) as caught:
        load_params(tmp_path / "params.yaml")
    assert str(caught.value) == "params.yaml: ingest: required key is missing; add it: this key has no default"
    (tmp_path / "params.yaml").write_text("ingest: {sources: [{kind: folder, path: mine}]}\nsplit:\n")
    params = load_params(tmp_path / "params.yaml")
    assert params.train.members == ("linear_probe",)
    assert params.split == SplitParams()


@pytest.mark.parametrize(
    ("written", "limit", "severity"),
    [("64", 64, "warn"), ("{limit: 64, severity: error}", 64, "error"), ("{limit: 64}", 64, "warn"),
     ("off", None, "warn"), ("{severity: error}", 32, "error")],
)  # fmt: skip
def test_a_rule_may_be_its_limit_alone_or_off(tmp_path: Path, written: str, limit: int | None, severity: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(f"ingest: {{sources: [{{kind: folder, path: mine}}]}}\nvalidate: {{min_side: {written}}}\n")
    rule = load_params(path).validate_.min_side
    assert (rule.limit, rule.severity) == (limit, severity)


RECIPES_OF_ANOTHER = """
ingest: {sources: [{kind: folder, path: mine}]}
train:
  members: [mine, theirs, linear_probe]
  recipes:
    mine: {base: finetune, epochs: 3, optimizer: {weight_decay: 0.1}}
    theirs: {base: mine, tuning: scratch, optimizer: {kind: sgd}}
    linear_probe: {image_size: 128}
"""


def test_a_recipe_begins_with_its_base_and_one_of_a_built_in_name_with_that(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(RECIPES_OF_ANOTHER)
    mine, theirs, probe = load_params(path).train.recipes.values()
    assert mine.model_dump(include={"tuning", "epochs", "ema_decay", "image_size"}) == {
        "tuning": "finetune", "epochs": 3, "ema_decay": 0.995, "image_size": 160,
    }  # fmt: skip
    assert mine.model_dump()["optimizer"] == {"kind": "adamw", "learning_rate": 0.0015, "weight_decay": 0.1}
    assert theirs.tuning == "scratch"
    assert theirs.model_dump()["epochs"] == 3
    assert theirs.model_dump()["optimizer"]["learning_rate"] == Sgd().learning_rate  # of another kind: nothing is kept
    assert (probe.tuning, probe.image_size, probe.tta) == ("linear_probe", 128, ("original", "hflip"))


@pytest.mark.parametrize(
    ("base", "says"),
    [
        ("finetnue", "train.recipes.mine.base = 'finetnue': there are linear_probe, linear_probe_large, fi"),
        ("theirs", "ends nowhere"),
    ],
)
def test_a_base_that_is_unknown_or_goes_round_is_refused(tmp_path: Path, base: str, says: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(RECIPES_OF_ANOTHER.replace("base: finetune", f"base: {base}"))
    with pytest.raises(ParamsError, match=re.escape(says)):
        load_params(path)


def test_1e_minus_4_is_a_number_as_it_is_to_dvc(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(TEXT.replace("learning_rate: 0.01", "learning_rate: 1e-4", 1))
    recipe = load_params(path).train.recipes["scratch"]
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
    assert committed == editor_schema(), "params.schema.json is old: run `make schema`"
    for path in (ROOT / "params.yaml", WHOLE):
        raw = read_yaml(path)
        jsonschema.validate(raw, committed)
    raw["split"]["sed"] = 1
    with pytest.raises(jsonschema.ValidationError, match="sed"):
        jsonschema.validate(raw, committed)


def test_the_schema_describes_and_editors_find_it() -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=params.schema.json\n")
    split = params_schema()["$defs"]["SplitParams"]["properties"]
    assert "test_fraction" in split
    assert "of all pictures" in split["test_fraction"]["description"]


def test_params_yaml_is_in_block_style_because_experiments_rewrite_flow_lists() -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    body = "\n".join(line.split("#")[0].removesuffix("[]") for line in text.splitlines())  # empty: no other form
    assert text.count("\n") <= 40
    assert "[" not in body
    assert "{" not in body


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("  group_by: null", "  group_by: patient", "split.group_by is 'patient', which no entry of ingest.sources has:"
         " if it is a column of a table, set group_column: patient there; or name one of url_host, page_host, page"),
        ("  group_by: null", "  group_by: factors.pose", "split.group_by is 'factors.pose', which no entry of"),
        ("  method: stratified", "  method: predefined", "but no entry of ingest.sources says which picture is in "
         "which subset: set subset_from: first_folder where"),
    ],
)  # fmt: skip
def test_what_split_asks_of_the_sources_is_looked_for_before_they_are_read(
    tmp_path: Path, old: str, new: str, says: str
) -> None:
    assert says in mistake(tmp_path, old, new)


def test_split_may_name_what_a_source_has() -> None:
    raw = YAML(typ="safe").load(TEXT)
    table = {
        "kind": "table", "path": "a.csv", "format": "csv", "image_column": "image", "image_is": "path", "root": ".",
        "label_columns": ["pose"], "joined_by": "x", "subset_column": "set", "group_column": "patient", "box": None,
        "license_column": None, "creator_column": None, "page_url_column": None,
    }  # fmt: skip
    raw["ingest"]["sources"] = [table]
    for changes in (
        {"group_by": "patient"},
        {"group_by": "factors.pose"},
        {"group_by": "creator"},
        {"method": "predefined"},
    ):
        Params.model_validate_json(json.dumps(raw | {"split": raw["split"] | changes}))
    table["group_column"] = "source"
    with pytest.raises(ValidationError, match="'source' is the group_column of a table and a column that every manif"):
        Params.model_validate_json(json.dumps(raw | {"split": raw["split"] | {"group_by": "source"}}))
