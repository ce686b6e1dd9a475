"""The epochs of a training: learn, validate, keep the best, leave a checkpoint."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import nn

from pipelines.core.progress import progress
from pipelines.params.optimizers import Plateau
from pipelines.params.recipes import NetworkRecipe, TtaView
from pipelines.train.checkpoints import Checkpoint
from pipelines.train.feeding import feed_of
from pipelines.train.job import Job
from pipelines.train.judging import figures, probabilities
from pipelines.train.mistakes import most_confident_mistakes
from pipelines.train.optimizers import Optimizer, parameter_groups
from pipelines.train.phases import Phase, freeze, phases_of, set_training_mode
from pipelines.train.run import HISTORY_HEADER, Run
from pipelines.train.schedules import Span, factor_at
from pipelines.train.steps import Lesson, num_steps, train_epoch
from pipelines.train.trackers import MAX_WRONG, Tracker

CROWDED = 0.6
"""share of the processors below which a training on the CPU is said to be held up"""
CROWDED_AFTER = 5.0
"""seconds of an epoch: reading and starting count for less by then"""


@dataclass(frozen=True)
class Parts:
    """The phases of a training, and the optimiser of each."""

    stages: Sequence[Sequence[nn.Module]]
    recipe: NetworkRecipe
    job: Job

    @property
    def phases(self) -> list[Phase]:
        return phases_of(self.recipe, num_stages=len(self.stages), where=self.job.where)

    def phase(self, epoch: int) -> Phase:
        return next(phase for phase in self.phases if phase.first_epoch <= epoch <= phase.last_epoch)

    def optimizer(self, epoch: int) -> Optimizer:
        """A new one for the phase of `epoch`, after which only that phase's stages learn."""
        freeze(self.stages, first_stage=self.phase(epoch).first_stage)
        groups = parameter_groups(
            self.stages,
            weight_decay=self.recipe.optimizer.weight_decay,
            layer_decay=getattr(self.recipe, "layer_decay", 1.0),
        )
        return Optimizer(self.recipe.optimizer, groups)

    @property
    def first_whole_epoch(self) -> int:
        """The first in which all that the recipe trains learns: patience counts from there."""
        return self.phases[-1].first_epoch


def train_epochs(run: Run, parts: Parts, lesson: Lesson, job: Job, checkpoint: Checkpoint, tracker: Tracker) -> None:
    """Train from the state of `run` on; a checkpoint a whole epoch."""
    recipe, num_train = lesson.recipe, len(lesson.examples)
    val_labels = job.labels[job.rows.val]
    val = feed_of(
        job.reader,
        job.rows.val,
        image_size=recipe.image_size,
        device=job.device,
        max_device_cache_bytes=job.params.max_device_cache_bytes,
    )
    epoch_steps = num_steps(lesson)
    trained = _prepared(run.module, recipe, job)
    plain: tuple[TtaView, ...] = ("original",)
    with progress(
        f"train: {job.title}", recipe.epochs * num_train, unit="pictures", done=run.epoch * num_train
    ) as advance:
        while run.epoch < recipe.epochs and not _is_over(run, parts):
            run.epoch += 1
            phase = parts.phase(run.epoch)
            if run.epoch == phase.first_epoch and run.epoch > 1:
                run.optimizer = parts.optimizer(run.epoch)
                trained = _prepared(run.module, recipe, job)
            started, busy = time.perf_counter(), time.process_time()
            set_training_mode(
                run.module,
                parts.stages,
                first_stage=phase.first_stage,
                freeze_norms=getattr(recipe, "freeze_norms", False),
            )
            train_loss, train_accuracy, rate = train_epoch(
                run, trained, lesson, rate_of=_Rates(run, phase, epoch_steps), advance=advance
            )
            seconds = time.perf_counter() - started
            _say_if_crowded(job, seconds, time.process_time() - busy)
            job.processes.agree_on_buffers(run.module)
            if run.average is not None:
                run.average.copy_buffers(run.module)
            found = probabilities(
                run.judged,
                val,
                len(val_labels),
                eye=lesson.eye,
                views=plain,
                image_size=recipe.image_size,
                num_classes=len(job.classes),
                processes=job.processes,
            )
            result = figures(found, val_labels)
            run.note(
                (run.epoch, train_loss, result.loss, train_accuracy, result.accuracy, result.macro_f1, rate),
                recipe.early_stopping,
            )
            _lower(run, recipe)
            told = figures_of(run.history[-1])
            monitor = recipe.early_stopping.monitor
            advance(0, note=f"loss {train_loss:.4f}, {monitor} {told[monitor]:.4f}")
            tracker.epoch(
                run.epoch,
                told,
                partial(
                    most_confident_mistakes,
                    found.numpy(),
                    val_labels,
                    classes=job.classes,
                    reader=job.reader,
                    rows=job.rows.val,
                    limit=MAX_WRONG,
                ),
            )
            # after the trackers: an epoch that is not trained again was told
            if job.processes.writes:
                checkpoint.save(run.state())
            job.say(
                f"epoch {run.epoch} of {recipe.epochs}, loss {train_loss:.4f}, validation loss {result.loss:.4f}, "
                f"accuracy {result.accuracy:.1%}, macro F1 {result.macro_f1:.3f}, "
                f"{num_train / seconds:,.0f} pictures a second"
            )


