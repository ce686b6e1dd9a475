"""What became of one rule: the figure observed, the offenders by name, and what a person reads."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa

from pipelines.core.tables import short_id
from pipelines.validate.frames import NAMES, Frames
from pipelines.validate.rule import Observed, Rule, csv_value, printable, tally
from pipelines.validate.suite import Finding

if TYPE_CHECKING:
    import pandas as pd

MAX_OFFENDERS = 20
"""Offenders that expectations.json names for a rule; offenders.csv names all."""

MAX_SHOWN = 5
"""Offenders that a message names for a rule."""


@dataclass(frozen=True)
class Outcome:
    """What became of one rule.

    Args:
        observed: see `Rule.observe`; None where there is no value.
        offenders: pictures, files or classes that break the rule, each with image_id, label and source_path ("" for
            what it has not): files by label and path, classes in the order in which they are to be looked at.
        reasons: of offenders that ingest refused, the most frequent first; else "".
        refused: classes among the offenders of which ingest accepted no file, with the reasons.
        cure: what a person can do, as `Rule.cure`.
    """

    rule: Rule
    success: bool
    observed: Observed
    offenders: pa.Table
    reasons: str = ""
    refused: dict[str, str] = field(default_factory=dict)
    cure: str = ""

    @property
    def first(self) -> list[dict[str, str]]:
        """The first MAX_OFFENDERS offenders."""
        found: list[dict[str, str]] = self.offenders.slice(0, MAX_OFFENDERS).to_pylist()
        return found

    @property
    def no_data(self) -> str:
        """Why the rule holds although nothing was observed; else ""."""
        return f"no data: {self.rule.no_data}" if self.success and self.observed is None else ""

    @property
    def fault(self) -> str:
        """What is wrong, in a few words; "" where the rule holds."""
        if self.success:
            return ""
        only = self.observed if isinstance(self.observed, int) else 0
        return self.rule.fault_of(self.offenders.num_rows or only)

    def entry(self) -> dict[str, object]:
        """As expectations.json has it; the fault names the classes that break the rule."""
        labels = [one["label"] for one in self.first[:MAX_SHOWN] if not one["source_path"]]
        more = self.offenders.num_rows - len(labels)
        named = f": {', '.join(labels)}{f' and {more:,} more' if more else ''}" if self.fault and labels else ""
        return {
            "rule": self.rule.name,
            "description": self.rule.description,
            "severity": self.rule.severity,
            "success": self.success,
            "fault": self.fault + named,
            "no_data": self.no_data,
            "limit": self.rule.limit,
            "observed": self.observed,
            "num_offenders": self.offenders.num_rows,
            "offenders": self.first,
        }


def outcome_of(rule: Rule, finding: Finding, frames: Frames, mirroring: Sequence[str] = ()) -> Outcome:
    """Name the offenders of `rule` and settle what is reported.

    Args:
        mirroring: what to change in params so that training mirrors no picture.
    """
    frame: pd.DataFrame = getattr(frames, rule.frame)
    reasons = tally(frame["reason"].iloc[finding.rows]) if rule.frame == "seen" else ""
    if finding.labels:
        offenders = _named(["" for _ in finding.labels], list(finding.labels), ["" for _ in finding.labels])
    else:
        guilty = frame.iloc[finding.rows]
        offenders = _named(*(guilty[name].fillna("").astype("str") for name in NAMES))
        offenders = offenders.sort_by([(name, "ascending") for name in ("label", "source_path", "image_id")])
    lost = frames.refused_classes if rule.frame == "classes" else {}
    refused = {label: why for label, why in lost.items() if label in finding.labels}
    cure = rule.cure if finding.success else rule.what_helps(finding.labels, frames, mirroring)
    return Outcome(rule, finding.success, _observed(rule, finding, frame), offenders, reasons, refused, cure)


def explain(outcome: Outcome, cures: list[str]) -> str:
    """A broken rule for a person: limit, observed value, first offenders, what helps.

    Args:
        cures: lines on ready decisions.
    """
    rule, shown = outcome.rule, outcome.first[:MAX_SHOWN]
    cured = [one for one in outcome.first if one["label"] not in outcome.refused]
    first = cured[0] if cured else dict.fromkeys(NAMES, "")
    limit = "" if rule.limit is None else f"limit {_shown(rule.limit)}, "
    observed = f"observed {_shown(outcome.observed)}" if limit or rule.observe != "count" else ""
    rest = outcome.offenders.num_rows - len(shown)
    names = ", ".join([*map(_name, shown), f"and {rest:,} more"] if rest > 0 else map(_name, shown))
    cure = outcome.cure.replace("{reason}", rule.drop).replace("{reasons}", outcome.reasons)
    cure = cure.replace("{image_id}", short_id(first["image_id"]))
    cure = cure.replace("{label}", repr(first["label"])).replace("{file}", csv_value(first["source_path"]))
    lines = ["; ".join(part for part in (f"{rule.name}: {outcome.fault}", limit + observed) if part)]
    lines += [f"    offenders: {names}"] if names else []
    if outcome.refused:
        named = [f"{label!r} ({why})" for label, why in list(outcome.refused.items())[:MAX_SHOWN]]
        rest = len(outcome.refused) - len(named)
        lines.append(
            f"    what helps: no file could be used of {', '.join(named)}{f' and {rest:,} more' if rest else ''}; "
            "data/ingest/rejected.csv names each: mend these files or put others there, and read them under a new "
            "ingest.snapshot; or take the class out of the source"
        )
    if len(outcome.refused) < max(outcome.offenders.num_rows, 1):
        lines.append(f"    what helps: {cure}")
    lines += [f"    {line}" for line in cures]
    if rule.can_accept(outcome.observed):
        change = "lower" if rule.name.startswith("min_") else "raise"
        lines.append(f"    to accept it: {change} validate.{rule.name}.limit in params.yaml")
    return "\n".join(lines)


def _observed(rule: Rule, finding: Finding, frame: "pd.DataFrame") -> Observed:
    match rule.observe:
        case "fraction":
            return _number(finding.num_unexpected / max(len(frame), 1))
        case "min":
            return _number(float(frame[rule.columns].min().min()))
        case "max":
            return _number(float(frame[rule.columns].max().max()))
        case "tally":
            return tally(frame[rule.columns[0]].iloc[finding.rows]) if len(finding.rows) else 0
        case "value":
            return _worst(finding.values)
        case _:
            return len(finding.labels) or len(finding.rows)


def _worst(values: dict[str, Observed]) -> Observed:
    """The only value, or of several named figures the largest three: "sharpness 0.4, entropy 0.1"."""
    if len(values) == 1:
        value = next(iter(values.values()))
        return _number(value) if isinstance(value, int | float) else value
    numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
    ordered = sorted(numbers.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {value:.3g}" for name, value in ordered[:3]) or None


def _number(value: float) -> Observed:
    return None if math.isnan(value) else int(value) if float(value).is_integer() else round(value, 6)


def _named(image_id: object, label: object, source_path: object) -> pa.Table:
    columns = dict(zip(NAMES, (image_id, label, source_path), strict=True))
    return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})


def _name(offender: dict[str, str]) -> str:
    path = printable(offender["source_path"])
    return path or repr(offender["label"])


def _shown(observed: Observed) -> str:
    return "nothing" if observed is None else f"{observed:g}" if isinstance(observed, int | float) else observed
