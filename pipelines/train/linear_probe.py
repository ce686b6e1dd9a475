"""Recipes of tuning `linear_probe`: pretrained backbones as they are, one linear head fitted on their cached features.

Features of a picture do not change while its head learns, so each is computed once (`pipelines/features`), in every
view of the recipe; several backbones' features are joined. The head is logistic regression fitted to the optimum
(`logistic.py`), or trained here by AdamW in batches, which need not fit the memory.
"""

import hashlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

from pipelines.augmentation.packs import PackReader, Rows
from pipelines.augmentation.random import Keys, picture_keys
from pipelines.core.errors import InputError, TrainingError
from pipelines.core.files import code_digest
from pipelines.core.progress import progress
from pipelines.features.backbones import FrozenBackbone, Tensors, fold_batch_norms
from pipelines.features.cache import CachedFeatures, Features, cache_folder, cached_features, processor_name
from pipelines.params.networks import NetworkName
from pipelines.params.recipes import LinearProbeRecipe, LogisticHead, Precision, SgdHead, TtaView
from pipelines.train.data_loader import StreamingLoader
from pipelines.train.device import Arithmetic, autocast, has_bfloat16
from pipelines.train.examples import epoch_batches, repeat_keys
from pipelines.train.inference import to_float
from pipelines.train.job import HISTORY_HEADER, Probabilities, TrainJob, TrainOutcome, feature_table
from pipelines.train.logistic import PIECE, LinearHead, fit_heads, mean_probabilities, safe_deviation
from pipelines.train.losses import validation_metrics
from pipelines.train.models import build_backbone, load_weights, spec_for
from pipelines.train.tta import view

BATCH = {"cpu": 32, "mps": 64, "cuda": 256}
"""pictures a batch on each device. On two cores Lite0 at 224 px makes 277, 291, 325 pictures a second with 16, 32, 64
in bfloat16; in float32 64 are slower than 32"""
LOGISTIC_HEADER = ("inverse_strength", "train_loss", "val_loss", "train_accuracy", "val_accuracy", "val_macro_f1")
LOGISTIC_BYTES = 26
"""of memory for each feature while logistic regression is fitted: as read, in double precision, turned, and a copy"""

ReadFeatures = Callable[[Rows], torch.Tensor]
"""(n,) positions of pictures to their (V, n, D) float16 features in V views, on the CPU"""


@dataclass(frozen=True)
class ProbeData:
    """What a head is fitted to.

    Args:
        train, labels: (N,) positions of pictures, as `ReadFeatures` takes them, and their classes.
        val, val_labels: (M,) the same, to choose by.
        num_classes: K.
    """

    train: Rows
    labels: Rows
    val: Rows
    val_labels: Rows
    num_classes: int


@dataclass(frozen=True)
class FittedHead:
    """A head, what was chosen on the validation pictures, and the lines of history.csv."""

    head: LinearHead
    info: dict[str, Any]
    history_header: tuple[str, ...]
    history: list[tuple[float, ...]]


def train_linear_probe(recipe: LinearProbeRecipe, job: TrainJob, *, probed: Rows) -> TrainOutcome:
    """Compute or recall features, fit a head on the training pictures, choose it by the validation loss.

    Args:
        probed: rows of the index whose features are part of the outcome.

    Raises:
        InputError: the weights cannot be had, or the features of so many pictures do not fit the memory.
        TrainingError: a feature or a loss is no number.
    """
    rows = job.rows
    every = np.concatenate([rows.train, rows.val, rows.test, rows.unlabelled])
    ends = np.cumsum([len(rows.train), len(rows.val), len(rows.test)])
    train, val, test, unlabelled = np.split(np.arange(len(every)), ends)
    precision = choose_feature_precision(recipe.precision, job.device)
    digests = hash_pictures(job.reader, every)
    tensors: Tensors = {}
    sources, stored = [], []
    with progress("train: features", len(every) * len(recipe.backbones) * len(recipe.tta), unit="views") as advance:
        for model in recipe.backbones:
            found, weights, source = _backbone_features(model, recipe, precision, job, every, digests, advance)
            prefix = f"backbones.{model}" if recipe.models else "backbone"
            tensors |= {f"{prefix}.{name}": tensor for name, tensor in weights.items()}
            sources.append(source)
            stored.append(found)

    def read_view(pictures: Rows, number: int) -> Features:
        return np.concatenate([views[number].read(pictures) for views in stored], axis=1)  # (n, D)

    def read(pictures: Rows) -> torch.Tensor:
        return torch.from_numpy(np.stack([read_view(pictures, number) for number in range(len(recipe.tta))]))

    data = ProbeData(train, job.labels[rows.train], val, job.labels[rows.val], len(job.classes))
    if isinstance(recipe.head, LogisticHead):
        num_features = sum(views[0].num_features for views in stored)
        _check_memory(len(recipe.tta) * len(train) * num_features, job.where)
        fitted = _fit_logistic(recipe.head, read, data)
    else:
        index = job.reader.index
        keys = repeat_keys(picture_keys(index.image_id[rows.train]), index.copy[rows.train])
        with progress("train: head", recipe.head.epochs, unit="epochs") as advance:
            fitted = fit_by_sgd(
                recipe.head, read, data, keys=keys, seed=job.params.seed, device=job.device, where=job.where,
                advance=advance,
            )  # fmt: skip

    def probabilities(pictures: Rows) -> Probabilities:
        return cast("Probabilities", predict(fitted.head, read, pictures).float().numpy())

    shown = np.flatnonzero(np.isin(every, probed))
    features = [read_view(shown, number) for number in range(len(recipe.tta))]
    return TrainOutcome(
        tensors=tensors | {f"head.{name}": tensor for name, tensor in fitted.head.state_dict().items()},
        info={"tta": list(recipe.tta), "precision": precision, "weights": ",".join(sources), **fitted.info},
        history_header=fitted.history_header,
        history=fitted.history,
        val=probabilities(val),
        test=probabilities(test),
        unlabelled=probabilities(unlabelled),
        features=feature_table(job.reader.index, every[shown], features, recipe.tta),
    )


