"""Recipes of tuning `frozen`: a pretrained backbone as it is, a head fitted on its cached features."""

import hashlib
from pathlib import Path
from typing import cast

import numpy as np
import torch

from pipelines.core.lite0 import NUM_FEATURES, load_backbone, weights_path
from pipelines.core.packs import FoldRows, PackReader, Rows
from pipelines.core.params.train import FrozenRecipe
from pipelines.core.progress import progress
from pipelines.train.features import FeatureKey, cached_features, hash_pictures
from pipelines.train.head import HeadFit, fit_heads, mean_probabilities
from pipelines.train.models import MODELS, EfficientNetLite0, fold_batch_norm
from pipelines.train.outcome import Outcome, Probabilities
from pipelines.train.probe import feature_table

HISTORY_HEADER = ("inverse_strength", "train_loss", "val_loss", "train_accuracy", "val_accuracy")


def train_frozen(
    recipe: FrozenRecipe,
    *,
    reader: PackReader,
    rows: FoldRows,
    probed: Rows,
    device: torch.device,
    num_threads: int,
    cache_dir: Path,
) -> Outcome:
    """Compute or recall features, fit a head for every strength, keep the one with the least validation loss.

    Args:
        probed: rows of the index whose features are part of the outcome.
    """
    every = np.concatenate([rows.train, rows.val, rows.test])
    features = _features(recipe, reader, every, device, num_threads, cache_dir / "features")  # (V, N, D)
    first_val, first_test = len(rows.train), len(rows.train) + len(rows.val)
    train, val, test = features[:, :first_val], features[:, first_val:first_test], features[:, first_test:]
    labels = torch.from_numpy(reader.index.class_index)
    probed = np.flatnonzero(np.isin(every, probed))
    fits = fit_heads(
        train,
        labels[rows.train],
        val,
        labels[rows.val],
        num_classes=len(reader.index.classes),
        inverse_strengths=recipe.head.inverse_strengths,
    )
    best = min(fits, key=lambda fit: fit.val_loss)  # of equal ones the strongest regularisation
    backbone = {name: t for name, t in load_backbone().state_dict().items() if not name.startswith("_fc.")}
    tensors = {f"backbone.{name}": tensor for name, tensor in backbone.items()}
    tensors |= {f"head.{name}": tensor for name, tensor in best.head.state_dict().items()}
    return Outcome(
        tensors=tensors,
        info={"views": list(recipe.head.views), "inverse_strength": best.inverse_strength},
        history_header=HISTORY_HEADER,
        history=[_line(fit) for fit in fits],
        val=_probabilities(best, val),
        test=_probabilities(best, test),
        features=feature_table(reader.index, every[probed], features[:, probed].numpy().astype(np.float16)),
    )


def _line(fit: HeadFit) -> tuple[float, ...]:
    return (fit.inverse_strength, fit.train_loss, fit.val_loss, fit.train_accuracy, fit.val_accuracy)


def _probabilities(fit: HeadFit, features: torch.Tensor) -> Probabilities:
    return cast("Probabilities", mean_probabilities(fit.head, features).float().numpy())


def _features(
    recipe: FrozenRecipe, reader: PackReader, rows: Rows, device: torch.device, num_threads: int, cache_dir: Path
) -> torch.Tensor:
    """(V, N, D) float32, of float16 precision, on the CPU: the features of N pictures in V views."""
    spec = MODELS[recipe.model]
    backbone: EfficientNetLite0 | None = None

    def compute(images: torch.Tensor) -> torch.Tensor:
        nonlocal backbone
        if backbone is None:  # a run that finds everything in the cache never builds it
            backbone = fold_batch_norm(load_backbone()).to(device)
            backbone = backbone.to(memory_format=torch.channels_last)
        return backbone.features(images)

    digest = hashlib.sha256(weights_path().read_bytes()).hexdigest()
    hashes = hash_pictures(reader, rows)
    views = recipe.head.views
    found = []
    with progress("train: features", len(rows) * len(views), unit="pictures") as advance:
        for view in views:
            key = FeatureKey(
                model=recipe.model,
                weights=digest,
                view=view,
                image_size=recipe.image_size,
                device=str(device),
                num_threads=num_threads,
                torch=torch.__version__,
                cpu=torch.backends.cpu.get_cpu_capability(),
            )
            features = cached_features(
                reader,
                rows,
                hashes,
                key=key,
                compute=compute,
                num_features=NUM_FEATURES,
                cache_dir=cache_dir,
                mean=spec.mean,
                std=spec.std,
                advance=advance,
            )
            found.append(torch.from_numpy(features).float())
    return torch.stack(found)
