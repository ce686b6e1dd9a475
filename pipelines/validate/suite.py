"""The rules as Great Expectations suites, run over the frames. The one module that imports Great Expectations."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from pipelines.core.errors import InputError
from pipelines.validate.frames import Frames
from pipelines.validate.rule import Rule


def broken_rows(rules: list[Rule], frames: Frames) -> dict[str, list[int] | None]:
    """Run every rule; for each rule's name the rows of its frame that break it, sorted; None where it holds.

    Raises:
        InputError: an expectation could not be computed.
    """
    found: dict[str, list[int] | None] = {}
    with _quiet_libraries():
        context = _context()
        source = context.data_sources.add_pandas("miwake")
        for name in dict.fromkeys(rule.frame for rule in rules):
            asked = [rule for rule in rules if rule.frame == name]
            # numbered from 0, and only the columns that are asked for: Great Expectations hashes all it is given
            frame = getattr(frames, name)[_columns(asked)].reset_index(drop=True)
            suite = _suite(context, name, asked)
            batches = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
            report = batches.get_batch(batch_parameters={"dataframe": frame}).validate(
                # without unexpected_index_column_names rows come as numbers; with it, at 0.1 ms a row
                suite,
                result_format={"result_format": "COMPLETE"},
            )
            for result in report.results:
                rule = result.expectation_config.meta["rule"]
                _add(found, rule, result)
    return {rule.name: found[rule.name] for rule in rules}


def _add(found: dict[str, list[int] | None], rule: str, result: Any) -> None:
    """Merge the outcome of one expectation into that of its rule."""
    if result.success:
        found.setdefault(rule, None)
        return
    if "unexpected_index_list" not in result.result:
        raise InputError(
            f"rule {rule} could not be computed ({result.expectation_config.type}): {_cause(result.exception_info)}; "
            "run `dvc repro --force dedupe`"
        )
    new = {int(row) for row in result.result["unexpected_index_list"]}
    found[rule] = sorted(new.union(found.get(rule) or ()))


def _columns(rules: list[Rule]) -> list[str]:
    """The columns that the expectations of `rules` look at, each once."""
    names: dict[str, None] = {}
    for rule in rules:
        for _, arguments in rule.expectations:
            for key in ("column", "column_A", "column_B", "column_list"):
                value = arguments.get(key, ())
                names |= dict.fromkeys([value] if isinstance(value, str) else cast("list[str]", value))
    return list(names)


def _cause(exception_info: Any) -> str:
    """The message in Great Expectations' account of an exception, which may lie one level down."""
    parts = [exception_info, *exception_info.values()]
    return next(
        (part["exception_message"] for part in parts if isinstance(part, dict) and "exception_message" in part), ""
    )


def _suite(context: Any, name: str, rules: list[Rule]) -> Any:
    import great_expectations as gx
    import great_expectations.expectations as gxe

    suite = context.suites.add(gx.ExpectationSuite(name=name))
    for rule in rules:
        for kind, arguments in rule.expectations:
            suite.add_expectation(getattr(gxe, kind)(**arguments, meta={"rule": rule.name}))
    return suite


def _context() -> Any:
    """A context that lives in memory, shows no progress bars and calls nobody."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    return context


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Hide what Great Expectations' own code does that Python will take away one day; nothing else."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "module 'sre_(constants|parse)' is deprecated", DeprecationWarning)
        yield
