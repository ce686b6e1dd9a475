"""Recipes whose network is trained by gradient descent, on packed pictures, in exactly repeatable epochs.

Order and augmentation of an epoch are functions of (seed, epoch, picture), so a run that is killed continues after
its last whole epoch and, on a CPU, ends in the same bytes.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np
import torch
from torch import nn

from pipelines.core.errors import TrainingError
from pipelines.core.params.augment import AugmentPolicy
from pipelines.core.params.optimizers import Plateau
from pipelines.core.params.recipes import NetworkRecipe, ScratchRecipe, View
from pipelines.core.progress import progress
from pipelines.train.averaging import Average
from pipelines.train.checkpoints import Checkpoint, checkpoint_for
from pipelines.train.examples import Examples, add_pseudo_labels, examples_of
from pipelines.train.feeding import digest_pixels, feed_of
from pipelines.train.job import Job
from pipelines.train.judging import Eye, figures, probabilities
from pipelines.train.mistakes import most_confident_mistakes
from pipelines.train.models import build_network, load_weights, spec_for, stages
from pipelines.train.optimizers import build_optimizer, parameter_groups
from pipelines.train.outcome import Outcome, Probabilities
from pipelines.train.phases import Phase, freeze, phases_of, set_training_mode
from pipelines.train.precision import choose_precision, gradient_scaler
from pipelines.train.processes import synchronise_norms
from pipelines.train.run import HISTORY_HEADER, Run
from pipelines.train.schedules import Span, factor_at
from pipelines.train.steps import Lesson, lesson_weights, num_steps, train_epoch
from pipelines.train.teaching import Teachers, load_teachers
from pipelines.train.trackers import MAX_WRONG, Tracker, open_trackers

CROWDED = 0.6
"""share of the processors below which a training on the CPU is said to be held up"""
CROWDED_AFTER = 5.0
"""seconds of an epoch: reading and starting count for less by then"""


def train_network(recipe: NetworkRecipe, policy: AugmentPolicy, job: Job) -> Outcome:
    """Train until the last epoch, or until the stopping metric has not improved for `patience` epochs.

    Raises:
        InputError: weights, teachers or pseudo-labels are not what the recipe says.
        TrainingError: the loss is no longer a number; names epoch, batch and learning rate.
    """
    index, device = job.reader.index, job.device
    examples = examples_of(index, job.rows.train, labels=job.labels, classes=job.classes)
    if recipe.pseudo_labels is not None:
        examples = add_pseudo_labels(
            examples,
            recipe.pseudo_labels,
            index=index,
            unlabelled=job.rows.unlabelled,
            root=job.root,
            where=job.where,
        )
    module, source = _network(recipe, job)
    eye = Eye(
        spec=spec_for(recipe.model, getattr(recipe, "weights", None)),
        colour=recipe.colour,
        precision=choose_precision(recipe.precision, model=recipe.model, device=device),
        device=device,
    )
    teachers = _teachers(recipe, job, examples)
    parts = _Parts(stages(module, recipe.model), recipe, job)
    run = Run(
        module,
        parts.optimizer(1),
        gradient_scaler(eye.precision, device),
        None if recipe.ema_decay is None else Average(module, recipe.ema_decay),
        recipe.accumulate,
    )
    checkpoint = _checkpoint(recipe, policy, job, examples, source, eye)
    if (state := checkpoint.load()) is not None:
        run.optimizer = parts.optimizer(state["epoch"])
        run.restore(state)
        job.say(f"continues after epoch {run.epoch}")
    lesson = Lesson(
        recipe=recipe,
        policy=policy,
        examples=examples,
        feed=feed_of(
            job.reader,
            examples.rows,
            image_size=max(recipe.image_size, teachers.image_size if teachers else 0),
            device=device,
            resident_bytes=job.params.resident_bytes,
        ),
        labels=torch.from_numpy(examples.labels).to(device),
        weights=lesson_weights(recipe, examples).to(device),
        teachers=teachers,
        eye=eye,
        seed=job.params.seed,
        processes=job.processes,
    )
    with open_trackers(
        job.params.trackers if job.processes.writes else (),
        title=job.title,
        key=checkpoint.folder.name,
        past=[_figures(line) for line in run.history],
        settings=recipe.model_dump(mode="json"),
        folder=job.cache_dir / "trackers",
    ) as tracker:
        _train_epochs(run, parts, lesson, job, checkpoint, tracker)
        best = dict(zip(HISTORY_HEADER, run.history[run.best_epoch - 1], strict=True))
        tracker.finish({f"best_{name}": value for name, value in best.items()})
    return _outcome(
        run, recipe, job, eye, {"weights": source, "num_pseudo": len(examples) - len(job.rows.train)}, checkpoint
    )


def _network(recipe: NetworkRecipe, job: Job) -> tuple[nn.Module, str]:
    """The network as it begins, on the device, and the digest of the weights it begins with ("" for random ones)."""
    torch.manual_seed(job.params.seed)
    module = build_network(
        recipe.model,
        num_classes=len(job.classes),
        image_size=recipe.image_size,
        stem=recipe.stem,
        colour=recipe.colour,
        dropout=recipe.dropout,
    )
    source = ""
    if not isinstance(recipe, ScratchRecipe):
        member = None if isinstance(recipe.weights, str) or recipe.weights.kind == "file" else recipe.weights.member
        source = load_weights(
            module,
            recipe.weights,
            model=recipe.model,
            member_path=None if member is None else job.model_path(member),
            root=job.root,
        )
    module = synchronise_norms(module, job.device, job.processes).to(job.device)
    return module.to(memory_format=torch.channels_last), source


def _teachers(recipe: NetworkRecipe, job: Job, examples: Examples) -> Teachers | None:
    if recipe.distillation is None:
        return None
    return load_teachers(
        recipe.distillation,
        job.model_paths(recipe.distillation.teachers),
        classes=job.classes,
        reader=job.reader,
        rows=examples.rows,
        device=job.device,
    )


@dataclass(frozen=True)
class _Parts:
    """The phases of a training, and the optimiser of each."""

    stages: Sequence[Sequence[nn.Module]]
    recipe: NetworkRecipe
    job: Job

    @property
    def phases(self) -> list[Phase]:
        return phases_of(self.recipe, num_stages=len(self.stages), where=self.job.where)

    def phase(self, epoch: int) -> Phase:
        return next(phase for phase in self.phases if phase.first_epoch <= epoch <= phase.last_epoch)

    def optimizer(self, epoch: int) -> torch.optim.Optimizer:
        """A new one for the phase of `epoch`, after which only that phase's stages learn."""
        freeze(self.stages, first_stage=self.phase(epoch).first_stage)
        groups = parameter_groups(
            self.stages,
            weight_decay=self.recipe.optimizer.weight_decay,
            layer_decay=getattr(self.recipe, "layer_decay", 1.0),
        )
        return build_optimizer(self.recipe.optimizer, groups)

    @property
    def first_whole_epoch(self) -> int:
        """The first in which all that the recipe trains learns: patience counts from there."""
        return self.phases[-1].first_epoch


