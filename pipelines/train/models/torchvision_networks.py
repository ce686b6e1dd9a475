"""torchvision's classification networks, each with a head of K classes and one output.

Importing this imports torchvision (3 s): do so inside the function that needs one of them.
"""

from collections.abc import Mapping
from typing import Any, cast

from torch import nn
from torchvision.models import MNASNet, get_model

from pipelines.params.networks import NetworkName
from pipelines.train.models.families import family_of
from pipelines.train.models.layers import replace


class _Mnasnet(MNASNet):  # type: ignore[misc]
    """MNASNet that loads weights without torch's own metadata, which safetensors does not keep."""

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, local_metadata: dict[str, Any], *rest: Any
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, {"version": 2, **local_metadata}, *rest)


def build_torchvision(model: NetworkName, *, num_classes: int, image_size: int) -> nn.Module:
    """Its own initial weights, but for some heads; state-dict keys are torchvision's too.

    Args:
        image_size: side of its pictures; a vit has an embedding for each of their places.
    """
    if model.startswith("mnasnet"):
        network: nn.Module = _Mnasnet(float(model.removeprefix("mnasnet").replace("_", ".")), num_classes=num_classes)
    else:
        network = get_model(model, weights=None, num_classes=num_classes, **_options(model, image_size))
    if model.startswith(("efficientnet", "mnasnet", "inception")):
        # the first two draw theirs up to 1 / sqrt(K) and more, right for 1000 classes; for 3 the loss would begin at 7
        # or 24, not at log 3. The third's is wide too
        cast("nn.Linear", network.get_submodule(family_of(model).head)).reset_parameters()
    if model.startswith("squeezenet"):
        # its ReLU after the last layer cuts logits off at 0, where a class that never fires never learns
        replace(network, "classifier.2", nn.Identity())
    return network


def _options(model: NetworkName, image_size: int) -> dict[str, Any]:
    if model.startswith("vit"):
        return {"image_size": image_size}
    if model.startswith("maxvit"):
        return {"input_size": (image_size, image_size)}
    return {"aux_logits": False, "init_weights": True} if model in ("googlenet", "inception_v3") else {}
