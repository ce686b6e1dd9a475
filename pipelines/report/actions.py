"""What to fix first: a short ordered list of things a person can do, worked out from what was found."""

from dataclasses import dataclass

import numpy as np

from pipelines.core.errors import count
from pipelines.report.confusion import Pair
from pipelines.report.data_card import class_counts
from pipelines.report.inputs import Inputs
from pipelines.report.wording import listed, percent

RARE_BELOW = 1 / 3
"""of the median class: fewer training pictures than this and a class is rare"""
FEW_TEST_PICTURES = 10
"""with fewer, a 95 % interval of recall is about 50 points wide"""
WIDE_GAP = 0.15
"""of accuracy between training and validation"""
POOR_CALIBRATION = 0.1


@dataclass(frozen=True)
class Action:
    """One thing to do.

    Args:
        what: in a few words.
        why: a sentence with the numbers.
        where: the file to edit or look at; "" for none.
        target: anchor of the section that shows the evidence.
    """

    what: str
    why: str
    where: str
    target: str


def what_to_fix(inputs: Inputs, pairs: list[Pair]) -> list[Action]:
    """Actions, the surest gain first: settled facts, then likely label errors, then missing data, then the model."""
    return [
        *_broken_rules(inputs),
        *_conflicts(inputs),
        *_suspects(inputs),
        *_rare_classes(inputs),
        *_worst_pair(inputs, pairs),
        *_rejects(inputs),
        *_low_support(inputs),
        *_overfit(inputs),
        *_calibration(inputs),
    ]


def _broken_rules(inputs: Inputs) -> list[Action]:
    broken = [rule for rule in inputs.expectations["rules"] if not rule["success"]]
    if not broken:
        return []
    return [
        Action(
            f"Look at {count(len(broken), 'rule')} the data does not keep",
            "; ".join(f"{r['description'] or r['rule']} (found {_short(r['observed'])})" for r in broken) + ".",
            "params.yaml, section validate",
            "data",
        )
    ]


def _short(observed: object) -> str:
    return f"{observed:.3g}" if isinstance(observed, float) else str(observed)


def _conflicts(inputs: Inputs) -> list[Action]:
    pairs = [row for row in inputs.duplicates if row["verdict"] == "conflict"]
    if not pairs:
        return []
    held = inputs.manifest["verdict"].to_pylist().count("conflict")
    kept_out = f" Until then {count(held, 'file stays', 'files stay')} out of training and test." if held else ""
    return [
        Action(
            f"Settle {count(len(pairs), 'picture that stands', 'pictures that stand')} under two labels",
            f"The same picture cannot be both.{kept_out}",
            "data/decisions/relabel.csv",
            "duplicates",
        )
    ]


def _suspects(inputs: Inputs) -> list[Action]:
    if not inputs.suspects:
        return []
    return [
        Action(
            f"Look at {count(len(inputs.suspects), 'suspect')}",
            "The model, which never learnt from these pictures, is confident of another label. "
            "Some labels are wrong, some pictures are hard: only a person can say which.",
            "data/decisions/relabel.csv or drop.csv",
            "suspects",
        )
    ]


def _rare_classes(inputs: Inputs) -> list[Action]:
    counts = class_counts(inputs)
    median = float(np.median([c.subsets["train"] for c in counts])) if counts else 0.0
    rare = [c for c in counts if c.subsets["train"] < RARE_BELOW * median]
    if not rare:
        return []
    named = [f"{c.label} ({c.subsets['train']})" for c in sorted(rare, key=lambda c: c.subsets["train"])[:5]]
    more = f" and {len(rare) - 5} more" if len(rare) > 5 else ""
    return [
        Action(
            f"Collect pictures of {count(len(rare), 'rare class', 'rare classes')}",
            f"{', '.join(named)}{more}: fewer than a third of the median class, which has {median:g} to learn from.",
            "the source of these classes",
            "data",
        )
    ]


def _worst_pair(inputs: Inputs, pairs: list[Pair]) -> list[Action]:
    total = sum(p.mistakes for p in pairs)
    if not pairs or pairs[0].mistakes < 3:
        return []
    pair = pairs[0]
    names = f"{inputs.classes[pair.first]} and {inputs.classes[pair.second]}"
    return [
        Action(
            f"Collect pictures that tell {names} apart",
            f"This pair alone makes {pair.mistakes:,} of {total:,} mistakes ({percent(pair.mistakes / total, 0)}). "
            "Compare the pictures: can you tell what the model missed?",
            "",
            "pairs",
        )
    ]


def _rejects(inputs: Inputs) -> list[Action]:
    if not inputs.rejects:
        return []
    reasons = sorted({row["reason"] for row in inputs.rejects})
    return [
        Action(
            f"Replace or remove {count(len(inputs.rejects), 'file')} that could not be used",
            f"{listed(reasons[:4])}{' and more' if len(reasons) > 4 else ''}.",
            "the source; listed in data/ingest/rejected.csv",
            "rejects",
        )
    ]


def _low_support(inputs: Inputs) -> list[Action]:
    per_class = inputs.metrics["per_class"]
    few = [label for label, c in per_class.items() if c["num_images"] < FEW_TEST_PICTURES]
    if not few:
        return []
    return [
        Action(
            f"Do not trust the recall of {count(len(few), 'class', 'classes')} yet",
            f"{listed(few) if len(few) <= 4 else ', '.join(few[:4]) + f' and {len(few) - 4} more'}: fewer than "
            f"{FEW_TEST_PICTURES} test pictures each, so the interval is wide. More pictures, or a larger "
            "test_fraction, narrow it.",
            "params.yaml, split.test_fraction",
            "classes",
        )
    ]


def _overfit(inputs: Inputs) -> list[Action]:
    gaps = []
    for (member, _), history in inputs.histories.items():
        if not history.get("val_loss"):
            continue
        best = int(np.nanargmin(history["val_loss"])) if not np.isnan(history["val_loss"]).all() else -1
        gap = history["train_accuracy"][best] - history["val_accuracy"][best]
        if gap > WIDE_GAP:
            gaps.append((gap, member))
    if not gaps:
        return []
    gap, member = max(gaps)
    return [
        Action(
            f"Give {member} more to learn from, or less freedom",
            f"It is {100 * gap:.0f} points better on the pictures it learnt from than on those it did not: "
            "more pictures, stronger augmentation or more regularisation close that gap.",
            f"params.yaml, train.recipes.{member}",
            "curves",
        )
    ]


def _calibration(inputs: Inputs) -> list[Action]:
    error = inputs.metrics["expected_calibration_error"]["value"]
    if error is None or error <= POOR_CALIBRATION:
        return []
    return [
        Action(
            "Do not read the probabilities as chances",
            f"Confidence and accuracy lie {100 * error:.0f} points apart on average. The ranking is still of use.",
            "",
            "figures",
        )
    ]
