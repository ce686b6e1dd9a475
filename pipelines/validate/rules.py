"""The rules that params switch on.

Built from params alone, without importing Great Expectations: an expectation is its class's name and its arguments.
"""

from dataclasses import replace

from pipelines.core.tables import DEDUPED
from pipelines.params.validate import ValidateParams
from pipelines.validate.classes import class_rules, label_rules
from pipelines.validate.drift import Reference, drift_rules
from pipelines.validate.origins import origin_rules
from pipelines.validate.pictures import picture_rules
from pipelines.validate.rule import Expectation, FrameName, Rule
from pipelines.validate.shares import share_rules

REWRITE = "the manifest was changed by hand or by another version: run `dvc repro --force dedupe`"
_PRESENT = (
    "image_id", "label", "source", "source_path", "group", "verdict", "best_id", "format", "width", "height",
    "brightness", "contrast", "sharpness", "entropy", "aspect", "bytes_per_pixel", "greyscale", "transparent",
)  # fmt: skip

_OF_CLASSES = frozenset(
    (
        "label_look_alikes", "min_classes", "min_images_per_class", "max_imbalance", "max_unassigned_fraction",
        "max_source_association", "max_host_association", "max_conflict_fraction", "max_label_drift",
    )
)  # fmt: skip
_LABELLED: dict[FrameName, FrameName] = {
    "files": "labelled_files",
    "pictures": "labelled_pictures",
    "classes": "classes",
}


def without_unlabelled(rules: list[Rule]) -> list[Rule]:
    """The same rules, those on classes without the pictures that have none."""
    return [replace(one, frame=_LABELLED[one.frame]) if one.name in _OF_CLASSES else one for one in rules]


def build_rules(params: ValidateParams, reference: Reference | None = None) -> list[Rule]:
    """All rules that params switch on, in the order in which they are reported.

    Args:
        reference: what `drift_from` was like; None: no rule on drift.
    """
    return [
        *_table_rules(),
        *label_rules(params),
        *class_rules(params),
        *picture_rules(params),
        *origin_rules(params),
        *share_rules(params),
        *(drift_rules(params, reference) if reference else []),
    ]


def _table_rules() -> list[Rule]:
    return [
        Rule(
            "column_types",
            "every column of the manifest has its type",
            "error",
            None,
            "columns",
            (("ExpectColumnPairValuesToBeEqual", {"column_A": "type", "column_B": "expected"}),),
            REWRITE,
            # pandas has types of its own; there it is the names that count
            exported=(("ExpectTableColumnsToMatchSet", {"column_set": DEDUPED.names, "exact_match": False}),),
        ),
        Rule(
            "no_missing_values",
            "no file lacks its id, label, path, group, verdict, size or a figure of its quality",
            "error",
            None,
            "files",
            tuple(("ExpectColumnValuesToNotBeNull", {"column": column}) for column in _PRESENT),
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
        _one_of("verdicts", "verdict", ["keep", "copy", "conflict", "drop"]),
        _one_of("given_subsets", "given_subset", ["train", "val", "test", ""]),
        Rule(
            "factors",
            "every file's factors are empty or a JSON object of texts",
            "error",
            None,
            "files",
            (("ExpectFactorsToBeTexts", {}),),
            REWRITE,
        ),
    ]


def _one_of(name: str, column: str, values: list[str]) -> Rule:
    named = ", ".join(values[:-1]) + f" or {values[-1] or 'empty'}"
    held: Expectation = ("ExpectColumnValuesToBeInSet", {"column": column, "value_set": values})
    return Rule(name, f"every {column} is {named}", "error", None, "files", (held,), REWRITE)
