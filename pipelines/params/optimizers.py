"""How weights move: optimisers, and their learning rate over the epochs."""

from typing import Annotated, Literal

from pydantic import Field

from pipelines.params.base import PositiveFloat, PositiveInt, Section

Decay = Annotated[float, Field(ge=0.0)]
Factor = Annotated[float, Field(gt=0.0, lt=1.0)]


class Sgd(Section):
    kind: Literal["sgd"] = "sgd"
    learning_rate: PositiveFloat = 0.01
    """the highest; schedules lower it"""
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    nesterov: bool = True
    weight_decay: Decay = 0.0005
    """of weights; never of norms and biases"""


class Adam(Section):
    kind: Literal["adam"] = "adam"
    learning_rate: PositiveFloat = 0.001
    weight_decay: Decay = 0.0
    """added to the gradient; never of norms and biases"""


class AdamW(Section):
    kind: Literal["adamw"] = "adamw"
    learning_rate: PositiveFloat = 0.001
    weight_decay: Decay = 0.05
    """apart from the gradient (Loshchilov and Hutter 2019); never of norms and biases"""


Optimizer = Annotated[Sgd | Adam | AdamW, Field(discriminator="kind")]


class Constant(Section):
    kind: Literal["constant"] = "constant"


class Step(Section):
    kind: Literal["step"] = "step"
    step_size: PositiveInt = 10
    gamma: Factor = 0.1
    """by which the learning rate is multiplied after each such span"""


class Cosine(Section):
    """Half a cosine, down to `min_lr_ratio` at the last step."""

    kind: Literal["cosine"] = "cosine"
    min_lr_ratio: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """share of the learning rate that is left at the end"""


class OneCycle(Section):
    """Smith and Topin 2018: up along half a cosine, then down to almost nothing."""

    kind: Literal["one_cycle"] = "one_cycle"
    pct_start: Factor = 0.25
    """share of the steps that go up; 0.3 is usual"""
    div_factor: Annotated[float, Field(gt=1.0)] = 25.0
    """the first step has the learning rate divided by this; 25 is usual"""


class Plateau(Section):
    """Lower whenever the metric of early_stopping has not improved."""

    kind: Literal["plateau"] = "plateau"
    factor: Factor = 0.1
    patience: PositiveInt = 5
    """epochs without a better one before each fall"""


Schedule = Annotated[Constant | Step | Cosine | OneCycle | Plateau, Field(discriminator="kind")]
