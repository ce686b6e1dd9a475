"""validate: each rule holds or names its offenders; an error stops the run, a warning does not."""

import csv
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipelines.core.decisions import read_decisions
from pipelines.core.errors import BrokenRulesError, InputError
from pipelines.core.tables import DEDUPED, MANIFEST, short_id, write_table
from pipelines.ingest import snapshots
from pipelines.params import load_params
from pipelines.params.validate import CountRule, FormatRule, FractionRule, LicenseRule, RatioRule
from pipelines.validate import ValidateArtifact, drift_rules, validate
from pipelines.validate.class_rules import spelling, written_well
from pipelines.validate.drift_rules import distribution
from pipelines.validate.frames import REJECT_COLUMNS
from pipelines.validate.rules import RULES, build_rules

PARAMS = load_params(Path(__file__).parents[1] / "params.yaml").validate_.model_copy(
    update={
        "min_images_per_class": CountRule(limit=2, severity="error"),
        "max_reject_fraction": FractionRule(limit=0.25, severity="warn"),
        "max_class_reject_fraction": FractionRule(limit=None, severity="warn"),
        "max_source_reject_fraction": FractionRule(limit=None, severity="warn"),
        "max_duplicate_fraction": FractionRule(limit=0.25, severity="warn"),
        "max_near_duplicate_fraction": FractionRule(limit=None, severity="warn"),
        "max_conflict_fraction": FractionRule(limit=0.1, severity="warn"),
    }
)


LIMITED = [name for name, rule in PARAMS if hasattr(rule, "limit")]


