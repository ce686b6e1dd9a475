"""Which models are trained, and how. One recipe a member; a member is trained once per fold."""

import json
from typing import Annotated, Literal, Self

from pydantic import Field, TypeAdapter, model_validator

from pipelines.params.augment import AugmentPolicy
from pipelines.params.base import Count, Name, PositiveInt, Section, Seed, did_you_mean
from pipelines.params.recipes import LinearProbeRecipe, NetworkRecipe, Recipe, needs, too_small_parts

Tracker = Literal["dvclive", "wandb", "mlflow", "tensorboard"]


def _builtin_recipes() -> dict[str, Recipe]:
    from pipelines.params.builtin import builtins

    return TypeAdapter(dict[str, Recipe]).validate_json(json.dumps(builtins()["recipes"]))


class TrainParams(Section):
    seed: Seed = 42
    num_threads: PositiveInt = 2
    """CPU threads of torch: another number changes results in the last digits"""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    num_devices: PositiveInt = 1
    """GPUs (or processes on the CPU) that train one member together, started by torchrun"""
    deterministic: bool = True
    """false: on a GPU, kernels choose the fastest arithmetic; a repeated run differs in the last digits; recorded"""
    max_device_cache_bytes: Count = 4_294_967_296
    """packs up to this size lie in the device's memory; larger ones are streamed from the disk while it computes. No
    result depends on it"""
    trackers: tuple[Tracker, ...] = ()
    """experiment trackers to tell of every epoch, each an extra of this package; no result depends on them"""
    members: Annotated[tuple[Name, ...], Field(min_length=1)] = ("linear_probe",)
    """the recipes to train"""
    students: tuple[Name, ...] = ()
    """recipes to train after these: they begin with the weights of a member, or learn from some"""
    folds: Annotated[tuple[Count, ...], Field(min_length=1)] = (0,)
    """the folds to train on: 0 up to split.folds - 1"""
    recipes: dict[Name, Recipe] = Field(default_factory=_builtin_recipes)
    policies: dict[Name, AugmentPolicy | None] = Field(default_factory=dict, json_schema_extra={"readOnly": True})
    """by member the policy that its recipe names, null for a linear probe: not written by hand but filled in from
    augment.policies, so that DVC compares for each member the values that it trains with"""

    @property
    def all_members(self) -> tuple[str, ...]:
        """Members, then students: all whose predictions evaluate brings together."""
        return self.members + self.students

    @model_validator(mode="after")
    def _members_have_recipes(self) -> Self:
        for where, names in (("members", self.members), ("students", self.students)):
            for member in names:
                if member not in self.recipes:
                    from pipelines.params.builtin import builtins

                    raise ValueError(
                        f"{where} names {member!r}, which is neither built in nor among recipes "
                        f"({', '.join(self.recipes)}); add the recipe or drop it from {where}"
                        + did_you_mean(member, [*builtins()["recipes"], *self.recipes])
                    )
        for what, values in (
            ("members and students", self.all_members),
            ("folds", self.folds),
            ("trackers", self.trackers),
        ):
            if len(set(values)) != len(values):
                raise ValueError(f"{what} names something twice ({', '.join(map(str, values))}); each may stand once")
        return self

    @model_validator(mode="after")
    def _parts_are_large_enough(self) -> Self:
        for name, recipe in self.recipes.items():
            if not isinstance(recipe, LinearProbeRecipe) and (
                wrong := too_small_parts(recipe, num_devices=self.num_devices)
            ):
                raise ValueError(f"recipes.{name}: {wrong}")
        return self

    @model_validator(mode="after")
    def _teachers_come_first(self) -> Self:
        for member in self.members:
            if needs(self.recipes[member]):
                raise ValueError(
                    f"members names {member!r}, whose recipe needs {', '.join(needs(self.recipes[member]))} to be "
                    "trained before it: move it to students"
                )
        for student in self.students:
            recipe = self.recipes[student]
            for name in needs(recipe):
                if name not in self.members:
                    raise ValueError(
                        f"recipes.{student} needs {name!r}, which is not among members "
                        f"({', '.join(self.members)}); add it there"
                    )
                if self.recipes[name].target != recipe.target:
                    raise ValueError(
                        f"recipes.{student} tells {recipe.target} apart, and {name}, which it needs, "
                        f"{self.recipes[name].target}: give both the same target"
                    )
        return self


__all__ = ["LinearProbeRecipe", "NetworkRecipe", "Recipe", "TrainParams", "needs"]
