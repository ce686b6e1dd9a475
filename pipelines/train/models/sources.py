"""Where weights come from: a package, a download, a file, another member; each pinned by its sha256."""

import hashlib
import pickle
import re
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from pipelines.core.errors import InputError
from pipelines.features.lite0 import weights_path
from pipelines.params.base import path_below
from pipelines.params.networks import FileWeights, Mlp, Network, NetworkName, Weights

Tensors = dict[str, torch.Tensor]

DOWNLOAD_TIMEOUT_SECONDS = 60.0
"""of silence; torch.hub itself would wait for ever"""


def weights_file(weights: Weights, *, model: Network, member_path: Path | None, root: Path) -> tuple[Path, str]:
    """The file that `weights` stand in, downloaded if need be, and its sha256.

    Args:
        member_path: model.safetensors of the member, for weights of kind member.
        root: folder that relative paths begin at: that of params.yaml.

    Raises:
        InputError: there is no such file, it cannot be downloaded, or is another than the one named.
    """
    if weights == "imagenet":
        return _imagenet(model)
    if isinstance(weights, FileWeights):
        path = path_below(root, weights.path)
        if not path.is_file():
            raise InputError(f"weights.path {weights.path} does not exist: put the file there, or correct the path")
        digest = _sha256(path)
        if digest != weights.sha256:
            raise InputError(
                f"weights.path {weights.path} has sha256 {digest}, but weights.sha256 says {weights.sha256}: "
                f"it is another file; if it is the one you mean, set sha256: {digest}"
            )
        return path, digest
    if member_path is None or not member_path.is_file():
        raise InputError(
            f"weights of member {weights.member}: {member_path or 'its model.safetensors'} does not exist; "
            "train that member first, on the same fold (`dvc repro train`)"
        )
    return member_path, _sha256(member_path)


def read_tensors(path: Path) -> Tensors:
    """The tensors of a .safetensors, or of a file of torch.save that holds nothing else; on the CPU.

    Raises:
        InputError: the file is broken, or holds other things.
    """
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        # nothing but tensors and plain containers is unpickled
        held = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError, safetensors.SafetensorError):
        raise InputError(
            f"{path.name} is no whole file of tensors: get it again, or save it anew as "
            "torch.save(network.state_dict(), path)"
        ) from None
    if not isinstance(held, Mapping) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in held.items()
    ):
        keys = ", ".join(map(str, list(held)[:5])) if isinstance(held, Mapping) else type(held).__name__
        raise InputError(
            f"{path.name} holds more than tensors ({keys}): save the weights alone, "
            'as torch.save(checkpoint["state_dict"], path) or the like'
        )
    return dict(held)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _imagenet(model: Network) -> tuple[Path, str]:
    if isinstance(model, Mlp) or model in ("nin", "small_cnn"):
        name = "an mlp" if isinstance(model, Mlp) else model
        raise InputError(f"weights imagenet: there are none for {name}; use a file or a member, or tuning: scratch")
    if model == "efficientnet_lite0":
        path = weights_path()
        return path, _sha256(path)
    from torchvision.models import get_model_weights

    url: str = get_model_weights(model).DEFAULT.url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    # of the file's sha256, as everywhere in torchvision: resnet18-f37072fd.pth
    beginning = re.findall(r"-([0-9a-f]{8,})\.", path.name)[-1]
    if not path.is_file():
        _download(url, path, model=model, beginning=beginning)
    digest = _sha256(path)
    if not digest.startswith(beginning):
        raise InputError(
            f"weights imagenet of {model}: {path} is broken (its sha256 begins with {digest[: len(beginning)]}, not "
            f"{beginning}): delete it, and it is downloaded anew"
        )
    return path, digest


def _download(url: str, path: Path, *, model: NetworkName, beginning: str) -> None:
    """Write the file whole or not at all."""
    print(f"train: downloading the ImageNet weights of {model} to {path}, once", file=sys.stderr)
    path.parent.mkdir(parents=True, exist_ok=True)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_SECONDS)
    try:
        torch.hub.download_url_to_file(url, str(path), hash_prefix=beginning, progress=sys.stderr.isatty())
    # no connection, a refusal, silence; or an answer whose content is another (RuntimeError)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"weights imagenet of {model}: the download failed ({getattr(error, 'reason', error)}). Where there is no "
            f"network, copy {path.name} to {path.parent} by hand, or to any place that weights: {{kind: file, path: …, "
            "sha256: …}} names; or take model: efficientnet_lite0, whose weights are part of the installation"
        ) from error
    finally:
        socket.setdefaulttimeout(before)
