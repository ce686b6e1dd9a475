"""The rules that pictures and labels must keep. `limit: null` switches a rule off."""

from typing import Annotated, Literal

from pydantic import Field

from pipelines.core.params.base import Fraction, PositiveFloat, PositiveInt, Section

Severity = Literal["error", "warn"]


class CountRule(Section):
    limit: PositiveInt | None
    severity: Severity


class FractionRule(Section):
    limit: Fraction | None
    severity: Severity


class RatioRule(Section):
    limit: PositiveFloat | None
    severity: Severity


class LicenseRule(Section):
    allowed: Annotated[tuple[Annotated[str, Field(max_length=300)], ...], Field(min_length=1)] | None
    """names such as `CC BY 4.0` in any spelling, or patterns: `CC0*`, `CC-BY-[0-9]*` (of any version), `CC-BY-*` (with
    NC, ND and SA too), `*` (any that is known); "" allows pictures whose licence is not known; null: not looked at"""
    severity: Severity


class ValidateParams(Section):
    min_classes: CountRule
    """classes with at least one picture kept"""
    min_images_per_class: CountRule
    max_imbalance: RatioRule
    """pictures of the largest class for one of the smallest"""
    min_side: CountRule
    """shorter side of a picture, pixels"""
    max_aspect: RatioRule
    """longer side over shorter side"""
    max_reject_fraction: FractionRule
    """files refused by ingest, of all files seen"""
    max_duplicate_fraction: FractionRule
    """copies and near copies, of all pictures"""
    max_conflict_fraction: FractionRule
    """pictures under two labels, of all pictures"""
    min_contrast: RatioRule
    """standard deviation of a picture's thumbnail, grey levels: below it the picture is blank"""
    label_look_alikes: Annotated[Literal["error", "warn", "off"], Field()]
    """labels that differ in case, spaces or punctuation alone, such as `Les Paul` and `lespaul`"""
    licenses: LicenseRule
    """of the pictures kept"""
    provenance: Annotated[Literal["error", "warn", "off"], Field()]
    """whether every picture kept must have a url or a page_url"""
