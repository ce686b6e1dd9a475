"""The rules on where pictures come from: their licences, and that they can be traced."""

from pipelines.core.licenses import canonical_license, license_regex
from pipelines.core.params.validate import ValidateParams
from pipelines.validate.rule import DROP, Arguments, Rule

Expectation = tuple[str, Arguments]


def asks_for_origins(params: ValidateParams) -> bool:
    """Whether a rule on licences or provenance is on."""
    return params.licenses.allowed is not None or params.provenance != "off"


def origin_rules(params: ValidateParams) -> list[Rule]:
    """Those of the two that are switched on."""
    rules = []
    allowed = params.licenses.allowed
    if allowed is not None:
        named: Expectation = ("ExpectColumnValuesToMatchRegex", {"column": "license", "regex": license_regex(allowed)})
        known: Expectation = ("ExpectColumnValuesToNotBeInSet", {"column": "license", "value_set": [""]})
        rules.append(
            Rule(
                "licenses",
                "every picture kept has an allowed licence",
                params.licenses.severity,
                ", ".join(name or "unknown" for name in allowed),
                "pictures",
                (named,) if any(canonical_license(name) == "" for name in allowed) else (named, known),
                "ask the source for these licences alone, or add them to validate.licenses.allowed "
                '("" allows unknown ones); ' + DROP.replace("{reason}", "its licence"),
                tally="license",
            )
        )
    if params.provenance != "off":
        rules.append(
            Rule(
                "provenance",
                "every picture kept has a url or a page_url",
                params.provenance,
                None,
                "pictures",
                (("ExpectColumnValuesToBeInSet", {"column": "traceable", "value_set": [True]}),),
                "take pictures from a source that says where they come from (a table with a URL or page_url_column, "
                "urls, crawl), or set validate.provenance: off; " + DROP.replace("{reason}", "from nowhere"),
                tally="source",
            )
        )
    return rules
