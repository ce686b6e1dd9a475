"""Where weights come from (a package, a download, a file, another member), and how they are fitted to a network."""

import hashlib
import pickle
import re
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import nn

from pipelines.core.errors import InputError
from pipelines.features.backbones import Tensors, packaged_weights, rename_packaged
from pipelines.params.base import path_below
from pipelines.params.networks import (
    OWN_NETWORKS,
    PACKAGED,
    TORCHVISION,
    FileWeights,
    Mlp,
    Network,
    NetworkName,
    Weights,
)
from pipelines.train.models.building import first_conv, head_names

DOWNLOAD_TIMEOUT_SECONDS = 60.0
"""of silence; torch.hub itself would wait for ever"""
NAMES_SHOWN = 3
# torchvision's densenet weights are older than its names for them: denselayer1.norm.1 for denselayer1.norm1
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")


def load_weights(module: nn.Module, weights: Weights, *, model: Network, member_path: Path | None, root: Path) -> str:
    """Put `weights` into a network that `build_network` made; says on stderr what keeps its random values instead.

    The head is left out where it has other classes, and the first layer where it has another kernel. They are fitted
    to another number of channels, and positions of timm's transformers to another size.

    Args:
        member_path: model.safetensors of the member, for weights of kind member.
        root: folder that relative paths begin at: that of params.yaml.

    Returns:
        sha256 of the file that the weights came from.

    Raises:
        InputError: the weights cannot be had, or are those of another network.
    """
    path, digest = weights_file(weights, model=model, member_path=member_path, root=root)
    what = "weights imagenet"
    if weights != "imagenet":
        what = f"weights {weights.path}" if isinstance(weights, FileWeights) else f"weights of member {weights.member}"
    tensors, kept = _fit(read_tensors(path), module, model=model, what=what)
    if kept:
        print(f"train: {what}: {kept} does not fit, and begins with random weights", file=sys.stderr)
    state = module.state_dict()
    state.update(tensors)
    module.load_state_dict(state, strict=True)
    return digest


