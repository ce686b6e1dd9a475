"""The rules as Great Expectations suites, run over the frames. With expectations.py the one that imports it.

And as one suite over dedupe's manifest, for teams that run it themselves.
"""

import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.core.errors import InputError
from pipelines.core.files import write_text
from pipelines.params.validate import Severity, ValidateParams
from pipelines.validate.drift_rules import read_reference
from pipelines.validate.frames import Frames
from pipelines.validate.rule import CHECKS, NO_ROWS, Arguments, Observed, Rows, Rule
from pipelines.validate.rules import build_rules

if TYPE_CHECKING:
    import pandas as pd


SEVERITIES: dict[Severity, str] = {"error": "critical", "warn": "warning"}
"""What Great Expectations calls them."""


@dataclass(frozen=True)
class Finding:
    """What the expectations of one rule found.

    Args:
        values: what each of them observed, by its column ("" where it has none); None where it observes nothing.
        rows: (R,) rows of the rule's frame that break it, ascending; none where it holds.
        labels: classes that break it.
    """

    success: bool
    values: dict[str, Observed]
    num_unexpected: int
    rows: Rows
    labels: tuple[str, ...]


def run_rules(rules: list[Rule], frames: Frames) -> dict[str, Finding]:
    """Run every rule; findings by name, in the order of `rules`.

    Raises:
        InputError: an expectation could not be computed.
    """
    found: dict[str, list[Any]] = {rule.name: [] for rule in rules}
    with quiet_libraries():
        context = _memory_context()
        for name in dict.fromkeys(rule.frame for rule in rules):
            asked = [rule for rule in rules if rule.frame == name]
            columns = list(dict.fromkeys(column for rule in asked for column in rule.columns))
            validator = _validator(context, name, getattr(frames, name)[columns])
            # rows are listed in a second look, at what is broken alone: lists of rows are what costs
            results = _validate(validator, asked, "BASIC")
            broken = {result.expectation_config.meta["rule"] for result in results if not result.success}
            again = [rule for rule in asked if rule.name in broken]
            if again:
                results = [one for one in results if one.expectation_config.meta["rule"] not in broken]
                results += _validate(validator, again, "COMPLETE")
            for result in results:
                found[result.expectation_config.meta["rule"]].append(result)
    return {rule.name: _finding(rule, found[rule.name]) for rule in rules}


def _validator(context: Any, name: str, frame: "pd.DataFrame") -> Any:
    """What validates `frame`. Batches of a data source would do too, but hash all of it each time: 5 s a million."""
    from great_expectations.execution_engine import PandasExecutionEngine
    from great_expectations.validator.validator import Validator

    return Validator(execution_engine=PandasExecutionEngine(batch_data_dict={name: frame}), data_context=context)


def _validate(validator: Any, rules: list[Rule], detail: str) -> list[Any]:
    held = [build_expectation(kind, arguments, rule) for rule in rules for kind, arguments in rule.expectations]
    # without unexpected_index_column_names rows come as numbers; with it, at 0.1 ms a row
    results: list[Any] = validator.graph_validate(
        configurations=[one.configuration for one in held],
        runtime_configuration={"result_format": {"result_format": detail}},
    )
    return results


def build_expectation(kind: str, arguments: Arguments, rule: Rule, **more: Any) -> Any:
    """One expectation object, ours or Great Expectations' own."""
    import great_expectations.expectations as gxe

    from pipelines.validate.expectations import EXPECTATIONS

    made = EXPECTATIONS[kind] if kind in EXPECTATIONS else getattr(gxe, kind)
    meta = {"rule": rule.name} | more.pop("meta", {})
    return made(**arguments, severity=SEVERITIES[rule.severity], meta=meta, **more)


def _finding(rule: Rule, results: list[Any]) -> Finding:
    """The outcomes of the expectations of one rule, merged."""
    values: dict[str, Observed] = {}
    rows, labels = NO_ROWS, []
    for result in results:
        raised = _cause(result.exception_info)
        if raised:
            raise InputError(
                f"rule {rule.name} could not be computed ({result.expectation_config.type}): {raised}; "
                "run `dvc repro --force dedupe`"
            )
        values[str(result.expectation_config.kwargs.get("column", ""))] = result.result.get("observed_value")
        if not result.success:
            rows = np.union1d(rows, np.array(result.result.get("unexpected_index_list", []), np.intp))
            labels += result.result.get("unexpected_labels", [])
    success = all(result.success for result in results)
    unexpected = max((result.result.get("unexpected_count", 0) for result in results), default=0)
    return Finding(success, values, unexpected, rows, tuple(dict.fromkeys(labels)))


def _cause(exception_info: Any) -> str:
    """The message in Great Expectations' account of an exception, which may lie one level down; "" without one."""
    parts = [exception_info, *exception_info.values()]
    return next(
        (part["exception_message"] or "" for part in parts if isinstance(part, dict) and part.get("raised_exception")),
        "",
    )


def _memory_context() -> Any:
    """A context that lives in memory, shows no progress bars and calls nobody."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    return context


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Hide what Great Expectations' own code does that Python will take away one day; nothing else."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "module 'sre_(constants|parse)' is deprecated", DeprecationWarning)
        yield


NOTES = [
    "Rules of miwake over data/dedupe/manifest.parquet, read with pandas: "
    "suite = great_expectations.ExpectationSuite(**json.load(open(FILE))).",
    "Expectations whose meta has `needs` are miwake's own: import that module before the suite is loaded, or write the "
    "suite with --plain, without them.",
    "Rules on what ingest refused are not here: the manifest does not hold these files.",
]


def suite_json(params: ValidateParams, *, cache: Path | None = None, plain: bool = False) -> dict[str, Any]:
    """The suite as Great Expectations writes it, without random ids: the same params give the same text.

    Args:
        cache: .miwake, where `drift_from` finds snapshots.
        plain: leave out the expectations that need miwake.

    Raises:
        InputError: `drift_from` names nothing.
    """
    reference = read_reference(params.drift_from, cache=cache) if params.drift_from is not None else None
    with quiet_libraries():
        import great_expectations as gx

        held = [
            build_expectation(kind, arguments, rule, **_more(rule, kind))
            for rule in build_rules(params, reference)
            for kind, arguments in rule.exported
            if not (plain and kind in CHECKS)
        ]
        suite = gx.ExpectationSuite(name="miwake manifest", expectations=held, notes=NOTES)
        found: dict[str, Any] = suite.to_json_dict()
    for config in (found, *found["expectations"]):
        config.pop("id", None)
    return found


def write_suite(params: ValidateParams, path: Path, *, cache: Path | None = None, plain: bool = False) -> int:
    """Write `suite_json` to `path`, whole or not at all; how many expectations it has."""
    found = suite_json(params, cache=cache, plain=plain)
    write_text(path, json.dumps(found, indent=2, ensure_ascii=False, sort_keys=True) + "\n")
    return len(found["expectations"])


def _more(rule: Rule, kind: str) -> dict[str, Any]:
    """What an expectation needs over the whole manifest: its pictures, and the module that knows it."""
    if kind in CHECKS:
        return {"meta": {"needs": "pipelines.validate.expectations"}}
    if rule.frame != "pictures":
        return {}
    from great_expectations.expectations.row_conditions import Column

    return {"row_condition": Column("verdict") == "keep"}
