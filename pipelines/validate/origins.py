"""The rules on where pictures come from: licences, traces, subsets, and whether the origin gives the label away."""

from pipelines.params.validate import ValidateParams
from pipelines.validate.rule import DROP, Rule
from pipelines.validate.shares import few


def origin_rules(params: ValidateParams) -> list[Rule]:
    """Those that are switched on."""
    return [*_rights(params), *_given(params), *_associations(params)]


def _rights(params: ValidateParams) -> list[Rule]:
    rules = []
    allowed = params.licenses.allowed
    if allowed is not None:
        rules.append(
            Rule(
                "licenses",
                "every picture kept has an allowed licence",
                params.licenses.severity,
                ", ".join(name or "unknown" for name in allowed),
                "files",
                (("ExpectLicensesToBeAllowed", {"allowed": list(allowed)}),),
                "ask the source for these licences alone, or add them to validate.licenses.allowed "
                '("" allows unknown ones); ' + DROP.replace("{reason}", "its licence"),
                observe="value",
                drop="its licence",
            )
        )
    if params.provenance != "off":
        rules.append(
            Rule(
                "provenance",
                "every picture kept has a url or a page_url",
                params.provenance,
                None,
                "files",
                (("ExpectPicturesToBeTraceable", {}),),
                "take pictures from a source that says where they come from (a table with a URL or page_url_column, "
                "urls, crawl), or set validate.provenance: off; " + DROP.replace("{reason}", "from nowhere"),
                observe="value",
                drop="from nowhere",
            )
        )
    return rules


def _given(params: ValidateParams) -> list[Rule]:
    rule = params.max_unassigned_fraction
    if rule.limit is None:
        return []
    return [
        Rule(
            "max_unassigned_fraction",
            "of all pictures kept, few are in no subset that their source gives",
            rule.severity,
            rule.limit,
            "pictures",
            (few("ExpectColumnValuesToNotBeInSet", "given_subset", [""], rule.limit),),
            "name the column that says train, val or test (subset_column of a table), or divide the pictures by "
            "another split.method and set validate.max_unassigned_fraction.limit: null; "
            + DROP.replace("{reason}", "in no subset"),
            observe="fraction",
            drop="in no subset",
        )
    ]


def _associations(params: ValidateParams) -> list[Rule]:
    rules = []
    for by in ("source", "host"):
        rule = getattr(params, f"max_{by}_association")
        if rule.limit is not None:
            rules.append(
                Rule(
                    f"max_{by}_association",
                    f"the {by} of a picture kept does not give its label away (Cramér's V)",
                    rule.severity,
                    rule.limit,
                    "files",
                    (("ExpectLabelsNotToFollowOrigins", {"by": by, "max_value": rule.limit}),),
                    f"take pictures of {{label}} from the {by}s of the other classes too, or theirs from its own: else "
                    f"a model may learn what the {by} looks like",
                    observe="value",
                    no_data=f"fewer than two {by}s are known",
                )
            )
    return rules