def _train_epochs(run: Run, parts: _Parts, lesson: Lesson, job: Job, checkpoint: Checkpoint, tracker: Tracker) -> None:
    """Train from the state of `run` on; a checkpoint a whole epoch."""
    recipe, num_train = lesson.recipe, len(lesson.examples)
    val_labels = job.labels[job.rows.val]
    val = feed_of(
        job.reader,
        job.rows.val,
        image_size=recipe.image_size,
        device=job.device,
        resident_bytes=job.params.resident_bytes,
    )
    epoch_steps = num_steps(recipe, num_train, smallest=max(2, job.processes.count))
    trained = _prepared(run.module, recipe, job)
    plain: tuple[View, ...] = ("plain",)
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
                recipe.stopping,
            )
            _lower(run, recipe)
            told = _figures(run.history[-1])
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
            advance(0, note=f"loss {train_loss:.4f}, {recipe.stopping.metric} {told[recipe.stopping.metric]:.4f}")
            # after the trackers: an epoch that is not trained again was told
            if job.processes.writes:
                checkpoint.save(run.state())
            job.say(
                f"epoch {run.epoch} of {recipe.epochs}, loss {train_loss:.4f}, validation loss {result.loss:.4f}, "
                f"accuracy {result.accuracy:.1%}, macro F1 {result.macro_f1:.3f}, "
                f"{num_train / seconds:,.0f} pictures a second"
            )


