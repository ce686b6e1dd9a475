"""A trained member: its file, and its predictions."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.torch
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from pipelines.core.errors import InputError
from pipelines.features.backbones import ModelSpec, fold_batch_norms, normalise
from pipelines.params.recipes import InChans, LinearProbeRecipe, NetworkRecipe, Recipe, TtaView
from pipelines.train.data_loader import resize
from pipelines.train.device import Arithmetic, autocast, has_bfloat16
from pipelines.train.inference import to_float, to_input
from pipelines.train.logistic import LinearHead
from pipelines.train.models import build_backbone, build_network, spec_for
from pipelines.train.tta import view

FORMAT = 4
"""version of the metadata; other versions are refused"""
KEY = "miwake"
"""the only metadata key, because safetensors writes several in random order"""
PREDICT_BATCH = 32
_RECIPE: TypeAdapter[LinearProbeRecipe | NetworkRecipe] = TypeAdapter(Recipe)


def save_member(tensors: dict[str, torch.Tensor], info: dict[str, Any]) -> bytes:
    """Serialise a member as model.safetensors; equal members give equal bytes."""
    text = json.dumps({"format": FORMAT, **info}, sort_keys=True, ensure_ascii=False, allow_nan=False)
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return safetensors.torch.save(whole, metadata={KEY: text})


@dataclass(frozen=True)
class TrainedMember:
    """A trained member, ready to predict.

    Args:
        module: maps the output of `to_input`, (B, C, s, s), to (B, K) logits; in eval mode, float32, differentiable.
        spec, in_chans: normalisation and number of channels of its input.
        info: the file's metadata: member, fold, model, recipe, device, …
        target: what it tells apart: `label`, or a factor of the labels.
        classes: K labels (or values of that factor), in the order of the probabilities' columns.
        image_size: s, pixels.
        tta: the views that probabilities are the mean over.
        temperature: fitted on the fold's validation pictures; `temper` of what `predict` gives, by it, is as sure as
            it is right.
        precision: of `predict`: that of the training where this device supports it, else float32.
        device: of the module.
    """

    module: nn.Module
    spec: ModelSpec
    in_chans: InChans
    info: dict[str, Any]
    target: str
    classes: list[str]
    image_size: int
    tta: tuple[TtaView, ...]
    temperature: float
    precision: Arithmetic
    device: torch.device

    def predict(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Predict square images that were fitted as augment fits them.

        For packed images these are the predictions that train wrote, to 1e-5 in float32 and 2e-3 in bfloat16 on the
        same processor.

        Args:
            pixels: (B, S, S, 3) uint8 RGB, of any S; resized to the member's own size.

        Returns:
            (B, K) float32; each row sums to 1.
        """
        if pixels.ndim != 4 or pixels.shape[1] != pixels.shape[2] or pixels.shape[3] != 3:
            raise InputError(f"pictures of shape {pixels.shape} cannot be predicted: give (B, S, S, 3)")
        if pixels.dtype != np.uint8:
            raise InputError(f"pictures of type {pixels.dtype} cannot be predicted: give uint8, 0 to 255")
        found = [np.empty((0, len(self.classes)), np.float32)]
        for start in range(0, len(pixels), PREDICT_BATCH):
            found.append(self._predict_batch(np.ascontiguousarray(pixels[start : start + PREDICT_BATCH])))
        return np.concatenate(found)

    @torch.inference_mode()
    def _predict_batch(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        batch = torch.from_numpy(resize(pixels, self.image_size)).to(self.device)
        images = to_float(batch)
        of_views = []
        for name in self.tta:
            inputs = to_input(view(images, name), self.spec, self.in_chans).contiguous(
                memory_format=torch.channels_last
            )
            with autocast(self.precision, self.device):
                logits = self.module(inputs)
            of_views.append(logits.cpu().double().softmax(dim=1))
        return cast("npt.NDArray[np.float32]", torch.stack(of_views).mean(dim=0).float().numpy())


class FrozenClassifier(nn.Module):
    """Frozen backbones and a linear head on their joined pooled features.

    Args:
        backbones: each (B, 3, S, S) normalised to (B, D).
        specs: normalisation of each; the classifier's input is normalised as the first's.
        head: takes the sum of their D.
    """

    def __init__(self, backbones: Sequence[nn.Module], specs: Sequence[ModelSpec], head: LinearHead) -> None:
        super().__init__()
        self.backbones = nn.ModuleList(backbones)
        self.specs = tuple(specs)
        self.head = head

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        first, found = self.specs[0], []
        for backbone, spec in zip(self.backbones, self.specs, strict=True):
            inputs = images
            if spec != first:
                mean, std = (torch.tensor(values).to(images).view(1, 3, 1, 1) for values in (first.mean, first.std))
                inputs = normalise(images * std + mean, spec)
            found.append(backbone(inputs).float())
        features = torch.cat(found, dim=1)
        # rounded to float16 as the cached features that the head was fitted to
        logits: torch.Tensor = self.head(features + (features.half().float() - features).detach())
        return logits


def _below(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def load_member(path: Path, *, device: str = "cpu") -> TrainedMember:
    """Read a member that `train` wrote; nothing but its model.safetensors is needed.

    Args:
        path: the member's folder, or the file itself.
        device: a torch device.

    Raises:
        InputError: the file is missing, broken, or not one of these.
    """
    if path.suffix != ".safetensors":
        path = path / "model.safetensors"
    info = read_info(path)
    tensors = safetensors.torch.load_file(path)
    try:
        recipe, classes = _RECIPE.validate_json(json.dumps(info["recipe"])), info["classes"]
    except (KeyError, ValidationError) as error:
        raise InputError(
            f"{path} was written by another version (its recipe differs): run `dvc repro train`"
        ) from error
    if isinstance(recipe, LinearProbeRecipe):
        backbones = []
        for model in recipe.backbones:
            backbone, _ = build_backbone(model, image_size=recipe.image_size)
            backbone.load_state_dict(_below(f"backbones.{model}." if recipe.models else "backbone.", tensors))
            backbones.append(fold_batch_norms(backbone.eval()))
        specs = [spec_for(model) for model in recipe.backbones]
        head = LinearHead.from_tensors(_below("head.", tensors))
        module: nn.Module = FrozenClassifier(backbones, specs, head)
    else:
        module = build_network(
            recipe.model,
            num_classes=len(classes),
            image_size=recipe.image_size,
            stem=recipe.stem,
            in_chans=recipe.in_chans,
            dropout=recipe.dropout,
        )
        module.load_state_dict(tensors, strict=True)
    place = torch.device(device)
    module = module.eval().to(place)
    module = module.to(memory_format=torch.channels_last)
    module.requires_grad_(False)
    return TrainedMember(
        module=module,
        spec=ModelSpec(*(tuple(info["normalisation"][name]) for name in ("mean", "std"))),
        in_chans=3 if isinstance(recipe, LinearProbeRecipe) else recipe.in_chans,
        info=info,
        target=info["target"],
        classes=classes,
        image_size=recipe.image_size,
        tta=tuple(info["tta"]),
        temperature=info["temperature"],
        precision=_precision_here(info["precision"], place),
        device=place,
    )


def _precision_here(trained: Arithmetic, device: torch.device) -> Arithmetic:
    """The training's precision where this device has instructions for it, since emulation is slow; else float32."""
    if device.type == "cuda":
        native = trained != "bfloat16" or torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = trained == "bfloat16" and device.type == "cpu" and has_bfloat16()
    return trained if native else "float32"


def read_info(path: Path) -> dict[str, Any]:
    """Read the metadata of a model.safetensors, without its tensors.

    Raises:
        InputError: the file is missing, broken, or not one of these.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist: run `dvc repro train`")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except safetensors.SafetensorError as error:
        raise InputError(f"{path} is no whole safetensors file ({error}): run `dvc checkout --force`") from error
    if KEY not in metadata:
        raise InputError(f"{path} was not written by this project: it lacks the metadata key {KEY!r}")
    info: dict[str, Any] = json.loads(metadata[KEY])
    if info.get("format") != FORMAT:
        raise InputError(f"{path} was written by another version (format {info.get('format')}): run `dvc repro train`")
    return info
