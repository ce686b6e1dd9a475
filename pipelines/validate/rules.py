"""The rules that params switch on.

Built from params alone, without importing Great Expectations: an expectation is its class's name and its arguments.
"""

from typing import Literal

from pipelines.core.params.validate import ValidateParams
from pipelines.validate.origins import origin_rules
from pipelines.validate.rule import DROP, Arguments, Limit, OffenderFrame, Rule

REWRITE = "the manifest was changed by hand or by another version: run `dvc repro --force dedupe`"


def build_rules(params: ValidateParams) -> list[Rule]:
    """All rules that params switch on, in the order in which they are reported."""
    return [
        *_table_rules(),
        *_label_rules(params),
        *_class_rules(params),
        *_picture_rules(params),
        *origin_rules(params),
        *_run_rules(params),
    ]


def _between(column: str, *, minimum: Limit = None, maximum: Limit = None) -> tuple[tuple[str, Arguments], ...]:
    return (("ExpectColumnValuesToBeBetween", {"column": column, "min_value": minimum, "max_value": maximum}),)


def _table_rules() -> list[Rule]:
    present = ("image_id", "label", "source", "source_path", "group", "verdict", "width", "height", "contrast")
    return [
        Rule(
            "column_types",
            "every column of the manifest has its type",
            "error",
            None,
            "columns",
            (("ExpectColumnPairValuesToBeEqual", {"column_A": "type", "column_B": "expected"}),),
            REWRITE,
        ),
        Rule(
            "no_missing_values",
            "no file lacks its id, label, path, group, verdict, size or contrast",
            "error",
            None,
            "files",
            tuple(("ExpectColumnValuesToNotBeNull", {"column": column}) for column in present),
            REWRITE,
        ),
        Rule(
            "image_ids",
            "every image_id is a sha256: 64 hex digits",
            "error",
            None,
            "files",
            (("ExpectColumnValuesToMatchRegex", {"column": "image_id", "regex": r"^[0-9a-f]{64}\Z"}),),
            REWRITE,
        ),
        Rule(
            "unique_files",
            "no file is listed twice (source, source_path)",
            "error",
            None,
            "files",
            (("ExpectCompoundColumnsToBeUnique", {"column_list": ["source", "source_path"]}),),
            REWRITE,
        ),
        Rule(
            "verdicts",
            "every verdict is keep, copy, conflict or drop",
            "error",
            None,
            "files",
            (
                (
                    "ExpectColumnValuesToBeInSet",
                    {"column": "verdict", "value_set": ["keep", "copy", "conflict", "drop"]},
                ),
            ),
            REWRITE,
        ),
    ]


def _label_rules(params: ValidateParams) -> list[Rule]:
    rules = [
        Rule(
            "label_text",
            "every label is a text in Unicode's NFC form, not empty, without spaces at its ends",
            "error",
            None,
            "classes",
            (
                ("ExpectColumnValuesToMatchRegex", {"column": "label", "regex": r"\S"}),
                ("ExpectColumnPairValuesToBeEqual", {"column_A": "label", "column_B": "written"}),
            ),
            "write {label} anew: a line in data/decisions/relabel.csv for each picture, "
            "`<image_id>,<label>,new class: spelling`",
        )
    ]
    if params.label_look_alikes != "off":
        rules.append(
            Rule(
                "label_look_alikes",
                "no two labels differ in case, width, spaces or punctuation alone",
                params.label_look_alikes,
                None,
                "classes",
                (("ExpectColumnValuesToBeUnique", {"column": "spelling"}),),
                "if they are one class, give it one name: rename the folder, or add a line to "
                "data/decisions/relabel.csv for each picture, `<image_id>,{label},spelling`; "
                "if they are not, set validate.label_look_alikes: off",
            )
        )
    return rules


