"""How results are measured."""

from typing import Annotated

from pydantic import Field

from pipelines.core.params.base import Count, Fraction, Section, Seed


class EvaluateParams(Section):
    seed: Seed
    """of the bootstrap"""
    bootstrap_resamples: Annotated[int, Field(ge=100, le=1_000_000)]
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)]
    """of every interval"""
    suspect_confidence: Fraction
    """a picture whose own label gets less probability than 1 minus this, and another more than this, is a suspect"""
    leak_repeats: Annotated[Count, Field(le=100)]
    """random divisions that the leak premium is the mean of; 0 does not measure it"""
