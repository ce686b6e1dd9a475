"""Which judgement is behind each expectation of our own, and the columns of the table that it looks at."""

from collections.abc import Callable
from typing import NamedTuple, cast

from pipelines.validate.judge_classes import class_pictures, imbalance, labels_differ, labels_written_well
from pipelines.validate.judge_drift import figure_shift, label_shift
from pipelines.validate.judge_files import conflicts, copies, factors, near_copies, refusals
from pipelines.validate.judge_origins import association, licenses, traceable
from pipelines.validate.judgement import Judgement
from pipelines.validate.rule import Expectation

_LABELS = ("label", "verdict")
_COPIES = ("image_id", "verdict", "best_id")


class Judge(NamedTuple):
    """A function of a table and the expectation's arguments.

    Args:
        columns: what it reads, beside the column that an argument `column` or `by` names.
    """

    function: Callable[..., Judgement]
    columns: tuple[str, ...]


JUDGES = {
    "ExpectClassesToHavePictures": Judge(class_pictures, _LABELS),
    "ExpectClassesToBeBalanced": Judge(imbalance, _LABELS),
    "ExpectLabelsToBeWrittenWell": Judge(labels_written_well, _LABELS),
    "ExpectLabelsNotToLookAlike": Judge(labels_differ, _LABELS),
    "ExpectFewCopies": Judge(copies, _COPIES),
    "ExpectFewNearCopies": Judge(near_copies, _COPIES),
    "ExpectFewConflicts": Judge(conflicts, ("image_id", "label", "verdict")),
    "ExpectFewRefusals": Judge(refusals, ("refused",)),
    "ExpectFactorsToBeTexts": Judge(factors, ("factors",)),
    "ExpectLicensesToBeAllowed": Judge(licenses, ("license", "verdict")),
    "ExpectPicturesToBeTraceable": Judge(traceable, ("url", "page_url", "source", "verdict")),
    "ExpectLabelsNotToFollowOrigins": Judge(association, _LABELS),
    "ExpectLabelsNotToDrift": Judge(label_shift, ("label", "original_label", "verdict")),
    "ExpectFigureNotToDrift": Judge(figure_shift, ("verdict",)),
}

_SEVERAL = {"host": ("url", "page_url")}


def columns_of(expectation: Expectation) -> list[str]:
    """The columns that an expectation looks at, each once."""
    kind, arguments = expectation
    names = dict.fromkeys(JUDGES[kind].columns if kind in JUDGES else ())
    for key in ("column", "column_A", "column_B", "column_list", "by"):
        value = arguments.get(key, ())
        for name in [value] if isinstance(value, str) else cast("list[str]", value):
            names |= dict.fromkeys(_SEVERAL.get(name, (name,)))
    return list(names)
