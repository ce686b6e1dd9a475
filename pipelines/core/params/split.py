"""How pictures are divided into train, validation and test."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipelines.core.params.base import PositiveInt, Section, Seed

Share = Annotated[float, Field(gt=0.0, lt=1.0)]


class SplitParams(Section):
    seed: Seed
    method: Literal["exact", "stable"]
    """exact: best stratification of a fixed set; stable: by hash, so that growth never moves an old picture"""
    val_fraction: Share
    """of all pictures kept; unused when folds > 1"""
    test_fraction: Share
    """of all pictures kept"""
    folds: PositiveInt
    """1: one validation set; k > 1: stratified group k-fold over everything but the test set"""
    rare_classes: Literal["refuse", "train_only"]
    """a class too small for every subset: stop, or keep it in training only with a warning"""
    group_by: str | None
    """a manifest column whose equal values must stay on one side (a person, a site), besides duplicate groups"""

    @model_validator(mode="after")
    def _fractions_leave_room(self) -> Self:
        if self.folds == 1 and self.val_fraction + self.test_fraction >= 1.0:
            raise ValueError(
                f"val_fraction {self.val_fraction:g} + test_fraction {self.test_fraction:g} leave nothing "
                "to train on: their sum must be below 1; lower one of them"
            )
        return self
