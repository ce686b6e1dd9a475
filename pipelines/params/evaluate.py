"""How results are measured."""

from typing import Annotated, Literal

from pydantic import Field

from pipelines.params.base import Count, Section, Seed

Ensemble = Literal["mean", "vote", "weighted"]


class GoalParams(Section):
    metric: Literal["accuracy", "balanced_accuracy", "macro_f1"] = "accuracy"
    value: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """that the metric must reach before the model is used; null: the report gives no verdict"""
    coverage: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """share of pictures that the model must answer; below 1 the least sure are left to a person"""


class EvaluateParams(Section):
    seed: Seed = 42
    """of the parts that weights are checked on, of folds, and of labels that are drawn or flipped"""
    ensemble: Ensemble = "mean"
    """several members as one: the mean of their probabilities; the class most of them name; or a weighted mean, its
    weights fitted on pictures that no member learnt from"""
    bootstrap_resamples: Annotated[int, Field(ge=100, le=1_000_000)] = 2000
    """sets of labels that are drawn to say which calibration error chance alone would leave"""
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    """of every interval"""
    goal: GoalParams = GoalParams()
    wished_precision: Annotated[float, Field(gt=0.5, le=1.0)] = 0.95
    """fraction of the answers that should be right: the threshold of confidence that reaches it on validation pictures
    is fitted, and what it brings on test pictures is measured"""
    leak_repeats: Annotated[Count, Field(le=100)] = 5
    """random divisions that the leak premium is the mean of; 0 does not measure it"""
    map_mistakes: Count = 100
    """mistakes, the most confident first, that activation maps are made of: where the network sees the class that it
    named and the right one"""
    robustness_images: Count = 24
    """test pictures that are made worse in 35 ways: noise, blur, JPEG, brightness, occlusion, rotation and pen strokes,
    each in five strengths; 0 does not measure it"""
    learning_curve_repeats: Annotated[Count, Field(le=100)] = 1
    """random divisions into folds that the learning curve is the mean of; of many pictures fewer are used; 0 does not
    measure it"""
