"""Recipes of tuning `scratch`: a network from random weights, its pictures resident on the device as uint8.

Nothing waits for the device inside an epoch: losses are kept there and looked at once, when the epoch is over.
"""

import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn

from pipelines.core.augmentation import apply
from pipelines.core.draws import Keys, draw, picture_keys
from pipelines.core.errors import TrainingError
from pipelines.core.packs import FoldRows, PackReader, Rows
from pipelines.core.params.augment import AugmentPolicy
from pipelines.core.params.train import Adam, ScratchRecipe, Sgd
from pipelines.train.models import MODELS, ModelSpec
from pipelines.train.outcome import Outcome, Probabilities
from pipelines.train.pictures import normalise, read_resized, to_float

HISTORY_HEADER = ("epoch", "train_loss", "val_loss", "train_accuracy", "val_accuracy", "learning_rate")
EVALUATION_BATCH = 256


@dataclass(frozen=True)
class Resident:
    """Pictures on the device.

    Args:
        pixels: (N, s, s, 3) uint8.
        targets: (N,) int64, class indices.
        keys: (N,) uint64, whose draws are theirs; on the host.
    """

    pixels: torch.Tensor
    targets: torch.Tensor
    keys: Keys


def train_scratch(
    recipe: ScratchRecipe,
    policy: AugmentPolicy,
    *,
    reader: PackReader,
    rows: FoldRows,
    device: torch.device,
    seed: int,
    title: str,
) -> Outcome:
    """Train until the epochs or the patience are over; the weights of the best validation loss are kept.

    Raises:
        TrainingError: the loss is no longer a number.
    """
    spec = MODELS[recipe.model]
    model = spec.build(len(reader.index.classes), recipe.image_size, recipe.dropout).to(device)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    train, val, test = (
        _resident(reader, part, recipe.image_size, device) for part in (rows.train, rows.val, rows.test)
    )
    optimizer = make_optimizer(recipe.optimizer, model)
    history: list[tuple[float, ...]] = []
    best_epoch, best_loss = 0, math.inf
    best = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for epoch in range(1, recipe.epochs + 1):
        started = time.monotonic()
        train_loss, train_accuracy = _epoch(model, optimizer, recipe, policy, spec, train, seed=seed, epoch=epoch)
        val_loss, val_accuracy = _score(model, spec, val)
        rate = optimizer.param_groups[0]["lr"]
        history.append((epoch, train_loss, val_loss, train_accuracy, val_accuracy, rate))
        speed = len(train.targets) / (time.monotonic() - started)
        print(
            f"train: {title}: epoch {epoch} of {recipe.epochs}: loss {train_loss:.3f}, validation {val_loss:.3f}, "
            f"{val_accuracy:.1%} right, {speed:,.0f} pictures a second",
            file=sys.stderr,
        )
        if val_loss < best_loss:
            best_epoch, best_loss = epoch, val_loss
            best = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        elif epoch - best_epoch >= recipe.patience:
            print(f"train: {title}: no better since epoch {best_epoch}, which is kept", file=sys.stderr)
            break
    model.load_state_dict(best)
    return Outcome(
        tensors=best,
        info={"views": ["plain"], "best_epoch": best_epoch, "num_epochs": len(history)},
        history_header=HISTORY_HEADER,
        history=history,
        val=_probabilities(model, spec, val),
        test=_probabilities(model, spec, test),
    )


