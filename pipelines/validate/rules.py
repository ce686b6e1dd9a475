"""The catalogue of rules in the order in which they are reported, and the rules on the files' table as a whole."""

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from pipelines.core.factors import parse_factors
from pipelines.core.tables import DEDUPED
from pipelines.params.validate import ValidateParams
from pipelines.validate import class_rules, drift_rules, origin_rules, picture_rules
from pipelines.validate.rule import (
    Arguments,
    AtMost,
    CheckResult,
    Expectation,
    FewOf,
    Mask,
    Rule,
    expectation,
    mask,
    numbered,
)

if TYPE_CHECKING:
    import pandas as pd

# the manifest is what dedupe writes --------------------------------------------------------------


class _TableRule(Rule):
    """A rule that only a manifest of other hands breaks."""

    cure = "the manifest was changed by hand or by another version: run `dvc repro --force dedupe`"


class ColumnTypes(_TableRule):
    name = "column_types"
    description = "every column of the manifest has its type"
    fault = "{n} [column of the manifest has|columns of the manifest have] another type"
    frame = "columns"
    kind = "ExpectColumnPairValuesToBeEqual"
    given: ClassVar[Arguments] = {"column_A": "type", "column_B": "expected"}

    @property
    def exported(self) -> tuple[Expectation, ...]:
        """Of the names: pandas has types of its own."""
        return (("ExpectTableColumnsToMatchSet", {"column_set": DEDUPED.names, "exact_match": False}),)


class NoMissingValues(_TableRule):
    name = "no_missing_values"
    description = "no file lacks its id, label, path, group, verdict, size or a figure of its quality"
    fault = "{n} [file lacks|files lack] an id, label, path, group, verdict, size or figure of quality"
    kind = "ExpectColumnValuesToNotBeNull"
    present: ClassVar[tuple[str, ...]] = (
        "image_id", "label", "source", "source_path", "group", "verdict", "best_id", "format", "width", "height",
        "brightness", "contrast", "sharpness", "entropy", "aspect", "bytes_per_pixel", "greyscale", "transparent",
    )  # fmt: skip

    @property
    def expectations(self) -> tuple[Expectation, ...]:
        return tuple((self.kind, {"column": column}) for column in self.present)


class ImageIds(_TableRule):
    name = "image_ids"
    description = "every image_id is a sha256: 64 hex digits"
    fault = "{n} [file has an image_id that is|files have image_ids that are] no sha256 of 64 hex digits"
    kind = "ExpectColumnValuesToMatchRegex"
    given: ClassVar[Arguments] = {"column": "image_id", "regex": r"^[0-9a-f]{64}\Z"}


class UniqueFiles(_TableRule):
    name = "unique_files"
    description = "no file is listed twice (source, source_path)"
    fault = "{n} [file is|files are] listed more than once (source, source_path)"
    kind = "ExpectCompoundColumnsToBeUnique"
    given: ClassVar[Arguments] = {"column_list": ["source", "source_path"]}


class Verdicts(_TableRule):
    name = "verdicts"
    description = "every verdict is keep, copy, conflict or drop"
    fault = "{n} [file has a verdict|files have verdicts] other than keep, copy, conflict or drop"
    kind = "ExpectColumnValuesToBeInSet"
    given: ClassVar[Arguments] = {"column": "verdict", "value_set": ["keep", "copy", "conflict", "drop"]}


class GivenSubsets(_TableRule):
    name = "given_subsets"
    description = "every given_subset is train, val, test or empty"
    fault = "{n} [file has a given_subset|files have given_subsets] other than train, val, test or empty"
    kind = "ExpectColumnValuesToBeInSet"
    given: ClassVar[Arguments] = {"column": "given_subset", "value_set": ["train", "val", "test", ""]}


@expectation("ExpectFactorsToBeTexts", "factors")
def factors(files: "pd.DataFrame") -> CheckResult:
    """Every file's factors are empty or a JSON object of texts."""
    codes, found = numbered(files["factors"])
    return CheckResult.of_rows(np.array([not _are_factors(text) for text in found], bool)[codes])


def _are_factors(text: str) -> bool:
    try:
        parse_factors(text)
    except ValueError:
        return False
    return True


class Factors(_TableRule):
    name = "factors"
    description = "every file's factors are empty or a JSON object of texts"
    fault = "{n} [file has|files have] factors that are no JSON object of texts"
    kind = "ExpectFactorsToBeTexts"


# what ingest refused, and the copies that dedupe found -------------------------------------------

