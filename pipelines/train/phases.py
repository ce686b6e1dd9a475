"""The parts of a training: which stages of the network learn in which epochs, at which rate."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from pipelines.core.errors import InputError
from pipelines.params.optimizers import Constant, Schedule
from pipelines.params.recipes import (
    FinetuneRecipe,
    LinearThenFinetuneRecipe,
    NetworkRecipe,
    PartialFinetuneRecipe,
    ScratchRecipe,
)

Stages = Sequence[Sequence[nn.Module]]
NORMS = (nn.modules.batchnorm._BatchNorm,)


@dataclass(frozen=True)
class Phase:
    """Epochs with one optimiser.

    Args:
        first_epoch, last_epoch: both included, from 1.
        first_stage: of the network that learns; those before it stay as they are.
        rate: the highest learning rate.
        schedule, warmup_epochs: of the rate over these epochs.
    """

    first_epoch: int
    last_epoch: int
    first_stage: int
    rate: float
    schedule: Schedule
    warmup_epochs: int

    @property
    def num_epochs(self) -> int:
        return self.last_epoch - self.first_epoch + 1


def phases_of(recipe: NetworkRecipe, *, num_stages: int, where: str) -> list[Phase]:
    """The phases of a recipe, in order.

    Args:
        num_stages: of its network, head included.
        where: the recipe's path in params.yaml, for messages.

    Raises:
        InputError: more stages are to stay frozen than there are.
    """
    rate = recipe.optimizer.learning_rate
    match recipe:
        case ScratchRecipe() | FinetuneRecipe():
            return [Phase(1, recipe.epochs, 0, rate, recipe.schedule, recipe.warmup_epochs)]
        case PartialFinetuneRecipe():
            if recipe.freeze_stages >= num_stages:
                raise InputError(
                    f"{where}.freeze_stages is {recipe.freeze_stages}, but its network has {num_stages} stages, of "
                    f"which the last is the head: freeze at most {num_stages - 1}"
                )
            return [Phase(1, recipe.epochs, recipe.freeze_stages, rate, recipe.schedule, recipe.warmup_epochs)]
        case LinearThenFinetuneRecipe():
            head = recipe.head_epochs
            return [
                Phase(1, head, num_stages - 1, recipe.head_learning_rate, Constant(kind="constant"), 0),
                Phase(head + 1, recipe.epochs, 0, rate, recipe.schedule, recipe.warmup_epochs),
            ]


def freeze(stages: Stages, *, first_stage: int) -> None:
    """Let the stages from `first_stage` on learn, and no other."""
    for number, modules in enumerate(stages):
        for module in modules:
            module.requires_grad_(number >= first_stage)


def set_training_mode(module: nn.Module, stages: Stages, *, first_stage: int, freeze_norms: bool) -> None:
    """Training mode but for frozen stages, whose statistics and dropout stay as in use, and for frozen norms."""
    module.train()
    for modules in stages[:first_stage]:
        for frozen in modules:
            frozen.eval()
    if freeze_norms:
        for part in module.modules():
            if isinstance(part, NORMS):
                part.eval()


def learns_norms(module: nn.Module, stages: Stages, *, first_stage: int, freeze_norms: bool) -> bool:
    """Whether any batch norm normalises by the pictures of a step once the stages from `first_stage` on learn."""
    set_training_mode(module, stages, first_stage=first_stage, freeze_norms=freeze_norms)
    return any(isinstance(part, NORMS) and part.training for part in module.modules())
