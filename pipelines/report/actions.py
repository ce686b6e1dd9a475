"""What to do about the data: each rule finds one thing that a person can do, or nothing."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.core.errors import count
from pipelines.report.confusion import ConfusedPair
from pipelines.report.data_card import class_counts, num_in_conflict
from pipelines.report.inputs import Inputs
from pipelines.report.split_card import SplitCard
from pipelines.report.wording import clipped, figure_of, listed, percent, percent_range

RARE_BELOW = 1 / 3
"""of the median class: a class with fewer training images is rare"""
WEAK_BY = 0.1
"""of recall below the mean: such a class needs more images if it has fewer to learn from than the median class, or than
FEW_TO_LEARN_FROM"""
FEW_TO_LEARN_FROM = 20
FEW_TEST_IMAGES = 10
"""with fewer, a 95 % interval of recall is about 50 points wide"""
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


def leaks(division: SplitCard) -> Action | None:
    if not division.num_leaks:
        return None
    return Action(
        f"Mend the given split: {count(division.num_leaks, 'group lies', 'groups lie')} across it",
        f"{division.notice} {division.leak}".strip(),
        "the source's own subsets, or params.yaml, split.leaks",
        "split",
        2.0 if division.notice else 0.0,
    )


def broken_rules(inputs: Inputs) -> Action | None:
    broken = [rule for rule in inputs.expectations["rules"] if not rule["success"]]
    if not broken:
        return None
    offenders = max(rule["num_offenders"] for rule in broken)
    return Action(
        f"Look at {count(len(broken), 'rule')} the data does not keep",
        "; ".join(_fault(rule) for rule in broken) + ".",
        "params.yaml, section validate",
        "rules",
        0.1 * min(1.0, offenders / max(inputs.manifest.num_rows, 1)),
    )


def _fault(rule: dict[str, Any]) -> str:
    """ "3 pictures are long and narrow: … above 4 (found 8.29, limit 4)"; fractions as percentages."""
    shown = percent if rule["rule"].endswith("_fraction") else figure_of
    limit = "" if rule["limit"] is None else f", limit {shown(rule['limit'])}"
    return f"{rule['fault']} (found {shown(rule['observed'])}{limit})"


def more_pictures(inputs: Inputs) -> Action | None:
    """What the learning curve advises."""
    told = (inputs.metrics.get("learning_curve") or {}).get("advice")
    if not told or told["more_images"] <= 0 or told["expected_gain"] <= 0:
        return None
    ends = percent_range(told["low"], told["high"])
    return Action(
        f"Collect {count(told['more_images'], 'more picture')} of {told['class']}",
        f"By the learning curve they add about {100 * told['expected_gain']:.1f} points of accuracy"
        f"{'' if ends == '–' else f' ({ends})'}.",
        f"the source of {told['class']}",
        "more",
        told["expected_gain"],
    )


def weak_slice(inputs: Inputs) -> Action | None:
    """The slice that loses the most test pictures to what the rest would tell right."""
    worse = (inputs.metrics.get("slices") or {}).get("worse") or []
    total = max(inputs.metrics["num_images"], 1)
    lost = [((one["rest"] - one["accuracy"]["value"]) * one["num_images"] / total, one) for one in worse]
    if not lost:
        return None
    share, one = max(lost, key=lambda pair: pair[0])
    return Action(
        f"Collect pictures like those of {one['kind']} {one['name']}",
        f"Of its {count(one['num_images'], 'test picture')}, {percent(one['accuracy']['value'])} are told right; of "
        f"the rest {percent(one['rest'])}. That is more than chance explains, after counting the slices looked at.",
        "",
        "slices",
        0.5 * share,
    )


def conflicts(inputs: Inputs) -> Action | None:
    number = num_in_conflict(inputs)
    if not number:
        return None
    held = inputs.manifest["verdict"].to_pylist().count("conflict")
    kept_out = f" Until then {count(held, 'file stays', 'files stay')} out of training and test." if held else ""
    return Action(
        f"Settle {count(number, 'picture that stands', 'pictures that stand')} under two labels",
        f"The same picture cannot be both.{kept_out}",
        "data/decisions/relabel.csv",
        "conflicts",
        number / max(inputs.index.num_rows, 1),
    )


def suspects(inputs: Inputs) -> Action | None:
    if not inputs.suspects:
        return None
    precision = (inputs.metrics.get("suspects") or {}).get("expected_precision")
    right = f" About {percent(precision, 0)} of them are expected to be wrong labels." if precision is not None else ""
    return Action(
        f"Look at {count(len(inputs.suspects), 'suspect')}",
        f"The model, which never learnt from these pictures, is confident of another label.{right} "
        "Some labels are wrong, some pictures are hard: only a person can say which.",
        "data/decisions/relabel.csv, drop.csv or keep.csv",
        "suspects",
        (0.3 if precision is None else precision) * len(inputs.suspects) / max(inputs.index.num_rows, 1),
    )


def starved(inputs: Inputs) -> Action | None:
    """Rare classes, and those of low recall with little to learn from, by the test images they lose."""
    trained = {c.label: c.subsets["train"] for c in class_counts(inputs)}
    median = float(np.median(list(trained.values()))) if trained else 0.0
    mean = inputs.metrics["balanced_accuracy"]["value"] or 0.0
    counted = ((inputs.metrics.get("learning_curve") or {}).get("advice") or {}).get("class")
    found: list[tuple[int, str, str]] = []
    for k, label in enumerate(inputs.classes):
        if label == counted:
            continue  # more_pictures says how many
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


def worst_pair(inputs: Inputs, pairs: list[ConfusedPair]) -> Action | None:
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


def rejects(inputs: Inputs) -> Action | None:
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


def low_support(inputs: Inputs) -> Action | None:
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
