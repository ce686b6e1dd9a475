"""The stage: runs the rules, writes what came out, and stops the run where a rule of severity error is broken."""

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.core.errors import BrokenRulesError
from pipelines.core.files import empty_folder, write_json
from pipelines.core.params.validate import ValidateParams
from pipelines.validate.frames import Frames, read_frames
from pipelines.validate.origins import asks_for_origins
from pipelines.validate.rule import Limit, Rule
from pipelines.validate.rules import build_rules
from pipelines.validate.suite import broken_rows

if TYPE_CHECKING:
    import pandas as pd

MAX_OFFENDERS = 20
"""Offenders that expectations.json names for a rule."""

MAX_SHOWN = 5
"""Offenders that a message names for a rule."""


@dataclass(frozen=True)
class Outcome:
    """What became of one rule.

    Args:
        observed: the worst value, the figure of the run, the most frequent values among the offenders, or their number;
            None where there is no value.
        num_offenders: pictures, files or classes that break the rule.
        offenders: the first of them by label and path: image_id, label, source_path ("" for what it has not).
    """

    rule: Rule
    success: bool
    observed: Limit
    num_offenders: int
    offenders: list[dict[str, str]]


@dataclass(frozen=True)
class ValidateArtifact:
    """Where the outcome lies, and how many rules of each kind are broken."""

    expectations: Path
    num_rules: int
    num_errors: int
    num_warnings: int

    def __str__(self) -> str:
        broken = f", {self.num_warnings} broken with a warning" if self.num_warnings else ""
        return f"{self.num_rules - self.num_errors - self.num_warnings} of {self.num_rules} rules hold{broken}"


def validate(params: ValidateParams, *, manifest: Path, rejects: Path, out_dir: Path) -> ValidateArtifact:
    """Hold the manifest against the rules; expectations.json is written whether they hold or not.

    Args:
        manifest: dedupe's table, DEDUPED.
        rejects: ingest's rejected.csv.
        out_dir: emptied; gets expectations.json.

    Raises:
        BrokenRulesError: a rule of severity error is broken; lists each with offenders and cure.
        InputError: a file is missing, or not what its stage writes.
    """
    frames = read_frames(manifest, rejects, origins=asks_for_origins(params))
    rules = build_rules(params)
    broken = broken_rows(rules, frames)
    outcomes = [_outcome(rule, broken[rule.name], frames) for rule in rules]
    errors = [outcome for outcome in outcomes if not outcome.success and outcome.rule.severity == "error"]
    warned = [outcome for outcome in outcomes if not outcome.success and outcome.rule.severity == "warn"]
    artifact = ValidateArtifact(
        expectations=empty_folder(out_dir) / "expectations.json",
        num_rules=len(outcomes),
        num_errors=len(errors),
        num_warnings=len(warned),
    )
    write_json(artifact.expectations, _report(outcomes, artifact))
    for outcome in warned:
        print(f"validate: warning: {explain(outcome)}", file=sys.stderr)
    if errors:
        more = f" (all rules: {artifact.expectations})"
        head = f"{len(errors)} of {len(outcomes)} rules are broken and stop the run{more}:"
        raise BrokenRulesError("\n".join([head, *(explain(outcome) for outcome in errors)]))
    return artifact


def explain(outcome: Outcome) -> str:
    """A broken rule for a person: limit, observed value, first offenders, cure."""
    rule, first = outcome.rule, outcome.offenders[0] if outcome.offenders else {"image_id": "", "label": ""}
    limit = "" if rule.limit is None else f"limit {_shown(rule.limit)}, "
    observed = f"observed {_shown(outcome.observed)}; " if limit or rule.tally else ""
    shown = [_name(offender) for offender in outcome.offenders[:MAX_SHOWN]]
    rest = outcome.num_offenders - len(shown)
    names = ", ".join([*shown, f"and {rest} more"] if rest > 0 else shown)
    cure = rule.cure.replace("{image_id}", first["image_id"]).replace("{label}", repr(first["label"]))
    lines = [f"{rule.name}: {rule.description}; {limit}{observed}{outcome.num_offenders} broken"]
    lines += [f"    offenders: {names}"] if names else []
    return "\n".join([*lines, f"    what helps: {cure}"])


def _outcome(rule: Rule, rows: list[int] | None, frames: Frames) -> Outcome:
    frame: pd.DataFrame = getattr(frames, rule.frame)
    guilty = frame.iloc[rows or []]
    if rule.frame == "run":
        # a figure of the whole run: the files behind it are named, if it is too high
        guilty = frames.run.iloc[:0] if rule.offenders is None or rows is None else getattr(frames, rule.offenders)
    observed: Limit = len(guilty)
    if rule.worst is not None:
        column, end = rule.worst
        value = float(frame[column].min() if end == "min" else frame[column].max())
        observed = None if math.isnan(value) else int(value) if value.is_integer() else round(value, 6)
    if rule.tally is not None and len(guilty):
        observed = _most_frequent(guilty[rule.tally])
    named: list[dict[str, str]] = []
    if len(guilty):
        columns = ["image_id", "label", "source_path"]
        first = guilty[columns].fillna("").astype(str).sort_values(["label", "source_path", "image_id"])
        named = [dict(zip(columns, row, strict=True)) for row in first.head(MAX_OFFENDERS).itertuples(index=False)]
    return Outcome(rule, rows is None, observed, len(guilty), named)


def _most_frequent(column: "pd.Series[str]") -> str:
    """ "cc-by-nc-4.0 (12), unknown (3)"; the most frequent first."""
    counts = sorted(column.value_counts().items(), key=lambda item: (-item[1], str(item[0])))
    shown = [f"{str(value)[:60] or 'unknown'} ({count:,})" for value, count in counts[:MAX_SHOWN]]
    return ", ".join([*shown, f"and {len(counts) - MAX_SHOWN} more"] if len(counts) > MAX_SHOWN else shown)


def _report(outcomes: list[Outcome], artifact: ValidateArtifact) -> dict[str, object]:
    return {
        "success": artifact.num_errors == 0,
        "num_errors": artifact.num_errors,
        "num_warnings": artifact.num_warnings,
        "rules": [
            {
                "rule": outcome.rule.name,
                "description": outcome.rule.description,
                "severity": outcome.rule.severity,
                "success": outcome.success,
                "limit": outcome.rule.limit,
                "observed": outcome.observed,
                "num_offenders": outcome.num_offenders,
                "offenders": outcome.offenders,
            }
            for outcome in outcomes
        ],
    }


def _name(offender: dict[str, str]) -> str:
    return offender["source_path"] or repr(offender["label"])


def _shown(observed: Limit) -> str:
    return "nothing" if observed is None else f"{observed:g}" if isinstance(observed, int | float) else observed
