"""How often the truth lies in an interval of 95 %, beside the percentile bootstrap of whole groups.

    python benchmarks/intervals.py [--samples 500]

Each sample is a test set drawn from a known classifier: K classes in equal parts, each told right with the same chance,
whose confidences are calibrated. `dups`: one picture in three has copies, which are right and wrong with it. The
coverage of accuracy under `single` needs no sample: tests/test_intervals.py computes it. With 500 samples the standard
error of a coverage of .95 is .010.
"""

import argparse
import json
from dataclasses import replace

import numpy as np
import project  # noqa: F401  (finds pipelines)

from pipelines.evaluate.intervals import metric_intervals, paired_interval
from pipelines.evaluate.metrics import METRICS, Floats, Ints, ScoredImages, metric_sums, score

SIZES = ((20, 2), (40, 4), (150, 10), (2000, 10))
CHANCES = (0.5, 0.9, 0.98)
FIGURE_NAMES = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss")
RESAMPLES = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=500)
    num_samples = parser.parse_args().samples
    print("| groups | pictures | classes | right | " + " | ".join(FIGURE_NAMES) + " | gain |")
    print("|---|--:|--:|--:|" + "--:|" * (len(FIGURE_NAMES) + 1))
    rows = []
    for grouped in (False, True):
        for num_images, num_classes in SIZES:
            for chance in CHANCES:
                samples = num_samples if num_images < 1000 else num_samples // 2
                found = coverage(num_images, num_classes, chance, grouped, samples)
                cells = " | ".join(f"{new:.3f} ({old:.3f})" for new, old in found.values())
                print(
                    f"| {'dups' if grouped else 'single'} | {num_images} | {num_classes} | {chance} | {cells} |",
                    flush=True,
                )
                rows.append({"grouped": grouped, "n": num_images, "right": chance, **found})
    print("\nours (percentile bootstrap)")
    print(json.dumps(rows))


def coverage(
    num_images: int, num_classes: int, chance: float, grouped: bool, num_samples: int
) -> dict[str, tuple[float, float]]:
    """By figure, how often its interval covers, and how often a percentile bootstrap's does."""
    rng = np.random.default_rng([num_images, round(chance * 100), grouped])
    spread = 5.0
    large, _ = draw(rng, 200_000, num_classes, chance, False, spread)
    truth = {name: float(METRICS[name](metric_sums(large))) for name in FIGURE_NAMES} | {"gain": 0.0}
    hits = {name: np.zeros(2) for name in truth}
    for _ in range(num_samples):
        scored, groups = draw(rng, num_images, num_classes, chance, grouped, spread)
        found = dict(metric_intervals(scored, groups, 0.95))
        # of two models that are as good, and agree on three pictures of four
        other, _ = draw(rng, num_images, num_classes, chance, grouped, spread)
        same = rng.random(groups.max() + 1)[groups] < 0.75
        gain = np.where(same, 0.0, scored.right.astype(float) - other.right)
        found["gain"] = paired_interval(gain, groups, 0.95, of_fractions=True)
        old = bootstrap(rng, scored, groups, gain)
        for name, value in truth.items():
            hits[name] += [low <= value <= high for low, high in (found[name], old[name])]
    return {name: (float(new) / num_samples, float(old) / num_samples) for name, (new, old) in hits.items()}


def draw(
    rng: np.random.Generator, num_images: int, num_classes: int, chance: float, grouped: bool, spread: float
) -> tuple[ScoredImages, Ints]:
    """A test set and its groups; the classes have equal parts."""
    groups = np.arange(num_images)
    if grouped:
        sizes = rng.choice([1, 1, 1, 1, 2, 3], num_images)
        groups = np.repeat(np.arange(num_images), sizes)[:num_images]
    confidence = rng.beta(spread * chance, spread * (1 - chance), num_images)[groups].clip(1e-6, 1 - 1e-6)
    actual = groups % num_classes
    right = rng.random(num_images)[groups] < confidence
    away = rng.integers(1, num_classes, num_images)[groups]
    predicted = np.where(right, actual, (actual + away) % num_classes)
    probabilities = np.tile(((1 - confidence) / (num_classes - 1))[:, None], num_classes)
    probabilities[np.arange(num_images), predicted] = confidence
    # below 1 / K the most probable class is another one: what was predicted stays
    return replace(score(actual, probabilities), predicted=predicted, confidence=confidence), groups


def bootstrap(
    rng: np.random.Generator, scored: ScoredImages, groups: Ints, gain: Floats
) -> dict[str, tuple[float, float]]:
    """The percentile bootstrap over groups."""
    num_groups = int(groups.max()) + 1
    times = rng.multinomial(num_groups, np.full(num_groups, 1 / num_groups), size=RESAMPLES)[:, groups].astype(float)
    classes = np.eye(scored.num_classes)
    right = times @ (classes[scored.actual] * scored.right[:, None])  # (B, K), as the next two
    actual, predicted, total = times @ classes[scored.actual], times @ classes[scored.predicted], times.sum(1)
    with np.errstate(invalid="ignore"):
        drawn = {
            "accuracy": right.sum(1) / total,
            "balanced_accuracy": np.nanmean(right / actual, axis=1),
            "macro_f1": np.nanmean(2 * right / (actual + predicted), axis=1),
            "log_loss": times @ scored.loss / total,
            "gain": times @ gain / total,
        }
    return {name: percentiles(values) for name, values in drawn.items()}


def percentiles(values: Floats) -> tuple[float, float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


if __name__ == "__main__":
    main()
