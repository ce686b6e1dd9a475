"""Accuracy under worse pictures: the project's own augmentation, at five fixed strengths of each kind."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.augmentation.packs import Pixels
from pipelines.augmentation.random import picture_keys
from pipelines.augmentation.sampling import SampledParams, sample_params
from pipelines.core.progress import progress
from pipelines.evaluate.figures import DIGITS
from pipelines.evaluate.intervals import wilson_interval
from pipelines.evaluate.members import Names
from pipelines.evaluate.metrics import Ints
from pipelines.params.augment import AugmentPolicy, policy_of

AMOUNTS: dict[str, tuple[float, ...]] = {
    "noise": (8, 16, 24, 40, 60),  # standard deviation, grey levels
    "blur": (0.003, 0.006, 0.009, 0.013, 0.02),  # standard deviation, share of the side
    "jpeg": (50, 30, 20, 10, 5),  # quality
    "brightness": (1.2, 1.4, 1.7, 2.0, 2.5),  # factor; half of the pictures are darker by it, half brighter
    "occlusion": (0.02, 0.05, 0.1, 0.2, 0.3),  # share of the picture under a grey square
    "rotation": (5, 10, 15, 20, 30),  # degrees, either way
    "scribble": (1, 2, 3, 5, 8),  # strokes of a pen
}
"""strengths 1 to 5 of each kind"""
HEADER = ("strength", *AMOUNTS)
"""of robustness.csv: accuracy at each strength of each kind, a column a kind as plots want it"""

Probabilities = npt.NDArray[np.float32]
Predict = Callable[[Pixels], Probabilities]
"""(n, S, S, 3) uint8 to (n, K)"""


def choose_pictures(image_ids: Names, actual: Ints, groups: Ints, *, num: int) -> Ints:
    """At most `num` of N pictures: each class in proportion, one of a duplicate group, by the hashes of their ids.

    A picture more or less changes few of those that are chosen.

    Args:
        image_ids, actual, groups: (N,) of the pictures.

    Returns:
        rows, sorted.
    """
    digests = [hashlib.sha256(f"robustness {image_id}".encode()).digest() for image_id in image_ids]
    rows, seen = [], set()
    for row in sorted(range(len(digests)), key=digests.__getitem__):
        if groups[row] not in seen:
            seen.add(groups[row])
            rows.append(row)
    sizes, ranks = np.bincount(actual[rows]), dict.fromkeys(range(int(actual.max(initial=0)) + 1), 0)
    place = {}
    for row in rows:
        k = int(actual[row])
        place[row] = (ranks[k] + 0.5) / sizes[k]  # how far into its class
        ranks[k] += 1
    return np.array(sorted(sorted(rows, key=lambda row: (place[row], digests[row]))[:num]), np.int64)


def degrade(pixels: Pixels, kind: str, strength: int, *, image_ids: Names, seed: int) -> Pixels:
    """Pictures made worse; places and directions are drawn for each picture, and are the same at each strength.

    Args:
        pixels: (n, S, S, 3).
        kind: one of AMOUNTS.
        strength: 1 to 5.
        image_ids: (n,) sha256 of the files.
        seed: of the draws.

    Returns:
        (n, S, S, 3) uint8.
    """
    import torch

    from pipelines.augmentation.applying import apply

    draws, policy = _draws(kind, AMOUNTS[kind][strength - 1], image_ids, seed)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
    found = apply(images, draws, policy).round_().clamp_(0, 255).to(torch.uint8)
    worse: Pixels = found.permute(0, 2, 3, 1).contiguous().numpy()
    return worse


def _draws(kind: str, amount: float, image_ids: Names, seed: int) -> tuple[SampledParams, AugmentPolicy]:
    """The augmentation's own draws, with the one amount in the place of what it would draw."""
    keys = picture_keys(np.asarray(image_ids, np.str_))
    num = len(keys)
    wild = policy_of(brightness=0.5, degrees=1.0, random_erasing=1.0, scribble=1.0)
    drawn = sample_params(wild, seed=seed, epoch=0, pictures=keys)
    nothing = sample_params(policy_of(), seed=seed, epoch=0, pictures=keys)
    match kind:
        case "noise":
            return replace(nothing, noise=np.full(num, amount)), policy_of(noise=amount)
        case "blur":
            return replace(nothing, blur=np.full(num, amount)), policy_of(blur={"sigma": amount})
        case "jpeg":
            return replace(nothing, jpeg=np.full(num, int(amount))), policy_of(jpeg={"quality": int(amount)})
        case "brightness":
            factor = np.where(drawn.brightness < 1.0, 1.0 / amount, amount)
            return replace(nothing, brightness=factor), policy_of(brightness=1.0)
        case "rotation":
            return replace(nothing, angle=np.sign(drawn.angle) * amount), policy_of(degrees=amount)
        case "occlusion":
            side = np.full(num, np.sqrt(amount))
            left, top = (
                start / (1.0 - length) * (1.0 - side)
                for start, length in ((drawn.erase_left, drawn.erase_width), (drawn.erase_top, drawn.erase_height))
            )
            square = {"erase_left": left, "erase_top": top, "erase_width": side, "erase_height": side}
            return replace(nothing, **square), policy_of(random_erasing=1.0)
    # three strokes are drawn at a time
    epochs = [sample_params(wild, seed=seed, epoch=epoch, pictures=keys).strokes for epoch in range(3)]
    strokes = replace(nothing, num_strokes=np.full(num, int(amount)), strokes=np.concatenate(epochs, axis=1))
    return strokes, policy_of(scribble=1.0)


