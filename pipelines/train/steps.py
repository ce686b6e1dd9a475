"""One epoch: pictures in, weights moved. Nothing here waits for the device before the epoch ends."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from pipelines.augmentation.applying import apply
from pipelines.augmentation.packs import Rows
from pipelines.augmentation.random import Keys
from pipelines.augmentation.sampling import draw
from pipelines.core.errors import TrainingError
from pipelines.params.augment import AugmentPolicy
from pipelines.params.recipes import NetworkRecipe
from pipelines.train.convolutions import quick_convolutions
from pipelines.train.examples import Examples
from pipelines.train.feeding import Feed
from pipelines.train.judging import Eye
from pipelines.train.losses import class_weights, distillation_losses, losses
from pipelines.train.mixing import draw_mixture, mix, mix_labels
from pipelines.train.order import balanced, batches, count_turns, turn_keys
from pipelines.train.pictures import to_float, to_input
from pipelines.train.precision import arithmetic
from pipelines.train.processes import Processes
from pipelines.train.run import Run
from pipelines.train.teaching import Teachers, resize_on_device


@dataclass(frozen=True)
class Lesson:
    """All that an epoch needs and does not change.

    Args:
        recipe, policy: of the training.
        examples: N pictures.
        feed: of them, at `size`.
        labels, weights: (N,) of the examples, on the device; class weights are in the weights.
        teachers: of a distillation.
        eye: how pictures reach the network.
        seed: of the draws.
        processes: that share each batch.
        smallest_part: pictures that each part of a process's share must hold.
    """

    recipe: NetworkRecipe
    policy: AugmentPolicy
    examples: Examples
    feed: Feed
    labels: torch.Tensor
    weights: torch.Tensor
    teachers: Teachers | None
    eye: Eye
    seed: int
    processes: Processes
    smallest_part: int

    @property
    def smallest_batch(self) -> int:
        """Pictures that a step must have."""
        return self.smallest_part * self.processes.count

    def num_parts(self, wanted: int, *, batch_size: int) -> int:
        """That each process computes its share of a step in, the same of all: `wanted`, or as many as it fills."""
        return min(wanted, max(1, batch_size // self.smallest_batch))


def lesson_weights(recipe: NetworkRecipe, examples: Examples) -> torch.Tensor:
    """(N,) float32: what each picture's loss counts."""
    weights = torch.from_numpy(examples.weights)
    if recipe.class_balance != "loss_weights":
        return weights
    return weights * class_weights(examples.labels, len(examples.classes))[torch.from_numpy(examples.labels)]


def num_steps(lesson: Lesson) -> int:
    """Of an epoch."""
    keys = np.arange(len(lesson.examples)).astype(np.uint64)
    size = lesson.recipe.batch_size
    return len(batches(keys, seed=0, epoch=0, batch_size=size, smallest=lesson.smallest_batch))


def train_epoch(
    run: Run, trained: nn.Module, lesson: Lesson, *, rate_of: Callable[[int], float], advance: Callable[[int], None]
) -> tuple[float, float, float]:
    """One pass over the pictures.

    Args:
        trained: run.module, as it is stepped: compiled, or shared with other processes.
        rate_of: the learning rate of each of the epoch's steps.
        advance: is told of pictures that were used.

    Returns:
        Mean loss and accuracy, both as augmented (and mixed), and the last learning rate.

    Raises:
        TrainingError: the loss is no longer a number, or memory runs out whatever the parts.
    """
    examples, processes = lesson.examples, lesson.processes
    # dropout draws from here: an epoch repeats without the ones before it
    torch.manual_seed(lesson.seed * 100_003 + run.epoch * processes.count + processes.rank)
    chosen, keys = _epoch_order(lesson, run.epoch)
    size = lesson.recipe.batch_size
    parts = batches(keys, seed=lesson.seed, epoch=run.epoch, batch_size=size, smallest=lesson.smallest_batch)
    mine = [processes.share(part) for part in parts]
    rates, sums = [], []
    for number, pixels in enumerate(lesson.feed.batches([chosen[part] for part in mine])):
        rates.append(rate_of(number))
        run.optimizer.set_learning_rate(rates[-1])
        part = mine[number]
        sums.append(_step(run, trained, lesson, pixels, chosen[part], keys[part], batch_size=len(parts[number])))
        advance(len(parts[number]))
    totals = processes.add(torch.stack(sums)).cpu()  # (steps, 3)
    _check_losses(totals[:, 0], epoch=run.epoch, rates=rates)
    loss, right, weight = totals.sum(dim=0).tolist()
    return loss / max(weight, 1e-12), right / len(examples), rates[-1]


def _epoch_order(lesson: Lesson, epoch: int) -> tuple[Rows, Keys]:
    """(N,) positions among the examples, and the keys that each is drawn under."""
    examples = lesson.examples
    if lesson.recipe.class_balance != "oversampling":
        return np.arange(len(examples)), examples.keys
    chosen = balanced(examples.labels, examples.keys, seed=lesson.seed, epoch=epoch)
    return chosen, turn_keys(examples.keys[chosen], count_turns(chosen))


