"""What moves the weights: phases of a recipe, parameter groups, optimisers, learning-rate schedules, EMA."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pipelines.core.errors import InputError
from pipelines.params.optimizers import Adam, AdamW, Constant, Cosine, OneCycle, Plateau, Schedule, Sgd, Step
from pipelines.params.recipes import (
    FinetuneRecipe,
    LinearThenFinetuneRecipe,
    NetworkRecipe,
    PartialFinetuneRecipe,
    ScratchRecipe,
)

if TYPE_CHECKING:
    from timm.utils.model_ema import ModelEmaV3

Stages = Sequence[Sequence[nn.Module]]
"""a network's modules from the input to the head, see pipelines.train.models.stages"""
NORMS = (nn.modules.batchnorm._BatchNorm,)
ONE_CYCLE_END = 1e-4
"""share of the learning rate that one_cycle ends with"""
EMA_WARMUP = 9.0
"""the decay at update n is at most (1 + n) / (10 + n), so that a short training does not average its random start"""


# phases -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrainPhase:
    """Consecutive epochs with one optimiser.

    Args:
        first_epoch, last_epoch: both included, from 1.
        first_stage: of the network that is trained; those before it are frozen.
        learning_rate: the schedule's maximum.
        schedule, warmup_epochs: of the learning rate over these epochs.
    """

    first_epoch: int
    last_epoch: int
    first_stage: int
    learning_rate: float
    schedule: Schedule
    warmup_epochs: int

    def lr_at(self, epoch: int, step: int, *, epoch_steps: int) -> float:
        """The learning rate of step `step`, from 0, of `epoch`; of `plateau` without its reductions."""
        return self.learning_rate * lr_factor(
            (epoch - self.first_epoch) * epoch_steps + step,
            self.schedule,
            num_steps=(self.last_epoch - self.first_epoch + 1) * epoch_steps,
            epoch_steps=epoch_steps,
            warmup_steps=self.warmup_epochs * epoch_steps,
        )


def phases_of(recipe: NetworkRecipe, *, num_stages: int, where: str) -> list[TrainPhase]:
    """The phases of a recipe, in order.

    Args:
        num_stages: of its network, head included.
        where: the recipe's path in params.yaml, for messages.

    Raises:
        InputError: the recipe freezes more stages than the network has before its head.
    """
    rate, warmup = recipe.optimizer.learning_rate, recipe.warmup_epochs
    match recipe:
        case ScratchRecipe() | FinetuneRecipe():
            return [TrainPhase(1, recipe.epochs, 0, rate, recipe.schedule, warmup)]
        case PartialFinetuneRecipe():
            if recipe.freeze_stages >= num_stages:
                raise InputError(
                    f"{where}.freeze_stages is {recipe.freeze_stages}, but its network has {num_stages} stages, of "
                    f"which the last is the head: freeze at most {num_stages - 1}"
                )
            return [TrainPhase(1, recipe.epochs, recipe.freeze_stages, rate, recipe.schedule, warmup)]
        case LinearThenFinetuneRecipe():
            head = recipe.head_epochs
            return [
                TrainPhase(1, head, num_stages - 1, recipe.head_learning_rate, Constant(kind="constant"), 0),
                TrainPhase(head + 1, recipe.epochs, 0, rate, recipe.schedule, warmup),
            ]


def freeze(stages: Stages, *, first_stage: int) -> None:
    """Train the parameters of the stages from `first_stage` on, and freeze all others."""
    for number, modules in enumerate(stages):
        for module in modules:
            module.requires_grad_(number >= first_stage)


def set_training_mode(module: nn.Module, stages: Stages, *, first_stage: int, freeze_norms: bool) -> None:
    """Put the network into training mode, but frozen stages, and batch norms if `freeze_norms`, into eval mode."""
    module.train()
    for modules in stages[:first_stage]:
        for frozen in modules:
            frozen.eval()
    if freeze_norms:
        for part in module.modules():
            if isinstance(part, NORMS):
                part.eval()


def uses_batch_statistics(module: nn.Module, stages: Stages, *, first_stage: int, freeze_norms: bool) -> bool:
    """Whether any batch norm normalises by the batch while the stages from `first_stage` on are trained."""
    set_training_mode(module, stages, first_stage=first_stage, freeze_norms=freeze_norms)
    return any(isinstance(part, NORMS) and part.training for part in module.modules())


