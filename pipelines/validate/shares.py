"""The rules on how much of all files is refused, copied, torn between labels, grey or transparent."""

from typing import NamedTuple

from pipelines.params.validate import FractionRule, ValidateParams
from pipelines.validate.rule import SETTLE, Expectation, FrameName, Observe, Rule

_MEND = "data/ingest/rejected.csv gives each file's reason ({reasons}): mend these files or take them out of the source"
_PAIRS = (
    "data/dedupe/duplicates.csv lists the pairs: take the copies out of the source, or raise the limit, since training "
    "leaves copies out; where two pictures are different, say so with a line in data/decisions/keep.csv, "
    "`<image_a>,<image_b>,<reason>`"
)


class _Share(NamedTuple):
    """A fraction with an upper limit.

    Args:
        own: the expectation of our own that judges it; "" where Great Expectations counts the values of `column`.
        column: of the values that count against it, or by which files are taken together.
    """

    name: str
    description: str
    frame: FrameName
    cure: str
    own: str = ""
    column: str = ""
    drop: str = ""


_SHARES = (
    _Share(
        "max_greyscale_fraction",
        "of all pictures kept, few are without colour",
        "pictures",
        "collect pictures in colour, or set validate.max_greyscale_fraction.limit: null where grey is no fault",
        column="greyscale",
        drop="without colour",
    ),
    _Share(
        "max_transparent_fraction",
        "of all pictures kept, few are transparent somewhere",
        "pictures",
        "cut-outs are laid on white when they are packed: collect whole pictures, or raise the limit",
        column="transparent",
        drop="transparent",
    ),
    _Share("max_reject_fraction", "of all files seen, few are refused by ingest", "seen", _MEND, column="refused"),
    _Share(
        "max_class_reject_fraction",
        "of the files of every class, few are refused by ingest",
        "seen",
        _MEND,
        "ExpectFewRefusals",
        "label",
    ),
    _Share(
        "max_source_reject_fraction",
        "of the files of every source, few are refused by ingest",
        "seen",
        _MEND,
        "ExpectFewRefusals",
        "source",
    ),
    _Share(
        "max_duplicate_fraction",
        "of all files, few are copies or near copies of another one",
        "files",
        _PAIRS,
        "ExpectFewCopies",
    ),
    _Share(
        "max_near_duplicate_fraction",
        "of all files, few are near copies of another one",
        "files",
        _PAIRS,
        "ExpectFewNearCopies",
    ),
    _Share(
        "max_conflict_fraction",
        "of all files, few are of pictures that stand under two labels",
        "files",
        SETTLE,
        "ExpectFewConflicts",
        drop="two labels",
    ),
)


def share_rules(params: ValidateParams) -> list[Rule]:
    """Those that are switched on."""
    return [_rule(share, rule, rule.limit) for share in _SHARES if (rule := _params(params, share)).limit is not None]


def _params(params: ValidateParams, share: _Share) -> FractionRule:
    found: FractionRule = getattr(params, share.name)
    return found


def _rule(share: _Share, rule: FractionRule, limit: float | None) -> Rule:
    assert limit is not None
    held: Expectation
    observe: Observe
    if share.own:
        by: dict[str, object] = {"by": share.column} if share.column else {}
        held, observe = (share.own, {**by, "max_value": limit}), "value"
    else:
        held, observe = few("ExpectColumnValuesToBeInSet", share.column, [False], limit), "fraction"
    return Rule(
        share.name,
        share.description,
        rule.severity,
        limit,
        share.frame,
        (held,),
        share.cure,
        observe=observe,
        drop=share.drop,
        # what ingest refused is not in the manifest
        exported=() if share.frame == "seen" else None,
    )


def few(kind: str, column: str, values: list[object], limit: float) -> Expectation:
    """An expectation on single values that at most the fraction `limit` of the rows may break."""
    # 1 - 0.35 is 0.65 and a little: a share that is exactly the limit is allowed
    return (kind, {"column": column, "value_set": values, "mostly": round(1 - limit, 12)})
