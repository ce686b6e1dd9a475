"""Recipes of tuning `scratch`: a network trained from random weights on pictures that lie in the device's memory.

No loader processes: the pack, resized once, is one uint8 tensor on the device, and each batch is taken from it,
augmented and normalised there. Order and augmentation of an epoch are functions of (seed, epoch, picture), so a run
that is killed continues after its last whole epoch and ends in the same bytes.
"""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn

from pipelines.core.augmentation import apply
from pipelines.core.draws import ORDER, Keys, draw, picture_keys, uniform
from pipelines.core.errors import TrainingError
from pipelines.core.packs import FoldRows, PackReader, Rows
from pipelines.core.params.augment import AugmentPolicy
from pipelines.core.params.train import ScratchRecipe
from pipelines.core.progress import progress
from pipelines.train.checkpoints import Checkpoint, checkpoint_for
from pipelines.train.head import score
from pipelines.train.models import MODELS, ModelSpec, build_network
from pipelines.train.optimizers import build_optimizer, decay_groups, learning_rate_at
from pipelines.train.outcome import Outcome, Probabilities
from pipelines.train.pictures import normalise, read_resized, to_float

HISTORY_HEADER = ("epoch", "train_loss", "val_loss", "train_accuracy", "val_accuracy", "learning_rate")
EVALUATION_BATCH = 128


@dataclass(frozen=True)
class Pictures:
    """N pictures on the device.

    Args:
        pixels: (N, S, S, 3) uint8.
        labels: (N,) int64.
        keys: (N,) uint64, for draws; on the CPU.
    """

    pixels: torch.Tensor
    labels: torch.Tensor
    keys: Keys

    @classmethod
    def read(cls, reader: PackReader, rows: Rows, image_size: int, device: torch.device) -> "Pictures":
        pixels = torch.from_numpy(read_resized(reader, rows, image_size)).to(device)
        labels = torch.from_numpy(reader.index.class_index[rows]).to(device)
        return cls(pixels, labels, picture_keys(reader.index.image_id[rows]))

    def digest_parts(self) -> list[bytes]:
        return [self.pixels.cpu().numpy().tobytes(), self.labels.cpu().numpy().tobytes(), self.keys.tobytes()]


