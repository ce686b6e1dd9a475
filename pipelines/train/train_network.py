"""Train a network as its recipe says: build it, run the loop, predict with the best epoch's weights.

Order and augmentation of an epoch are functions of (seed, epoch, image), so a killed run continues after its last whole
epoch and, on a CPU, ends in the same bytes.
"""

import hashlib
import json
from typing import cast

import numpy as np
import torch
from torch import nn

from pipelines.augmentation.packs import Rows
from pipelines.core.errors import InputError, TrainingError
from pipelines.params.augment import AugmentPolicy
from pipelines.params.recipes import NetworkRecipe, ScratchRecipe, smallest_part, too_small_parts
from pipelines.train.checkpoints import Checkpoint, TrainState, checkpoint_for
from pipelines.train.data_loader import BatchLoader, digest_pixels, make_loader
from pipelines.train.device import choose_precision, gradient_scaler
from pipelines.train.distillation import Teachers, load_teachers
from pipelines.train.examples import TrainExamples, add_pseudo_labels, labelled_examples
from pipelines.train.inference import InputSpec, penultimate_features
from pipelines.train.job import (
    HISTORY_HEADER,
    Probabilities,
    TrainJob,
    TrainOutcome,
    metrics_of,
    penultimate_table,
)
from pipelines.train.loop import TrainContext, run_epochs
from pipelines.train.losses import class_weights
from pipelines.train.models import build_network, load_weights, spec_for, stages
from pipelines.train.optim import Stages, TrainPhase, build_ema, phases_of, start_phase, uses_batch_statistics
from pipelines.train.trackers import open_trackers


def train_network(recipe: NetworkRecipe, policy: AugmentPolicy, job: TrainJob, *, exported: Rows) -> TrainOutcome:
    """Train until the last epoch, or until the monitored metric has not improved for `patience` epochs.

    Args:
        exported: rows of the index whose penultimate features are part of the outcome.

    Raises:
        InputError: weights, teachers or pseudo-labels are not what the recipe says.
        TrainingError: the loss is not finite; names epoch, batch and learning rate.
    """
    examples = _examples(recipe, job)
    module, weights_digest = _build(recipe, job)
    context = _context(recipe, policy, job, examples, module)
    ema = None if recipe.ema_decay is None else build_ema(module, recipe.ema_decay)
    scaler = gradient_scaler(context.input.precision, job.device)
    optimizer = start_phase(context.phase(1), recipe, context.stages)
    state = TrainState(module, optimizer, scaler, ema, recipe.grad_accum_steps)
    checkpoint = _checkpoint(context, weights_digest)
    if (saved := checkpoint.load()) is not None:
        state.optimizer = start_phase(context.phase(saved["epoch"]), recipe, context.stages)
        state.load_state_dict(saved)
        job.say(f"continues after epoch {state.epoch}")
    with open_trackers(
        job.params.trackers if job.processes.is_main else (),
        title=job.title,
        key=checkpoint.folder.name,
        past=[metrics_of(line) for line in state.history],
        settings=recipe.model_dump(mode="json"),
        folder=job.cache_dir / "trackers",
    ) as tracker:
        run_epochs(state, context, checkpoint, tracker)
        best = dict(zip(HISTORY_HEADER, state.history[state.best_epoch - 1], strict=True))
        tracker.finish({f"best_{name}": value for name, value in best.items()})
    info = {"weights": weights_digest, "num_pseudo": len(examples) - len(job.rows.train)}
    return _outcome(state, context, info, checkpoint, exported)


def _examples(recipe: NetworkRecipe, job: TrainJob) -> TrainExamples:
    index = job.reader.index
    examples = labelled_examples(index, job.rows.train, labels=job.labels, classes=job.classes)
    if recipe.pseudo_labels is None:
        return examples
    return add_pseudo_labels(
        examples, recipe.pseudo_labels, index=index, unlabelled=job.rows.unlabelled, root=job.root, where=job.where
    )


def _build(recipe: NetworkRecipe, job: TrainJob) -> tuple[nn.Module, str]:
    """Build the network on the device; also the sha256 of its initial weights, "" for random ones."""
    torch.manual_seed(job.params.seed)
    module = build_network(
        recipe.model,
        num_classes=len(job.classes),
        image_size=recipe.image_size,
        stem=recipe.stem,
        in_chans=recipe.in_chans,
        dropout=recipe.dropout,
    )
    digest = ""
    if not isinstance(recipe, ScratchRecipe):
        member_path = job.source_path(recipe.weights)
        digest = load_weights(module, recipe.weights, model=recipe.model, member_path=member_path, root=job.root)
    module = job.processes.synchronise_batch_norms(module, job.device).to(job.device)
    return module.to(memory_format=torch.channels_last), digest