def learning_rate(recipe: ScratchRecipe, step: int, steps_per_epoch: int) -> float:
    """The rate of `step` (from 0 on): linear warm-up, then constant, or half a cosine down to zero."""
    peak = recipe.optimizer.learning_rate
    warmup, total = recipe.warmup_epochs * steps_per_epoch, recipe.epochs * steps_per_epoch
    if step < warmup:
        return peak * (step + 1) / warmup
    if recipe.schedule == "constant":
        return peak
    return peak * 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def make_optimizer(params: Sgd | Adam, model: nn.Module) -> torch.optim.Optimizer:
    """SGD or Adam; biases and the weights of norms are not decayed (they have one dimension)."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    free = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": params.weight_decay}, {"params": free, "weight_decay": 0.0}]
    if isinstance(params, Sgd):
        return torch.optim.SGD(groups, params.learning_rate, momentum=params.momentum, nesterov=params.nesterov)
    return torch.optim.Adam(groups, params.learning_rate)


def batches(num_images: int, batch_size: int, *, seed: int, epoch: int) -> Iterator[npt.NDArray[np.int64]]:
    """The pictures of each step of an epoch, in an order drawn from (seed, epoch).

    A last batch of one picture joins the one before: batch norm cannot tell the spread of one.
    """
    order = np.random.default_rng([seed, epoch]).permutation(num_images)
    cuts = list(range(batch_size, num_images, batch_size))
    if cuts and num_images - cuts[-1] == 1:
        cuts.pop()
    yield from np.split(order, cuts)


def _epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    recipe: ScratchRecipe,
    policy: AugmentPolicy,
    spec: ModelSpec,
    train: Resident,
    *,
    seed: int,
    epoch: int,
) -> tuple[float, float]:
    """One pass over the training pictures: mean loss and share right, both of the changed pictures."""
    model.train()
    steps = list(batches(len(train.targets), recipe.batch_size, seed=seed, epoch=epoch))
    losses, right = [], []
    for number, chosen in enumerate(steps):
        rate = learning_rate(recipe, (epoch - 1) * len(steps) + number, len(steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        on_device = torch.from_numpy(chosen).to(train.pixels.device)
        draws = draw(policy, seed=seed, epoch=epoch, pictures=train.keys[chosen])
        images = normalise(apply(to_float(train.pixels[on_device]), draws, policy), spec.mean, spec.std)
        targets = train.targets[on_device]
        logits = model(images)
        loss = F.cross_entropy(logits, targets, label_smoothing=recipe.label_smoothing)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.detach() * len(chosen))
        right.append((logits.detach().argmax(dim=1) == targets).sum())
    every = torch.stack(losses)
    if not torch.isfinite(every).all():
        batch = int(torch.nonzero(~torch.isfinite(every))[0])
        raise TrainingError(
            f"the loss is no number in epoch {epoch}, batch {batch + 1} of {len(steps)} (learning rate "
            f"{learning_rate(recipe, (epoch - 1) * len(steps) + batch, len(steps)):g}): lower "
            "optimizer.learning_rate, or raise warmup_epochs"
        )
    num_images = len(train.targets)
    return float(every.sum()) / num_images, int(torch.stack(right).sum()) / num_images


def _resident(reader: PackReader, rows: Rows, image_size: int, device: torch.device) -> Resident:
    index = reader.index
    return Resident(
        pixels=torch.from_numpy(read_resized(reader, rows, image_size)).to(device),
        targets=torch.from_numpy(index.class_index[rows]).to(device),
        keys=picture_keys(index.image_id[rows]),
    )


@torch.inference_mode()
def _logits(model: nn.Module, spec: ModelSpec, pictures: Resident) -> torch.Tensor:
    """(N, K) float32 of pictures as they are, in eval mode."""
    model.eval()
    parts = pictures.pixels.split(EVALUATION_BATCH)
    found = [model(normalise(to_float(part), spec.mean, spec.std)) for part in parts if len(part)]
    return torch.cat(found) if found else torch.empty((0, 1), device=pictures.pixels.device)


def _score(model: nn.Module, spec: ModelSpec, pictures: Resident) -> tuple[float, float]:
    """Mean cross-entropy, without smoothing, and share right."""
    logits = _logits(model, spec, pictures)
    loss = float(F.cross_entropy(logits, pictures.targets))
    return loss, float((logits.argmax(dim=1) == pictures.targets).float().mean())


def _probabilities(model: nn.Module, spec: ModelSpec, pictures: Resident) -> Probabilities:
    """(N, K) float32; the softmax in double precision, so that each row sums to 1."""
    logits = _logits(model, spec, pictures)
    return cast("Probabilities", logits.cpu().double().softmax(dim=1).float().numpy())