def weights_file(weights: Weights, *, model: Network, member_path: Path | None, root: Path) -> tuple[Path, str]:
    """The file that `weights` stand in, downloaded if need be, and its sha256; args as of `load_weights`.

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


def _fit(tensors: Tensors, module: nn.Module, *, model: Network, what: str) -> tuple[Tensors, str]:
    """Those of `tensors` that `module` takes, in its shapes; and the name of its first layer where none fits that."""
    wanted = module.state_dict()
    found = {name: tensor for name, tensor in _renamed(tensors, module, model).items() if not _is_counter(name)}
    first = "hidden.0.0.weight" if isinstance(model, Mlp) else f"{first_conv(module)[0]}.weight"
    heads = tuple(f"{name}." for name in head_names(module))
    kept = ""
    if first in found and found[first].shape != wanted[first].shape:
        found[first] = _in_channels(found[first], wanted[first].shape)
        if found[first].shape[:2] == wanted[first].shape[:2] and found[first].shape != wanted[first].shape:
            kept = first  # another kernel, and nothing else
            del found[first]
    of_head = [name for name in wanted if name.startswith(heads)]
    if not of_head or any(name not in found or found[name].shape != wanted[name].shape for name in of_head):
        found = {name: tensor for name, tensor in found.items() if not name.startswith(heads)}
    _check(found, wanted, optional={kept, *of_head}, model=model, what=what)
    return found, kept


def _renamed(tensors: Tensors, module: nn.Module, model: Network) -> Tensors:
    """By the names of `build_network`: a linear probe's backbone alone, other publishers' names under timm's."""
    for prefix in (f"backbones.{model}.", "backbone."):
        if any(name.startswith(prefix) for name in tensors):
            return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    if isinstance(model, Mlp) or model in OWN_NETWORKS:
        return tensors
    if model in PACKAGED and "_conv_stem.weight" in tensors:
        return rename_packaged(tensors, module)
    if model.startswith(TORCHVISION):
        tensors = {_OLD_DENSENET.sub(r"\1\2", name): tensor for name, tensor in tensors.items()}
        return {name: tensor for name, tensor in tensors.items() if not name.startswith(_AUXILIARY)}
    # timm's own: names of the first publishers, and positions for pictures of another size
    convert = getattr(sys.modules[type(module).__module__], "checkpoint_filter_fn", None)
    try:
        return dict(convert(tensors, module)) if convert else tensors
    except (AssertionError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        return tensors  # of another network, as `_check` says


def _in_channels(weight: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """The first layer's weights for three channels, summed for one; those for one, shared out among three.

    Of a convolution (O, C, k, k); of an mlp (O, C * S * S). Unchanged where that is not what differs.
    """
    if weight.dim() != len(shape) or weight.shape[0] != shape[0]:
        return weight
    if weight.shape[1] == 3 * shape[1]:
        return weight.reshape(shape[0], 3, shape[1], *weight.shape[2:]).sum(dim=1)
    if 3 * weight.shape[1] == shape[1]:
        return torch.cat([weight / 3] * 3, dim=1)
    return weight


def _check(found: Tensors, wanted: Tensors, *, optional: set[str], model: Network, what: str) -> None:
    missing = [name for name in wanted if name not in found and name not in optional and not _is_counter(name)]
    needless = [name for name in found if name not in wanted]
    differing = [
        f"{name} {tuple(found[name].shape)}, not {tuple(wanted[name].shape)}"
        for name in wanted
        if name in found and found[name].shape != wanted[name].shape
    ]
    faults = [
        f"{len(names)} {kind} ({', '.join(names[:NAMES_SHOWN])}{', …' if len(names) > NAMES_SHOWN else ''})"
        for kind, names in (("missing", missing), ("of no use", needless), ("of another shape", differing))
        if names
    ]
    if faults:
        name = "this mlp" if isinstance(model, Mlp) else model
        raise InputError(
            f"{what} are those of another network than {name}: tensors {'; '.join(faults)}. "
            "Name the model that they were trained with, or weights of this one"
        )


def _is_counter(name: str) -> bool:
    """Whether it counts a batch norm's batches, which older files lack and nothing here reads."""
    return name.endswith(".num_batches_tracked")


def _imagenet(model: Network) -> tuple[Path, str]:
    if isinstance(model, Mlp) or model in OWN_NETWORKS:
        name = "an mlp" if isinstance(model, Mlp) else model
        raise InputError(f"weights imagenet: there are none for {name}; use a file or a member, or tuning: scratch")
    if model in PACKAGED:
        path = packaged_weights(model)
        return path, _sha256(path)
    return _from_torchvision(model) if model.startswith(TORCHVISION) else _from_timm(model)


def _from_torchvision(model: NetworkName) -> tuple[Path, str]:
    from torchvision.models import get_model_weights

    url: str = get_model_weights(model.removeprefix(TORCHVISION)).DEFAULT.url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    # of the file's sha256, as everywhere in torchvision: resnet18-f37072fd.pth
    beginning = re.findall(r"-([0-9a-f]{8,})\.", path.name)[-1]
    if not path.is_file():

        def fetch() -> Path:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), hash_prefix=beginning, progress=sys.stderr.isatty())
            return path

        _download(fetch, model=model, place=f"copy {path.name} to {path.parent} by hand, or to")
    digest = _sha256(path)
    if not digest.startswith(beginning):
        raise InputError(
            f"weights imagenet of {model}: {path} is broken (its sha256 begins with {digest[: len(beginning)]}, not "
            f"{beginning}): delete it, and it is downloaded anew"
        )
    return path, digest


def _from_timm(model: NetworkName) -> tuple[Path, str]:
    """Of the hub that timm names, in that hub's cache; of an address, in torch's."""
    import huggingface_hub
    from timm.models import get_pretrained_cfg
    from timm.models._hub import download_cached_file, hf_split

    config = get_pretrained_cfg(model)

    def fetch() -> Path:
        if not config.hf_hub_id:
            return Path(download_cached_file(config.url, progress=sys.stderr.isatty()))
        repository, revision = hf_split(config.hf_hub_id)
        name = config.hf_hub_filename or "model.safetensors"
        cached = huggingface_hub.try_to_load_from_cache(repository, name, revision=revision)
        return Path(cached or huggingface_hub.hf_hub_download(repository, name, revision=revision))

    if not (config.hf_hub_id or config.url):
        raise InputError(f"weights imagenet: timm has none for {model}; use a file or a member, or tuning: scratch")
    path = _download(fetch, model=model, place="download the file elsewhere and copy it to")
    return path, _sha256(path)


def _download(fetch: Callable[[], Path], *, model: NetworkName, place: str) -> Path:
    """The file that `fetch` writes, whole or not at all, or finds.

    Args:
        place: what to do by hand with the file where there is no network, for the message.
    """
    print(f"train: ImageNet weights of {model}: from the cache, or downloaded once", file=sys.stderr)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_SECONDS)
    try:
        return fetch()
    # no connection, a refusal, silence; or an answer whose content is another (RuntimeError)
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(getattr(error, "reason", error)).splitlines()[0]
        raise InputError(
            f"weights imagenet of {model}: the download failed ({reason}). Where there is no network, {place} any "
            "place that weights: {kind: file, path: …, sha256: …} names; or take a model whose weights are part of "
            f"the installation: {', '.join(PACKAGED)}"
        ) from error
    finally:
        socket.setdefaulttimeout(before)
