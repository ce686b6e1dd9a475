"""A trained member as one file, and what it predicts."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.torch
import torch
from torch import nn

from pipelines.core.errors import InputError
from pipelines.core.params.train import ScratchRecipe
from pipelines.train.head import LinearHead
from pipelines.train.models import MODELS, EfficientNetLite0, ModelSpec, build_network, fold_batch_norm
from pipelines.train.pictures import normalise, resize, to_float

FORMAT = 1
"""of the metadata; a file of another one is refused"""
KEY = "miwake"
"""the one metadata key: safetensors writes several in random order"""
PREDICT_BATCH = 32


def save_member(tensors: dict[str, torch.Tensor], info: dict[str, Any]) -> bytes:
    """The bytes of model.safetensors; equal members give equal bytes."""
    text = json.dumps({"format": FORMAT, **info}, sort_keys=True, ensure_ascii=False, allow_nan=False)
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return safetensors.torch.save(whole, metadata={KEY: text})


@dataclass(frozen=True)
class Member:
    """A trained member, ready to predict.

    Args:
        module: (B, 3, s, s) normalised float to (B, K) logits; differentiable, in eval mode.
        spec: how its input is normalised.
        info: the file's metadata: member, fold, model, recipe, device, …
        classes: K labels, in order of the probabilities' columns.
        image_size: s, pixels.
        views: what the probabilities are the mean over: plain, mirror.
        device: where the module lies.
    """

    module: nn.Module
    spec: ModelSpec
    info: dict[str, Any]
    classes: list[str]
    image_size: int
    views: tuple[str, ...]
    device: torch.device

    def predict(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Probabilities of squares fitted as augment fits them.

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
        images = normalise(to_float(batch), self.spec.mean, self.spec.std)
        views = [self.module(images if view == "plain" else images.flip(-1)) for view in self.views]
        mean = torch.stack([logits.double().cpu().softmax(dim=1) for logits in views]).mean(dim=0)
        return cast("npt.NDArray[np.float32]", mean.float().numpy())


class FrozenClassifier(nn.Module):
    """A backbone that is used as it is, and a linear head on its pooled features."""

    def __init__(self, backbone: EfficientNetLite0, head: LinearHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        # half precision, because that is how cached features are kept; the head works in double precision
        features = self.backbone.features(images)
        logits: torch.Tensor = self.head(features + (features.half().float() - features).detach())
        return logits


def load_member(path: Path, *, device: str = "cpu") -> Member:
    """Read a model.safetensors that `train` wrote.

    Args:
        path: of the file.
        device: a torch device.

    Raises:
        InputError: the file is missing, broken, or not one of these.
    """
    info = read_info(path)
    tensors = safetensors.torch.load_file(path)
    spec = MODELS[info["model"]]
    classes = info["classes"]
    if info["tuning"] == "frozen":
        head = {name.removeprefix("head."): tensor for name, tensor in tensors.items() if name.startswith("head.")}
        body = {name.removeprefix("backbone."): t for name, t in tensors.items() if name.startswith("backbone.")}
        backbone = EfficientNetLite0(0).eval()
        backbone.load_state_dict(body, strict=True)
        module: nn.Module = FrozenClassifier(fold_batch_norm(backbone), LinearHead.from_tensors(head))
    else:
        recipe = ScratchRecipe.model_validate_json(json.dumps(info["recipe"]))
        module = build_network(recipe, len(classes))
        module.load_state_dict(tensors, strict=True)
    place = torch.device(device)
    module = module.eval().to(place)
    module = module.to(memory_format=torch.channels_last)
    module.requires_grad_(False)
    return Member(module, spec, info, classes, info["image_size"], tuple(info["views"]), place)


def read_info(path: Path) -> dict[str, Any]:
    """The metadata of a model.safetensors, without its tensors.

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
    if info.get("format") != FORMAT or info.get("model") not in MODELS:
        raise InputError(f"{path} was written by another version (format {info.get('format')}): run `dvc repro train`")
    return info