def sha(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def short(name: str) -> str:
    return short_id(sha(name))


def row(name: str, label: str, **changes: Any) -> dict[str, Any]:
    """A row of dedupe's table that keeps every rule, but for `changes`."""
    return {
        "image_id": sha(name),
        "label": label,
        "shard": "images-00000.tar",
        "offset": 512,
        "size": 1000,
        "format": "JPEG",
        "mode": "RGB",
        "width": 200,
        "height": 100,
        "orientation": 1,
        "num_frames": 1,
        "brightness": 100.0,
        "contrast": 40.0,
        "sharpness": 300.0,
        "entropy": 6.0,
        "aspect": 2.0,
        "bytes_per_pixel": 0.05,
        "greyscale": False,
        "transparent": False,
        "source": "0-folder",
        "source_path": f"{label}/{name}.jpg",
        **dict.fromkeys(
            ("url", "page_url", "query", "license", "creator", "given_subset", "factors", "given_groups"), ""
        ),
        "original_label": label,
        "group": sha(name),
        "verdict": "keep",
        "best_id": sha(name),
        "decision": "",
    } | changes


def good() -> list[dict[str, Any]]:
    return [row(f"{label}{i}", label) for label in ("cat", "dog") for i in range(5)]


def run(
    folder: Path,
    table: list[dict[str, Any]],
    *,
    rejects: list[list[str]] | None = None,
    cache: Path | None = None,
    unlabelled: str | None = None,
    **changes: Any,
) -> tuple[ValidateArtifact, dict[str, dict[str, Any]]]:
    """The artifact, and each rule's entry in expectations.json by name."""
    write_table(pa.Table.from_pylist(table, schema=DEDUPED), folder / "manifest.parquet")
    with (folder / "rejected.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([REJECT_COLUMNS, *(rejects or [])])
    artifact = validate(
        PARAMS.model_copy(update=changes),
        manifest=folder / "manifest.parquet",
        rejects=folder / "rejected.csv",
        out_dir=folder / "validate",
        cache=cache,
        unlabelled=unlabelled,
    )
    return artifact, entries(folder)


def entries(folder: Path) -> dict[str, dict[str, Any]]:
    found = json.loads((folder / "validate" / "expectations.json").read_text(encoding="utf-8"))
    return {entry["rule"]: entry for entry in found["rules"]}


def cure(folder: Path, name: str) -> list[str]:
    """The lines of a file of ready decisions, after the line end with which it begins."""
    first, *lines = (folder / "validate" / "cures" / f"{name}.csv").read_text(encoding="utf-8").splitlines()
    assert first == ""
    return lines


def refused(folder: Path, table: list[dict[str, Any]], **changes: Any) -> str:
    """The message of a run that a broken rule stops."""
    with pytest.raises(BrokenRulesError) as caught:
        run(folder, table, **changes)
    return str(caught.value)


def test_good_pictures_keep_all_rules(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    artifact, rules = run(tmp_path, good())
    assert str(artifact) == "25 of 27 rules hold, 2 without data"
    assert (artifact.num_rules, artifact.num_errors, artifact.num_warnings) == (27, 0, 0)
    assert all(entry["success"] and entry["num_offenders"] == 0 for entry in rules.values())
    assert rules["min_images_per_class"] == {
        "rule": "min_images_per_class",
        "description": "every class has enough pictures kept",
        "severity": "error",
        "success": True,
        "fault": "",
        "no_data": "",
        "limit": 2,
        "observed": 5,
        "num_offenders": 0,
        "offenders": [],
    }
    assert [rules[name]["observed"] for name in ("min_classes", "max_imbalance", "min_side", "max_aspect")] == [
        2,
        1,
        100,
        2,
    ]
    shown = capfd.readouterr()
    assert (shown.out, shown.err) == ("", "")


def test_a_class_that_is_too_small_stops_the_run_and_is_written_down(tmp_path: Path) -> None:
    message = refused(tmp_path, [*good(), row("owl0", "owl")])
    assert message == (
        f"1 of 27 rules is broken and stops the run (all rules: {tmp_path / 'validate' / 'expectations.json'}):\n"
        "min_images_per_class: 1 class has fewer than 2 pictures; limit 2, observed 1\n"
        "    offenders: 'owl'\n"
        "    what helps: add pictures of 'owl', or merge it into another class with a line in "
        "data/decisions/relabel.csv for each picture, or take it out with data/decisions/drop.csv\n"
        f"    to cure it: `cat {tmp_path}/validate/cures/min_images_per_class.drop.csv >> data/decisions/drop.csv` "
        "drops 1 picture\n"
        "    to accept it: lower validate.min_images_per_class.limit in params.yaml"
    )
    assert cure(tmp_path, "min_images_per_class.drop") == [f"{short('owl0')},class too small,owl/owl0.jpg"]
    found = json.loads((tmp_path / "validate" / "expectations.json").read_text(encoding="utf-8"))
    assert (found["success"], found["num_errors"], found["num_warnings"]) == (False, 1, 0)
    assert entries(tmp_path)["min_images_per_class"]["offenders"] == [
        {"image_id": "", "label": "owl", "source_path": ""}
    ]


def test_a_warning_names_offenders_and_cure_and_lets_the_run_go_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    artifact, rules = run(tmp_path, [*good(), row("tiny", "cat", width=40, height=20)])
    assert str(artifact) == "24 of 27 rules hold, 1 broken with a warning, 2 without data"
    assert rules["min_side"]["observed"] == 20
    assert rules["min_side"]["offenders"] == [{"image_id": sha("tiny"), "label": "cat", "source_path": "cat/tiny.jpg"}]
    assert capfd.readouterr().err == (
        "validate: warning: min_side: 1 picture has a side of less than 32 pixels; limit 32, observed 20\n"
        "    offenders: cat/tiny.jpg\n"
        "    what helps: take a picture out with a line in data/decisions/drop.csv: "
        f"`{short('tiny')},too small,cat/tiny.jpg`\n"
        f"    to cure it: `cat {tmp_path}/validate/cures/min_side.drop.csv >> data/decisions/drop.csv` "
        "drops 1 picture\n"
        "    to accept it: lower validate.min_side.limit in params.yaml\n"
    )


@pytest.mark.parametrize(
    ("rule", "changes", "observed"),
    [
        ("max_aspect", {"aspect": 5.0}, 5),
        ("min_contrast", {"contrast": 0.5}, 0.5),
        ("image_ids", {"image_id": "ABC"}, 1),
        ("image_ids", {"image_id": sha("odd") + "\n"}, 1),
        ("verdicts", {"verdict": "keeep"}, 1),
        ("no_missing_values", {"contrast": None}, 1),
    ],
)
def test_one_odd_picture_is_named(
    tmp_path: Path, rule: str, changes: dict[str, Any], observed: float, capfd: pytest.CaptureFixture[str]
) -> None:
    try:
        run(tmp_path, [*good(), row("odd", "dog", **changes)])
        message = capfd.readouterr().err
    except BrokenRulesError as error:
        message = str(error)
    entry = entries(tmp_path)[rule]
    assert not entry["success"]
    assert (entry["observed"], entry["num_offenders"]) == (observed, 1)
    assert [offender["source_path"] for offender in entry["offenders"]] == ["dog/odd.jpg"]
    assert f"{rule}: " in message
    assert "offenders: dog/odd.jpg" in message


def test_the_limit_itself_is_allowed(tmp_path: Path) -> None:
    edge = [row("edge", "cat", width=128, height=32, contrast=2.0)]
    assert run(tmp_path, [*good(), *edge])[0].num_warnings == 0


def test_pictures_that_are_not_kept_are_not_measured(tmp_path: Path) -> None:
    table = [*good(), row("tiny", "cat", width=4, height=4, verdict="drop")]
    assert run(tmp_path, table)[0].num_warnings == 0


def reject(path: str, label: str, reason: str) -> list[str]:
    return ["0-folder", path, label, reason, ""]


def test_a_class_of_which_ingest_accepted_nothing_has_no_pictures(tmp_path: Path) -> None:
    rejects = [
        reject("bird", "bird", "empty-folder"), reject("fish/a.jpg", "fish", "not-an-image"),
        reject("fish/b.jpg", "fish", "not-an-image"), reject("cat/z.jpg", "cat", "truncated"),
        reject("note.txt", "", "no-label"),
    ]  # fmt: skip
    message = refused(
        tmp_path, good(), rejects=rejects, max_class_reject_fraction=FractionRule(limit=None, severity="warn")
    )
    assert message.splitlines()[1:] == [
        "min_images_per_class: 2 classes have fewer than 2 pictures; limit 2, observed 0",
        "    offenders: 'bird', 'fish'",
        "    what helps: no file could be used of 'bird' (empty-folder (1)), 'fish' (not-an-image (2)); "
        "data/ingest/rejected.csv names each: mend these files or put others there, and read them under a new "
        "ingest.snapshot; or take the class out of the source",
        "    to accept it: lower validate.min_images_per_class.limit in params.yaml",
    ]
    # beside a class that is too small, for which pictures can be dropped, no drop makes the rule hold
    message = refused(tmp_path, [*good(), row("owl0", "owl")], rejects=rejects)
    assert "what helps: add pictures of 'owl'" in message
    assert "to cure it" not in message


def test_a_refused_label_that_is_no_class_stops_nothing(tmp_path: Path) -> None:
    """Notes beside class folders, a class that decisions renamed, and the label of pictures without one."""
    table = [
        row("g0", "SG", source_path="Gibson/SG/0.jpg"), row("g1", "SG", source_path="Gibson/SG/1.jpg"),
        row("r0", "SG", source_path="old/0.jpg", original_label="old"), *good(),
    ]  # fmt: skip
    rejects = [
        reject("Gibson/notes.txt", "Gibson", "not-an-image"), reject("old/broken.jpg", "old", "truncated"),
        reject("new/broken.jpg", "unlabelled", "truncated"),
    ]  # fmt: skip
    _, rules = run(tmp_path, table, rejects=rejects, unlabelled="unlabelled")
    assert rules["min_images_per_class"]["success"]


def test_imbalance_names_the_small_class(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    table = [row(f"cat{i}", "cat") for i in range(25)] + [row(f"dog{i}", "dog") for i in range(2)]
    _, rules = run(tmp_path, table)
    assert rules["max_imbalance"]["observed"] == 12.5
    assert rules["max_imbalance"]["offenders"] == [{"image_id": "", "label": "dog", "source_path": ""}]
    assert (
        "1 class is more than 10 times smaller than the largest one; limit 10, observed 12.5\n    offenders: 'dog'"
        in capfd.readouterr().err
    )


def test_a_class_whose_pictures_are_all_held_has_none(tmp_path: Path) -> None:
    table = [*good(), row("owl", "owl", verdict="conflict")]
    assert "min_images_per_class: " in refused(tmp_path, table)
    assert entries(tmp_path)["min_images_per_class"]["observed"] == 0


def test_one_class_only_stops_the_run(tmp_path: Path) -> None:
    message = refused(tmp_path, [row(f"cat{i}", "cat") for i in range(5)])
    assert "min_classes: 1 class has a picture kept, fewer than 2; limit 2, observed 1" in message
    assert "to accept it" not in message
    assert "add pictures of another class" in message


def test_an_empty_manifest_stops_the_run(tmp_path: Path) -> None:
    assert "min_classes: 0 classes have a picture kept, fewer than 2; limit 2, observed 0" in refused(tmp_path, [])
    assert entries(tmp_path)["min_side"]["observed"] is None


def test_labels_that_look_alike_are_named_together(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    table = good() + [row(f"{label}{i}", label) for label in ("Les paul", "LesPaul") for i in range(2)]
    _, rules = run(tmp_path, table)
    assert [offender["label"] for offender in rules["label_look_alikes"]["offenders"]] == ["Les paul", "LesPaul"]
    message = capfd.readouterr().err
    assert "offenders: 'Les paul', 'LesPaul'" in message
    assert "if they are not, set validate.label_look_alikes: off" in message
    assert "label_look_alikes" not in run(tmp_path, table, label_look_alikes="off")[1]
    assert "label_look_alikes" in refused(tmp_path, table, label_look_alikes="error")


@pytest.mark.parametrize("label", ["", " ", "owl ", "e\u0301tude"])
def test_a_label_that_is_badly_written_stops_the_run(tmp_path: Path, label: str) -> None:
    message = refused(tmp_path, [*good(), row("a", label), row("b", label)])
    assert "label_text: 1 label is empty, not in Unicode's NFC form, or with a space at an end" in message
    assert entries(tmp_path)["label_text"]["offenders"] == [{"image_id": "", "label": label, "source_path": ""}]


@pytest.mark.parametrize(
    "label", ["Les paul", "LesPaul", "les paul ", "les-paul", "ＬｅｓＰａｕｌ", "LES_PAUL", "les\u200bpaul"]
)
def test_spellings_of_one_name_fold_into_one(label: str) -> None:
    assert spelling(label) == "lespaul"


def test_what_means_something_is_not_folded() -> None:
    assert len({spelling(label) for label in ("C", "C+", "C++", "é", "e", "東京", "京都", "🎸", "...", "!")}) == 10
    assert written_well(" e\u0301 ") == "\u00e9"


def licensed(*allowed: str, severity: str = "error") -> LicenseRule:
    return LicenseRule.model_validate({"allowed": allowed, "severity": severity})


def some_licensed() -> list[dict[str, Any]]:
    """Ten pictures of CC BY 4.0 in ten spellings, and three of CC BY-NC."""
    spelled = ["CC BY 4.0", "cc-by-4.0", "https://creativecommons.org/licenses/by/4.0/", "Attribution 4.0", "by 4.0"]
    table = [{**one, "license": spelled[n % 5]} for n, one in enumerate(good())]
    return table + [row(f"nc{n}", "dog", license=f"CC BY-NC {n + 1}.0") for n in range(3)]


def test_a_licence_that_is_not_allowed_stops_the_run_and_is_named(tmp_path: Path) -> None:
    message = refused(tmp_path, some_licensed(), licenses=licensed("CC0*", "cc by 4.0"))
    assert message.splitlines()[1:] == [
        "licenses: 3 pictures have licences that are not allowed; limit CC0*, cc by 4.0, "
        "observed cc-by-nc-1.0 (1), cc-by-nc-2.0 (1), cc-by-nc-3.0 (1)",
        "    offenders: dog/nc0.jpg, dog/nc1.jpg, dog/nc2.jpg",
        "    what helps: ask the source for these licences alone, or add them to validate.licenses.allowed "
        '("" allows unknown ones); take a picture out with a line in data/decisions/drop.csv: '
        f"`{short('nc0')},its licence,dog/nc0.jpg`",
        f"    to cure it: `cat {tmp_path}/validate/cures/licenses.drop.csv >> data/decisions/drop.csv` "
        "drops 3 pictures",
    ]
    entry = entries(tmp_path)["licenses"]
    assert (entry["limit"], entry["num_offenders"]) == ("CC0*, cc by 4.0", 3)
    assert entry["observed"] == "cc-by-nc-1.0 (1), cc-by-nc-2.0 (1), cc-by-nc-3.0 (1)"


def test_patterns_allow_many_licences(tmp_path: Path) -> None:
    entry = run(tmp_path, some_licensed(), licenses=licensed("CC-BY-*"))[1]["licenses"]
    assert (entry["success"], entry["observed"], entry["limit"]) == (True, 0, "CC-BY-*")
    assert "licenses: " in refused(tmp_path, some_licensed(), licenses=licensed("CC-BY-[0-9]*"))


def test_an_unknown_licence_offends_unless_it_is_allowed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    table = [*some_licensed(), row("a", "cat", license=""), row("b", "cat", license="n/a"), row("c", "cat")]
    _, rules = run(tmp_path, table, licenses=licensed("*", severity="warn"))
    assert (rules["licenses"]["observed"], rules["licenses"]["num_offenders"]) == ("unknown (3)", 3)
    assert "limit *, observed unknown (3)\n    offenders: cat/a.jpg, cat/b.jpg, cat/c.jpg" in capfd.readouterr().err
    assert run(tmp_path, table, licenses=licensed("*", ""))[1]["licenses"]["success"]
    assert run(tmp_path, table, licenses=licensed("*", ""))[1]["licenses"]["limit"] == "*, unknown"
    assert "licenses" not in run(tmp_path, table)[1]


def test_pictures_that_are_not_kept_need_no_licence(tmp_path: Path) -> None:
    table = [*some_licensed()[:10], row("gone", "cat", license="CC BY-NC 4.0", verdict="drop")]
    assert run(tmp_path, table, licenses=licensed("CC BY 4.0"))[0].num_errors == 0


def test_nothing_may_be_the_whole_list_of_licences_only_as_the_empty_text(tmp_path: Path) -> None:
    assert run(tmp_path, good(), licenses=licensed(""))[0].num_errors == 0
    assert "licenses" in refused(tmp_path, some_licensed(), licenses=licensed(""))
    with pytest.raises(ValueError, match="at least 1 item"):
        licensed()


def test_pictures_from_nowhere_are_named_with_their_source(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    table = [
        row("a", "cat", url="https://a.example/a.jpg"),
        row("b", "cat", page_url="https://a.example/"),
        row("c", "dog", url="", page_url=""),
        row("d", "dog", source="1-sample"),
        row("e", "dog"),
    ]
    _, rules = run(tmp_path, table, provenance="warn")
    assert (rules["provenance"]["observed"], rules["provenance"]["num_offenders"]) == ("0-folder (2), 1-sample (1)", 3)
    message = capfd.readouterr().err
    assert "3 pictures have neither a url nor a page_url; observed 0-folder (2), 1-sample (1)" in message
    assert "offenders: dog/c.jpg, dog/d.jpg, dog/e.jpg" in message
    assert "or set validate.provenance: off" in message
    assert "provenance" in refused(tmp_path, table, provenance="error")
    assert (
        run(
            tmp_path,
            [*table[:2], row("f", "cat", url="x"), row("g", "dog", url="x"), row("h", "dog", url="x")],
            provenance="error",
        )[0].num_errors
        == 0
    )


def test_an_empty_manifest_breaks_no_rule_on_origins(tmp_path: Path) -> None:
    refused(tmp_path, [], licenses=licensed("CC0"), provenance="error")
    found = entries(tmp_path)
    assert found["licenses"]["success"]
    assert found["provenance"]["success"]


def test_too_many_rejects_are_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    refuse = [["0-folder", f"cat/x{i}.txt", "cat", "not-an-image", ""] for i in range(10)]
    _, rules = run(tmp_path, good(), rejects=refuse)
    entry = rules["max_reject_fraction"]
    assert (entry["observed"], entry["num_offenders"]) == (0.5, 10)
    assert entry["offenders"][0] == {"image_id": "", "label": "cat", "source_path": "cat/x0.txt"}
    assert "cat/x4.jpg" not in (message := capfd.readouterr().err)
    assert "cat/x4.txt, and 5 more" in message
    assert "data/ingest/rejected.csv gives each file's reason (not-an-image (10)): mend these files" in message


def test_copies_are_counted_whether_they_are_dropped_or_kept(tmp_path: Path) -> None:
    for verdict in ("copy", "keep"):
        copies = [row(f"a-copy{i}", "cat", group=sha("cat0"), verdict=verdict, best_id=sha("cat0")) for i in range(5)]
        _, rules = run(tmp_path, good() + copies)
        assert rules["max_duplicate_fraction"]["observed"] == pytest.approx(5 / 15, abs=1e-6)
        assert rules["max_duplicate_fraction"]["num_offenders"] == 5
    held = [row("a-copy", "cat", group=sha("cat0"), verdict="copy") for _ in range(1)]
    run(tmp_path, good() + held, max_duplicate_fraction=FractionRule(limit=0.01, severity="warn"))
    assert [o["source_path"] for o in entries(tmp_path)["max_duplicate_fraction"]["offenders"]] == ["cat/a-copy.jpg"]


@pytest.mark.parametrize("verdict", ["conflict", "keep"])
def test_a_picture_under_two_labels_is_a_conflict_and_the_cure_names_it(
    tmp_path: Path, verdict: str, capfd: pytest.CaptureFixture[str]
) -> None:
    both = [row("both", label, verdict=verdict) for label in ("cat", "dog")]
    _, rules = run(tmp_path, good() + both)
    entry = rules["max_conflict_fraction"]
    assert (entry["observed"], entry["num_offenders"]) == (round(2 / 12, 6), 2)
    assert [offender["label"] for offender in entry["offenders"]] == ["cat", "dog"]
    message = capfd.readouterr().err
    assert f"data/decisions/relabel.csv, `{short('both')},<label>,<reason>,cat/both.jpg` (its copies follow)" in message


def test_a_file_listed_twice_stops_the_run(tmp_path: Path) -> None:
    message = refused(tmp_path, [*good(), good()[0]])
    assert "unique_files: 2 files are listed more than once (source, source_path)" in message
    assert "dvc repro --force dedupe" in message


def test_a_column_of_another_type_stops_the_run(tmp_path: Path) -> None:
    run(tmp_path, good())
    table = pa.Table.from_pylist(good(), schema=DEDUPED)
    place = table.schema.get_field_index("width")
    write_table(table.set_column(place, "width", table["width"].cast(pa.int64())), tmp_path / "manifest.parquet")
    with pytest.raises(BrokenRulesError, match="column_types: 1 column of the manifest has another type\n.*'width'"):
        validate(
            PARAMS,
            manifest=tmp_path / "manifest.parquet",
            rejects=tmp_path / "rejected.csv",
            out_dir=tmp_path / "validate",
        )


def test_every_broken_error_is_listed_at_once(tmp_path: Path) -> None:
    message = refused(
        tmp_path, [row("a", "cat", width=8)], min_side=CountRule(limit=32, severity="error"), label_look_alikes="off"
    )
    assert message.startswith("3 of 26 rules are broken and stop the run")
    assert [line.split(":")[0] for line in message.splitlines()[1:] if not line.startswith(" ")] == [
        "min_classes",
        "min_images_per_class",
        "min_side",
    ]


def test_a_rule_without_a_limit_is_off(tmp_path: Path) -> None:
    off = {name: getattr(PARAMS, name).model_copy(update={"limit": None}) for name in LIMITED}
    artifact, rules = run(tmp_path, [row("a", "cat", width=8)], label_look_alikes="off", **off)
    assert artifact.num_rules == 8
    assert not set(rules) & set(off)


def test_at_most_twenty_offenders_are_named_and_all_counted(tmp_path: Path) -> None:
    _, rules = run(tmp_path, good() + [row(f"t{i:02}", "cat", contrast=0.0) for i in range(30)])
    entry = rules["min_contrast"]
    assert (entry["num_offenders"], len(entry["offenders"])) == (30, 20)
    assert entry["offenders"][0]["source_path"] == "cat/t00.jpg"


def ratio(limit: float) -> RatioRule:
    return RatioRule(limit=limit, severity="warn")


def fraction(limit: float) -> FractionRule:
    return FractionRule(limit=limit, severity="warn")


@pytest.mark.parametrize(
    ("rule", "params", "odd", "observed"),
    [
        ("formats", FormatRule(allowed=("JPEG", "PNG"), severity="warn"), {"format": "GIF"}, "GIF (1)"),
        ("min_bytes_per_pixel", ratio(0.03), {"bytes_per_pixel": 0.02}, 0.02),
        ("min_sharpness", ratio(20.0), {"sharpness": 19.0}, 19),
        ("min_brightness", ratio(10.0), {"brightness": 4.0}, 4),
        ("max_brightness", ratio(250.0), {"brightness": 255.0}, 255),
        ("min_entropy", ratio(0.5), {"entropy": 0.25}, 0.25),
        ("max_greyscale_fraction", fraction(0.09), {"greyscale": True}, 0.090909),
        ("max_transparent_fraction", fraction(0.09), {"transparent": True}, 0.090909),
        ("max_near_duplicate_fraction", fraction(0.09), {"verdict": "copy", "best_id": "0" * 64}, 0.090909),
        ("max_duplicate_fraction", fraction(0.09), {"verdict": "copy"}, 0.090909),
    ],
)
def test_each_rule_on_quality_and_shares_passes_fails_and_can_be_off(
    tmp_path: Path, rule: str, params: Any, odd: dict[str, Any], observed: float | str
) -> None:
    table = [*good(), row("odd", "dog", **odd)]
    entry = run(tmp_path, table, **{rule: params})[1][rule]
    assert (entry["success"], entry["observed"]) == (False, observed)
    assert [offender["source_path"] for offender in entry["offenders"]] == ["dog/odd.jpg"]
    assert run(tmp_path, good(), **{rule: params})[1][rule]["success"]
    off = "allowed" if rule == "formats" else "limit"
    assert rule not in run(tmp_path, table, **{rule: params.model_copy(update={off: None})})[1]


def test_a_share_that_is_exactly_the_limit_is_allowed(tmp_path: Path) -> None:
    table = good() * 2
    table = [{**one, "source_path": f"{n}.jpg", "greyscale": n < 7} for n, one in enumerate(table)]
    entry = run(tmp_path, table, max_greyscale_fraction=fraction(0.35))[1]["max_greyscale_fraction"]
    assert (entry["success"], entry["observed"], entry["num_offenders"]) == (True, 0.35, 0)
    assert not run(tmp_path, table, max_greyscale_fraction=fraction(0.34))[1]["max_greyscale_fraction"]["success"]
    assert run(tmp_path, table, max_greyscale_fraction=fraction(1.0))[1]["max_greyscale_fraction"]["success"]
    assert run(tmp_path, good(), max_greyscale_fraction=fraction(0.0))[1]["max_greyscale_fraction"]["success"]


@pytest.mark.parametrize(("column", "value"), [("given_subset", "training"), ("factors", "[1]")])
def test_given_subsets_and_factors_must_be_what_ingest_writes(tmp_path: Path, column: str, value: str) -> None:
    message = refused(tmp_path, [*good(), row("odd", "dog", **{column: value})])
    assert "offenders: dog/odd.jpg" in message
    assert "dvc repro --force dedupe" in message
    assert run(tmp_path, [*good(), row("even", "dog", given_subset="val", factors='{"status": "noble"}')])


def test_what_a_source_was_asked_to_skip_is_no_loss(tmp_path: Path) -> None:
    hidden = [["0-folder", f"cat/.{i}.jpg", "cat", "hidden", "a hidden file"] for i in range(40)]
    _, rules = run(tmp_path, good(), rejects=[*hidden, ["0-folder", "dog/x.jpg", "dog", "broken", "x"]])
    assert rules["max_reject_fraction"]["observed"] == pytest.approx(1 / 11, abs=1e-6)


def test_pictures_in_no_given_subset_are_named(tmp_path: Path) -> None:
    table = [{**one, "given_subset": "train"} for one in good()] + [row("odd", "dog")]
    entry = run(tmp_path, table, max_unassigned_fraction=fraction(0.05))[1]["max_unassigned_fraction"]
    assert (entry["success"], entry["observed"], entry["num_offenders"]) == (False, 0.090909, 1)
    assert run(tmp_path, table, max_unassigned_fraction=fraction(0.1))[1]["max_unassigned_fraction"]["success"]


def test_refusals_are_judged_by_class_and_by_source(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    refuse = [["1-table", f"dog/x{i}.txt", "dog", "not-an-image", ""] for i in range(5)]
    limits: dict[str, Any] = dict.fromkeys(("max_class_reject_fraction", "max_source_reject_fraction"), fraction(0.4))
    _, rules = run(tmp_path, good(), rejects=refuse, **limits)
    assert rules["max_class_reject_fraction"]["observed"] == 0.5
    assert rules["max_source_reject_fraction"]["observed"] == 1
    assert rules["max_class_reject_fraction"]["num_offenders"] == 5
    assert "offenders: dog/x0.txt, dog/x1.txt" in capfd.readouterr().err


def test_a_source_that_gives_the_label_away_is_named_with_its_class(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    table = [{**one, "source": f"{n % 2}-table"} for n, one in enumerate(good())]
    table += [row(f"owl{n}", "owl", source="2-crawl") for n in range(5)]
    entry = run(tmp_path, table)[1]["max_source_association"]
    assert (entry["success"], entry["offenders"]) == (False, [{"image_id": "", "label": "owl", "source_path": ""}])
    assert 0.6 < entry["observed"] < 0.8
    message = capfd.readouterr().err
    assert "the source of a picture gives its label away (Cramér's V); limit 0.5, observed 0." in message
    assert "take pictures of 'owl' from the sources of the other classes too" in message
    hosts = [{**one, "source": "0-table", "url": f"https://{one['label']}.org/{n}"} for n, one in enumerate(table)]
    assert run(tmp_path, hosts)[1]["max_host_association"]["observed"] == 1
    assert run(tmp_path, hosts)[1]["max_source_association"]["observed"] is None


def drifted(folder: Path, then: list[dict[str, Any]], now: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """The entries of a run over `now`, compared with a manifest of dedupe that holds `then`."""
    write_table(pa.Table.from_pylist(then, schema=DEDUPED), folder / "then" / "manifest.parquet")
    return run(folder, now, drift_from=str(folder / "then"), **changes)[1]


def test_drift_of_labels_and_of_quality_is_found(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    now = [*good(), *(row(f"new{n}", "cat", sharpness=10.0, brightness=50.0 if n < 5 else 100.0) for n in range(10))]
    rules = drifted(tmp_path, good(), now)
    assert rules["max_label_drift"]["observed"] == 0.25  # cat: 1/2, then 3/4
    assert rules["max_quality_drift"]["observed"] == "sharpness 0.5, brightness 0.25, aspect 0"
    message = capfd.readouterr().err
    assert "offenders: 'cat'" in message
    assert (
        "quality has changed since validate.drift_from (Kolmogorov-Smirnov distance); limit 0.2, observed sharpness 0.5"
        in message
    )
    limits = {"max_label_drift": fraction(0.25), "max_quality_drift": fraction(0.5)}
    assert all(drifted(tmp_path, good(), now, **limits)[name]["success"] for name in limits)
    off = {name: FractionRule(limit=None, severity="warn") for name in limits}
    assert not set(drifted(tmp_path, good(), now, **off)) & set(limits)


def test_the_same_pictures_have_not_drifted(tmp_path: Path) -> None:
    rules = drifted(tmp_path, good(), good(), max_label_drift=fraction(0.0), max_quality_drift=fraction(0.0))
    assert rules["max_label_drift"]["observed"] == 0
    assert rules["max_quality_drift"]["success"]


def test_a_snapshot_of_ingest_is_found_by_name_and_all_files_are_compared(tmp_path: Path) -> None:
    ingested = pa.Table.from_pylist(good(), schema=DEDUPED).select(MANIFEST.names)
    write_table(ingested, tmp_path / ".miwake" / snapshots.FOLDER / "monday" / "manifest.parquet")
    assert drift_rules.SNAPSHOTS == snapshots.FOLDER
    now = [*good()[:5], *({**one, "verdict": "drop"} for one in good()[5:])]
    _, rules = run(
        tmp_path, now, cache=tmp_path / ".miwake", drift_from="monday", min_classes=CountRule(limit=1, severity="warn")
    )
    assert rules["max_label_drift"]["observed"] == 0


def test_a_reference_that_is_not_there_or_no_manifest_is_named(tmp_path: Path) -> None:
    cache = tmp_path / ".miwake"
    write_table(pa.table({"label": ["a"]}), cache / "snapshots" / "monday" / "manifest.parquet")
    for name, says in {
        "tuesday": r"drift_from 'tuesday' is no snapshot in .*snapshots \(there are: monday\).* or set it to null",
        "../snapshots": "is no snapshot",
        "monday": "manifest.parquet has no column brightness, contrast, .*: it is no manifest",
        str(tmp_path / "rejected.csv"): "is no Parquet file",
    }.items():
        with pytest.raises(InputError, match=says):
            run(tmp_path, good(), cache=cache, drift_from=name)
    with pytest.raises(InputError, match="holds no picture; compare with another one"):
        drifted(tmp_path, [], good())


def test_cures_of_several_rules_agree_and_dedupe_takes_them(tmp_path: Path) -> None:
    run(tmp_path, [*good(), row("odd", "cat", contrast=0.5, entropy=0.1), row("flat", "dog", entropy=0.2)])
    assert cure(tmp_path, "min_contrast.drop") == [f'{short("odd")},"blank, flat",cat/odd.jpg']
    found = cure(tmp_path, "min_entropy.drop")
    assert set(found) == {f'{short("odd")},"blank, flat",cat/odd.jpg', f"{short('flat')},flat,dog/flat.jpg"}
    lines = cure(tmp_path, "min_contrast.drop") + found
    (tmp_path / "drop.csv").write_text("\n".join(["image_id,reason", *lines]) + "\n", encoding="utf-8")
    decisions = read_decisions(tmp_path, [sha("odd"), sha("flat")], ["cat", "dog"])
    assert decisions.drops == {sha("odd"): "blank, flat", sha("flat"): "flat"}


def test_to_drop_every_picture_is_no_cure(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, [{**one, "contrast": 0.5} for one in good()])
    assert "to cure it" not in capfd.readouterr().err
    assert not (tmp_path / "validate" / "cures").exists()


def test_a_name_gives_the_terminal_no_orders(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, [*good(), row("odd", "cat", contrast=0.5, source_path="cat/\x1b[2J\n東京.jpg")])
    assert "offenders: cat/\ufffd[2J\ufffd東京.jpg\n" in capfd.readouterr().err
    assert entries(tmp_path)["min_contrast"]["offenders"][0]["source_path"] == "cat/\x1b[2J\n東京.jpg"


def test_look_alikes_get_the_most_frequent_spelling(tmp_path: Path) -> None:
    table = good() + [row(f"{label}{i}", label) for label, n in (("Les paul", 3), ("LesPaul", 2)) for i in range(n)]
    run(tmp_path, table)
    lines = cure(tmp_path, "label_look_alikes.relabel")
    assert sorted(lines) == sorted(
        f"{short(f'LesPaul{i}')},Les paul,new class: spelling,LesPaul/LesPaul{i}.jpg" for i in range(2)
    )
    refused(tmp_path, [*good(), row("owl", "owl "), row("owl2", "owl ")])
    assert f"{short('owl')},owl,new class: spelling,owl /owl.jpg" in cure(tmp_path, "label_text.relabel")


def test_a_conflict_gets_a_line_for_each_of_its_labels(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    near = {"group": sha("a"), "verdict": "conflict"}
    pair = f"{sha('a')},{sha('b')},cat/a.jpg,dog/b.jpg,cat,dog,near,0.99,conflict,none"
    header = "image_a,image_b,path_a,path_b,label_a,label_b,kind,score,verdict,transform"
    (tmp_path / "duplicates.csv").write_text(f"{header}\n{pair}\n", encoding="utf-8")
    run(tmp_path, [*good(), row("a", "cat", **near), row("b", "dog", **near)])
    assert cure(tmp_path, "max_conflict_fraction.relabel") == sorted(
        f"{short(name)},{label},two labels,{path}"
        for name, path in (("a", "cat/a.jpg"), ("b", "dog/b.jpg"))
        for label in ("cat", "dog")
    )
    assert cure(tmp_path, "max_conflict_fraction.keep") == [f"{short('a')},{short('b')},two pictures,cat/a.jpg"]
    message = capfd.readouterr().err
    assert "to cure it: leave each picture's right line in " in message
    assert "to cure it where two pictures are different: leave their lines in " in message
    assert "mirror" not in message


def test_every_offender_of_a_broken_rule_stands_in_a_table(tmp_path: Path) -> None:
    artifact, _ = run(tmp_path, good() + [row(f"t{i:02}", "cat", contrast=0.0) for i in range(30)])
    with artifact.offenders.open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    assert [one["source_path"] for one in found] == [f"cat/t{i:02}.jpg" for i in range(30)]
    assert found[0] == {
        "rule": "min_contrast",
        "severity": "warn",
        "image_id": sha("t00"),
        "label": "cat",
        "source_path": "cat/t00.jpg",
    }
    assert len(run(tmp_path, good())[0].offenders.read_text(encoding="utf-8").splitlines()) == 1
    assert not (tmp_path / "validate" / "cures").exists()


def test_two_runs_and_another_order_give_the_same_bytes(tmp_path: Path) -> None:
    table = good() + [row(f"t{i}", "cat", contrast=0.0) for i in range(3)]
    written = []
    for rows in (table, table, table[::-1]):
        run(tmp_path, rows)
        written.append([path.read_bytes() for path in sorted((tmp_path / "validate").rglob("*.*"))])
    assert len(written[0]) == 3
    assert written[0] == written[1] == written[2]


def test_missing_and_foreign_rejects_are_named(tmp_path: Path) -> None:
    run(tmp_path, good())
    paths: dict[str, Any] = {"manifest": tmp_path / "manifest.parquet", "out_dir": tmp_path / "validate"}
    with pytest.raises(InputError, match="none.csv does not exist: run the stage that writes it"):
        validate(PARAMS, rejects=tmp_path / "none.csv", **paths)
    (tmp_path / "other.csv").write_text("a,b\n")
    with pytest.raises(
        InputError, match="other.csv has the columns a, b, not source, source_path, label, reason, detail"
    ):
        validate(PARAMS, rejects=tmp_path / "other.csv", **paths)


def test_a_reject_whose_name_is_not_utf8_is_still_named(tmp_path: Path) -> None:
    run(tmp_path, good())
    path = tmp_path / "rejected.csv"
    path.write_bytes(path.read_bytes() + b"0-folder,cat/\xff.jpg,cat,truncated,\n" * 9)
    paths: dict[str, Any] = {"manifest": tmp_path / "manifest.parquet", "out_dir": tmp_path / "validate"}
    validate(PARAMS, rejects=path, **paths)
    assert entries(tmp_path)["max_reject_fraction"]["offenders"][0]["source_path"] == "cat/\ufffd.jpg"


def test_importing_the_stage_is_light() -> None:
    heavy = ("torch", "pandas", "sklearn", "great_expectations")
    code = f"import sys, pipelines.validate; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# pictures without a label ------------------------------------------------------------------------


def with_unlabelled() -> list[dict[str, Any]]:
    """Five cats, five dogs, and of a source of their own fifty pictures that have no label."""
    without = [row(f"none{i}", "none", source="1-folder", source_path=f"none{i}.jpg") for i in range(50)]
    return [*good(), *without]


def test_pictures_without_a_label_are_no_class(tmp_path: Path) -> None:
    limits: dict[str, Any] = {
        "min_classes": CountRule(limit=3, severity="warn"),
        "max_imbalance": RatioRule(limit=2.0, severity="warn"),
        "max_source_association": FractionRule(limit=0.5, severity="warn"),
        "max_unassigned_fraction": FractionRule(limit=0.0, severity="warn"),
    }
    table = [one | {"given_subset": "train"} if one["label"] != "none" else one for one in with_unlabelled()]
    _, as_class = run(tmp_path, table, **limits)
    _, rules = run(tmp_path, table, unlabelled="none", **limits)
    observed = {name: (as_class[name]["observed"], rules[name]["observed"]) for name in limits}
    assert observed["min_classes"] == (3, 2)
    assert observed["max_imbalance"] == (10.0, 1.0)
    assert observed["max_source_association"][0] > 0.9
    assert not observed["max_source_association"][1]
    assert observed["max_unassigned_fraction"] == (pytest.approx(5 / 6, abs=1e-4), 0.0)


def test_pictures_without_a_label_must_be_good_pictures_too(tmp_path: Path) -> None:
    table = with_unlabelled()
    table[-1] |= {"width": 8, "height": 8}
    _, rules = run(tmp_path, table, unlabelled="none", min_side=CountRule(limit=32, severity="warn"))
    assert rules["min_side"]["num_offenders"] == 1
    assert "none49.jpg" in str(rules["min_side"]["offenders"])


def test_drift_of_labels_looks_past_pictures_without_one(tmp_path: Path) -> None:
    (tmp_path / "before").mkdir()
    write_table(pa.Table.from_pylist(with_unlabelled(), schema=DEDUPED), tmp_path / "before" / "manifest.parquet")
    limits: dict[str, Any] = {
        "drift_from": str(tmp_path / "before"),
        "max_label_drift": FractionRule(limit=0.1, severity="warn"),
    }
    _, rules = run(tmp_path, good(), unlabelled="none", **limits)
    assert rules["max_label_drift"]["observed"] == 0.0
    _, rules = run(tmp_path, good(), **limits)
    assert rules["max_label_drift"]["observed"] == pytest.approx(5 / 6, abs=1e-4)


def test_every_rule_says_what_is_wrong_for_one_offender_and_for_several() -> None:
    on: dict[str, Any] = {name: getattr(PARAMS, name).model_copy(update={"limit": 0.3}) for name in LIMITED}
    on |= {"formats": FormatRule(allowed=("JPEG",), severity="warn"), "provenance": "warn"}
    on |= {"licenses": LicenseRule(allowed=("CC0",), severity="warn")}
    since = drift_rules.Reference("then", "files", {"cat": 1.0}, {"sharpness": distribution(np.ones(1))})
    rules = build_rules(PARAMS.model_copy(update=on), since)
    assert {rule.name for rule in rules} == {rule.name for rule in RULES}
    for rule in rules:
        one, several = rule.fault_of(1), rule.fault_of(1200)
        assert not re.search(r"[\[\]{}|]", one + several)
        assert one.startswith(("1 ", "the ")), one
        assert not re.search(r"\b1,200 \w+(?<!s) ", several), several


def test_a_rule_without_data_says_so_and_is_not_counted_as_held(tmp_path: Path) -> None:
    artifact, rules = run(tmp_path, good())
    assert rules["max_host_association"]["success"]
    assert rules["max_host_association"]["no_data"] == "no data: fewer than two hosts are known"
    assert rules["max_source_association"]["no_data"] == "no data: fewer than two sources are known"
    assert artifact.num_without_data == 2
    mixed = [row(f"{label}{i}", label, source=f"{i % 2}-folder") for label in ("cat", "dog") for i in range(6)]
    assert run(tmp_path, mixed)[1]["max_source_association"]["no_data"] == ""


def test_a_broken_rule_states_the_fault(tmp_path: Path) -> None:
    table = [*good(), row("owl0", "owl"), row("fox0", "fox")]
    refused(tmp_path, table)
    entry = entries(tmp_path)["min_images_per_class"]
    assert entry["fault"] == "2 classes have fewer than 2 pictures: fox, owl"
