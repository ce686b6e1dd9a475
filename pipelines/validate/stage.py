"""The stage: runs the rules, writes what came out, and stops the run where a rule of severity error is broken."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.core.errors import BrokenRulesError, count
from pipelines.core.files import empty_folder, write_csv, write_json
from pipelines.params.validate import ValidateParams
from pipelines.validate.drift_rules import read_reference
from pipelines.validate.frames import NAMES, Frames, read_frames
from pipelines.validate.outcome import Outcome, explain, outcome_of
from pipelines.validate.rules import build_rules
from pipelines.validate.suggested_fixes import write_cures
from pipelines.validate.suite import run_rules


@dataclass(frozen=True)
class ValidateArtifact:
    """Where the outcome lies, and how many rules of each kind are broken."""

    expectations: Path
    offenders: Path
    num_rules: int
    num_errors: int
    num_warnings: int
    num_without_data: int

    @classmethod
    def of(cls, outcomes: list[Outcome], folder: Path) -> "ValidateArtifact":
        """What `outcomes` come to, in `folder`."""
        return cls(
            expectations=folder / "expectations.json",
            offenders=folder / "offenders.csv",
            num_rules=len(outcomes),
            num_errors=len(broken(outcomes, "error")),
            num_warnings=len(broken(outcomes, "warn")),
            num_without_data=sum(bool(outcome.no_data) for outcome in outcomes),
        )

    def __str__(self) -> str:
        errors = f", {self.num_errors:,} broken with an error" if self.num_errors else ""
        warned = f", {self.num_warnings:,} broken with a warning" if self.num_warnings else ""
        without = f", {self.num_without_data:,} without data" if self.num_without_data else ""
        held = self.num_rules - self.num_errors - self.num_warnings - self.num_without_data
        return (
            f"{held:,} of {count(self.num_rules, 'rule')} {'holds' if held == 1 else 'hold'}{errors}{warned}{without}"
        )


def validate(
    params: ValidateParams,
    *,
    manifest: Path,
    rejects: Path,
    out_dir: Path,
    cache: Path | None = None,
    unlabelled: str | None = None,
    mirroring: Sequence[str] = (),
) -> ValidateArtifact:
    """Hold the manifest against the rules; everything is written whether they hold or not.

    Args:
        manifest: dedupe's table, DEDUPED; duplicates.csv lies beside it.
        rejects: ingest's rejected.csv.
        out_dir: emptied; gets expectations.json (every rule with its first offenders), offenders.csv (every offender
            of a broken rule) and for broken rules cures/<rule>.{drop,relabel,keep}.csv (`suggested_fixes`).
        cache: .miwake, where `drift_from` finds snapshots; None: it names a path.
        unlabelled: split.unlabelled, the label of pictures that have none: it is no class.
        mirroring: what to change in params so that training mirrors no picture; stands in messages alone.

    Raises:
        BrokenRulesError: a rule of severity error is broken; lists each with offenders and cure.
        InputError: a file is missing, or not what its stage writes; `drift_from` names nothing.
    """
    outcomes, frames = look(
        params, manifest=manifest, rejects=rejects, cache=cache, unlabelled=unlabelled, mirroring=mirroring
    )
    errors, warned = broken(outcomes, "error"), broken(outcomes, "warn")
    folder = empty_folder(out_dir)
    artifact = ValidateArtifact.of(outcomes, folder)
    write_json(artifact.expectations, _report(outcomes, artifact))
    write_csv(artifact.offenders, ("rule", "severity", *NAMES), _offenders([*errors, *warned]))
    cures = write_cures(outcomes, frames, folder)
    for outcome in warned:
        print(f"validate: warning: {explain(outcome, cures.get(outcome.rule.name, []))}", file=sys.stderr)
    if errors:
        more = f" (all rules: {artifact.expectations})"
        break_it = "is broken and stops" if len(errors) == 1 else "are broken and stop"
        head = f"{len(errors)} of {count(len(outcomes), 'rule')} {break_it} the run{more}:"
        told = [explain(outcome, cures.get(outcome.rule.name, [])) for outcome in errors]
        raise BrokenRulesError("\n".join([head, *told]))
    return artifact


def look(
    params: ValidateParams,
    *,
    manifest: Path,
    rejects: Path,
    cache: Path | None = None,
    unlabelled: str | None = None,
    mirroring: Sequence[str] = (),
) -> tuple[list[Outcome], Frames]:
    """Hold the manifest against the rules and write nothing; arguments and errors as `validate`."""
    name = params.drift_from
    reference = read_reference(name, cache=cache, unlabelled=unlabelled) if name is not None else None
    rules = build_rules(params, reference, unlabelled=unlabelled is not None)
    frames = read_frames(manifest, rejects, rules, unlabelled=unlabelled)
    findings = run_rules(rules, frames)
    return [outcome_of(rule, findings[rule.name], frames, mirroring) for rule in rules], frames


def broken(outcomes: list[Outcome], severity: str) -> list[Outcome]:
    """Those that are broken and of this severity."""
    return [outcome for outcome in outcomes if not outcome.success and outcome.rule.severity == severity]


def _offenders(outcomes: list[Outcome]) -> Iterator[tuple[str, ...]]:
    for outcome in outcomes:
        columns = [outcome.offenders[name].to_pylist() for name in NAMES]
        for named in zip(*columns, strict=True):
            yield (outcome.rule.name, outcome.rule.severity, *named)


def _report(outcomes: list[Outcome], artifact: ValidateArtifact) -> dict[str, object]:
    return {
        "success": artifact.num_errors == 0,
        "num_errors": artifact.num_errors,
        "num_warnings": artifact.num_warnings,
        "rules": [outcome.entry() for outcome in outcomes],
    }
