"""Augmentation of a batch as training does it, beside torchvision's transforms of one Pillow picture after the other.

    python benchmarks/augmentation.py --threads 1

Both begin with the same uint8 pixels and end with a float batch; ours draws too. Microseconds a picture, medians of
--runs in turn, each change alone and always on, then whole policies of params.yaml. With a GPU ours runs there as
well, beside the same transforms on one core, which is what a worker of a DataLoader does.
"""

import argparse
import functools
import io
import random
import time
from collections.abc import Callable
from pathlib import Path

import measure
import numpy as np
import project  # noqa: F401  (finds pipelines)
import torch
from PIL import Image
from torchvision import transforms

from pipelines.augmentation.applying import apply
from pipelines.augmentation.sampling import sample_params
from pipelines.params import load_params
from pipelines.params.augment import AugmentPolicy, policy_of
from pipelines.train.runtime import keep_freed_memory

ROOT = Path(__file__).parents[1]
BATCHES = {64: 256, 224: 64}
"""pictures of a batch, by side"""
GREY = (128, 128, 128)

Transform = Callable[[Image.Image], Image.Image]


def jpeg(image: Image.Image, probability: float = 1.0) -> Image.Image:
    if random.random() >= probability:
        return image
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=random.randint(30, 95))
    return Image.open(buffer).convert("RGB")


def maybe(probability: float, transform: Transform) -> Transform:
    chosen: Transform = transforms.RandomApply([transform], probability)
    return chosen


def affine(**values: object) -> Transform:
    moved: Transform = transforms.RandomAffine(
        **{"degrees": 0, **values}, interpolation=transforms.InterpolationMode.BILINEAR, fill=GREY
    )
    return moved


def changes(side: int) -> dict[str, tuple[AugmentPolicy, list[Transform]]]:
    """By name: our policy, and torchvision's transforms of the same strength."""
    policies = load_params(ROOT / "params.yaml").augment.policies
    flip = transforms.RandomHorizontalFlip()
    bilinear = transforms.InterpolationMode.BILINEAR
    sigma = 0.01 * side
    blur = transforms.GaussianBlur(2 * max(1, -int(-3 * sigma // 1)) + 1, (sigma / 4, sigma))
    erase = transforms.Compose([transforms.PILToTensor(), transforms.RandomErasing(0.25, (0.02, 0.2), (0.5, 2.0), 128)])
    return {
        "flip": (policy_of(hflip=0.5), [flip]),
        "turn, shift, zoom": (
            policy_of(degrees=15.0, translate=0.1, scale=0.2),
            [affine(degrees=15, translate=(0.1, 0.1), scale=(0.83, 1.2))],
        ),
        "perspective": (policy_of(perspective=0.3), [transforms.RandomPerspective(0.3, 1.0, fill=GREY)]),
        "crop": (policy_of(random_resized_crop=0.4), [transforms.RandomResizedCrop(side, (0.4, 1.0))]),
        "brightness": (policy_of(brightness=0.3), [transforms.ColorJitter(brightness=0.3)]),
        "contrast": (policy_of(contrast=0.3), [transforms.ColorJitter(contrast=0.3)]),
        "saturation": (policy_of(saturation=0.3), [transforms.ColorJitter(saturation=0.3)]),
        "hue": (policy_of(hue=0.1), [transforms.ColorJitter(hue=0.1)]),
        "blur": (policy_of(blur={"probability": 1.0, "sigma": 0.01}), [blur]),
        "jpeg": (policy_of(jpeg={"probability": 1.0, "quality": 30}), [jpeg]),
        "policy standard": (
            policies["standard"],
            [
                flip,
                affine(degrees=15, translate=(0.1, 0.1), scale=(0.83, 1.2)),
                transforms.ColorJitter(0.2, 0.2, 0.2),
                erase,
            ],
        ),
        # without noise and pen, which torchvision does not have for Pillow's pictures
        "policy strong, but noise and pen": (
            policies["strong"].model_copy(update={"noise": 0.0, "scribble": 0.0}),
            [
                flip,
                transforms.RandomResizedCrop(side, (0.4, 1.0)),
                affine(degrees=15, translate=(0.1, 0.1), shear=(-10, 10, -10, 10)),
                transforms.RandomPerspective(0.2, 1.0, fill=GREY),
                transforms.ColorJitter(0.3, 0.3, 0.3, 0.05),
                maybe(0.2, blur),
                functools.partial(jpeg, probability=0.3),
                erase,
            ],
        ),
        "policy randaugment": (
            policies["randaugment"],
            [flip, transforms.RandAugment(interpolation=bilinear, fill=list(GREY))],
        ),
        "policy trivialaugment": (
            policies["trivialaugment"],
            [flip, transforms.TrivialAugmentWide(interpolation=bilinear, fill=list(GREY))],
        ),
    }


def smooth(side: int, count: int) -> np.ndarray:
    """(count, S, S, 3) uint8: soft patches of colour, which a JPEG finds as easy as a photograph."""
    patches = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), np.uint8)
    return np.stack(
        [np.asarray(Image.fromarray(one).resize((side, side), Image.Resampling.BICUBIC)) for one in patches]
    )


def ours(pixels: torch.Tensor, policy: AugmentPolicy, epoch: int) -> float:
    keys = np.arange(len(pixels), dtype=np.uint64)
    started = time.perf_counter()
    draws = sample_params(policy, seed=1, epoch=epoch, pictures=keys)
    changed = apply(pixels.permute(0, 3, 1, 2).float(), draws, policy)
    if changed.is_cuda:
        torch.cuda.synchronize()
    return (time.perf_counter() - started) / len(pixels) * 1e6


def theirs(pixels: np.ndarray, chain: Transform) -> float:
    started = time.perf_counter()
    changed = [np.asarray(chain(Image.fromarray(one))) for one in pixels]
    torch.from_numpy(np.stack(changed)).permute(0, 3, 1, 2).float()
    return (time.perf_counter() - started) / len(pixels) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()  # as training does; for both
    torch.manual_seed(0)
    random.seed(0)
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    claims = {}
    for side, count in BATCHES.items():
        pictures = smooth(side, count)
        for name, (policy, steps) in changes(side).items():
            chain = transforms.Compose(steps)
            batches = {device: torch.from_numpy(pictures).to(device) for device in devices}
            taken: dict[str, list[float]] = {device: [] for device in devices}
            peer: list[float] = []
            for run in range(arguments.runs + 1):
                peer.append(theirs(pictures, chain))
                for device, batch in batches.items():
                    taken[device].append(ours(batch, policy, run))
            for device, found in taken.items():
                # the first run warms up
                goal = 1.0 if device == "cpu" else 0.05
                claims[f"{side} px, {device}: {name}"] = measure.claim(found[1:], peer=peer[1:], goal=goal, unit="us")
    measure.report(claims)


if __name__ == "__main__":
    main()
