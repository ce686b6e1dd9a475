"""A network as a sequence of stages: to freeze some, to train the head first, to let rates fall layer by layer."""

from torch import nn

from pipelines.params.networks import Mlp, Network
from pipelines.train.models.families import Family, family_of


def stages(module: nn.Module, model: Network) -> list[list[nn.Module]]:
    """The stages of a network that `build_network` made, from the picture to the head, each its modules.

    Every parameter is in exactly one of them. The last is the head, the layer of the classes, alone. A stage goes up
    to where the resolution halves; in a vit and an mlp each layer is one.
    """
    if isinstance(model, Mlp):
        return [[layer] for layer in module.get_submodule("hidden").children()] + [[module.get_submodule("head")]]
    family = family_of(model)
    if model.startswith("vit"):
        found = _vit(module)
    elif family.chain:
        found = _cut(module, family)
    else:
        found = [[module.get_submodule(name) for name in names] for names in family.groups]
    return [*found, [module.get_submodule(family.head)]]


def _cut(module: nn.Module, family: Family) -> list[list[nn.Module]]:
    """A chain of modules, cut before each that halves the resolution."""
    found = [[module.get_submodule(name) for name in family.before]]
    for layer in module.get_submodule(family.chain).children():
        if found[-1] and _halves(layer):
            found.append([])
        found[-1].append(layer)
    found[-1] += [module.get_submodule(name) for name in family.joined]
    if family.after:
        found.append([module.get_submodule(name) for name in family.after])
    # a pooling has no weights: alone it is no stage
    return [stage for stage in found if any(True for layer in stage for _ in layer.parameters())]


def _halves(module: nn.Module) -> bool:
    strided = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
    return any(isinstance(layer, strided) and layer.stride not in (1, (1, 1)) for layer in module.modules())


def _vit(module: nn.Module) -> list[list[nn.Module]]:
    encoder = module.get_submodule("encoder")
    # these two belong to no smaller module: a list makes one of them, which shares them with the network
    tokens = nn.ParameterList([module.get_parameter("class_token"), encoder.get_parameter("pos_embedding")])
    layers = [[layer] for layer in encoder.get_submodule("layers").children()]
    layers[-1].append(encoder.get_submodule("ln"))
    return [[module.get_submodule("conv_proj"), tokens], *layers]