_MEND = "data/ingest/rejected.csv gives each file's reason ({reasons}): mend these files or take them out of the source"
_PAIRS = (
    "data/dedupe/duplicates.csv lists the pairs: take the copies out of the source, or raise the limit, since training "
    "leaves copies out; where two pictures are different, say so with a line in data/decisions/keep.csv, "
    "`<image_a>,<image_b>,<reason>`"
)


class MaxRejectFraction(FewOf):
    name = "max_reject_fraction"
    description = "of all files seen, few are refused by ingest"
    fault = "{n} [file was|files were] refused by ingest"
    cure = _MEND
    frame = "seen"
    given: ClassVar[Arguments] = {"column": "refused", "value_set": [False]}


@expectation("ExpectFewRefusals", "refused")
def refusals(seen: "pd.DataFrame", *, by: str, max_value: float) -> CheckResult:
    """Of the files seen of any one class or source (column `by`), at most this fraction were refused.

    Observed is the worst; offenders are the refused files of those above the limit. Files without a value of `by` do
    not count.
    """
    codes, names = numbered(seen[by])
    if not names:
        return CheckResult(True, None)
    refused = mask(seen["refused"])
    counts = np.bincount(codes, minlength=len(names))
    fractions = np.bincount(codes[refused], minlength=len(names)) / np.maximum(counts, 1)
    fractions[[name == "" for name in names]] = 0.0
    guilty = np.flatnonzero(refused & (fractions > max_value)[codes])
    return CheckResult(not len(guilty), round(float(fractions.max()), 6), guilty)


class MaxClassRejectFraction(AtMost):
    name = "max_class_reject_fraction"
    description = "of the files of every class, few are refused by ingest"
    fault = "{n} [file was|files were] refused by ingest, too many of one class"
    cure = _MEND
    frame = "seen"
    kind = "ExpectFewRefusals"
    given: ClassVar[Arguments] = {"by": "label"}


class MaxSourceRejectFraction(MaxClassRejectFraction):
    name = "max_source_reject_fraction"
    description = "of the files of every source, few are refused by ingest"
    fault = "{n} [file was|files were] refused by ingest, too many of one source"
    given: ClassVar[Arguments] = {"by": "source"}


def _copies(files: "pd.DataFrame") -> Mask:
    # with `dedupe.duplicates: keep` a near copy is kept too; its group's best picture tells
    kept_copy = mask(files["verdict"] == "keep") & mask(files["best_id"] != files["image_id"])
    return mask(files["verdict"] == "copy") | kept_copy


@expectation("ExpectFewCopies", "image_id", "verdict", "best_id")
def copies(files: "pd.DataFrame", *, max_value: float) -> CheckResult:
    """Of all files, at most this fraction are copies or near copies of another one."""
    return CheckResult.of_fraction(_copies(files), max_value)


class MaxDuplicateFraction(AtMost):
    name = "max_duplicate_fraction"
    description = "of all files, few are copies or near copies of another one"
    fault = "{n} [file is a copy or near copy|files are copies or near copies] of another"
    cure = _PAIRS
    kind = "ExpectFewCopies"


@expectation("ExpectFewNearCopies", "image_id", "verdict", "best_id")
def near_copies(files: "pd.DataFrame", *, max_value: float) -> CheckResult:
    """Of all files, at most this fraction are copies whose bytes are not those of their group's best picture."""
    return CheckResult.of_fraction(_copies(files) & mask(files["best_id"] != files["image_id"]), max_value)


class MaxNearDuplicateFraction(AtMost):
    name = "max_near_duplicate_fraction"
    description = "of all files, few are near copies of another one"
    fault = "{n} [file is a near copy|files are near copies] of another"
    cure = _PAIRS
    kind = "ExpectFewNearCopies"


RULES: tuple[type[Rule], ...] = (
    ColumnTypes, NoMissingValues, ImageIds, UniqueFiles, Verdicts, GivenSubsets, Factors,
    *class_rules.RULES, *picture_rules.RULES, *origin_rules.RULES, *picture_rules.SHARES,
    MaxRejectFraction, MaxClassRejectFraction, MaxSourceRejectFraction, MaxDuplicateFraction, MaxNearDuplicateFraction,
    class_rules.MaxConflictFraction, *drift_rules.RULES,
)  # fmt: skip


def build_rules(
    params: ValidateParams, reference: drift_rules.Reference | None = None, *, unlabelled: bool = False
) -> list[Rule]:
    """All rules that params switch on, in the order in which they are reported; arguments as `Rule`'s."""
    rules = [rule(params, reference, unlabelled=unlabelled) for rule in RULES]
    return [rule for rule in rules if rule.is_on]
