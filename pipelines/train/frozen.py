"""Recipes of tuning `linear_probe`: a pretrained backbone as it is, a head fitted on its cached features."""

import os
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from pipelines.augmentation.packs import Rows
from pipelines.augmentation.random import picture_keys
from pipelines.core.errors import InputError
from pipelines.core.progress import progress
from pipelines.params.recipes import LinearProbeRecipe, LogisticHead, Precision, SgdHead
from pipelines.train.features import BATCH, FeatureKey, Stored, cached_features, hash_pictures, processor_name
from pipelines.train.head import LinearHead, fit_heads
from pipelines.train.job import Job
from pipelines.train.models import build_backbone, fold_batch_norms, load_weights, spec_for
from pipelines.train.order import turn_keys
from pipelines.train.outcome import Outcome, Probabilities
from pipelines.train.precision import Arithmetic, has_bfloat16
from pipelines.train.probe import feature_table
from pipelines.train.run import HISTORY_HEADER
from pipelines.train.sgd_head import Known, Read, fit_by_steps, predict

LOGISTIC_HEADER = ("inverse_strength", "train_loss", "val_loss", "train_accuracy", "val_accuracy", "val_macro_f1")
LOGISTIC_BYTES = 26
"""of memory for each feature while logistic regression is fitted: as read, in double precision, turned, and a copy"""


@dataclass(frozen=True)
class Backbone:
    """A network that is used as it is.

    Args:
        module: (B, 3, S, S) to (B, D), folded, on the device.
        num_features: D.
        tensors: its weights as they came.
        digest: sha256 of where they came from.
        precision: of its arithmetic.
    """

    module: nn.Module
    num_features: int
    tensors: dict[str, torch.Tensor]
    digest: str
    precision: Arithmetic


@dataclass(frozen=True)
class FittedHead:
    """A head, and how it came about.

    Args:
        info: what was chosen on the validation pictures.
    """

    head: LinearHead
    info: dict[str, Any]
    history_header: tuple[str, ...]
    history: list[tuple[float, ...]]


def train_frozen(recipe: LinearProbeRecipe, job: Job, *, probed: Rows) -> Outcome:
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
    backbone = _load_backbone(recipe, job)
    views = _features(recipe, backbone, every, job)

    def read(pictures: Rows) -> torch.Tensor:
        return torch.from_numpy(np.stack([stored.read(pictures) for stored in views]))  # (V, n, D) float16

    known = Known(train, job.labels[rows.train], val, job.labels[rows.val], len(job.classes))
    if isinstance(recipe.head, LogisticHead):
        _check_memory(len(views) * len(train) * backbone.num_features, job.where)
        fitted = _fit_logistic(recipe.head, read, known)
    else:
        fitted = _fit_by_steps(recipe.head, read, known, job)

    def probabilities(pictures: Rows) -> Probabilities:
        return cast("Probabilities", predict(fitted.head, read, pictures).float().numpy())

    shown = np.flatnonzero(np.isin(every, probed))
    return Outcome(
        tensors=_prefixed("backbone", backbone.tensors) | _prefixed("head", fitted.head.state_dict()),
        info={
            "tta": list(recipe.tta),
            "precision": backbone.precision,
            "weights": backbone.digest,
            **fitted.info,
        },
        history_header=fitted.history_header,
        history=fitted.history,
        val=probabilities(val),
        test=probabilities(test),
        unlabelled=probabilities(unlabelled),
        features=feature_table(job.reader.index, every[shown], [stored.read(shown) for stored in views], recipe.tta),
    )


def _prefixed(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


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


def _load_backbone(recipe: LinearProbeRecipe, job: Job) -> Backbone:
    module, num_features = build_backbone(recipe.model, image_size=recipe.image_size)
    digest = load_weights(
        module,
        recipe.weights,
        model=recipe.model,
        member_path=job.source_path(recipe.weights),
        root=job.root,
    )
    return Backbone(
        num_features=num_features,
        # folding changes the weights in place
        tensors={name: tensor.clone() for name, tensor in module.state_dict().items()},
        module=fold_batch_norms(module.eval()).to(job.device),
        digest=digest,
        precision=choose_feature_precision(recipe.precision, job.device),
    )


def _features(recipe: LinearProbeRecipe, backbone: Backbone, rows: Rows, job: Job) -> list[Stored]:
    """Of the pictures in `rows`, in their order; one a view."""
    hashes = hash_pictures(job.reader, rows)
    found = []
    with progress("train: features", len(rows) * len(recipe.tta), unit="views") as advance:
        for name in recipe.tta:
            key = FeatureKey(
                model=recipe.model,
                weights=backbone.digest,
                view=name,
                image_size=recipe.image_size,
                precision=backbone.precision,
                device=job.device.type,
                num_threads=job.params.num_threads,
                torch=torch.__version__,
                processor=processor_name(job.device),
                batch=BATCH[job.device.type],
            )
            stored = cached_features(
                job.reader,
                rows,
                hashes,
                key=key,
                backbone=backbone.module,
                num_features=backbone.num_features,
                spec=spec_for(recipe.model, recipe.weights),
                device=job.device,
                cache_dir=job.cache_dir / "features",
                advance=advance,
            )
            found.append(stored)
    return found


def _fit_logistic(params: LogisticHead, read: Read, known: Known) -> FittedHead:
    """One fit a strength; the one with the least validation loss is kept."""
    fits = fit_heads(
        read(known.train),
        torch.from_numpy(known.labels),
        read(known.val),
        torch.from_numpy(known.val_labels),
        num_classes=known.num_classes,
        inverse_strengths=params.Cs,
    )
    best = min(fits, key=lambda fit: fit.val.loss)  # of equal ones the strongest regularisation
    history: list[tuple[float, ...]] = [
        (fit.inverse_strength, fit.train.loss, fit.val.loss, fit.train.accuracy, fit.val.accuracy, fit.val.macro_f1)
        for fit in fits
    ]
    return FittedHead(best.head, {"inverse_strength": best.inverse_strength}, LOGISTIC_HEADER, history)


def _fit_by_steps(params: SgdHead, read: Read, known: Known, job: Job) -> FittedHead:
    index, train = job.reader.index, job.rows.train
    with progress("train: head", params.epochs, unit="epochs") as advance:
        fit = fit_by_steps(
            params,
            read,
            known,
            keys=turn_keys(picture_keys(index.image_id[train]), index.copy[train]),
            seed=job.params.seed,
            device=job.device,
            where=job.where,
            advance=advance,
        )
    return FittedHead(fit.head, {"best_epoch": fit.best_epoch}, HISTORY_HEADER, fit.history)


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
