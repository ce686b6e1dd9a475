"""The packs that training reads, and what training may do to a picture."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from pipelines.params.base import Fraction, Name, PositiveInt, Section, Seed


class Blur(Section):
    probability: Fraction
    sigma: Annotated[float, Field(gt=0.0, le=0.05)]
    """largest standard deviation of the Gaussian, fraction of the side; the smallest is a quarter of it"""


class Jpeg(Section):
    probability: Fraction
    quality: Annotated[int, Field(ge=1, le=95)]
    """lowest of those drawn, which go up to 95"""


class RandAugment(Section):
    """Cubuk et al. 2020: some changes one after the other, all of one strength."""

    kind: Literal["randaugment"]
    num_ops: Annotated[int, Field(ge=1, le=8)]
    """changes of each picture; 2 is usual"""
    magnitude: Annotated[int, Field(ge=0, le=30)]
    """their strength; 9 is usual"""


class TrivialAugment(Section):
    """Müller and Hutter 2021, the wide space: one change of any strength. Nothing to tune."""

    kind: Literal["trivialaugment"]


class AugmentPolicy(Section):
    """Random changes, drawn anew for each picture and epoch.

    Zero switches a change off; of random_resized_crop it is 1, and of blur, jpeg and auto_augment null.
    """

    hflip: Fraction
    """probability of a mirror image, left for right"""
    vflip: Fraction
    """probability of one upside down"""
    degrees: Annotated[float, Field(ge=0.0, le=180.0)]
    """largest turn either way, degrees"""
    translate: Annotated[float, Field(ge=0.0, le=0.5)]
    """largest shift either way, fraction of the side"""
    scale: Annotated[float, Field(ge=0.0, le=0.9)]
    """largest change of size either way, fraction"""
    shear: Annotated[float, Field(ge=0.0, le=60.0)]
    """largest slant either way of each side, degrees"""
    perspective: Annotated[float, Field(ge=0.0, le=0.6)]
    """largest move of each corner towards the middle, fraction of the way there; above 2/3 a picture may fold over"""
    random_resized_crop: Annotated[float, Field(gt=0.0, le=1.0)]
    """smallest part that is cut out and made as large as the whole, share of the area; its shape is 3:4 to 4:3"""
    random_erasing: Fraction
    """probability that a rectangle of 2 to 20 % of the picture is greyed out"""
    brightness: Fraction
    """largest change of brightness either way, fraction"""
    contrast: Fraction
    """largest change of contrast either way, fraction"""
    saturation: Fraction
    """largest change of saturation either way, fraction"""
    hue: Annotated[float, Field(ge=0.0, le=0.5)]
    """largest turn of the hue either way, fraction of the colour circle"""
    blur: Blur | None
    noise: Annotated[float, Field(ge=0.0, le=128.0)]
    """largest standard deviation of Gaussian noise, grey levels"""
    jpeg: Jpeg | None
    """saved as a JPEG and read again"""
    scribble: Fraction
    """probability of one to three strokes of a pen"""
    auto_augment: Annotated[RandAugment | TrivialAugment, Field(discriminator="kind")] | None


OFF: Mapping[str, float | None] = {
    name: None if name in ("blur", "jpeg", "auto_augment") else 1.0 if name == "random_resized_crop" else 0.0
    for name in AugmentPolicy.model_fields
}
"""the values that switch the changes of a policy off"""


def policy_of(**changes: Any) -> AugmentPolicy:
    """The policy that makes these changes and no others."""
    return AugmentPolicy.model_validate({**OFF, **changes})


class CopyParams(Section):
    """Fixed copies: changed once, packed, and trained on like pictures of their own."""

    share: Annotated[float, Field(gt=0.0, le=1.0)]
    """up to how many of the largest class's training pictures every class is filled"""
    policy: Name
    """one of the policies: what makes the copies"""


class AugmentParams(Section):
    image_size: Annotated[int, Field(ge=8, le=2048)]
    """side of the packed square pictures, pixels: the largest at which any recipe trains"""
    resize_mode: Literal["letterbox", "center_crop", "squash"]
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
