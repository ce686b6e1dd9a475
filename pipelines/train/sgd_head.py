"""A linear head trained by gradient descent on features that may be too many for the memory."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

from pipelines.augmentation.packs import Rows
from pipelines.augmentation.random import Keys
from pipelines.core.errors import TrainingError
from pipelines.params.recipes import SgdHead
from pipelines.train.examples import epoch_batches
from pipelines.train.head import PIECE, LinearHead, mean_probabilities, safe_deviation
from pipelines.train.losses import validation_metrics

Read = Callable[[Rows], torch.Tensor]
"""(n,) positions of pictures to their (V, n, D) float16 features, on the CPU"""


@dataclass(frozen=True)
class Known:
    """What a head is fitted to.

    Args:
        train, labels: (N,) positions of pictures, as `Read` takes them, and their classes.
        val, val_labels: (M,) the same, to choose by.
        num_classes: K.
    """

    train: Rows
    labels: Rows
    val: Rows
    val_labels: Rows
    num_classes: int


@dataclass(frozen=True)
class SgdFit:
    """The head of the best epoch.

    Args:
        history: a line an epoch, as job.HISTORY_HEADER says.
    """

    head: LinearHead
    best_epoch: int
    history: list[tuple[float, ...]]


def fit_by_steps(
    params: SgdHead,
    read: Read,
    known: Known,
    *,
    keys: Keys,
    seed: int,
    device: torch.device,
    where: str,
    advance: Callable[[int], None],
) -> SgdFit:
    """Train from zeros by AdamW, its rate along half a cosine, and keep the epoch with the least validation loss.

    A step takes a batch of pictures in all their views; their order is a function of (seed, epoch, picture).

    Args:
        keys: (N,) of the training pictures, for their order.
        device: that computes; features pass over it batch by batch.
        where: the recipe's path in params.yaml, for messages.
        advance: is told of epochs that are done.

    Raises:
        TrainingError: the loss is no longer a number; names epoch, batch and learning rate.
    """
    mean, std = _mean_and_deviation(read, known.train)
    model = _Model(known.num_classes, mean, std, device)
    groups = [
        {"params": [model.weight], "weight_decay": params.weight_decay},
        {"params": [model.bias], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=params.learning_rate)
    best: tuple[float, SgdFit] | None = None
    history: list[tuple[float, ...]] = []
    for epoch in range(1, params.epochs + 1):
        order = epoch_batches(keys, seed=seed, epoch=epoch, batch_size=params.batch_size, smallest=1)
        first = (epoch - 1) * len(order)
        rates = [_rate(params, first + step, params.epochs * len(order)) for step in range(len(order))]
        loss, accuracy = _train_epoch(model, optimizer, rates, order, read, known, epoch=epoch, where=where)
        head = model.head(mean, std)
        found = validation_metrics(predict(head, read, known.val), known.val_labels)
        history.append((epoch, loss, found.loss, accuracy, found.accuracy, found.macro_f1, rates[-1]))
        if best is None or found.loss < best[0]:
            best = (found.loss, SgdFit(head, epoch, history))
        advance(1)
    assert best is not None  # there is at least one epoch
    return best[1]


class _Model:
    """(V, B, D) features to (V, B, K) logits, on the device."""

    def __init__(self, num_classes: int, mean: torch.Tensor, std: torch.Tensor, device: torch.device) -> None:
        self.weight = torch.zeros(num_classes, len(mean), device=device, requires_grad=True)
        self.bias = torch.zeros(num_classes, device=device, requires_grad=True)
        self.mean, self.std = mean.float().to(device), std.float().to(device)
        self.device = device

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        return F.linear((features.to(self.device).float() - self.mean) / self.std, self.weight, self.bias)

    def head(self, mean: torch.Tensor, std: torch.Tensor) -> LinearHead:
        return LinearHead(self.weight.detach().cpu().clone(), self.bias.detach().cpu().clone(), mean, std)


def _train_epoch(
    model: _Model,
    optimizer: torch.optim.Optimizer,
    rates: Sequence[float],
    order: Sequence[Rows],
    read: Read,
    known: Known,
    *,
    epoch: int,
    where: str,
) -> tuple[float, float]:
    """One pass over the pictures; their mean loss and accuracy, each as it was at its step."""
    losses, right = [], []
    for part, rate in zip(order, rates, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate
        logits = model(read(known.train[part]))
        targets = torch.from_numpy(known.labels[part]).to(model.device)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.repeat(len(logits)))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        # read once an epoch, so that a GPU never waits
        losses.append(loss.detach())
        right.append((logits.detach().softmax(dim=-1).mean(dim=0).argmax(dim=-1) == targets).sum())
    found = torch.stack(losses).cpu().double()
    if not bool(found.isfinite().all()):
        batch = int((~found.isfinite()).int().argmax())
        raise TrainingError(
            f"{where}: the loss is {float(found[batch])} in epoch {epoch}, batch {batch + 1} of {len(order)}, at "
            f"learning rate {rates[batch]:g}: lower head.learning_rate (a tenth is a good try)"
        )
    sizes = torch.tensor([len(part) for part in order], dtype=torch.float64)
    return float((found * sizes).sum()) / len(known.train), int(torch.stack(right).sum()) / len(known.train)


def _rate(params: SgdHead, step: int, num_steps: int) -> float:
    return params.learning_rate * 0.5 * (1.0 + math.cos(math.pi * step / num_steps))


def predict(head: LinearHead, read: Read, pictures: Rows) -> torch.Tensor:
    """(n, K) float64 probabilities of `pictures`, read piece by piece."""
    pieces = [pictures[start : start + PIECE] for start in range(0, max(1, len(pictures)), PIECE)]
    return torch.cat([mean_probabilities(head, read(piece)) for piece in pieces])


def _mean_and_deviation(read: Read, pictures: Rows) -> tuple[torch.Tensor, torch.Tensor]:
    """(D,) float64 each, over all pictures and views; in two passes, for no digits to be lost."""
    parts = [pictures[start : start + PIECE] for start in range(0, len(pictures), PIECE)]
    mean = torch.stack([read(part).double().mean(dim=0).sum(dim=0) for part in parts]).sum(dim=0) / len(pictures)
    squares = [(read(part).double() - mean).square().mean(dim=0).sum(dim=0) for part in parts]
    return mean, safe_deviation((torch.stack(squares).sum(dim=0) / len(pictures)).sqrt())