def figures_of(line: Sequence[float]) -> dict[str, float]:
    """A line of history by name, without the epoch."""
    return dict(zip(HISTORY_HEADER[1:], line[1:], strict=True))


def _say_if_crowded(job: Job, seconds: float, busy_seconds: float) -> None:
    """Warn where other programs hold the processor up: the threads of a layer wait for the slowest of them.

    Measured at a load of 8 on 2 cores: 16 pictures a second with 2 threads in bfloat16, 85 with 1.
    """
    threads = job.params.num_threads
    if (
        job.device.type == "cpu"
        and threads > 1
        and seconds > CROWDED_AFTER
        and busy_seconds < CROWDED * threads * seconds
    ):
        job.say(
            f"note: this process had {busy_seconds / seconds:.1f} of {threads} processors; while other programs run, "
            "train.num_threads: 1 is faster"
        )


def _prepared(module: nn.Module, recipe: NetworkRecipe, job: Job) -> nn.Module:
    """`module` as it is stepped: compiled, and sharing gradients with other processes."""
    wrapped = job.processes.wrap(module)
    if not recipe.compile:
        return wrapped
    # tells the compiler as well
    torch.use_deterministic_algorithms(torch.are_deterministic_algorithms_enabled())
    return cast("nn.Module", torch.compile(wrapped))


@dataclass(frozen=True)
class _Rates:
    """The learning rate of each step of the epoch that `run` is in."""

    run: Run
    phase: Phase
    epoch_steps: int

    def __call__(self, step: int) -> float:
        span = Span(
            num_steps=self.phase.num_epochs * self.epoch_steps,
            epoch_steps=self.epoch_steps,
            warmup_steps=self.phase.warmup_epochs * self.epoch_steps,
        )
        done = (self.run.epoch - self.phase.first_epoch) * self.epoch_steps
        return self.phase.rate * self.run.lowered * factor_at(done + step, self.phase.schedule, span)


def _is_over(run: Run, parts: Parts) -> bool:
    """Whether there was no better epoch for too long, not counting epochs of the head alone."""
    since = run.epoch - max(run.best_epoch, parts.first_whole_epoch - 1)
    return since >= parts.recipe.early_stopping.patience


def _lower(run: Run, recipe: NetworkRecipe) -> None:
    """Lower the learning rate of `plateau` when its patience is at an end."""
    if isinstance(recipe.schedule, Plateau) and run.since_better >= recipe.schedule.patience:
        run.lowered *= recipe.schedule.factor
        run.since_better = 0