def _class_rules(params: ValidateParams) -> list[Rule]:
    few, small, uneven = params.min_classes, params.min_images_per_class, params.max_imbalance
    rules = []
    if few.limit is not None:
        rules.append(
            Rule(
                "min_classes",
                "there are enough classes with a picture kept",
                few.severity,
                few.limit,
                "run",
                _between("num_classes", minimum=few.limit),
                "add pictures of another class; where a class has lost all of its pictures, look at "
                "data/dedupe/duplicates.csv and data/decisions/drop.csv",
                ("num_classes", "min"),
            )
        )
    if small.limit is not None:
        rules.append(
            Rule(
                "min_images_per_class",
                "every class has enough pictures kept",
                small.severity,
                small.limit,
                "classes",
                _between("num_images", minimum=small.limit),
                "add pictures of {label}, or merge it into another class with a line in data/decisions/relabel.csv for "
                "each picture, or take it out with data/decisions/drop.csv",
                ("num_images", "min"),
            )
        )
    if uneven.limit is not None:
        rules.append(
            Rule(
                "max_imbalance",
                "no class is too small beside the largest one (times smaller)",
                uneven.severity,
                uneven.limit,
                "classes",
                _between("imbalance", maximum=uneven.limit),
                "add pictures of {label}, merge it into another class (data/decisions/relabel.csv), or drop some of "
                "the largest class (data/decisions/drop.csv)",
                ("imbalance", "max"),
            )
        )
    return rules


def _picture_rules(params: ValidateParams) -> list[Rule]:
    rules = []
    side, aspect, contrast = params.min_side, params.max_aspect, params.min_contrast
    if side.limit is not None:
        rules.append(
            Rule(
                "min_side",
                "the shorter side of every picture kept is long enough (pixels)",
                side.severity,
                side.limit,
                "pictures",
                _between("side", minimum=side.limit),
                DROP.replace("{reason}", "too small"),
                ("side", "min"),
            )
        )
    if aspect.limit is not None:
        rules.append(
            Rule(
                "max_aspect",
                "no picture kept is too long and narrow (longer side over shorter side)",
                aspect.severity,
                aspect.limit,
                "pictures",
                _between("aspect", maximum=aspect.limit),
                DROP.replace("{reason}", "too narrow") + ", or crop it in data/decisions/crop.csv",
                ("aspect", "max"),
            )
        )
    if contrast.limit is not None:
        rules.append(
            Rule(
                "min_contrast",
                "no picture kept is blank (standard deviation, grey levels)",
                contrast.severity,
                contrast.limit,
                "pictures",
                _between("contrast", minimum=contrast.limit),
                DROP.replace("{reason}", "blank"),
                ("contrast", "min"),
            )
        )
    return rules


def _run_rules(params: ValidateParams) -> list[Rule]:
    of_run: list[tuple[str, str, OffenderFrame, str]] = [
        (
            "reject",
            "of all files seen, few are refused by ingest",
            "rejects",
            "data/ingest/rejected.csv gives each file's reason: mend these files or take them out of the source",
        ),
        (
            "duplicate",
            "of all files, few are copies or near copies of another one",
            "duplicates",
            "data/dedupe/duplicates.csv lists the pairs: collect other pictures, or raise dedupe.min_score where pairs "
            "are no copies",
        ),
        (
            "conflict",
            "of all files, few are of pictures that stand under two labels",
            "conflicts",
            "say which label is right: for each of these a line in data/decisions/relabel.csv, "
            "`{image_id},<label>,<reason>`, or in data/decisions/drop.csv",
        ),
    ]
    rules = []
    for what, description, offenders, cure in of_run:
        rule = getattr(params, f"max_{what}_fraction")
        if rule.limit is not None:
            figure = f"{what}_fraction"
            held = _between(figure, maximum=rule.limit)
            worst: tuple[str, Literal["min", "max"]] = (figure, "max")
            rules.append(
                Rule(f"max_{figure}", description, rule.severity, rule.limit, "run", held, cure, worst, offenders)
            )
    return rules
