"""One rule: what it says, which Great Expectations expectations hold it, and which decisions cure it."""

from dataclasses import dataclass
from typing import Literal

from pipelines.core.params.validate import Severity

FrameName = Literal["files", "pictures", "labelled_files", "labelled_pictures", "classes", "columns", "seen"]
Observed = int | float | str | None
Arguments = dict[str, object]
Expectation = tuple[str, Arguments]
"""Class and arguments: a name of great_expectations.expectations, or of pipelines.validate.expectations."""

Observe = Literal["count", "value", "fraction", "min", "max", "tally"]

DROP = "take a picture out with a line in data/decisions/drop.csv: `{image_id},{reason},{file}`"
SETTLE = (
    "say which label is right with a line in data/decisions/relabel.csv, `{image_id},<label>,<reason>,{file}` (its "
    "copies follow); or take it out with data/decisions/drop.csv; or, if two pictures are different, say so in "
    "data/decisions/keep.csv, `<image_id>,<other_id>,<reason>`"
)


@dataclass(frozen=True)
class Rule:
    """One rule.

    Args:
        name: its key in params.yaml, where it stands there.
        description: what must hold, in a few words.
        severity: error stops the run, warn does not.
        limit: as params say; None for a rule without a number.
        frame: the table that is looked at, see `pipelines.validate.frames`.
        expectations: the rule holds when all of them do.
        cure: what a person can do; may name {image_id}, {file} and {label} of the first offender, and on `seen`
            {reasons}.
        observe: what is reported. count: the number of offenders; value: what the expectation itself observed (with
            several, the worst); fraction: the offenders' share of the frame; min, max: the lowest or highest value of
            the columns that are looked at; tally: the offenders' most frequent values of the column `tally`.
        drop: the reason with which drop.csv would take the offenders out; "" where that cures nothing.
        exported: what stands for `expectations` in a suite over the whole manifest; None: the same.
    """

    name: str
    description: str
    severity: Severity
    limit: Observed
    frame: FrameName
    expectations: tuple[Expectation, ...]
    cure: str
    observe: Observe = "count"
    tally: str = ""
    drop: str = ""
    exported: tuple[Expectation, ...] | None = None


def between(column: str, *, minimum: Observed = None, maximum: Observed = None) -> tuple[Expectation, ...]:
    """Every value of `column` lies between two limits, themselves allowed."""
    return (("ExpectColumnValuesToBeBetween", {"column": column, "min_value": minimum, "max_value": maximum}),)