# optimisers ---------------------------------------------------------------------------------


def parameter_groups(stages: Stages, *, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
    """Group the trained parameters by stage and by weight decay, which norms and biases do not get.

    Args:
        weight_decay: of weights.
        layer_decay: factor of the learning rate from each stage to the one before; 1 for none.

    Returns:
        Groups as timm makes them, each with `params`, `weight_decay` and `lr_scale`.
    """
    groups: list[dict[str, Any]] = []
    for depth, modules in enumerate(reversed(stages)):
        trained = [p for module in modules for p in module.parameters() if p.requires_grad]
        for is_vector in (False, True):
            chosen = [p for p in trained if (p.ndim <= 1) == is_vector]
            decay = 0.0 if is_vector else weight_decay
            if chosen:
                groups.append({"params": chosen, "weight_decay": decay, "lr_scale": layer_decay**depth})
    return groups


def build_optimizer(params: Sgd | Adam | AdamW, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """torch's optimiser of that kind, with fused kernels where the device has them."""
    fused = all(p.device.type in ("cpu", "cuda") for group in groups for p in group["params"])
    match params:
        case Sgd():
            return torch.optim.SGD(
                groups, lr=params.learning_rate, momentum=params.momentum, nesterov=params.nesterov, fused=fused
            )
        case Adam():
            return torch.optim.Adam(groups, lr=params.learning_rate, fused=fused)
        case AdamW():
            return torch.optim.AdamW(groups, lr=params.learning_rate, fused=fused)


def start_phase(phase: TrainPhase, recipe: NetworkRecipe, stages: Stages) -> torch.optim.Optimizer:
    """Freeze the stages that `phase` does not train, and make its optimiser."""
    freeze(stages, first_stage=phase.first_stage)
    layer_decay = getattr(recipe, "layer_decay", 1.0)
    groups = parameter_groups(stages, weight_decay=recipe.optimizer.weight_decay, layer_decay=layer_decay)
    return build_optimizer(recipe.optimizer, groups)


# learning rates -----------------------------------------------------------------------------


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group `rate` times its `lr_scale`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]


def lr_factor(step: int, schedule: Schedule, *, num_steps: int, epoch_steps: int, warmup_steps: int) -> float:
    """The factor of the learning rate at one step, from 0 to 1.

    A function of the step, unlike torch's schedulers, so that resuming needs no state and groups keep their ratios.

    Args:
        step: from 0 to num_steps - 1.
        num_steps: of all epochs of the phase.
        epoch_steps: of one epoch.
        warmup_steps: in which the factor rises linearly; the schedule covers the rest.
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    step -= warmup_steps
    num_steps = max(1, num_steps - warmup_steps)
    match schedule:
        case Constant() | Plateau():
            return 1.0
        case Step():
            return float(schedule.gamma ** (step // (schedule.step_size * epoch_steps)))
        case Cosine():
            return _half_cosine(1.0, schedule.min_lr_ratio, step / num_steps)
        case OneCycle():
            top = schedule.pct_start * (num_steps - 1)
            if step < top:
                return _half_cosine(1.0 / schedule.div_factor, 1.0, step / top)
            return _half_cosine(1.0, ONE_CYCLE_END, (step - top) / max(1e-9, num_steps - 1 - top))


def _half_cosine(first: float, last: float, progress: float) -> float:
    """From `first` to `last` along half a cosine; `progress` from 0 to 1."""
    return last + (first - last) * 0.5 * (1.0 + math.cos(math.pi * progress))


# moving average -----------------------------------------------------------------------------


def build_ema(module: nn.Module, decay: float) -> "ModelEmaV3":
    """timm's moving average of the parameters; buffers are copied as they are."""
    from timm.utils.model_ema import ModelEmaV3

    return ModelEmaV3(
        module, decay=decay, use_warmup=True, warmup_gamma=EMA_WARMUP, warmup_power=1.0, exclude_buffers=True
    )


def update_ema(ema: "ModelEmaV3", module: nn.Module, *, num_updates: int) -> None:
    """Move the average towards `module`; `num_updates` counts this one."""
    # timm counts from 1, and its first two steps copy the weights
    ema.update(module, step=num_updates + 2)
