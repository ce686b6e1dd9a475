"""One peer's training, whole, in a process of its own; writes a JSON file with the accuracy after each epoch.

    python benchmarks/peers_train/trainer.py torchvision|fastai|timm PICTURES WEIGHTS RESULT --epochs 10

PICTURES holds train/<class>/ and val/<class>/, WEIGHTS a state dict of torchvision's resnet18. All train it at 64 px in
batches of 64 by SGD with momentum and one cycle, with two worker processes, and validate after every epoch. What they
do to a picture is as alike as their own means allow:

- torchvision: flip, and an affine move by up to 10 degrees, a tenth of the side and a tenth of the size;
- fastai: flip, turn and zoom alike; it has no shift of its own, but zooms about a place that it draws;
- timm: flip, and its random resized crop, of 80 % of the area at least.
"""

import argparse
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MOMENTUM = 0.9
RISE = 0.3


@dataclass(frozen=True)
class Task:
    """What is asked of every peer; sizes in pixels."""

    pictures: Path
    weights: Path
    epochs: int
    image_size: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    workers: int
    seed: int


@dataclass(frozen=True)
class Result:
    """Accuracy on the validation pictures after each epoch, and seconds without imports and setting up."""

    accuracies: list[float]
    seconds: float


def torchvision_loop(task: Task) -> Result:
    """ImageFolder, DataLoader, resnet18: the shape of torchvision's reference script."""
    import torch
    from torchvision import datasets, transforms
    from torchvision.models import resnet18

    still = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    size = transforms.Resize((task.image_size, task.image_size))
    moves = [transforms.RandomHorizontalFlip(), transforms.RandomAffine(10, (0.1, 0.1), (0.9, 1.1))]
    train = datasets.ImageFolder(task.pictures / "train", transforms.Compose([size, *moves, *still]))
    val = datasets.ImageFolder(task.pictures / "val", transforms.Compose([size, *still]))
    loader = partial(torch.utils.data.DataLoader, batch_size=task.batch_size, num_workers=task.workers)
    return _loop(task, resnet18(num_classes=len(train.classes)), loader(train, shuffle=True), loader(val))


def timm_loop(task: Task) -> Result:
    """Its dataset, loader, model and optimiser, as its training script uses them without a GPU."""
    import torch
    from timm import create_model
    from timm.data import create_dataset, create_loader
    from timm.optim import create_optimizer_v2

    common: dict[str, Any] = {
        "input_size": (3, task.image_size, task.image_size),
        "batch_size": task.batch_size,
        "use_prefetcher": False,
        "interpolation": "bilinear",
        "mean": MEAN,
        "std": STD,
        "num_workers": task.workers,
        "device": torch.device("cpu"),
        "persistent_workers": False,
    }
    train, val = (create_dataset("", root=str(task.pictures / subset)) for subset in ("train", "val"))
    num_classes = len(train.reader.class_to_idx)
    crop: dict[str, Any] = {
        "is_training": True,
        "scale": (0.8, 1.0),
        "ratio": (0.9, 1.1),
        "hflip": 0.5,
        "color_jitter": None,
    }
    network = create_model("resnet18", num_classes=num_classes)
    optimizer = create_optimizer_v2(
        network, "momentum", lr=task.learning_rate, momentum=MOMENTUM, weight_decay=task.weight_decay
    )
    return _loop(
        task,
        network,
        create_loader(train, **common, **crop),
        create_loader(val, **common, is_training=False, crop_pct=1.0),
        optimizer,
    )


def fastai_learner(task: Task) -> Result:
    """Its DataLoaders, Learner and fit_one_cycle; resnet18 as given rather than with its own head."""
    from fastai.vision.all import (  # type: ignore[import-not-found]
        SGD,
        CrossEntropyLossFlat,
        ImageDataLoaders,
        Learner,
        Normalize,
        Resize,
        ResizeMethod,
        accuracy,
        aug_transforms,
        imagenet_stats,
    )
    from safetensors.torch import load_file
    from torchvision.models import resnet18

    moves = aug_transforms(max_rotate=10.0, min_zoom=0.9, max_zoom=1.1, max_lighting=0.0, max_warp=0.0, p_affine=1.0)
    pictures = ImageDataLoaders.from_folder(
        task.pictures,
        train="train",
        valid="val",
        item_tfms=Resize(task.image_size, ResizeMethod.Squish),
        batch_tfms=[*moves, Normalize.from_stats(*imagenet_stats)],
        bs=task.batch_size,
        num_workers=task.workers,
        seed=task.seed,
    )
    network = resnet18(num_classes=pictures.c)
    network.load_state_dict(load_file(task.weights))
    sgd = partial(SGD, mom=MOMENTUM, decouple_wd=False)
    learner = Learner(pictures, network, CrossEntropyLossFlat(), opt_func=sgd, metrics=accuracy)
    started = time.perf_counter()
    with learner.no_bar(), learner.no_logging():
        moms = (MOMENTUM, MOMENTUM, MOMENTUM)
        learner.fit_one_cycle(task.epochs, task.learning_rate, pct_start=RISE, wd=task.weight_decay, moms=moms)
    seconds = time.perf_counter() - started
    return Result([float(line[-1]) for line in learner.recorder.values], seconds)


def _loop(task: Task, network: Any, train: Iterable[Any], val: Iterable[Any], optimizer: Any = None) -> Result:
    """The plain training loop. Without an optimiser: SGD whose decay leaves norms and biases alone, as timm's does."""
    import torch
    from safetensors.torch import load_file
    from torch.nn.functional import cross_entropy

    network.load_state_dict(load_file(task.weights))
    if optimizer is None:
        wide, narrow = ([p for p in network.parameters() if (p.ndim > 1) == wanted] for wanted in (True, False))
        groups = [{"params": wide, "weight_decay": task.weight_decay}, {"params": narrow, "weight_decay": 0.0}]
        optimizer = torch.optim.SGD(groups, task.learning_rate, momentum=MOMENTUM)
    steps = task.epochs * len(train)  # type: ignore[arg-type]  # every loader has a length
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, task.learning_rate, total_steps=steps, pct_start=RISE, cycle_momentum=False
    )
    accuracies = []
    started = time.perf_counter()
    for _ in range(task.epochs):
        network.train()
        for images, labels in train:
            optimizer.zero_grad()
            loss = cross_entropy(network(images), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        network.eval()
        right = total = 0
        with torch.inference_mode():
            for images, labels in val:
                right += int((network(images).argmax(dim=1) == labels).sum())
                total += len(labels)
        accuracies.append(right / total)
    return Result(accuracies, time.perf_counter() - started)


PEERS = {"torchvision": torchvision_loop, "fastai": fastai_learner, "timm": timm_loop}


def main() -> None:
    """Train, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=0.05)
    parser.add_argument("--weight-decay", type=float, default=5e-4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = vars(parser.parse_args())
    peer, result = options.pop("peer"), options.pop("result")

    import torch

    torch.manual_seed(options["seed"])
    found = PEERS[peer](Task(**options))
    result.write_text(json.dumps({"accuracies": found.accuracies, "seconds": found.seconds}), encoding="utf-8")


if __name__ == "__main__":
    main()
