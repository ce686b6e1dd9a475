"""The training loop of all recipes but the linear probe: `run_epochs` → `train_epoch` → `train_step`.

`train_step` is one step of the optimiser, from a batch of uint8 images to moved weights; `forward_loss` is the part of
it before the backward pass. Within an epoch nothing waits for the device.
"""

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np
import torch
from torch import nn

from pipelines.augmentation.applying import apply
from pipelines.augmentation.packs import Rows
from pipelines.augmentation.random import Keys
from pipelines.augmentation.sampling import sample_params
from pipelines.core.errors import TrainingError
from pipelines.core.progress import Advance, progress
from pipelines.params.augment import AugmentPolicy
from pipelines.params.optimizers import Plateau
from pipelines.params.recipes import NetworkRecipe, TtaView
from pipelines.train.checkpoints import Checkpoint, TrainState
from pipelines.train.convolutions import quick_convolutions
from pipelines.train.data_loader import BatchLoader
from pipelines.train.device import autocast, busy_note
from pipelines.train.distillation import Teachers, resize_on_device
from pipelines.train.examples import TrainExamples, epoch_batches, num_batches
from pipelines.train.inference import InputSpec, predict_proba, to_float
from pipelines.train.job import TrainJob, metrics_of
from pipelines.train.losses import classification_loss, distillation_loss, validation_metrics
from pipelines.train.mixup import mix_images, mix_targets, sample_mixup
from pipelines.train.optim import Stages, TrainPhase, set_learning_rate, set_training_mode, start_phase, update_ema
from pipelines.train.trackers import MAX_MISCLASSIFIED, Tracker, most_confident_mistakes


