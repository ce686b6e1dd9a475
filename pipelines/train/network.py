"""Recipes whose network is trained by gradient descent, on packed pictures, in exactly repeatable epochs.

Order and augmentation of an epoch are functions of (seed, epoch, picture), so a run that is killed continues after
its last whole epoch and, on a CPU, ends in the same bytes.
"""

import hashlib
import json
from typing import cast

import numpy as np
import torch
from torch import nn

from pipelines.core.errors import InputError, TrainingError
from pipelines.params.augment import AugmentPolicy
from pipelines.params.recipes import NetworkRecipe, ScratchRecipe, smallest_part, too_small_parts
from pipelines.train.averaging import Average
from pipelines.train.checkpoints import Checkpoint, checkpoint_for
from pipelines.train.epochs import Parts, figures_of, train_epochs
from pipelines.train.examples import Examples, add_pseudo_labels, examples_of
from pipelines.train.feeding import digest_pixels, feed_of
from pipelines.train.job import Job
from pipelines.train.judging import Eye, probabilities
from pipelines.train.models import build_network, load_weights, spec_for, stages
from pipelines.train.outcome import Outcome, Probabilities
from pipelines.train.phases import learns_norms
from pipelines.train.precision import choose_precision, gradient_scaler
from pipelines.train.processes import synchronise_norms
from pipelines.train.run import HISTORY_HEADER, Run
from pipelines.train.steps import Lesson, lesson_weights
from pipelines.train.teaching import Teachers, load_teachers
from pipelines.train.trackers import open_trackers


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
        spec=spec_for(recipe.model),
        in_chans=recipe.in_chans,
        precision=choose_precision(recipe.precision, device=device),
        device=device,
    )
    teachers = _teachers(recipe, job, examples)
    parts = Parts(stages(module, recipe.model), recipe, job)
    smallest = _smallest_part(recipe, job, parts, module, len(examples))
    run = Run(
        module,
        parts.optimizer(1),
        gradient_scaler(eye.precision, device),
        None if recipe.ema_decay is None else Average(module, recipe.ema_decay),
        recipe.grad_accum_steps,
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
            max_device_cache_bytes=job.params.max_device_cache_bytes,
        ),
        labels=torch.from_numpy(examples.labels).to(device),
        weights=lesson_weights(recipe, examples).to(device),
        teachers=teachers,
        eye=eye,
        seed=job.params.seed,
        processes=job.processes,
        smallest_part=smallest,
    )
    with open_trackers(
        job.params.trackers if job.processes.writes else (),
        title=job.title,
        key=checkpoint.folder.name,
        past=[figures_of(line) for line in run.history],
        settings=recipe.model_dump(mode="json"),
        folder=job.cache_dir / "trackers",
    ) as tracker:
        train_epochs(run, parts, lesson, job, checkpoint, tracker)
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
        in_chans=recipe.in_chans,
        dropout=recipe.dropout,
    )
    source = ""
    if not isinstance(recipe, ScratchRecipe):
        source = load_weights(
            module,
            recipe.weights,
            model=recipe.model,
            member_path=job.source_path(recipe.weights),
            root=job.root,
        )
    module = synchronise_norms(module, job.device, job.processes).to(job.device)
    return module.to(memory_format=torch.channels_last), source


def _smallest_part(recipe: NetworkRecipe, job: Job, parts: Parts, module: nn.Module, num_examples: int) -> int:
    """Pictures that every part of a step must hold.

    Raises:
        InputError: the recipe, or the number of pictures, makes smaller ones.
    """
    norms = learns_norms(
        module,
        parts.stages,
        first_stage=parts.phases[-1].first_stage,
        freeze_norms=getattr(recipe, "freeze_norms", False),
    )
    if wrong := too_small_parts(recipe, num_devices=job.processes.count, learns_norms=norms):
        raise InputError(f"{job.where}: {wrong}")
    smallest = smallest_part(recipe, learns_norms=norms)
    if num_examples < smallest * job.processes.count:
        raise InputError(
            f"{num_examples} training pictures are too few for train.num_devices: {job.processes.count}, each of which "
            f"needs {smallest} in every step: lower train.num_devices, or add pictures"
        )
    return smallest


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
        "deterministic": job.params.deterministic,
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
            "is a good try), raise warmup_epochs or batch_size, or set clip_grad_norm"
        )
    run.judged.load_state_dict(run.best_weights)

    def predict(rows: np.ndarray) -> Probabilities:
        feed = feed_of(
            job.reader,
            rows,
            image_size=recipe.image_size,
            device=job.device,
            max_device_cache_bytes=job.params.max_device_cache_bytes,
        )
        found = probabilities(
            run.judged,
            feed,
            len(rows),
            eye=eye,
            views=recipe.tta,
            image_size=recipe.image_size,
            num_classes=len(job.classes),
            processes=job.processes,
        )
        return cast("Probabilities", found.float().numpy())

    return Outcome(
        tensors=run.best_weights,
        info={
            "tta": list(recipe.tta),
            "precision": eye.precision,
            "best_epoch": run.best_epoch,
            "epochs": run.epoch,
            "grad_accum_steps": run.grad_accum_steps,
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
