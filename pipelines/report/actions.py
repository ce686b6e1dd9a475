"""What to fix first: a short ordered list of things a person can do."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.core.errors import count
from pipelines.params.train import TrainParams
from pipelines.report.confusion import ConfusedPair
from pipelines.report.data_card import class_counts, num_in_conflict
from pipelines.report.inputs import Inputs
from pipelines.report.split_card import SplitCard
from pipelines.report.wording import clipped, figure_of, listed, percent

RARE_BELOW = 1 / 3
"""of the median class: a class with fewer training images is rare"""
WEAK_BY = 0.1
"""of recall below the mean: such a class needs more images if it has fewer to learn from than the median class, or than
FEW_TO_LEARN_FROM"""
FEW_TO_LEARN_FROM = 20
FEW_TEST_IMAGES = 10
"""with fewer, a 95 % interval of recall is about 50 points wide"""
WIDE_GAP = 0.15
"""of accuracy between training and validation"""
POOR_CALIBRATION = 0.1
FIXED_BY_FINETUNING = 0.57
"""of a linear probe's mistakes: guitars, 11 classes, 528 test images: accuracy .881, fine-tuned .949"""
WORTH_TUNING = 0.02
"""of test images classified wrong: fewer leave little to gain"""
FINETUNING = ("finetune", "partial_finetune", "linear_then_finetune")
BUILTIN_FINETUNING = "finetune"
"""the built-in recipe that is suggested where params.yaml has none of these"""
NAMED = 5


@dataclass(frozen=True)
class Action:
    """One thing to do.

    Args:
        what: in a few words.
        why: a sentence with the numbers.
        where: the file to edit or look at; "" for none.
        target: anchor of the section that shows the evidence.
        gain: rough guess, to sort by, of the accuracy it may add; above 1 where no metric holds before it is done, 0
            where it only says how far a metric can be trusted.
    """

    what: str
    why: str
    where: str
    target: str
    gain: float


def what_to_fix(inputs: Inputs, pairs: list[ConfusedPair], train: TrainParams, division: SplitCard) -> list[Action]:
    """Actions, the largest expected gain first."""
    found = [
        _leaks(division),
        _broken_rules(inputs),
        _untried(inputs, train),
        _conflicts(inputs),
        _suspects(inputs),
        _starved(inputs),
        _worst_pair(inputs, pairs),
        _rejects(inputs),
        _low_support(inputs),
        _overfit(inputs, train),
        _calibration(inputs),
    ]
    return sorted(filter(None, found), key=lambda action: -action.gain)


def _leaks(division: SplitCard) -> Action | None:
    if not division.num_leaks:
        return None
    return Action(
        f"Mend the given split: {count(division.num_leaks, 'group lies', 'groups lie')} across it",
        f"{division.notice} {division.leak}".strip(),
        "the source's own subsets, or params.yaml, split.leaks",
        "split",
        2.0 if division.notice else 0.0,
    )


def _broken_rules(inputs: Inputs) -> Action | None:
    broken = [rule for rule in inputs.expectations["rules"] if not rule["success"]]
    if not broken:
        return None
    offenders = max(rule["num_offenders"] for rule in broken)
    return Action(
        f"Look at {count(len(broken), 'rule')} the data does not keep",
        "; ".join(_fault(rule) for rule in broken) + ".",
        "params.yaml, section validate",
        "data",
        0.1 * min(1.0, offenders / max(inputs.manifest.num_rows, 1)),
    )


def _fault(rule: dict[str, Any]) -> str:
    """ "3 pictures are long and narrow: … above 4 (found 8.29, limit 4)"; fractions as percentages."""
    shown = percent if rule["rule"].endswith("_fraction") else figure_of
    limit = "" if rule["limit"] is None else f", limit {shown(rule['limit'])}"
    return f"{rule['fault']} (found {shown(rule['observed'])}{limit})"


def _untried(inputs: Inputs, train: TrainParams) -> Action | None:
    """A fine-tuning recipe, where all that ran are linear probes."""
    wrong = 1.0 - (inputs.metrics["accuracy"]["value"] or 0.0)
    own = [name for name, recipe in train.recipes.items() if recipe.tuning in FINETUNING]
    tuned = next(iter(own), BUILTIN_FINETUNING)
    ran = {train.recipes[name].tuning for name in train.all_members}
    if ran != {"linear_probe"} or wrong < WORTH_TUNING:
        return None
    return Action(
        f"Train {tuned} as well: all of the network, not its head alone",
        f"Of every member only the head learns from these pictures, and {percent(wrong)} of the test pictures are "
        f"told wrong. On 2,754 photographs of guitars, tuning all of the network raised accuracy from "
        f"{percent(0.881)} to {percent(0.949)}, for six minutes on two cores.",
        f"params.yaml, train.members: [{', '.join((*train.members, tuned))}]",
        "made",
        FIXED_BY_FINETUNING * wrong,
    )


def _conflicts(inputs: Inputs) -> Action | None:
    number = num_in_conflict(inputs)
    if not number:
        return None
    held = inputs.manifest["verdict"].to_pylist().count("conflict")
    kept_out = f" Until then {count(held, 'file stays', 'files stay')} out of training and test." if held else ""
    return Action(
        f"Settle {count(number, 'picture that stands', 'pictures that stand')} under two labels",
        f"The same picture cannot be both.{kept_out}",
        "data/decisions/relabel.csv",
        "duplicates",
        number / max(inputs.index.num_rows, 1),
    )


