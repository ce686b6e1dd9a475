"""Which models are trained, and how. One recipe a member; a member is trained once per fold."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipelines.core.params.base import Count, Name, PositiveFloat, PositiveInt, Section, Seed


class LogisticHead(Section):
    """Multinomial logistic regression on cached features, fitted by L-BFGS to the optimum."""

    kind: Literal["logistic_regression"]
    inverse_strengths: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)]
    """values of C to try; the one with the best validation loss is kept"""
    views: Annotated[tuple[Literal["plain", "mirror"], ...], Field(min_length=1)]
    """pictures whose features are cached: as they are, mirrored"""


class FrozenRecipe(Section):
    """A pretrained backbone as it is; only a head is fitted, on features computed once."""

    tuning: Literal["frozen"]
    model: Literal["efficientnet_lite0"]
    weights: Literal["imagenet"]
    image_size: Annotated[int, Field(ge=32, le=1024)]
    """side of the pictures the backbone sees, pixels"""
    head: LogisticHead


class Sgd(Section):
    kind: Literal["sgd"]
    learning_rate: PositiveFloat
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)]
    nesterov: bool
    weight_decay: Annotated[float, Field(ge=0.0)]


class Adam(Section):
    kind: Literal["adam"]
    learning_rate: PositiveFloat
    weight_decay: Annotated[float, Field(ge=0.0)]


class ScratchRecipe(Section):
    """A network trained from random weights."""

    tuning: Literal["scratch"]
    model: Literal["resnet18"]
    image_size: Annotated[int, Field(ge=8, le=1024)]
    """side of the pictures the network sees, pixels"""
    stem: Literal["standard", "small"]
    """first layers: as published, or for pictures up to about 32 px, at full resolution and 16 times the work"""
    augmentation: Name
    """one of augment.policies"""
    optimizer: Annotated[Sgd | Adam, Field(discriminator="kind")]
    schedule: Literal["constant", "cosine"]
    warmup_epochs: Count
    epochs: PositiveInt
    batch_size: PositiveInt
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)]
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)]
    """before the last layer"""
    patience: PositiveInt
    """epochs without a better validation loss before training stops; the best epoch's weights are kept"""


Recipe = Annotated[FrozenRecipe | ScratchRecipe, Field(discriminator="tuning")]


class TrainParams(Section):
    seed: Seed
    num_threads: PositiveInt
    """CPU threads of torch: another number changes results in the last digits"""
    device: Literal["auto", "cpu", "cuda", "mps"]
    members: Annotated[tuple[Name, ...], Field(min_length=1)]
    """the recipes to train; evaluate averages their predictions"""
    folds: Annotated[tuple[Count, ...], Field(min_length=1)]
    """the folds to train on: 0 up to split.folds - 1"""
    recipes: dict[Name, Recipe]

    @model_validator(mode="after")
    def _members_have_recipes(self) -> Self:
        for member in self.members:
            if member not in self.recipes:
                raise ValueError(
                    f"members names {member!r}, which is not among recipes ({', '.join(self.recipes)}); "
                    "add the recipe or drop the member"
                )
        for what, values in (("members", self.members), ("folds", self.folds)):
            if len(set(values)) != len(values):
                raise ValueError(f"{what} names something twice ({', '.join(map(str, values))}); each may stand once")
        return self
