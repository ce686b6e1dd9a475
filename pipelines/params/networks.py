"""The networks that a recipe may name, and where their weights come from."""

import difflib
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from pipelines.params.base import Name, PathText, PositiveInt, Section

OWN_NETWORKS = ("nin", "small_cnn")
TORCHVISION = "torchvision/"
PACKAGED = ("tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2")
"""networks whose ImageNet weights are installed with miwake"""
_REGISTERED = re.compile(r"^@register_model(?:\(\))?\s*\n(?:@.*\n)*def (\w+)", re.MULTILINE)


@cache
def library_networks() -> frozenset[str]:
    """The networks of the installed timm and torchvision, read from their sources: to import them takes seconds."""
    found = set()
    for library, prefix in (("timm", ""), ("torchvision", TORCHVISION)):
        spec = find_spec(library)
        if spec is None or spec.origin is None:
            continue
        for file in (Path(spec.origin).parent / "models").glob("*.py"):
            found |= {prefix + name for name in _REGISTERED.findall(file.read_text(encoding="utf-8"))}
    return frozenset(found)


def _check_network_name(name: str) -> str:
    if name in OWN_NETWORKS or name in PACKAGED:
        return name
    if name == "efficientnet_lite0":  # an earlier version's name; timm has another network of this name
        raise ValueError(
            "the network efficientnet_lite0 is called tf_efficientnet_lite0 now, as in timm: write that "
            "(or efficientnet_lite0.ra_in1k for the other one that timm has)"
        )
    known = library_networks()
    plain = name.partition(".")[0]
    if plain in known or not known:
        return name
    if TORCHVISION + name in known:
        raise ValueError(f"the network {name} is torchvision's, not timm's: write {TORCHVISION}{name}")
    close = difflib.get_close_matches(plain, sorted({*known, *OWN_NETWORKS}), n=1)
    hint = f"did you mean {close[0]}?" if close else "`timm.list_models()` in Python lists them"
    raise ValueError(f"neither timm nor torchvision has a network {name}; {hint}")


NetworkName = Annotated[
    str,
    Field(pattern=r"^(torchvision/)?[a-z][a-z0-9_]*(\.[a-z0-9_]+)?$", max_length=80),
    AfterValidator(_check_network_name),
]
"""a network of timm (`timm.list_models()`), by its name or with the tag of its weights (resnet50.a1_in1k); a
classifier of torchvision (torchvision/resnet50); nin or small_cnn, of this project"""


class Mlp(Section):
    """A multilayer perceptron on the picture's pixels; the recipe's dropout follows every hidden layer."""

    kind: Literal["mlp"] = "mlp"
    hidden_sizes: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (512, 128)
    """units of each hidden layer, from the pixels on"""


Network = NetworkName | Mlp


class FileWeights(Section):
    """Weights from a file, pinned by its content."""

    kind: Literal["file"] = "file"
    path: PathText
    """of a .safetensors, or of a .pth that holds tensors alone; below the folder of params.yaml, or absolute"""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """of the file: another one is refused, and the message gives what it should say"""


class MemberWeights(Section):
    """What another member of this pipeline learned on the same fold; for recipes in train.students."""

    kind: Literal["member"] = "member"
    member: Name
    """one of train.members"""


Weights = Literal["imagenet"] | Annotated[FileWeights | MemberWeights, Field(discriminator="kind")]
"""imagenet: packaged for tf_efficientnet_lite0, _lite1 and _lite2; of all others downloaded once, to the cache of timm
or torchvision"""
