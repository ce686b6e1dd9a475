"""What to do first: every rule of actions.py and those on the model, the largest expected gain first."""

from typing import NamedTuple

import numpy as np

from pipelines.core.errors import count
from pipelines.params.train import TrainParams
from pipelines.report import actions
from pipelines.report.actions import Action
from pipelines.report.confusion import ConfusedPair
from pipelines.report.inputs import Inputs
from pipelines.report.split_card import SplitCard
from pipelines.report.wording import clipped, percent, percent_range, points

WIDE_GAP = 0.15
"""of accuracy between training and validation"""
POOR_CALIBRATION = 0.1
WORTH_TRAINING = 0.02
"""of test images classified wrong: fewer leave little to gain"""
FRAGILE_BY = 0.1
"""of accuracy lost at the middle strength of a disturbance"""
FINETUNING = ("finetune", "partial_finetune", "linear_then_finetune")


class _Lever(NamedTuple):
    """A built-in recipe: what it does, the fraction of a linear probe's mistakes that it mended, and where."""

    recipe: str
    does: str
    mended: float
    measured: str
    params: str


LEVERS = (
    _Lever(
        "finetune",
        "all of the network, not its head alone",
        0.52,
        "On 2,754 photographs of guitars it raised accuracy from 88.1 to 94.3\u202f%, for six minutes on two cores.",
        "",
    ),
    _Lever(
        "linear_probe_large",
        "a head on three networks, of larger pictures",
        0.3,
        "It raised accuracy from 88.1 to 92.6\u202f% on 2,754 photographs of guitars, and from 83.1 to 87.3\u202f% on "
        "713 of clothing, for some minutes on two cores.",
        "; augment.image_size: 288",
    ),
)


def what_to_do(inputs: Inputs, pairs: list[ConfusedPair], train: TrainParams, division: SplitCard) -> list[Action]:
    """Actions, the largest expected gain first."""
    found = [
        actions.leaks(division),
        actions.broken_rules(inputs),
        _worse(inputs),
        *(_untried(inputs, train, lever) for lever in LEVERS),
        actions.more_pictures(inputs),
        actions.conflicts(inputs),
        actions.suspects(inputs),
        actions.starved(inputs),
        _abandoned(inputs, train),
        actions.weak_slice(inputs),
        actions.worst_pair(inputs, pairs),
        actions.rejects(inputs),
        actions.low_support(inputs),
        _abstain(inputs),
        _goal(inputs),
        _overfit(inputs, train),
        _fragile(inputs, train),
        _calibration(inputs),
    ]
    return sorted(filter(None, found), key=lambda action: -action.gain)


def _tuned(train: TrainParams) -> list[str]:
    """The members whose network learns, and which augmentation and class weights can reach."""
    return [name for name in train.all_members if train.recipes[name].tuning != "linear_probe"]


def _worse(inputs: Inputs) -> Action | None:
    change = inputs.metrics.get("change")
    if not change or change["verdict"] != "worse":
        return None
    loss = change["difference"]
    return Action(
        "Look at what the last change broke, or take it back",
        f"On the {count(change['num_shared'], 'test picture')} that both runs have, accuracy changed by "
        f"{points(loss['value'])} points ({points(loss['low'])} to {points(loss['high'])}).",
        "git diff of params.yaml and data/decisions",
        "changed",
        -loss["value"],
    )


def _untried(inputs: Inputs, train: TrainParams, lever: _Lever) -> Action | None:
    """A stronger recipe, where all that ran are linear probes of one network."""
    wrong = 1.0 - (inputs.metrics["accuracy"]["value"] or 0.0)
    if _tuned(train) or wrong < WORTH_TRAINING or lever.recipe in train.all_members:
        return None
    name = lever.recipe
    if name == "finetune":  # a recipe of one's own comes before the built-in one
        name = next((own for own, recipe in train.recipes.items() if recipe.tuning in FINETUNING), name)
    return Action(
        f"Train {name} as well: {lever.does}",
        f"Every member is a head on features of a network that never saw these pictures, and {percent(wrong)} of the "
        f"test pictures are told wrong. {lever.measured}",
        f"params.yaml, train.members: [{', '.join((*train.members, name))}]{lever.params}",
        "training",
        lever.mended * wrong,
    )


