"""The rules that params switch on.

Built from params alone, without importing Great Expectations: an expectation is its class's name and its arguments.

And which check is behind each expectation of our own.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple, cast

from pipelines.core.tables import DEDUPED
from pipelines.params.validate import ValidateParams
from pipelines.validate.checks import (
    CheckResult,
    class_pictures,
    conflicts,
    copies,
    factors,
    imbalance,
    labels_differ,
    labels_written_well,
    near_copies,
    refusals,
)
from pipelines.validate.classes import class_rules, label_rules
from pipelines.validate.drift import Reference, drift_rules, figure_shift, label_shift
from pipelines.validate.origins import association, licenses, origin_rules, traceable
from pipelines.validate.quality import picture_rules
from pipelines.validate.rule import Expectation, FrameName, Rule
from pipelines.validate.shares import share_rules

_LABELS = ("label", "verdict")
_COPIES = ("image_id", "verdict", "best_id")


class Check(NamedTuple):
    """A function of a table and the expectation's arguments.

    Args:
        columns: what it reads, beside the column that an argument `column` or `by` names.
    """

    function: Callable[..., CheckResult]
    columns: tuple[str, ...]


CHECKS = {
    "ExpectClassesToHavePictures": Check(class_pictures, _LABELS),
    "ExpectClassesToBeBalanced": Check(imbalance, _LABELS),
    "ExpectLabelsToBeWrittenWell": Check(labels_written_well, _LABELS),
    "ExpectLabelsNotToLookAlike": Check(labels_differ, _LABELS),
    "ExpectFewCopies": Check(copies, _COPIES),
    "ExpectFewNearCopies": Check(near_copies, _COPIES),
    "ExpectFewConflicts": Check(conflicts, ("image_id", "label", "verdict")),
    "ExpectFewRefusals": Check(refusals, ("refused",)),
    "ExpectFactorsToBeTexts": Check(factors, ("factors",)),
    "ExpectLicensesToBeAllowed": Check(licenses, ("license", "verdict")),
    "ExpectPicturesToBeTraceable": Check(traceable, ("url", "page_url", "source", "verdict")),
    "ExpectLabelsNotToFollowOrigins": Check(association, _LABELS),
    "ExpectLabelsNotToDrift": Check(label_shift, ("label", "original_label", "verdict")),
    "ExpectFigureNotToDrift": Check(figure_shift, ("verdict",)),
}

_SEVERAL = {"host": ("url", "page_url")}


def columns_of(expectation: Expectation) -> list[str]:
    """The columns that an expectation looks at, each once."""
    kind, arguments = expectation
    names = dict.fromkeys(CHECKS[kind].columns if kind in CHECKS else ())
    for key in ("column", "column_A", "column_B", "column_list", "by"):
        value = arguments.get(key, ())
        for name in [value] if isinstance(value, str) else cast("list[str]", value):
            names |= dict.fromkeys(_SEVERAL.get(name, (name,)))
    return list(names)


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
