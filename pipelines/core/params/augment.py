"""The packs that training reads, and what training may do to a picture."""

from typing import Annotated, Literal

from pydantic import Field

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


class AugmentParams(Section):
    image_size: Annotated[int, Field(ge=8, le=2048)]
    """side of the packed square pictures, pixels: the largest at which any recipe trains"""
    fit: Literal["letterbox", "crop", "stretch"]
    """how a picture becomes square: grey borders, its middle, or squeezed"""
    seed: Seed
    """of the preview's draws; training draws from train.seed"""
    preview_images: PositiveInt
    """pictures shown in preview.png"""
    policies: dict[Name, AugmentPolicy]
    """by name; a recipe names the one it trains with"""