@dataclass
class Run:
    """What changes while a network is trained."""

    module: nn.Module
    optimizer: torch.optim.Optimizer
    epoch: int = 0
    best_epoch: int = 0
    best_loss: float = math.inf
    best_weights: dict[str, torch.Tensor] = field(default_factory=dict)
    history: list[tuple[float, ...]] = field(default_factory=list)

    def state(self) -> dict[str, Any]:
        return {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "best_epoch": self.best_epoch,
            "best_loss": self.best_loss,
            "best_weights": self.best_weights,
            "history": self.history,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.best_epoch, self.best_loss = state["epoch"], state["best_epoch"], state["best_loss"]
        self.best_weights, self.history = state["best_weights"], state["history"]


def train_scratch(
    recipe: ScratchRecipe,
    policy: AugmentPolicy,
    *,
    reader: PackReader,
    rows: FoldRows,
    device: torch.device,
    seed: int,
    num_threads: int,
    title: str,
    cache_dir: Path,
) -> Outcome:
    """Train until the last epoch, or until the validation loss has not fallen for `patience` epochs.

    Raises:
        TrainingError: the loss is no longer a number; names epoch, batch and learning rate.
    """
    train = Pictures.read(reader, rows.train, recipe.image_size, device)
    val = Pictures.read(reader, rows.val, recipe.image_size, device)
    spec, num_classes = MODELS[recipe.model], len(reader.index.classes)
    torch.manual_seed(seed)
    module = build_network(recipe, num_classes).to(device)
    module = module.to(memory_format=torch.channels_last)
    run = Run(module, build_optimizer(recipe.optimizer, decay_groups(module, recipe.optimizer.weight_decay)))
    settings = {"recipe": recipe.model_dump(), "policy": policy.model_dump(), "seed": seed}
    machine = {"device": str(device), "num_threads": num_threads, "num_classes": num_classes}
    key = json.dumps(settings | machine, sort_keys=True).encode()
    checkpoint = checkpoint_for(cache_dir, title, parts=[key, *train.digest_parts(), *val.digest_parts()])
    _train_epochs(
        run, recipe, policy, spec, train, val, num_classes=num_classes, seed=seed, checkpoint=checkpoint, title=title
    )
    module.load_state_dict(run.best_weights)
    test = Pictures.read(reader, rows.test, recipe.image_size, device)
    return Outcome(
        tensors=dict(module.state_dict()),
        info={"views": ["plain"], "best_epoch": run.best_epoch},
        history_header=HISTORY_HEADER,
        history=run.history,
        val=cast("Probabilities", _probabilities(module, val, spec, num_classes).float().numpy()),
        test=cast("Probabilities", _probabilities(module, test, spec, num_classes).float().numpy()),
        finish=checkpoint.remove,
    )


def _train_epochs(
    run: Run,
    recipe: ScratchRecipe,
    policy: AugmentPolicy,
    spec: ModelSpec,
    train: Pictures,
    val: Pictures,
    *,
    num_classes: int,
    seed: int,
    checkpoint: Checkpoint,
    title: str,
) -> None:
    """Train `run` to its end, from its checkpoint where there is one."""
    state = checkpoint.load()
    if state is not None:
        run.restore(state)
        print(f"{title}: continues after epoch {run.epoch}", flush=True)
    num_train = len(train.labels)
    with progress(f"train: {title}", recipe.epochs * num_train, unit="pictures") as advance:
        advance(run.epoch * num_train)
        while run.epoch < recipe.epochs and run.epoch - run.best_epoch < recipe.patience:
            run.epoch += 1
            started = time.perf_counter()
            train_loss, train_accuracy, rate = _train_epoch(run, recipe, policy, spec, train, seed, advance)
            seconds = time.perf_counter() - started
            val_loss, val_accuracy = score(_probabilities(run.module, val, spec, num_classes), val.labels.cpu())
            run.history.append((run.epoch, train_loss, val_loss, train_accuracy, val_accuracy, rate))
            if val_loss < run.best_loss:
                run.best_loss, run.best_epoch = val_loss, run.epoch
                run.best_weights = {name: t.detach().cpu().clone() for name, t in run.module.state_dict().items()}
            checkpoint.save(run.state())
            print(
                f"{title}: epoch {run.epoch} of {recipe.epochs}, loss {train_loss:.4f}, validation loss "
                f"{val_loss:.4f}, accuracy {val_accuracy:.1%}, {num_train / seconds:,.0f} pictures a second",
                flush=True,
            )


def batches(keys: Keys, *, seed: int, epoch: int, batch_size: int) -> list[Rows]:
    """The rows of each batch of an epoch: every picture once, in an order drawn anew, in batches of nearly one size.

    A batch of one picture is avoided, since batch norm has nothing to normalise there.
    """
    order = np.argsort(uniform(seed, epoch, keys, ORDER), kind="stable")
    count = -(-len(order) // batch_size)
    if count > 1 and len(order) // count == 1:
        count = max(1, len(order) // 2)
    return np.array_split(order, count)


def _train_epoch(
    run: Run,
    recipe: ScratchRecipe,
    policy: AugmentPolicy,
    spec: ModelSpec,
    train: Pictures,
    seed: int,
    advance: Callable[[int], None],
) -> tuple[float, float, float]:
    """One pass over the training pictures: mean loss, accuracy (both as augmented) and the last learning rate."""
    # dropout draws from here: an epoch repeats without the ones before it
    torch.manual_seed(seed * 100_003 + run.epoch)
    run.module.train()
    parts = batches(train.keys, seed=seed, epoch=run.epoch, batch_size=recipe.batch_size)
    losses, correct, rates = [], [], []
    for number, part in enumerate(parts):
        rates.append(
            learning_rate_at(
                (run.epoch - 1) * len(parts) + number,
                peak=recipe.optimizer.learning_rate,
                schedule=recipe.schedule,
                warmup_steps=recipe.warmup_epochs * len(parts),
                num_steps=recipe.epochs * len(parts),
            )
        )
        for group in run.optimizer.param_groups:
            group["lr"] = rates[-1]
        draws = draw(policy, seed=seed, epoch=run.epoch, pictures=train.keys[part])
        chosen = torch.from_numpy(part).to(train.labels.device)
        images = apply(to_float(train.pixels[chosen]), draws, policy)
        labels = train.labels[chosen]
        logits = run.module(normalise(images, spec.mean, spec.std))
        loss = F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
        run.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        run.optimizer.step()
        # kept on the device: reading a number would wait for it
        losses.append(loss.detach() * len(part))
        correct.append((logits.detach().argmax(dim=1) == labels).sum())
        advance(len(part))
    totals = torch.stack(losses).cpu().double()
    _check_losses(totals, epoch=run.epoch, rates=rates)
    num_images = len(train.labels)
    return float(totals.sum()) / num_images, int(torch.stack(correct).sum()) / num_images, rates[-1]


def _check_losses(losses: torch.Tensor, *, epoch: int, rates: list[float]) -> None:
    bad = torch.nonzero(~torch.isfinite(losses)).flatten().tolist()
    if bad:
        batch = bad[0]
        raise TrainingError(
            f"the loss is {losses[batch].item()} in epoch {epoch}, batch {batch + 1} of {len(losses)}, at learning "
            f"rate {rates[batch]:g}: lower optimizer.learning_rate (a tenth is a good try) or raise warmup_epochs"
        )


@torch.inference_mode()
def _probabilities(module: nn.Module, pictures: Pictures, spec: ModelSpec, num_classes: int) -> torch.Tensor:
    """(N, K) float64 on the CPU."""
    module.eval()
    found = [torch.empty((0, num_classes), dtype=torch.float64)]
    for start in range(0, len(pictures.labels), EVALUATION_BATCH):
        images = to_float(pictures.pixels[start : start + EVALUATION_BATCH])
        found.append(module(normalise(images, spec.mean, spec.std)).cpu().double().softmax(dim=1))
    return torch.cat(found)