@dataclass(frozen=True)
class TrainContext:
    """All that the loop needs and does not change.

    Args:
        stages, phases: of the network, and which of its stages are trained in which epochs.
        examples: the N training images.
        loader, val_loader: of their pixels, and of the validation images'.
        labels, weights: (N,) of the examples, on the device; class weights are part of the weights.
        teachers: of a distillation.
        input: how the network takes its images.
        smallest_part: images that each part of a process's batch must have, see params.recipes.smallest_part.
    """

    job: TrainJob
    recipe: NetworkRecipe
    policy: AugmentPolicy
    stages: Stages
    phases: Sequence[TrainPhase]
    examples: TrainExamples
    loader: BatchLoader
    val_loader: BatchLoader
    labels: torch.Tensor
    weights: torch.Tensor
    teachers: Teachers | None
    input: InputSpec
    smallest_part: int

    @property
    def smallest_batch(self) -> int:
        return self.smallest_part * self.job.processes.count

    @property
    def epoch_steps(self) -> int:
        return num_batches(len(self.examples), batch_size=self.recipe.batch_size, smallest=self.smallest_batch)

    def phase(self, epoch: int) -> TrainPhase:
        return next(phase for phase in self.phases if phase.first_epoch <= epoch <= phase.last_epoch)

    def predict(
        self, module: nn.Module, loader: BatchLoader, num_images: int, views: Sequence[TtaView]
    ) -> torch.Tensor:
        """`predict_proba` of a network of this training: (N, K) float64 on the CPU."""
        return predict_proba(
            module,
            loader,
            num_images,
            spec=self.input,
            views=views,
            image_size=self.recipe.image_size,
            num_classes=len(self.job.classes),
            processes=self.job.processes,
        )

    def num_parts(self, wanted: int, *, batch_size: int) -> int:
        """Parts of a batch: `wanted`, or as many as `smallest_part` allows."""
        return min(wanted, max(1, batch_size // self.smallest_batch))


@dataclass(frozen=True)
class Batch:
    """This process's share of a batch, B images.

    Args:
        pixels: (B, s, s, 3) uint8 on the device.
        positions: (B,) among the examples.
        keys: (B,) of the random draws.
        size: images of the whole batch, over all processes.
    """

    pixels: torch.Tensor
    positions: Rows
    keys: Keys
    size: int

    def split(self, num_parts: int) -> list["Batch"]:
        pixels, positions = self.pixels.tensor_split(num_parts), np.array_split(self.positions, num_parts)
        parts = zip(pixels, positions, np.array_split(self.keys, num_parts), strict=True)
        return [Batch(pixels, positions, keys, self.size) for pixels, positions, keys in parts]


def run_epochs(state: TrainState, context: TrainContext, checkpoint: Checkpoint, tracker: Tracker) -> None:
    """Train from the epoch of `state` to the last one or to early stopping; save a checkpoint after each epoch."""
    recipe, job = context.recipe, context.job
    num_train, val_labels = len(context.examples), job.labels[job.rows.val]
    model = _wrap(state.module, context)
    done, total = state.epoch * num_train, recipe.epochs * num_train
    with progress(f"train: {job.title}", total, unit="pictures", done=done) as advance:
        while state.epoch < recipe.epochs and not _stops_early(state, context):
            state.epoch += 1
            phase = context.phase(state.epoch)
            if state.epoch == phase.first_epoch and state.epoch > 1:
                state.optimizer = start_phase(phase, recipe, context.stages)
                model = _wrap(state.module, context)
            started, cpu_started = time.perf_counter(), time.process_time()
            train_loss, train_accuracy, rate = train_epoch(state, model, context, phase, advance)
            seconds = time.perf_counter() - started
            cpu_seconds = time.process_time() - cpu_started
            if note := busy_note(job.device, seconds, cpu_seconds, num_threads=job.params.num_threads):
                job.say(note)
            for module in (state.module, state.evaluated):
                job.processes.broadcast_buffers(module)

            probabilities = context.predict(state.evaluated, context.val_loader, len(val_labels), ["original"])
            val = validation_metrics(probabilities, val_labels)
            line = (state.epoch, train_loss, val.loss, train_accuracy, val.accuracy, val.macro_f1, rate)
            state.add_epoch(line, recipe.early_stopping)
            if isinstance(recipe.schedule, Plateau) and state.bad_epochs >= recipe.schedule.patience:
                state.plateau_factor *= recipe.schedule.factor
                state.bad_epochs = 0

            metrics = metrics_of(line)
            monitor = recipe.early_stopping.monitor
            advance(0, note=f"loss {train_loss:.4f}, {monitor} {metrics[monitor]:.4f}")
            mistakes = partial(
                most_confident_mistakes,
                probabilities.numpy(),
                val_labels,
                classes=job.classes,
                reader=job.reader,
                rows=job.rows.val,
                limit=MAX_MISCLASSIFIED,
            )
            tracker.log_epoch(state.epoch, metrics, mistakes)
            # after the trackers: an epoch in the checkpoint is not repeated, so they must have it
            if job.processes.is_main:
                checkpoint.save(state.state_dict())
            job.say(
                f"epoch {state.epoch} of {recipe.epochs}, loss {train_loss:.4f}, validation loss {val.loss:.4f}, "
                f"accuracy {val.accuracy:.1%}, macro F1 {val.macro_f1:.3f}, "
                f"{num_train / seconds:,.0f} pictures a second"
            )


def train_epoch(
    state: TrainState, model: nn.Module, context: TrainContext, phase: TrainPhase, advance: Advance
) -> tuple[float, float, float]:
    """Train on all examples once.

    Args:
        model: state.module, compiled or wrapped for several processes.

    Returns:
        Mean loss and accuracy on the augmented images, and the last learning rate.

    Raises:
        TrainingError: the loss is not finite, or a batch does not fit into memory however it is split.
    """
    job, recipe, epoch = context.job, context.recipe, state.epoch
    # dropout draws from torch's generator: seeded by epoch, so that a resumed run repeats an unbroken one
    torch.manual_seed(job.params.seed * 100_003 + epoch * job.processes.count + job.processes.rank)
    set_training_mode(
        state.module,
        context.stages,
        first_stage=phase.first_stage,
        freeze_norms=getattr(recipe, "freeze_norms", False),
    )
    positions, keys = context.examples.of_epoch(
        epoch, seed=job.params.seed, oversampled=recipe.class_balance == "oversampling"
    )
    whole = epoch_batches(
        keys, seed=job.params.seed, epoch=epoch, batch_size=recipe.batch_size, smallest=context.smallest_batch
    )
    mine = [job.processes.shard(part) for part in whole]
    rates, sums = [], []
    for step, pixels in enumerate(context.loader.batches([positions[part] for part in mine])):
        rate = phase.lr_at(epoch, step, epoch_steps=len(whole)) * state.plateau_factor
        set_learning_rate(state.optimizer, rate)
        batch = Batch(pixels, positions[mine[step]], keys[mine[step]], size=len(whole[step]))
        rates.append(rate)
        sums.append(_train_step_with_retry(state, model, context, batch))
        advance(batch.size)
    totals = job.processes.all_reduce(torch.stack(sums)).cpu()  # (steps, 3)
    _check_losses(totals[:, 0], epoch=epoch, rates=rates)
    loss, correct, weight = totals.sum(dim=0).tolist()
    return loss / max(weight, 1e-12), correct / len(context.examples), rates[-1]


def train_step(state: TrainState, model: nn.Module, context: TrainContext, batch: Batch) -> torch.Tensor:
    """Take one step of the optimiser.

    Returns:
        (3,) float64 on the device: over this process's images the sum of losses, the number of correct predictions and
        the sum of weights.
    """
    processes = context.job.processes
    parts = batch.split(context.num_parts(state.num_parts, batch_size=batch.size))
    sums = torch.zeros(3, dtype=torch.float64, device=batch.pixels.device)
    state.optimizer.zero_grad()
    for part in parts:
        # processes exchange gradients once a step, with the last part
        exchange = nullcontext() if part is parts[-1] or processes.count == 1 else model.no_sync()  # type: ignore[operator]
        with exchange:
            losses, num_correct, weights = forward_loss(model, context, part, epoch=state.epoch)
            loss = (losses * weights).sum()
            # times their number, because DDP averages the gradients of the processes
            state.scaler.scale(loss * (processes.count / batch.size)).backward()  # type: ignore[no-untyped-call]
        sums += torch.stack([loss.detach().double(), num_correct.double(), weights.sum().double()])
    if context.recipe.clip_grad_norm is not None:
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(state.module.parameters(), context.recipe.clip_grad_norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    if state.ema is not None:
        state.num_updates += 1
        update_ema(state.ema, state.module, num_updates=state.num_updates)
    return sums


def forward_loss(
    model: nn.Module, context: TrainContext, batch: Batch, *, epoch: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Augment and mix the images, and run the network forward.

    Returns:
        (B,) losses with their graph, the number of correct predictions, and (B,) weights.
    """
    recipe, seed, spec = context.recipe, context.job.params.seed, context.input
    positions = torch.from_numpy(batch.positions).to(batch.pixels.device, non_blocking=True)
    labels, weights = context.labels[positions], context.weights[positions]
    draws = sample_params(context.policy, seed=seed, epoch=epoch, pictures=batch.keys)
    images = apply(to_float(batch.pixels), draws, context.policy)
    taught, share = None, None
    if context.teachers is not None:
        known = context.teachers.precomputed
        taught = context.teachers.predict(images) if known is None else known[positions]
    images = resize_on_device(images, recipe.image_size)
    if recipe.mixes:
        images, share = mix_images(images, sample_mixup(recipe, seed=seed, epoch=epoch, keys=batch.keys))
    # torch.compile does not trace them
    convolutions = nullcontext() if recipe.compile else quick_convolutions(spec.precision, spec.device)
    with autocast(spec.precision, spec.device), convolutions:
        logits = model(spec.prepare(images))
    losses = classification_loss(logits, labels, recipe.loss)
    if share is not None:
        losses = torch.lerp(losses, classification_loss(logits, labels.roll(-1), recipe.loss), share)
        weights = mix_targets(weights, share)
    if taught is not None and recipe.distillation is not None:
        if share is not None:
            taught = mix_targets(taught, share)
        distilled = distillation_loss(logits, taught, temperature=recipe.distillation.temperature)
        losses = torch.lerp(losses, distilled, recipe.distillation.weight)
    return losses, (logits.detach().argmax(dim=1) == labels).sum(), weights


def _wrap(module: nn.Module, context: TrainContext) -> nn.Module:
    """`module` for several processes, and compiled if the recipe says so."""
    wrapped = context.job.processes.wrap(module)
    if not context.recipe.compile:
        return wrapped
    # tells the compiler too, which set_deterministic_debug_mode does not
    torch.use_deterministic_algorithms(torch.are_deterministic_algorithms_enabled())
    return cast("nn.Module", torch.compile(wrapped))


def _train_step_with_retry(state: TrainState, model: nn.Module, context: TrainContext, batch: Batch) -> torch.Tensor:
    """Call `train_step`; where memory runs out, repeat it with twice as many parts, which later steps keep.

    Raises:
        TrainingError: the parts cannot become smaller, or other processes have taken the step already.
    """
    while True:
        try:
            return train_step(state, model, context, batch)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
                raise
            parts = context.num_parts(state.num_parts, batch_size=batch.size)
            more = context.num_parts(2 * parts, batch_size=batch.size)
            if more == parts or context.job.processes.count > 1:
                raise TrainingError(
                    f"{context.input.device} has no memory for {len(batch.positions)} pictures of "
                    f"{context.recipe.image_size} px in {parts} parts: lower image_size or batch_size, raise "
                    "grad_accum_steps, or take a smaller model"
                ) from error
            state.num_parts = more
        print(
            f"epoch {state.epoch}: out of memory; batches of {context.recipe.batch_size} are computed in "
            f"{more} parts from here on",
            flush=True,
        )
        state.optimizer.zero_grad()
        if context.input.device.type == "cuda":
            torch.cuda.empty_cache()


def _check_losses(totals: torch.Tensor, *, epoch: int, rates: list[float]) -> None:
    bad = torch.nonzero(~torch.isfinite(totals)).flatten().tolist()
    if bad:
        step = bad[0]
        raise TrainingError(
            f"the loss is {totals[step].item()} in epoch {epoch}, batch {step + 1} of {len(totals)}, at learning "
            f"rate {rates[step]:g}: lower optimizer.learning_rate (a tenth is a good try), raise warmup_epochs, or "
            "set clip_grad_norm"
        )


def _stops_early(state: TrainState, context: TrainContext) -> bool:
    """Whether there was no better epoch for `patience` epochs of the last phase, which trains all that is trained."""
    since = state.epoch - max(state.best_epoch, context.phases[-1].first_epoch - 1)
    return since >= context.recipe.early_stopping.patience
