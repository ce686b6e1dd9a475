"""What a rule is: a class with its name, limit, expectations, sentence and remedy. Great Expectations is not imported.

An expectation is a class's name and its arguments: of great_expectations.expectations, or one of ours, which a function
of a table stands behind (`expectation`).
"""

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, TypeVar, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.core.tables import short_id
from pipelines.params.validate import Severity, ValidateParams

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.validate.drift_rules import Reference
    from pipelines.validate.frames import Frames

FrameName = Literal["files", "pictures", "labelled_files", "labelled_pictures", "classes", "columns", "seen"]
Observed = int | float | str | None
Arguments = dict[str, object]
Expectation = tuple[str, Arguments]
Observe = Literal["count", "value", "fraction", "min", "max", "tally"]
Rows = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]

DROP = "take a picture out with a line in data/decisions/drop.csv: `{image_id},{reason},{file}`"
SETTLE = (
    "say which label is right with a line in data/decisions/relabel.csv, `{image_id},<label>,<reason>,{file}` (its "
    "copies follow); or take it out with data/decisions/drop.csv; or, if two pictures are different, say so in "
    "data/decisions/keep.csv, `<image_id>,<other_id>,<reason>`"
)
NO_ROWS: Rows = np.zeros(0, np.intp)
_LABELLED: dict[FrameName, FrameName] = {"files": "labelled_files", "pictures": "labelled_pictures"}
_SEVERAL = {"host": ("url", "page_url")}
_MAX_TALLIED = 5
F = TypeVar("F", bound="Callable[..., CheckResult]")


@dataclass(frozen=True)
class CheckResult:
    """Whether a table keeps a rule, and who breaks it.

    Args:
        observed: the figure that was held against the limit; None where there is nothing to look at.
        rows: (R,) rows that break the rule, by position from 0, ascending.
        labels: classes that break it, where it judges classes and not files.
    """

    success: bool
    observed: Observed
    rows: Rows = field(default_factory=lambda: NO_ROWS)
    labels: tuple[str, ...] = ()

    @classmethod
    def of_rows(cls, guilty: Mask) -> "CheckResult":
        """No row may be guilty; reported is their number."""
        rows = np.flatnonzero(guilty)
        return cls(not len(rows), len(rows), rows)

    @classmethod
    def of_fraction(cls, guilty: Mask, max_value: float) -> "CheckResult":
        """At most this fraction of the rows may be guilty, which is reported."""
        rows = np.flatnonzero(guilty)
        fraction = len(rows) / max(len(guilty), 1)
        return cls(fraction <= max_value, round(fraction, 6), rows)


class Check(NamedTuple):
    """The function of a table behind an expectation of ours.

    Args:
        columns: what it reads, beside the column that an argument `column` or `by` names.
    """

    function: Callable[..., CheckResult]
    columns: tuple[str, ...]

    @property
    def fields(self) -> dict[str, Any]:
        """The expectation's fields with their types: the function's keyword arguments."""
        found = inspect.signature(self.function).parameters.values()
        return {one.name: one.annotation for one in found if one.kind is inspect.Parameter.KEYWORD_ONLY}


CHECKS: dict[str, Check] = {}
"""By the expectation's name; filled by the modules of the rules."""


def expectation(name: str, *columns: str) -> Callable[[F], F]:
    """Make the decorated function of a table the check of an expectation of ours."""

    def register(function: F) -> F:
        CHECKS[name] = Check(function, columns)
        return function

    return register