def _suspects(inputs: Inputs) -> Action | None:
    if not inputs.suspects:
        return None
    precision = inputs.metrics.get("suspects", {}).get("expected_precision")
    right = f" About {percent(precision, 0)} of them are expected to be wrong labels." if precision is not None else ""
    return Action(
        f"Look at {count(len(inputs.suspects), 'suspect')}",
        f"The model, which never learnt from these pictures, is confident of another label.{right} "
        "Some labels are wrong, some pictures are hard: only a person can say which.",
        "data/decisions/relabel.csv, drop.csv or keep.csv",
        "suspects",
        (0.3 if precision is None else precision) * len(inputs.suspects) / max(inputs.index.num_rows, 1),
    )


def _starved(inputs: Inputs) -> Action | None:
    """Rare classes, and those of low recall with little to learn from, by the test images they lose."""
    trained = {c.label: c.subsets["train"] for c in class_counts(inputs)}
    median = float(np.median(list(trained.values()))) if trained else 0.0
    mean = inputs.metrics["balanced_accuracy"]["value"] or 0.0
    found: list[tuple[int, str, str]] = []
    for k, label in enumerate(inputs.classes):
        tested, right = int(inputs.counts[k].sum()), int(inputs.counts[k, k])
        weak = tested > 0 and right / tested < mean - WEAK_BY
        few = trained[label] < max(median, FEW_TO_LEARN_FROM)
        if trained[label] < RARE_BELOW * median or (weak and few):
            of = f"found {right:,} of {tested:,}" if tested else "not tested"
            found.append((tested - right, label, f"{label}: {of}, {trained[label]:,} to learn from"))
    if not found:
        return None
    found.sort(key=lambda one: (-one[0], one[1]))
    more = f"; and {len(found) - NAMED:,} more" if len(found) > NAMED else ""
    few_of = listed([label for _, label, _ in found]) if len(found) <= 3 else f"{len(found):,} classes"
    return Action(
        f"Collect pictures of {few_of}",
        "; ".join(said for _, _, said in found[:NAMED])
        + f"{more}. The median class has {median:g}, and {percent(mean, 0)} of a class are found on average.",
        "the source of these classes",
        "classes",
        0.5 * sum(lost for lost, _, _ in found) / max(inputs.metrics["num_images"], 1),
    )


def _worst_pair(inputs: Inputs, pairs: list[ConfusedPair]) -> Action | None:
    """The most confused pair of at least three classes; of two there is only one."""
    total = sum(p.mistakes for p in pairs)
    if len(inputs.classes) < 3 or not pairs or pairs[0].mistakes < 3:
        return None
    pair = pairs[0]
    names = f"{inputs.classes[pair.first]} and {inputs.classes[pair.second]}"
    return Action(
        f"Collect pictures that tell {names} apart",
        f"This pair alone makes {pair.mistakes:,} of {total:,} mistakes ({percent(pair.mistakes / total, 0)}). "
        "Compare the pictures: can you tell what the model missed?",
        "",
        "pairs",
        0.5 * pair.mistakes / max(inputs.metrics["num_images"], 1),
    )


def _rejects(inputs: Inputs) -> Action | None:
    if not inputs.rejects:
        return None
    reasons = sorted({row["reason"] for row in inputs.rejects})
    return Action(
        f"Replace or remove {count(len(inputs.rejects), 'file')} that could not be used",
        f"{listed(reasons[:4])}{' and more' if len(reasons) > 4 else ''}.",
        "the source; listed in data/ingest/rejected.csv",
        "rejects",
        0.1 * len(inputs.rejects) / max(inputs.manifest.num_rows, 1),
    )


def _low_support(inputs: Inputs) -> Action | None:
    per_class = inputs.metrics["per_class"]
    few = [label for label, c in per_class.items() if c["num_images"] < FEW_TEST_IMAGES]
    if not few:
        return None
    return Action(
        f"Do not trust the recall of {count(len(few), 'class', 'classes')} yet",
        f"{clipped(few, 4)}: fewer than {FEW_TEST_IMAGES} test pictures each, so the interval is wide. More "
        "pictures, or a larger test_fraction, narrow it.",
        "params.yaml, split.test_fraction",
        "classes",
        0.0,
    )


def _overfit(inputs: Inputs, train: TrainParams) -> Action | None:
    """Not of linear probes: they have no augmentation, and validation chose their regularisation."""
    gaps = []
    for (member, _), history in inputs.histories.items():
        if train.recipes[member].tuning == "linear_probe" or not history.get("val_loss"):
            continue
        best = int(np.nanargmin(history["val_loss"])) if not np.isnan(history["val_loss"]).all() else -1
        gap = history["train_accuracy"][best] - history["val_accuracy"][best]
        if gap > WIDE_GAP:
            gaps.append((gap, member))
    if not gaps:
        return None
    gap, member = max(gaps)
    return Action(
        f"Give {member} more to learn from, or less freedom",
        f"It is {100 * gap:.0f} points better on the pictures it learnt from than on those it did not: "
        "more pictures, stronger augmentation or more regularisation close that gap.",
        f"params.yaml, train.recipes.{member}",
        "curves",
        0.1 * gap,
    )


def _calibration(inputs: Inputs) -> Action | None:
    """Where the calibration error is larger than chance would make that of a calibrated model."""
    known = inputs.metrics.get("calibration")
    error = known["error"] if known else inputs.metrics["expected_calibration_error"]["value"]
    by_chance = (known["calibrated_high"] or 0.0) if known else 0.0
    if error is None or error <= max(POOR_CALIBRATION, by_chance):
        return None
    return Action(
        "Do not read the probabilities as chances",
        f"Confidence and accuracy lie {100 * error:.0f} points apart on average. The ranking is still of use.",
        "",
        "calibration",
        0.0,
    )
