"""The rules that judge single pictures: size, format, quality."""

from dataclasses import dataclass
from typing import Literal

from pipelines.params.validate import ValidateParams
from pipelines.validate.rule import DROP, Expectation, Observed, Rule, between


@dataclass(frozen=True)
class _Bound:
    """A limit of a figure that every picture kept has.

    Args:
        name: in params.
        columns: each picture's value in all of them must keep the limit.
        description, drop: see Rule.
        more: what else helps.
    """

    name: str
    columns: tuple[str, ...]
    description: str
    drop: str
    more: str = ""

    @property
    def end(self) -> Literal["min", "max"]:
        return "min" if self.name.startswith("min_") else "max"


_BOUNDS = (
    _Bound(
        "min_side",
        ("width", "height"),
        "the shorter side of every picture kept is long enough (pixels)",
        "too small",
    ),
    _Bound(
        "max_aspect",
        ("aspect",),
        "no picture kept is too long and narrow (longer side over shorter side)",
        "too narrow",
        ", or crop it in data/decisions/crop.csv and raise the limit",
    ),
    _Bound(
        "min_bytes_per_pixel",
        ("bytes_per_pixel",),
        "no picture kept is compressed too far (bytes a pixel)",
        "compressed too far",
    ),
    _Bound("min_contrast", ("contrast",), "no picture kept is blank (standard deviation, grey levels)", "blank"),
    _Bound("min_sharpness", ("sharpness",), "no picture kept is blurred (variance of the Laplacian)", "blurred"),
    _Bound("min_brightness", ("brightness",), "no picture kept is too dark (mean, grey levels)", "too dark"),
    _Bound("max_brightness", ("brightness",), "no picture kept is too bright (mean, grey levels)", "too bright"),
    _Bound("min_entropy", ("entropy",), "no picture kept is a few flat areas (entropy, bits)", "flat"),
)


def picture_rules(params: ValidateParams) -> list[Rule]:
    """Those that are switched on."""
    rules = []
    formats = params.formats.allowed
    if formats is not None:
        held: Expectation = ("ExpectColumnValuesToBeInSet", {"column": "format", "value_set": list(formats)})
        rules.append(
            Rule(
                "formats",
                "every picture kept has an allowed format",
                params.formats.severity,
                ", ".join(formats),
                "pictures",
                (held,),
                "save it in another format, or add its format to validate.formats.allowed; "
                + DROP.replace("{reason}", "its format"),
                observe="tally",
                tally="format",
                drop="its format",
            )
        )
    for bound in _BOUNDS:
        rule = getattr(params, bound.name)
        if rule.limit is not None:
            rules.append(
                Rule(
                    bound.name,
                    bound.description,
                    rule.severity,
                    rule.limit,
                    "pictures",
                    _held(bound, rule.limit),
                    DROP.replace("{reason}", bound.drop) + bound.more,
                    observe=bound.end,
                    drop=bound.drop,
                )
            )
    return rules


def _held(bound: _Bound, limit: Observed) -> tuple[Expectation, ...]:
    low, high = (limit, None) if bound.end == "min" else (None, limit)
    return tuple(one for column in bound.columns for one in between(column, minimum=low, maximum=high))