def choose_feature_precision(wanted: Precision, device: torch.device) -> Arithmetic:
    """The arithmetic of features: bfloat16 where the device has units for it, of every network.

    Without gradients bfloat16 is faster even for depthwise networks, which it slows in training: at 224 px on two
    cores with AVX-512 in pictures a second, float32 and bfloat16: efficientnet_lite0 216, 358; mobilenet_v3_large 70,
    97; shufflenet_v2_x1_0 360, 470; resnet18 27, 36; densenet121 9, 15; convnext_tiny 11, 30; vit_b_32 10, 36. Heads
    on either told clothing (10 classes, 150 test pictures) equally well.
    """
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if device.type == "cpu" and has_bfloat16() else "float32"


def hash_pictures(reader: PackReader, rows: Rows) -> list[bytes]:
    """The sha256 of each packed picture."""
    return [hashlib.sha256(reader.read(rows[i : i + 1]).data).digest() for i in range(len(rows))]


def _backbone_features(
    model: NetworkName,
    recipe: LinearProbeRecipe,
    precision: Arithmetic,
    job: TrainJob,
    rows: Rows,
    digests: Sequence[bytes],
    advance: Callable[[int], None],
) -> tuple[list[CachedFeatures], Tensors, str]:
    """Of the pictures in `rows` by one backbone, one a view; its weights, and the sha256 of where they came from.

    The cache's key leaves `core` out: it reads and writes bytes and tables, and computes no pixel. A picture's own key
    is the digest of the packed pixels.
    """
    module, num_features = build_backbone(model, image_size=recipe.image_size)
    member_path = job.source_path(recipe.weights)
    source = load_weights(module, recipe.weights, model=model, member_path=member_path, root=job.root)
    # folding changes the weights in place
    tensors = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    batch = BATCH[job.device.type]
    spec = spec_for(model)
    backbone = FrozenBackbone(fold_batch_norms(module.eval()).to(job.device), spec, name=model, batch=batch)

    def compute(name: TtaView, positions: Rows) -> Iterator[Features]:
        parts = np.split(np.arange(len(positions)), range(batch, len(positions), batch))
        feed = StreamingLoader(job.reader, rows[positions], image_size=recipe.image_size, device=job.device)
        for pixels in feed.batches(parts):
            with autocast(precision, job.device):
                yield backbone(view(to_float(pixels), name))

    found = []
    for name in recipe.tta:
        settings = {
            "model": model,
            "spec": asdict(spec),
            "weights": source,
            "view": name,
            "image_size": recipe.image_size,
            "precision": precision,
            "device": job.device.type,
            "num_threads": job.params.num_threads,
            "torch": torch.__version__,
            "processor": processor_name(job.device),
            "batch": batch,
            "code": code_digest("augmentation", "features", "train"),
        }
        folder = cache_folder(job.cache_dir / "features", f"{model.replace('/', '-')}-{name}", settings)
        found.append(
            cached_features(
                folder,
                digests,
                num_features=num_features,
                compute=lambda positions, name=name: compute(name, positions),  # type: ignore[misc]
                advance=advance,
            )
        )
    return found, tensors, source


def predict(head: LinearHead, read: ReadFeatures, pictures: Rows) -> torch.Tensor:
    """(n, K) float64 probabilities of `pictures`, read piece by piece."""
    pieces = [pictures[start : start + PIECE] for start in range(0, max(1, len(pictures)), PIECE)]
    return torch.cat([mean_probabilities(head, read(piece)) for piece in pieces])