def _context(
    recipe: NetworkRecipe, policy: AugmentPolicy, job: TrainJob, examples: TrainExamples, module: nn.Module
) -> TrainContext:
    network_stages = stages(module, recipe.model)
    phases = phases_of(recipe, num_stages=len(network_stages), where=job.where)
    teachers = _teachers(recipe, job, examples)
    smallest = _smallest_part(recipe, job, network_stages, phases, module, len(examples))
    weights = torch.from_numpy(examples.weights)
    if recipe.class_balance == "loss_weights":
        weights = weights * class_weights(examples.labels, len(job.classes))[torch.from_numpy(examples.labels)]
    return TrainContext(
        job=job,
        recipe=recipe,
        policy=policy,
        stages=network_stages,
        phases=phases,
        examples=examples,
        loader=_loader(job, examples.rows, max(recipe.image_size, teachers.image_size if teachers else 0)),
        val_loader=_loader(job, job.rows.val, recipe.image_size),
        labels=torch.from_numpy(examples.labels).to(job.device),
        weights=weights.to(job.device),
        teachers=teachers,
        input=InputSpec(
            normalisation=spec_for(recipe.model),
            in_chans=recipe.in_chans,
            precision=choose_precision(recipe.precision, device=job.device),
            device=job.device,
        ),
        smallest_part=smallest,
    )


def _loader(job: TrainJob, rows: Rows, image_size: int) -> BatchLoader:
    return make_loader(
        job.reader,
        rows,
        image_size=image_size,
        device=job.device,
        max_device_cache_bytes=job.params.max_device_cache_bytes,
    )


def _smallest_part(
    recipe: NetworkRecipe,
    job: TrainJob,
    network_stages: Stages,
    phases: list[TrainPhase],
    module: nn.Module,
    num_examples: int,
) -> int:
    """Images that each part of a step must have.

    Raises:
        InputError: the recipe, or the number of images, makes smaller ones.
    """
    learns_norms = uses_batch_statistics(
        module,
        network_stages,
        first_stage=phases[-1].first_stage,
        freeze_norms=getattr(recipe, "freeze_norms", False),
    )
    if wrong := too_small_parts(recipe, num_devices=job.processes.count, learns_norms=learns_norms):
        raise InputError(f"{job.where}: {wrong}")
    smallest = smallest_part(recipe, learns_norms=learns_norms)
    if num_examples < smallest * job.processes.count:
        raise InputError(
            f"{num_examples} training pictures are too few for train.num_devices: {job.processes.count}, each of which "
            f"needs {smallest} in every step: lower train.num_devices, or add pictures"
        )
    return smallest


def _teachers(recipe: NetworkRecipe, job: TrainJob, examples: TrainExamples) -> Teachers | None:
    if recipe.distillation is None:
        return None
    return load_teachers(
        recipe.distillation,
        [job.model_path(member) for member in recipe.distillation.teachers],
        classes=job.classes,
        reader=job.reader,
        rows=examples.rows,
        device=job.device,
    )


def _checkpoint(context: TrainContext, weights_digest: str) -> Checkpoint:
    """The checkpoint of this very training: its name depends on everything that the result depends on."""
    job, recipe, examples = context.job, context.recipe, context.examples
    teachers = recipe.distillation.teachers if recipe.distillation else ()
    settings = {
        "recipe": recipe.model_dump(mode="json"),
        "policy": context.policy.model_dump(mode="json"),
        "seed": job.params.seed,
        "device": str(job.device),
        "num_threads": job.params.num_threads,
        "num_devices": job.processes.count,
        "deterministic": job.params.deterministic,
        "precision": context.input.precision,
        "weights": weights_digest,
        "teachers": [hashlib.sha256(job.model_path(teacher).read_bytes()).hexdigest() for teacher in teachers],
    }
    key = json.dumps(settings, sort_keys=True).encode()
    pixels = digest_pixels(job.reader, np.concatenate([examples.rows, job.rows.val]))
    labels = job.labels[job.rows.val].tobytes()
    return checkpoint_for(job.cache_dir, job.title, parts=[key, examples.digest(), labels, pixels])


def _outcome(
    state: TrainState, context: TrainContext, info: dict[str, object], checkpoint: Checkpoint, exported: Rows
) -> TrainOutcome:
    """Predict validation, test and unlabelled images with the best epoch's weights, and look at all of `exported`."""
    job, recipe = context.job, context.recipe
    if state.best_epoch == 0:
        raise TrainingError(
            f"the validation loss is no number after any of {state.epoch} epochs: lower optimizer.learning_rate (a "
            "tenth is a good try), raise warmup_epochs or batch_size, or set clip_grad_norm"
        )
    state.evaluated.load_state_dict(state.best_weights)

    def predict(rows: Rows) -> Probabilities:
        found = context.predict(state.evaluated, _loader(job, rows, recipe.image_size), len(rows), recipe.tta)
        return cast("Probabilities", found.float().numpy())

    features = penultimate_features(
        state.evaluated,
        _loader(job, exported, recipe.image_size),
        len(exported),
        spec=context.input,
        image_size=recipe.image_size,
        processes=job.processes,
    )
    return TrainOutcome(
        tensors=state.best_weights,
        info={
            "tta": list(recipe.tta),
            "precision": context.input.precision,
            "best_epoch": state.best_epoch,
            "epochs": state.epoch,
            "grad_accum_steps": state.num_parts,
            "num_devices": job.processes.count,
            **info,
        },
        history_header=HISTORY_HEADER,
        history=state.history,
        val=predict(job.rows.val),
        test=predict(job.rows.test),
        unlabelled=predict(job.rows.unlabelled),
        penultimate=penultimate_table(job.reader.index, exported, features.numpy()),
        finish=checkpoint.remove,
    )
