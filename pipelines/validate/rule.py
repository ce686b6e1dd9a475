"""One rule: what it says, which Great Expectations expectation holds it, and which decision cures it."""

from dataclasses import dataclass
from typing import Literal

from pipelines.core.params.validate import Severity

FrameName = Literal["files", "pictures", "columns", "classes", "run"]
OffenderFrame = Literal["rejects", "duplicates", "conflicts"]
Limit = int | float | str | None
Arguments = dict[str, object]

DROP = "take a picture out with a line in data/decisions/drop.csv: `{image_id},{reason}`"


@dataclass(frozen=True)
class Rule:
    """One rule.

    Args:
        name: its key in params.yaml, where it stands there.
        description: what must hold, in a few words.
        severity: error stops the run, warn does not.
        limit: as params say; None for a rule without a number.
        frame: the table that is looked at.
        expectations: Great Expectations class and arguments; the rule holds when all of them do.
        cure: what a person can do; may name {image_id} of the first offender, {label}, {limit}.
        worst: the column of `frame` and which end of it is reported as observed; None: the number of offenders.
        offenders: the table whose rows are named when a figure of the whole run breaks the rule.
        tally: the column of `frame` whose most frequent values among the offenders are reported as observed.
    """

    name: str
    description: str
    severity: Severity
    limit: Limit
    frame: FrameName
    expectations: tuple[tuple[str, Arguments], ...]
    cure: str
    worst: tuple[str, Literal["min", "max"]] | None = None
    offenders: OffenderFrame | None = None
    tally: str | None = None