def _fit_logistic(params: LogisticHead, read: ReadFeatures, data: ProbeData) -> FittedHead:
    """One fit a strength; the one with the least validation loss is kept."""
    fits = fit_heads(
        read(data.train),
        torch.from_numpy(data.labels),
        read(data.val),
        torch.from_numpy(data.val_labels),
        num_classes=data.num_classes,
        inverse_strengths=params.Cs,
    )
    best = min(fits, key=lambda fit: fit.val.loss)  # of equal ones the strongest regularisation
    history: list[tuple[float, ...]] = [
        (fit.inverse_strength, fit.train.loss, fit.val.loss, fit.train.accuracy, fit.val.accuracy, fit.val.macro_f1)
        for fit in fits
    ]
    return FittedHead(best.head, {"inverse_strength": best.inverse_strength}, LOGISTIC_HEADER, history)


def _check_memory(num_values: int, where: str) -> None:
    """Refuse before hours of work what would end in a killed process.

    Raises:
        InputError: so many features do not fit the memory.
    """
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):  # not every system tells
        return
    if num_values * LOGISTIC_BYTES > memory:
        raise InputError(
            f"{where}.head logistic_regression needs all features of the training pictures in memory, about "
            f"{num_values * LOGISTIC_BYTES / 1e9:,.0f} GB, and this machine has {memory / 1e9:,.0f} GB: take the head "
            "sgd, which reads them batch by batch, or fewer views in tta"
        )


def fit_by_sgd(
    params: SgdHead,
    read: ReadFeatures,
    data: ProbeData,
    *,
    keys: Keys,
    seed: int,
    device: torch.device,
    where: str,
    advance: Callable[[int], None],
) -> FittedHead:
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
    mean, std = _mean_and_deviation(read, data.train)
    shift, scale = mean.float().to(device), std.float().to(device)
    weight = torch.zeros(data.num_classes, len(mean), device=device, requires_grad=True)
    bias = torch.zeros(data.num_classes, device=device, requires_grad=True)
    groups = [{"params": [weight], "weight_decay": params.weight_decay}, {"params": [bias], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=params.learning_rate)
    best_loss, best_epoch, best = math.inf, 0, None

    def rate_of(epoch: int, number: int, num_batches: int) -> float:
        done = ((epoch - 1) * num_batches + number) / (params.epochs * num_batches)
        return params.learning_rate * 0.5 * (1.0 + math.cos(math.pi * done))

    history: list[tuple[float, ...]] = []
    for epoch in range(1, params.epochs + 1):
        order = epoch_batches(keys, seed=seed, epoch=epoch, batch_size=params.batch_size, smallest=1)
        losses, right = [], []
        for number, part in enumerate(order):
            for group in optimizer.param_groups:
                group["lr"] = rate_of(epoch, number, len(order))
            features = read(data.train[part]).to(device).float()
            logits = F.linear((features - shift) / scale, weight, bias)  # (V, B, K)
            targets = torch.from_numpy(data.labels[part]).to(device)
            loss = F.cross_entropy(logits.flatten(0, 1), targets.repeat(len(logits)))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            # read once an epoch, so that a GPU never waits
            losses.append(loss.detach() * len(part))
            right.append((logits.detach().softmax(dim=-1).mean(dim=0).argmax(dim=-1) == targets).sum())
        sums = torch.stack(losses).cpu().double()
        if not bool(sums.isfinite().all()):
            batch = int((~sums.isfinite()).int().argmax())
            raise TrainingError(
                f"{where}: the loss is {float(sums[batch])} in epoch {epoch}, batch {batch + 1} of {len(order)}, at "
                f"learning rate {rate_of(epoch, batch, len(order)):g}: lower head.learning_rate (a tenth is a good try)"
            )
        head = LinearHead(weight.detach().cpu().clone(), bias.detach().cpu().clone(), mean, std)
        found = validation_metrics(predict(head, read, data.val), data.val_labels)
        loss_mean, accuracy = float(sums.sum()) / len(data.train), int(torch.stack(right).sum()) / len(data.train)
        rate = rate_of(epoch, len(order) - 1, len(order))
        history.append((epoch, loss_mean, found.loss, accuracy, found.accuracy, found.macro_f1, rate))
        if best is None or found.loss < best_loss:
            best_loss, best_epoch, best = found.loss, epoch, head
        advance(1)
    assert best is not None  # there is at least one epoch
    return FittedHead(best, {"best_epoch": best_epoch}, HISTORY_HEADER, history)


def _mean_and_deviation(read: ReadFeatures, pictures: Rows) -> tuple[torch.Tensor, torch.Tensor]:
    """(D,) float64 each, over all pictures and views; in two passes, for no digits to be lost."""
    parts = [pictures[start : start + PIECE] for start in range(0, len(pictures), PIECE)]
    mean = torch.stack([read(part).double().mean(dim=0).sum(dim=0) for part in parts]).sum(dim=0) / len(pictures)
    squares = [(read(part).double() - mean).square().mean(dim=0).sum(dim=0) for part in parts]
    return mean, safe_deviation((torch.stack(squares).sum(dim=0) / len(pictures)).sqrt())
