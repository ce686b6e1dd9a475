"""The rules as one Great Expectations suite over dedupe's manifest, for teams that run it themselves."""

import json
from pathlib import Path
from typing import Any

from pipelines.core.files import write_text
from pipelines.params.validate import ValidateParams
from pipelines.validate.drift import read_reference
from pipelines.validate.judges import JUDGES
from pipelines.validate.rule import Rule
from pipelines.validate.rules import build_rules
from pipelines.validate.suite import build_expectation, quiet_libraries

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
            for kind, arguments in (rule.expectations if rule.exported is None else rule.exported)
            if not (plain and kind in JUDGES)
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
    if kind in JUDGES:
        return {"meta": {"needs": "pipelines.validate.expectations"}}
    if rule.frame != "pictures":
        return {}
    from great_expectations.expectations.row_conditions import Column

    return {"row_condition": Column("verdict") == "keep"}
