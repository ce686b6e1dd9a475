"""The usual loop on one GPU, for some steps: ImageFolder, PIL, DataLoader, 32-bit floats, channels first.

    python benchmarks/peers_train/naive.py PICTURES RESULT --model resnet50 --image-size 224 --batch-size 256 --steps 60

PICTURES holds a folder for each class. Convolutions compute as torch has them by default: in TF32 on cards that know
it. Steps before the measured ones start the worker processes, fill their queues and let cuDNN choose.
"""

import argparse
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch.nn.functional import cross_entropy
from torchvision import transforms

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def main() -> None:
    """Step, and write pictures a second."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--warmup", type=int, default=10)
    parser.add_argument("--workers", type=int, required=True)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batches = _batches(options)
    network = torchvision.models.get_model(options.model, num_classes=10).to(device)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    started, count = time.perf_counter(), 0
    for step, (images, labels) in enumerate(itertools.islice(batches, options.warmup + options.steps)):
        if step == options.warmup:
            _wait(device)
            started = time.perf_counter()
        optimizer.zero_grad()
        on_device = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        loss = cross_entropy(network(on_device[0]), on_device[1])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        count += len(images) if step >= options.warmup else 0
    _wait(device)
    rate = count / (time.perf_counter() - started)
    options.result.write_text(json.dumps({"pictures_a_second": rate, "steps": options.steps}), encoding="utf-8")


def _batches(options: argparse.Namespace) -> Iterator[Any]:
    """Without end."""
    change = transforms.Compose(
        [
            transforms.Resize((options.image_size, options.image_size)),
            transforms.RandomHorizontalFlip(),
            transforms.RandomAffine(10, (0.1, 0.1), (0.9, 1.1)),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    loader = torch.utils.data.DataLoader(
        torchvision.datasets.ImageFolder(options.pictures, change),
        options.batch_size,
        shuffle=True,
        num_workers=options.workers,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=options.workers > 0,
        drop_last=True,
    )
    while True:
        yield from loader


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
