"""The packs that training reads, and what training may do to a picture."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from pipelines.params.base import Fraction, Name, PositiveInt, Section, Seed

ResizeMode = Literal["letterbox", "center_crop", "squash"]


class Blur(Section):
    probability: Fraction = 0.2
    sigma: Annotated[float, Field(gt=0.0, le=0.05)] = 0.01
    """largest standard deviation of the Gaussian, fraction of the side; the smallest is a quarter of it"""


class Jpeg(Section):
    probability: Fraction = 0.3
    quality: Annotated[int, Field(ge=1, le=95)] = 30
    """lowest of those drawn, which go up to 95"""


class RandAugment(Section):
    """Cubuk et al. 2020: some changes one after the other, all of one strength."""

    kind: Literal["randaugment"] = "randaugment"
    num_ops: Annotated[int, Field(ge=1, le=8)] = 2
    """changes of each picture; 2 is usual"""
    magnitude: Annotated[int, Field(ge=0, le=30)] = 9
    """their strength; 9 is usual"""


class TrivialAugment(Section):
    """Müller and Hutter 2021, the wide space: one change of any strength. Nothing to tune."""

    kind: Literal["trivialaugment"] = "trivialaugment"


class AugmentPolicy(Section):
    """Random changes, drawn anew for each picture and epoch.

    Zero switches a change off; of random_resized_crop it is 1, and of blur, jpeg and auto_augment null.
    """

    hflip: Fraction = 0.0
    """probability of a mirror image, left for right"""
    vflip: Fraction = 0.0
    """probability of one upside down"""
    degrees: Annotated[float, Field(ge=0.0, le=180.0)] = 0.0
    """largest turn either way, degrees"""
    translate: Annotated[float, Field(ge=0.0, le=0.5)] = 0.0
    """largest shift either way, fraction of the side"""
    scale: Annotated[float, Field(ge=0.0, le=0.9)] = 0.0
    """largest change of size either way, fraction"""
    shear: Annotated[float, Field(ge=0.0, le=60.0)] = 0.0
    """largest slant either way of each side, degrees"""
    perspective: Annotated[float, Field(ge=0.0, le=0.6)] = 0.0
    """largest move of each corner towards the middle, fraction of the way there; above 2/3 a picture may fold over"""
    random_resized_crop: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """smallest part that is cut out and made as large as the whole, share of the area; its shape is 3:4 to 4:3"""
    random_erasing: Fraction = 0.0
    """probability that a rectangle of 2 to 20 % of the picture is greyed out"""
    brightness: Fraction = 0.0
    """largest change of brightness either way, fraction"""
    contrast: Fraction = 0.0
    """largest change of contrast either way, fraction"""
    saturation: Fraction = 0.0
    """largest change of saturation either way, fraction"""
    hue: Annotated[float, Field(ge=0.0, le=0.5)] = 0.0
    """largest turn of the hue either way, fraction of the colour circle"""
    blur: Blur | None = None
    noise: Annotated[float, Field(ge=0.0, le=128.0)] = 0.0
    """largest standard deviation of Gaussian noise, grey levels"""
    jpeg: Jpeg | None = None
    """saved as a JPEG and read again"""
    scribble: Fraction = 0.0
    """probability of one to three strokes of a pen"""
    auto_augment: Annotated[RandAugment | TrivialAugment, Field(discriminator="kind")] | None = None

    @property
    def changes(self) -> dict[str, Any]:
        """What is switched on, by name."""
        return {name: value for name, value in self if value != type(self).model_fields[name].default}


def policy_of(**changes: Any) -> AugmentPolicy:
    """The policy that makes these changes and no others."""
    return AugmentPolicy.model_validate(changes)


def _builtin_policies() -> dict[str, AugmentPolicy]:
    from pipelines.params.builtin import builtins

    return {name: policy_of(**changes) for name, changes in builtins()["policies"].items()}


class CopyParams(Section):
    """Fixed copies: changed once, packed, and trained on like pictures of their own."""

    share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """up to how many of the largest class's training pictures every class is filled"""
    policy: Name = "standard"
    """one of the policies: what makes the copies"""


class AugmentParams(Section):
    image_size: Annotated[int, Field(ge=8, le=2048)] = 224
    """side of the packed square pictures, pixels: the largest at which any recipe trains"""
    resize_mode: ResizeMode = "letterbox"
    """how a picture becomes square: grey borders, its middle, or squeezed"""
    seed: Seed = 42
    """of the draws of copies and of the preview; training draws from train.seed"""
    preview_images: PositiveInt = 8
    """pictures shown in preview.png"""
    copies: CopyParams | None = None
    """fixed augmented copies for rare classes, evenly over their training pictures; null: none"""
    policies: dict[Name, AugmentPolicy] = Field(default_factory=_builtin_policies)
    """by name; a recipe names the one it trains with"""

    @model_validator(mode="after")
    def _copies_have_a_policy(self) -> Self:
        if self.copies is not None and self.copies.policy not in self.policies:
            raise ValueError(
                f"copies.policy is {self.copies.policy!r}, which is none of the policies "
                f"({', '.join(self.policies) or 'there are none'}): name one of them"
            )
        return self