def _figures(line: Sequence[float]) -> dict[str, float]:
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


def _is_over(run: Run, parts: _Parts) -> bool:
    """Whether there was no better epoch for too long, not counting epochs of the head alone."""
    since = run.epoch - max(run.best_epoch, parts.first_whole_epoch - 1)
    return since >= parts.recipe.stopping.patience


def _lower(run: Run, recipe: NetworkRecipe) -> None:
    """Lower the learning rate of `plateau` when its patience is at an end."""
    if isinstance(recipe.schedule, Plateau) and run.since_better >= recipe.schedule.patience:
        run.lowered *= recipe.schedule.factor
        run.since_better = 0


def _checkpoint(
    recipe: NetworkRecipe, policy: AugmentPolicy, job: Job, examples: Examples, source: str, eye: Eye
) -> Checkpoint:
    """The place for this very training: whatever its result depends on is part of the name."""
    teachers = recipe.distillation.teachers if recipe.distillation else ()
    settings = {
        "recipe": recipe.model_dump(mode="json"),
        "policy": policy.model_dump(mode="json"),
        "seed": job.params.seed,
        "device": str(job.device),
        "num_threads": job.params.num_threads,
        "num_devices": job.processes.count,
        "fast": job.params.fast,
        "precision": eye.precision,
        "weights": source,
        "teachers": [hashlib.sha256(path.read_bytes()).hexdigest() for path in job.model_paths(teachers)],
    }
    key = json.dumps(settings, sort_keys=True).encode()
    pixels = digest_pixels(job.reader, np.concatenate([examples.rows, job.rows.val]))
    labels = job.labels[job.rows.val].tobytes()
    return checkpoint_for(job.cache_dir, job.title, parts=[key, examples.digest(), labels, pixels])


def _outcome(
    run: Run, recipe: NetworkRecipe, job: Job, eye: Eye, info: dict[str, object], checkpoint: Checkpoint
) -> Outcome:
    """The best epoch's weights, and what they make of validation, test and unlabelled pictures."""
    if run.best_epoch == 0:
        raise TrainingError(
            f"the validation loss is no number after any of {run.epoch} epochs: lower optimizer.learning_rate (a tenth "
            "is a good try), raise warmup_epochs or batch_size, or set max_gradient_norm"
        )
    last = {name: tensor.detach().cpu().clone() for name, tensor in run.judged.state_dict().items()}
    run.judged.load_state_dict(run.best_weights)

    def predict(rows: np.ndarray) -> Probabilities:
        feed = feed_of(
            job.reader, rows, image_size=recipe.image_size, device=job.device, resident_bytes=job.params.resident_bytes
        )
        found = probabilities(
            run.judged,
            feed,
            len(rows),
            eye=eye,
            views=recipe.views,
            image_size=recipe.image_size,
            num_classes=len(job.classes),
            processes=job.processes,
        )
        return cast("Probabilities", found.float().numpy())

    return Outcome(
        tensors=run.best_weights,
        last_tensors=last,
        info={
            "views": list(recipe.views),
            "precision": eye.precision,
            "best_epoch": run.best_epoch,
            "epochs": run.epoch,
            "accumulate": run.accumulate,
            "num_devices": job.processes.count,
            **info,
        },
        history_header=HISTORY_HEADER,
        history=run.history,
        val=predict(job.rows.val),
        test=predict(job.rows.test),
        unlabelled=predict(job.rows.unlabelled),
        finish=checkpoint.remove,
    )
