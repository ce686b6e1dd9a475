"""Opens the classification data sets of torchvision.datasets, whatever each calls its parts, files and classes."""

import difflib
import inspect
import lzma
import os
import pickle
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipelines.core.errors import InputError
from pipelines.params.sources import TorchvisionSource

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


# what torchvision and its readers raise of files that are missing, broken or of another format
_TROUBLE = (
    RuntimeError, OSError, ValueError, EOFError, LookupError, TypeError, AssertionError, ImportError, AttributeError,
    pickle.UnpicklingError, zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error,
)  # fmt: skip
_SUBSETS = {
    "train": "train", "trainval": "train", "extra": "train",
    "val": "val", "valid": "val",
    "test": "test", "test10k": "test", "test50k": "test",
}  # fmt: skip


def given_subset(part: str) -> str:
    """train, val or test; "" for a part that is none of them. `trainval` and more pictures to train on are train."""
    words = re.split(r"[-+_]", part)
    return next((_SUBSETS[word] for word in words if word in _SUBSETS), "")


def open_part(kind: Any, part: str, params: TorchvisionSource, *, root: Path, where: str) -> Any:
    """The data set of one part; where its class can, it gives paths in place of pictures.

    Raises:
        InputError: there is no such part or option, files are missing or broken, or the download failed.
    """
    named = _parameters(kind)
    settings = _part_settings(named, kind.__name__, part, f"{where}.splits")
    for option, value in params.options.items():
        if option not in named or option in settings:
            raise InputError(f"{where}.options: {kind.__name__} has no {option}; take it out")
        settings[option] = value
    if "loader" in named:
        settings["loader"] = os.fspath  # the path itself: the file is opened once, by a worker
    if "download" in named:
        settings["download"] = params.download
    elif params.download:
        raise InputError(
            f"{where}.download: torchvision cannot download {kind.__name__}; get it yourself (its documentation says "
            "where) and set download: false"
        )
    with _explained(kind.__name__, part, params, where):
        return kind(str(root), **settings)


def items(data: Any, part: str, params: TorchvisionSource, where: str) -> Iterator[tuple[Any, int | None]]:
    """Picture (a path, where the data set keeps files) and class of all that a part holds.

    Raises:
        InputError: a file of the data set is broken.
    """
    with _explained(params.dataset, part, params, where):
        found = _own_files(data)
    for number in range(len(data)):
        with _explained(params.dataset, part, params, where):
            picture, target = found[number] if found else data[number]
        yield picture, None if target is None else int(target)


@contextmanager
def _explained(name: str, part: str, params: TorchvisionSource, where: str) -> Iterator[None]:
    try:
        yield
    except _TROUBLE as error:
        what = str(error).strip() or type(error).__name__
        raise InputError(_explain(name, part, what, params, where)) from error


def _explain(name: str, part: str, what: str, params: TorchvisionSource, where: str) -> str:
    if what.startswith("Unknown value"):
        return f"{where}: {name}: {what}"
    if params.download:
        return (
            f"{where}: {name} ({part}) could not be downloaded to {params.root}, or what came is broken: {what}. "
            "Delete what is half there and run again, or put its files there yourself and set download: false"
        )
    return (
        f"{where}: {name} ({part}) cannot be read from {params.root}: {what}. Put its files there, or set "
        "download: true"
    )


def _parameters(kind: Any) -> set[str]:
    """The names that the class takes; through **kwargs also those of the classes that it builds on."""
    names: set[str] = set()
    for cls in kind.__mro__:
        if "__init__" not in vars(cls):
            continue
        own = inspect.signature(cls.__init__).parameters.values()
        names |= {one.name for one in own}
        if not any(one.kind is inspect.Parameter.VAR_KEYWORD for one in own):
            break
    return names


def _part_settings(named: set[str], name: str, part: str, where: str) -> dict[str, Any]:
    """What to tell the class so that it opens `part`."""
    if "what" in named:
        return {"what": part}
    if "version" in named:
        return {"version": part}
    if "split" in named and "train" in named:
        split, _, half = part.rpartition("-")
        return {"split": split, "train": _one_of(half, "train", "test", f"{where}: {part}", name, prefix="<split>-")}
    if "split" in named:
        return {"split": part}
    if "train" in named:
        return {"train": _one_of(part, "train", "test", f"{where}: {part}", name)}
    if "background" in named:
        return {"background": _one_of(part, "background", "evaluation", f"{where}: {part}", name)}
    if part != "all":
        raise InputError(f"{where}: {part}: {name} has no parts; write all")
    return {}


def _one_of(part: str, yes: str, no: str, where: str, name: str, *, prefix: str = "") -> bool:
    if part not in (yes, no):
        raise InputError(f"{where}: the parts of {name} are {prefix}{yes} and {prefix}{no}")
    return part == yes


def _own_files(data: Any) -> list[tuple[str, int | None]] | None:
    """Path and class of each picture of a data set that keeps files and takes no loader; None for the others."""
    match type(data).__name__:
        case "OxfordIIITPet":
            return list(zip(map(os.fspath, data._images), data._labels, strict=True))
        case "GTSRB":
            return list(data._samples)
        case "Caltech101":
            folder = "101_ObjectCategories"
            return [
                (os.path.join(data.root, folder, data.categories[y], f"image_{number:04d}.jpg"), y)  # noqa: PTH118
                for y, number in zip(data.y, data.index, strict=True)
            ]
        case "Caltech256":
            folder = "256_ObjectCategories"
            return [
                (os.path.join(data.root, folder, data.categories[y], f"{y + 1:03d}_{number:04d}.jpg"), y)  # noqa: PTH118
                for y, number in zip(data.y, data.index, strict=True)
            ]
        case _:
            return None


def class_names(data: Any) -> dict[int, str]:
    """The name of each class by its number; empty where the data set has none."""
    match type(data).__name__:
        case "Omniglot":
            names = dict(enumerate(data._characters))
        case "INaturalist":
            names = dict(enumerate(data.all_categories))
        case "Caltech101" | "Caltech256":
            names = dict(enumerate(data.categories))
        case _:
            classes = list(getattr(data, "classes", ()))
            numbers = getattr(data, "class_to_idx", {})
            if numbers and len(set(numbers.values())) == len(numbers):
                names = {number: name for name, number in numbers.items()}
            else:
                # ImageNet and Imagenette have several names a class: the first is the usual one
                names = {number: name if isinstance(name, str) else name[0] for number, name in enumerate(classes)}
    names = {number: name.replace(os.sep, "/").strip("/") for number, name in names.items()}
    taken = list(names.values())
    # two classes of ImageNet are called crane; they must not become one
    return {number: f"{name} ({number})" if taken.count(name) > 1 else name for number, name in names.items()}
