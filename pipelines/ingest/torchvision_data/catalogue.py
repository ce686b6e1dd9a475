"""Which classes of torchvision.datasets hold one label a picture, and how they keep their pictures."""

import difflib
from typing import Any

from pipelines.core.errors import InputError

FILES = {
    "CLEVRClassification", "Caltech101", "Caltech256", "Country211", "DTD", "EuroSAT", "FGVCAircraft", "Flowers102",
    "Food101", "GTSRB", "INaturalist", "ImageNet", "Imagenette", "LFWPeople", "Omniglot", "OxfordIIITPet", "Places365",
    "RenderedSST2", "SUN397", "StanfordCars",
}  # fmt: skip
ARRAYS = {
    "CIFAR10", "CIFAR100", "EMNIST", "FER2013", "FashionMNIST", "KMNIST", "MNIST", "PCAM", "QMNIST", "SEMEION", "STL10",
    "SVHN", "USPS",
}  # fmt: skip
# what to do instead of those that one may well ask for
_INSTEAD = {
    "ImageFolder": "it is any folder of classes: use kind: folder",
    "DatasetFolder": "it is any folder of classes: use kind: folder",
    "FakeData": "it is noise; use kind: sample for pictures without a network",
    "CelebA": "it gives 40 attributes a picture, not a class: write those you want into a table and use kind: table",
    "LSUN": "it is read through a database; export its pictures and use kind: folder",
    "LSUNClass": "it is read through a database; export its pictures and use kind: folder",
}


def find_class(name: str, where: str) -> Any:
    """The class of torchvision.datasets with this name.

    Raises:
        InputError: there is none, it is not about classification, or torchvision cannot be imported.
    """
    try:
        from torchvision import datasets
    except ImportError as error:
        raise InputError(f"{where}: kind torchvision needs torchvision ({error}); install it: make env") from error
    known = sorted(FILES | ARRAYS)
    if name in FILES | ARRAYS and hasattr(datasets, name):
        return getattr(datasets, name)
    if name in _INSTEAD:
        raise InputError(f"{where}.dataset: {name} cannot be used: {_INSTEAD[name]}")
    if name in datasets.__all__:
        raise InputError(f"{where}.dataset: {name} is not about one class a picture; use one of {', '.join(known)}")
    lower = {own.lower(): own for own in known}
    near = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.6)
    guess = f"did you mean {lower[near[0]]}? " if near else ""
    raise InputError(
        f"{where}.dataset: torchvision.datasets has no {name}; {guess}Those that can be used: {', '.join(known)}"
    )