def measure_robustness(
    predict: Predict,
    pixels: Pixels,
    actual: Ints,
    *,
    classes: Sequence[str],
    image_ids: Names,
    seed: int,
    confidence: float,
) -> dict[str, Any]:
    """Accuracy, and how many answers change, at each strength of each kind.

    Args:
        predict: of a trained member.
        pixels: (n, S, S, 3), at least one picture, none a copy of another.
        actual: (n,) true classes.
        classes: K names.
        image_ids: (n,) sha256 of the files.
        seed: of places and directions.
        confidence: of the intervals (Wilson).

    Returns:
        baseline, the accuracy on these pictures as they are; num_images; and by kind a list over strengths, in which
        worst_class is the one that is told worst, None where none is told worse than before.
    """
    with progress("evaluate: robustness", len(pixels) * sum(map(len, AMOUNTS.values())), unit="pictures") as advance:
        plain = predict(pixels)
        kinds: dict[str, Any] = {}
        for kind, amounts in AMOUNTS.items():
            kinds[kind] = []
            for strength, amount in enumerate(amounts, start=1):
                found = predict(degrade(pixels, kind, strength, image_ids=image_ids, seed=seed))
                flipped = found.argmax(axis=1) != plain.argmax(axis=1)
                worst = _worst_class(plain, found, actual)
                kinds[kind].append(
                    {
                        "strength": strength,
                        "amount": float(amount),
                        **_accuracy(found, actual, confidence, name="accuracy"),
                        "flip_rate": round(float(flipped.mean()), DIGITS),
                        "worst_class": None if worst is None else classes[worst],
                    }
                )
                advance(len(pixels))
    return {"baseline": _accuracy(plain, actual, confidence), "num_images": len(pixels), "kinds": kinds}


def _accuracy(
    probabilities: Probabilities, actual: Ints, confidence: float, *, name: str = "value"
) -> dict[str, float]:
    right = float((probabilities.argmax(axis=1) == actual).sum())
    low, high = wilson_interval(np.array([right]), np.array([float(len(actual))]), confidence)
    found = {name: right / len(actual), "low": float(low[0]), "high": float(high[0])}
    return {key: round(value, DIGITS) for key, value in found.items()}


def _worst_class(plain: Probabilities, found: Probabilities, actual: Ints) -> int | None:
    """Of the classes that are told worse than before the one with the least recall; of equals the least probable."""
    rows, num = np.arange(len(actual)), np.bincount(actual, minlength=plain.shape[1])
    before = np.bincount(actual, plain.argmax(axis=1) == actual, plain.shape[1])
    after = np.bincount(actual, found.argmax(axis=1) == actual, plain.shape[1])
    likely = np.bincount(actual, found[rows, actual], plain.shape[1]) / np.maximum(num, 1)
    lost = np.flatnonzero(after < before)
    if len(lost) == 0:
        return None
    return int(min(lost, key=lambda k: (after[k] / num[k], likely[k])))


def csv_rows(robustness: dict[str, Any]) -> list[tuple[object, ...]]:
    """The rows of robustness.csv under HEADER; strength 0 is the pictures as they are."""
    plain = robustness["baseline"]["value"]
    columns = [[plain, *(row["accuracy"] for row in robustness["kinds"][kind])] for kind in AMOUNTS]
    return [(strength, *row) for strength, row in enumerate(zip(*columns, strict=True))]