def _abandoned(inputs: Inputs, train: TrainParams) -> Action | None:
    """Classes that were tested and never predicted."""
    tested, said = inputs.counts.sum(axis=1), inputs.counts.sum(axis=0)
    gone = [k for k in range(len(inputs.classes)) if tested[k] and not said[k]]
    if not gone or len(inputs.classes) < 2:
        return None
    names, lost = [inputs.classes[k] for k in gone], int(tested[gone].sum())
    unweighted = [name for name in _tuned(train) if getattr(train.recipes[name], "class_balance", "") == "none"]
    where = [f"train.recipes.{name}.class_balance: loss_weights" for name in unweighted[:1]]
    return Action(
        f"Win back {clipped(names, 3)}: the model never says {'it' if len(names) == 1 else 'them'}",
        f"All {count(lost, 'test picture')} of {'this class' if len(names) == 1 else 'these classes'} were taken for "
        "others: look at a few, and at whether their labels mean what you think.",
        f"params.yaml, {where[0]}" if where else "the source of these classes",
        "classes",
        0.5 * lost / max(inputs.metrics["num_images"], 1),
    )


def _abstain(inputs: Inputs) -> Action | None:
    """Where the goal is missed on all pictures, and met on those of which the model is sure."""
    verdict, coverage = inputs.metrics.get("verdict"), inputs.metrics.get("coverage")
    if not verdict or not coverage or verdict["status"] != "missed" or verdict["metric"] != "accuracy":
        return None
    at = coverage["at_threshold"]
    if not coverage["threshold"] or not at["accuracy"] or at["accuracy"]["value"] < verdict["goal"]:
        return None
    share, right = at["coverage"], at["accuracy"]
    return Action(
        f"Let it answer only when it is at least {percent(coverage['threshold'], 0)} sure",
        f"Then it answers {percent(share['value'], 0)} of the pictures, and {percent(right['value'])} "
        f"({percent_range(right['low'], right['high'])}) of these answers are right; people look at the rest.",
        "",
        "calibration",
        0.0,
    )


def _goal(inputs: Inputs) -> Action | None:
    verdict = inputs.metrics.get("verdict")
    if not verdict or verdict["status"] not in ("unclear", "no_goal"):
        return None
    if verdict["status"] == "no_goal":
        return Action(
            "Say how good is good enough",
            "Without a goal the report cannot say whether this model may be used.",
            "params.yaml, evaluate.goal.value",
            "figures",
            0.0,
        )
    needed = verdict.get("more_images_needed")
    return Action(
        f"Test on {count(needed, 'more picture')} before you decide" if needed else "Test on more pictures",
        f"The interval, {percent_range(verdict['low'], verdict['high'])}, holds the goal of "
        f"{percent(verdict['goal'])}: so few test pictures cannot tell whether it is met.",
        "params.yaml, split.test_fraction, or new pictures",
        "figures",
        0.0,
    )


def _overfit(inputs: Inputs, train: TrainParams) -> Action | None:
    """Not of linear probes: they have no augmentation, and validation chose their regularisation."""
    gaps = []
    for (member, _), history in inputs.histories.items():
        if member not in _tuned(train) or not history.get("val_loss"):
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
        "training",
        0.1 * gap,
    )


def _fragile(inputs: Inputs, train: TrainParams) -> Action | None:
    """A disturbance that costs much already at its middle strength; augmentation is for networks that learn."""
    robustness, tuned = inputs.metrics.get("robustness"), _tuned(train)
    if not robustness or not tuned:
        return None
    before = robustness["baseline"]["value"]
    lost = [
        (before - row["accuracy"], kind)
        for kind, rows in robustness["kinds"].items()
        for row in rows
        if row["strength"] == 3 and row["accuracy"] is not None and row["high"] < before
    ]
    loss, kind = max(lost, default=(0.0, ""))
    if loss <= FRAGILE_BY:
        return None
    return Action(
        f"Train {tuned[0]} with {kind.replace('_', ' ')}, if pictures in use have it",
        f"At a middle strength it costs {100 * loss:.0f} points of accuracy.",
        f"params.yaml, the policy of train.recipes.{tuned[0]}.augmentation",
        "robustness",
        0.0,
    )


def _calibration(inputs: Inputs) -> Action | None:
    """Where the calibration error is larger than chance would make that of a calibrated model."""
    known = inputs.metrics.get("calibration")
    if not known or known["error"] is None or known["error"] <= max(POOR_CALIBRATION, known["calibrated_high"] or 0.0):
        return None
    return Action(
        "Do not read the probabilities as chances",
        f"Confidence and accuracy lie {100 * known['error']:.0f} points apart on average. The ranking is still of use.",
        "",
        "calibration",
        0.0,
    )