def _step(
    run: Run, trained: nn.Module, lesson: Lesson, pixels: torch.Tensor, chosen: Rows, keys: Keys, *, batch_size: int
) -> torch.Tensor:
    """Move the weights once; (3,) float64 on the device: this process's sum of losses, right ones, and weight.

    Where memory runs out, the batch is computed in twice as many parts, from then on.
    """
    while True:
        try:
            return _try_step(run, trained, lesson, pixels, chosen, keys, batch_size=batch_size)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
                raise
            parts = lesson.num_parts(run.grad_accum_steps, batch_size=batch_size)
            more = lesson.num_parts(2 * parts, batch_size=batch_size)
            if more == parts or lesson.processes.count > 1:
                raise TrainingError(
                    f"{lesson.eye.device} has no memory for {len(chosen)} pictures of {lesson.recipe.image_size} px in "
                    f"{parts} parts: lower image_size or batch_size, raise grad_accum_steps, or take a smaller model"
                ) from error
            run.grad_accum_steps = more
            print(
                f"epoch {run.epoch}: out of memory; batches of {lesson.recipe.batch_size} are computed in "
                f"{run.grad_accum_steps} parts from here on",
                flush=True,
            )
        run.optimizer.zero_grad()
        if lesson.eye.device.type == "cuda":
            torch.cuda.empty_cache()


def _try_step(
    run: Run, trained: nn.Module, lesson: Lesson, pixels: torch.Tensor, chosen: Rows, keys: Keys, *, batch_size: int
) -> torch.Tensor:
    run.optimizer.zero_grad()
    pieces = np.array_split(np.arange(len(chosen)), lesson.num_parts(run.grad_accum_steps, batch_size=batch_size))
    sums = torch.zeros(3, dtype=torch.float64, device=pixels.device)
    for number, piece in enumerate(pieces):
        begin, end = int(piece[0]), int(piece[-1]) + 1
        last = number == len(pieces) - 1
        # processes exchange gradients once a step
        alone = nullcontext() if last or lesson.processes.count == 1 else trained.no_sync()  # type: ignore[operator]
        with alone:
            each, right, weights = _learn(
                trained, lesson, pixels[begin:end], chosen[begin:end], keys[begin:end], epoch=run.epoch
            )
            loss = (each * weights).sum()
            # the processes' gradients are averaged: their sum over the whole batch is meant
            run.scaler.scale(loss * (lesson.processes.count / batch_size)).backward()  # type: ignore[no-untyped-call]
        sums += torch.stack([loss.detach().double(), right.double(), weights.sum().double()])
    run.optimizer.take_gradients()
    if lesson.recipe.clip_grad_norm is not None:
        run.scaler.unscale_(run.optimizer.inner)
        nn.utils.clip_grad_norm_(run.module.parameters(), lesson.recipe.clip_grad_norm)
    run.scaler.step(run.optimizer.inner)
    run.scaler.update()
    if run.average is not None:
        run.average.update(run.module)
    return sums


def _learn(
    trained: nn.Module, lesson: Lesson, pixels: torch.Tensor, chosen: Rows, keys: Keys, *, epoch: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Losses (B,), with their graph; how many pictures are right; weights (B,)."""
    recipe, eye = lesson.recipe, lesson.eye
    positions = torch.from_numpy(chosen).to(pixels.device, non_blocking=True)
    labels, weights = lesson.labels[positions], lesson.weights[positions]
    draws = draw(lesson.policy, seed=lesson.seed, epoch=epoch, pictures=keys)
    images = apply(to_float(pixels), draws, lesson.policy)
    taught = None
    if lesson.teachers is not None:
        plain = lesson.teachers.plain
        taught = lesson.teachers.look(images) if plain is None else plain[positions]
    images = resize_on_device(images, recipe.image_size)
    share = None
    if recipe.mixes:
        images, share = mix(images, draw_mixture(recipe, seed=lesson.seed, epoch=epoch, pictures=keys))
    quick = nullcontext() if recipe.compile else quick_convolutions(eye.precision, eye.device)
    with arithmetic(eye.precision, eye.device), quick:
        logits = trained(to_input(images, eye.spec, eye.in_chans))
    each = losses(logits, labels, recipe.loss)
    if share is not None:
        each = torch.lerp(each, losses(logits, labels.roll(-1), recipe.loss), share)
        weights = mix_labels(weights, share)
    if taught is not None and recipe.distillation is not None:
        if share is not None:
            taught = mix_labels(taught, share)
        learned = distillation_losses(logits, taught, temperature=recipe.distillation.temperature)
        each = torch.lerp(each, learned, recipe.distillation.weight)
    return each, (logits.detach().argmax(dim=1) == labels).sum(), weights


def _check_losses(totals: torch.Tensor, *, epoch: int, rates: list[float]) -> None:
    bad = torch.nonzero(~torch.isfinite(totals)).flatten().tolist()
    if bad:
        batch = bad[0]
        raise TrainingError(
            f"the loss is {totals[batch].item()} in epoch {epoch}, batch {batch + 1} of {len(totals)}, at learning "
            f"rate {rates[batch]:g}: lower optimizer.learning_rate (a tenth is a good try), raise warmup_epochs, or "
            "set clip_grad_norm"
        )