class Rule:
    """One rule with its severity and limit as params say; a subclass is one rule of the catalogue.

    Attributes:
        name: its key in params.yaml, where it stands there; others are always errors.
        description: what must hold, in a few words.
        fault: what is wrong where it is broken: [for one|for several] offenders, {n} of them, {limit}.
        cure: what a person can do; may name {image_id}, {file} and {label} of the first offender, and on `seen`
            {reasons}; {reason} is `drop`.
        frame: the table that is looked at, see `pipelines.validate.frames`.
        of_classes: pictures without a label do not count.
        kind: the expectation that holds it.
        given: its arguments that params do not change.
        observe: what is reported. count: the number of offenders; value: what the expectation itself observed (with
            several, the worst); fraction: the offenders' share of the frame; min, max: the lowest or highest value of
            the columns that are looked at; tally: the offenders' most frequent values of the one column.
        drop: the reason with which drop.csv would take the offenders out; "" where that cures nothing.
        no_data: what is said where nothing could be observed.
        limit: None for a rule without a number.
    """

    name: ClassVar[str]
    description: str
    fault: ClassVar[str]
    cure: ClassVar[str]
    frame: FrameName = "files"
    of_classes: ClassVar[bool] = False
    kind: ClassVar[str]
    given: ClassVar[Arguments] = {}
    observe: ClassVar[Observe] = "count"
    drop: ClassVar[str] = ""
    no_data: ClassVar[str] = "there is nothing to look at"
    severity: Severity
    limit: Observed

    def __init__(self, params: ValidateParams, reference: "Reference | None" = None, *, unlabelled: bool = False):
        """Read severity and limit.

        Args:
            reference: what `drift_from` was like; None: no rule on drift.
            unlabelled: there may be pictures without a label.
        """
        self.reference = reference
        self.section: Any = getattr(params, self.name, "error")
        is_switch = isinstance(self.section, str)
        self.limit = None if is_switch else self.limit_of(self.section)
        self.is_on = self.section != "off" if is_switch else self.limit is not None
        self.severity = self.section if is_switch else self.section.severity
        if unlabelled and self.of_classes:
            self.frame = _LABELLED.get(self.frame, self.frame)

    def limit_of(self, section: Any) -> Observed:
        """The limit in the rule's section of params; None: it is off."""
        limit: Observed = section.limit
        return limit

    @property
    def expectations(self) -> tuple[Expectation, ...]:
        """The rule holds when all of them do."""
        return ((self.kind, self.arguments()),)

    def arguments(self) -> Arguments:
        """Of the expectation `kind`."""
        return self.given

    @property
    def exported(self) -> tuple[Expectation, ...]:
        """What stands for `expectations` in a suite over the whole manifest."""
        return () if self.frame == "seen" else self.expectations  # what ingest refused is not in the manifest

    @property
    def columns(self) -> list[str]:
        """The columns that the expectations look at, each once."""
        names: dict[str, None] = {}
        for kind, arguments in self.expectations:
            names |= dict.fromkeys(CHECKS[kind].columns if kind in CHECKS else ())
            for key in ("column", "column_A", "column_B", "column_list", "by"):
                value = arguments.get(key, ())
                for name in [value] if isinstance(value, str) else cast("list[str]", value):
                    names |= dict.fromkeys(_SEVERAL.get(name, (name,)))
        return list(names)

    def fault_of(self, number: int) -> str:
        """What is wrong where `number` offenders break the rule, or where `number` was observed and nobody is named."""
        text = re.sub(r"\[(.*?)\|(.*?)\]", r"\1" if number == 1 else r"\2", self.fault)
        limit = f"{self.limit:g}" if isinstance(self.limit, int | float) else str(self.limit)
        return text.replace("{n}", f"{number:,}").replace("{limit}", limit)

    def what_helps(self, labels: Sequence[str], frames: "Frames", mirroring: Sequence[str]) -> str:  # noqa: ARG002
        """The cure of the offenders, of which `labels` are classes.

        Args:
            mirroring: what to change in params so that training mirrors no picture.
        """
        return self.cure

    def can_accept(self, observed: Observed) -> bool:  # noqa: ARG002
        """Whether another limit is a way out where `observed` breaks this one."""
        return isinstance(self.limit, int | float)

    def held(self, offenders: pa.Table, frames: "Frames") -> "pd.DataFrame":  # noqa: ARG002
        """The files under two labels that keep the rule from holding; `offenders` have image_id and label."""
        return frames.files[:0]

    def spellings(self, labels: list[str], files: "pd.DataFrame") -> dict[str, str]:  # noqa: ARG002
        """What cures it by another spelling: each of the offending `labels` that is wrong, to the right one."""
        return {}


class FewOf(Rule):
    """A rule that at most the fraction `limit` of the rows may break."""

    kind = "ExpectColumnValuesToBeInSet"
    observe = "fraction"

    def arguments(self) -> Arguments:
        limit = self.limit
        assert isinstance(limit, int | float)
        # 1 - 0.35 is 0.65 and a little: a share that is exactly the limit is allowed
        return self.given | {"mostly": round(1 - limit, 12)}


class AtMost(Rule):
    """A rule whose expectation, one of ours, observes the figure that may be `limit` at most."""

    observe = "value"

    def arguments(self) -> Arguments:
        return self.given | {"max_value": self.limit}


def mask(column: "pd.Series[bool]") -> Mask:
    """(N,) of its own, where a missing value is no."""
    return column.to_numpy(dtype=bool, copy=True, na_value=False)


def numbered(column: "pd.Series[str]") -> tuple[Rows, list[str]]:
    """Each row's place among the different texts, and these texts, sorted; "" for a missing one."""
    import pandas as pd

    codes, found = pd.factorize(column, use_na_sentinel=True)
    texts = ["" if text is None else str(text) for text in found]
    if (codes < 0).any():
        if "" not in texts:
            texts.append("")
        codes = np.where(codes < 0, texts.index(""), codes)
    order = sorted(range(len(texts)), key=texts.__getitem__)
    place = np.zeros(len(texts), np.intp)
    place[order] = np.arange(len(texts))
    return place[codes] if len(texts) else codes, [texts[old] for old in order]


def tally(names: "list[str] | pd.Series[str]") -> str:
    """ "cc-by-nc-4.0 (12), unknown (3)": the most frequent first."""
    import pandas as pd

    counts = sorted(pd.Series(names, dtype="str").value_counts().items(), key=lambda item: (-item[1], str(item[0])))
    shown = [f"{str(value)[:60] or 'unknown'} ({count:,})" for value, count in counts[:_MAX_TALLIED]]
    rest = len(counts) - _MAX_TALLIED
    return ", ".join([*shown, f"and {rest} more"] if rest > 0 else shown)


def settle(image_id: str, file: str) -> str:
    """SETTLE for one picture."""
    return SETTLE.replace("{image_id}", short_id(image_id)).replace("{file}", csv_value(file))


def printable(text: str) -> str:
    """Names come from outside: what a terminal would obey is shown as a replacement sign."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def csv_value(text: str) -> str:
    """As a value of a CSV line, for a terminal."""
    doubled = printable(text).replace('"', '""')
    return f'"{doubled}"' if set(text) & set(',;"') else doubled
