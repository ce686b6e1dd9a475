"""The rules on the pictures kept: size, format and quality of each, and how many are grey or transparent."""

from typing import Any, ClassVar

from pipelines.validate.rule import DROP, Arguments, Expectation, FewOf, Observe, Observed, Rule


class Formats(Rule):
    name = "formats"
    description = "every picture kept has an allowed format"
    fault = "{n} [picture has a format that is|pictures have formats that are] not allowed"
    cure = f"save it in another format, or add its format to validate.formats.allowed; {DROP}"
    frame = "pictures"
    kind = "ExpectColumnValuesToBeInSet"
    observe = "tally"
    drop = "its format"

    def limit_of(self, section: Any) -> Observed:
        return None if section.allowed is None else ", ".join(section.allowed)

    def arguments(self) -> Arguments:
        return {"column": "format", "value_set": list(self.section.allowed)}


class _Bound(Rule):
    """A limit of what every picture kept has in each of the columns `figures`: from below, or from above (`max`)."""

    cure = DROP
    frame = "pictures"
    kind = "ExpectColumnValuesToBeBetween"
    figures: ClassVar[tuple[str, ...]]
    observe: ClassVar[Observe] = "min"

    @property
    def expectations(self) -> tuple[Expectation, ...]:
        low, high = (self.limit, None) if self.observe == "min" else (None, self.limit)
        return tuple((self.kind, {"column": name, "min_value": low, "max_value": high}) for name in self.figures)


class MinSide(_Bound):
    name = "min_side"
    description = "the shorter side of every picture kept is long enough (pixels)"
    fault = "{n} [picture has|pictures have] a side of less than {limit} pixels"
    drop = "too small"
    figures = ("width", "height")


class MaxAspect(_Bound):
    name = "max_aspect"
    description = "no picture kept is too long and narrow (longer side over shorter side)"
    fault = "{n} [picture is|pictures are] long and narrow: longer over shorter side above {limit}"
    cure = f"{DROP}, or crop it in data/decisions/crop.csv and raise the limit"
    drop = "too narrow"
    figures = ("aspect",)
    observe = "max"


class MinBytesPerPixel(_Bound):
    name = "min_bytes_per_pixel"
    description = "no picture kept is compressed too far (bytes a pixel)"
    fault = "{n} [picture is|pictures are] compressed to less than {limit} bytes a pixel"
    drop = "compressed too far"
    figures = ("bytes_per_pixel",)


class MinContrast(_Bound):
    name = "min_contrast"
    description = "no picture kept is blank (standard deviation, grey levels)"
    fault = "{n} [picture is|pictures are] blank: standard deviation of grey levels below {limit}"
    drop = "blank"
    figures = ("contrast",)


class MinSharpness(_Bound):
    name = "min_sharpness"
    description = "no picture kept is blurred (variance of the Laplacian)"
    fault = "{n} [picture is|pictures are] blurred: variance of the Laplacian below {limit}"
    drop = "blurred"
    figures = ("sharpness",)


class MinBrightness(_Bound):
    name = "min_brightness"
    description = "no picture kept is too dark (mean, grey levels)"
    fault = "{n} [picture is|pictures are] too dark: mean grey level below {limit}"
    drop = "too dark"
    figures = ("brightness",)


class MaxBrightness(_Bound):
    name = "max_brightness"
    description = "no picture kept is too bright (mean, grey levels)"
    fault = "{n} [picture is|pictures are] too bright: mean grey level above {limit}"
    drop = "too bright"
    figures = ("brightness",)
    observe = "max"


class MinEntropy(_Bound):
    name = "min_entropy"
    description = "no picture kept is a few flat areas (entropy, bits)"
    fault = "{n} [picture is|pictures are] a few flat areas: entropy below {limit} bits"
    drop = "flat"
    figures = ("entropy",)


class MaxGreyscaleFraction(FewOf):
    name = "max_greyscale_fraction"
    description = "of all pictures kept, few are without colour"
    fault = "{n} [picture is|pictures are] without colour"
    cure = "collect pictures in colour, or set validate.max_greyscale_fraction.limit: null where grey is no fault"
    frame = "pictures"
    given: ClassVar[Arguments] = {"column": "greyscale", "value_set": [False]}
    drop = "without colour"


class MaxTransparentFraction(FewOf):
    name = "max_transparent_fraction"
    description = "of all pictures kept, few are transparent somewhere"
    fault = "{n} [picture is|pictures are] transparent somewhere"
    cure = "cut-outs are laid on white when they are packed: collect whole pictures, or raise the limit"
    frame = "pictures"
    given: ClassVar[Arguments] = {"column": "transparent", "value_set": [False]}
    drop = "transparent"


RULES = (
    Formats, MinSide, MaxAspect, MinBytesPerPixel, MinContrast, MinSharpness, MinBrightness, MaxBrightness, MinEntropy,
)  # fmt: skip
SHARES = (MaxGreyscaleFraction, MaxTransparentFraction)
