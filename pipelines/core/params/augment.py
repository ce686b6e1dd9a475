"""The packs that training reads, and what training may do to a picture."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipelines.core.params.base import Fraction, Name, PositiveInt, Section, Seed


class AugmentPolicy(Section):
    """Random changes, drawn anew for each picture and epoch. Zero switches a change off."""

    flip: Fraction
    """probability of a mirror image"""
    rotation: Annotated[float, Field(ge=0.0, le=180.0)]
    """largest turn either way, degrees"""
    shift: Annotated[float, Field(ge=0.0, le=0.5)]
    """largest shift either way, fraction of the side"""
    zoom: Annotated[float, Field(ge=0.0, le=0.9)]
    """largest change of size either way, fraction"""
    brightness: Fraction
    """largest change of brightness either way, fraction"""
    contrast: Fraction
    """largest change of contrast either way, fraction"""
    saturation: Fraction
    """largest change of saturation either way, fraction"""
    erase: Fraction
    """probability that a rectangle of 2 to 20 % of the picture is greyed out"""


class CopyParams(Section):
    """Fixed copies: changed once, packed, and trained on like pictures of their own."""

    share: Annotated[float, Field(gt=0.0, le=1.0)]
    """up to how many of the largest class's training pictures every class is filled"""
    policy: Name
    """one of the policies: what makes the copies"""


class AugmentParams(Section):
    image_size: Annotated[int, Field(ge=8, le=2048)]
    """side of the packed square pictures, pixels: the largest at which any recipe trains"""
    fit: Literal["letterbox", "crop", "stretch"]
    """how a picture becomes square: grey borders, its middle, or squeezed"""
    seed: Seed
    """of the draws of copies and of the preview; training draws from train.seed"""
    preview_images: PositiveInt
    """pictures shown in preview.png"""
    copies: CopyParams | None
    """fixed augmented copies for rare classes, evenly over their training pictures; null: none"""
    policies: dict[Name, AugmentPolicy]
    """by name; a recipe names the one it trains with"""

    @model_validator(mode="after")
    def _copies_have_a_policy(self) -> Self:
        if self.copies is not None and self.copies.policy not in self.policies:
            raise ValueError(
                f"copies.policy is {self.copies.policy!r}, which is none of the policies "
                f"({', '.join(self.policies) or 'there are none'}): name one of them"
            )
        return self
