"""Say how images were split: what was asked and achieved, the leak audit and the leak premium."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.core.errors import InputError, count
from pipelines.core.layout import repro_of
from pipelines.report.wording import clipped, listed, percent

UNSEEN = " A copy edited too heavily for dedupe to find is not seen here."
NAMED = 10
"""classes that a sentence lists before it only counts the rest"""
SPLIT_METHODS = {
    "stratified": "Every class was divided by the fractions as evenly as whole groups of copies allow.",
    "hash": "Each group of copies was placed by its own hash, so that new pictures never move old ones; the "
    "fractions are met on average.",
    "predefined": "The source's own subsets were taken.",
}
LEAK_RULES = {
    "keep_test": "the test set was left whole, and their copies taken out of training and validation",
    "keep_train": "the training set was left whole, and their copies taken out of test and validation",
    "keep": "they were left there on purpose",
}


@dataclass(frozen=True)
class SubsetShare:
    """The images of a subset, their fraction of all, and the fraction asked (None for a predefined split)."""

    name: str
    num_pictures: int
    fraction: float
    asked: float | None


@dataclass(frozen=True)
class SplitCard:
    """What the report says of the split.

    Args:
        notice: a warning for the first screen; "" where the split is sound.
        sentences: on the method, classes and folds.
        audit: on pairs that dedupe found.
        premium: on the score of a naive split.
        leak: on groups across a predefined split, and what was done about them; "" for none.
        leaks: these groups, each a list of files; a few of `num_leaks`.
    """

    notice: str
    shares: list[SubsetShare]
    sentences: list[str]
    audit: str
    premium: str
    leak: str
    leaks: list[list[dict[str, str]]]
    num_leaks: int


def split_card(split_dir: Path, metrics: dict[str, Any]) -> SplitCard:
    """Read split's audit.json, InputError where it is missing; `metrics` is evaluate's metrics.json."""
    path = split_dir / "audit.json"
    try:
        audit: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist: run the stage that writes it (`{repro_of(path)}`)") from error
    given = audit["given"] or {"num_groups": 0, "examples": []}
    subsets = audit["subsets"]
    return SplitCard(
        notice=_notice(audit["pairs"]["across"]),
        shares=[
            SubsetShare(name, *(row[k] for k in ("num_pictures", "fraction", "asked"))) for name, row in subsets.items()
        ],
        sentences=_sentences(audit),
        audit=_audit(audit["pairs"]),
        premium=premium_sentence(metrics["leak_premium"]),
        leak=_leak(audit["given"]),
        leaks=given["examples"],
        num_leaks=given["num_groups"],
    )


def premium_sentence(premium: dict[str, Any]) -> str:
    """What a split that ignores copies would have scored."""
    value, low, high = premium["value"], premium["low"], premium["high"]
    if value is None:
        return (
            "Leak premium: not measured; it needs a member with a frozen backbone, some dozen pictures, and "
            "evaluate.leak_repeats above 0."
        )
    if not premium["num_in_groups"]:
        return "Leak premium: none; dedupe found no two pictures that belong together, so a random split leaks nothing."
    than = "worse" if value < 0 else "better"
    sign = -1 if value < 0 else 1
    # a rounded zero has no sign
    ends = sorted(round(sign * 100 * end, 1) + 0.0 for end in (low, high))
    return (
        f"Leak premium: a random split that ignores copies would have looked {100 * abs(value):.1f} points {than} "
        f"({ends[0]:.1f} to {ends[1]:.1f}): so divided, a linear probe tells {percent(premium['by_file'])} of "
        f"{count(premium['num_files'], 'file')} right; with copies kept together, {percent(premium['by_group'])}."
        + (" That was measured on a sample; on all files it is smaller." if premium["sampled"] else "")
    )


def _notice(across: int) -> str:
    if not across:
        return ""
    pairs = count(across, "pair of copies lies", "pairs of copies lie")
    were = "was" if across == 1 else "were"
    return (
        f"{pairs} across the given split and {were} left there (split.leaks: keep): every score here is better than "
        "the model is."
    )


def _leak(given: dict[str, Any] | None) -> str:
    if not given or not given["num_groups"]:
        return ""
    across = listed([f"{many:,} between {what}" for what, many in given["across"].items()])
    return (
        f"{count(given['num_groups'], 'group lies', 'groups lie')} across the given subsets ({across}; classes "
        f"{clipped(list(given['classes']), NAMED)}); {LEAK_RULES[given['leaks']]}. All are in data/split/leaks.csv."
    )


def _sentences(audit: dict[str, Any]) -> list[str]:
    found = [SPLIT_METHODS[audit["method"]]]
    if audit["group_by"]:
        found.append(f"Files of equal {audit['group_by']} stay on one side too.")
    if audit["folds"]:
        found.append(
            f"{len(audit['folds'])} folds of {min(audit['folds']):,} to {count(max(audit['folds']), 'picture')} "
            "validate in turn."
        )
    if audit["largest_group"]["num_pictures"] > 1:
        found.append(f"The largest group holds {count(audit['largest_group']['num_pictures'], 'picture')}.")
    worst = audit["worst_class"]
    if worst and abs(worst["pictures"]) >= 0.05:
        more = "more" if worst["pictures"] > 0 else "fewer"
        number = f"{abs(worst['pictures']):.1f}"
        pictures = "picture" if number == "1.0" else "pictures"
        found.append(
            f"Furthest from its share is {worst['label']}, with {number} {pictures} "
            f"{more} in {worst['subset']} than asked."
        )
    if audit["train_only"]:
        found.append(f"Too rare for every subset, and never tested in full: {clipped(audit['train_only'], NAMED)}.")
    if audit["merged"]:
        found.append(f"Too rare, and merged into {audit['merged']['label']}: {clipped(audit['merged']['of'], NAMED)}.")
    return [*found, *filter(None, [_leak(audit["given"])])]


def _audit(pairs: dict[str, Any]) -> str:
    number = pairs["looked_at"]
    if not number:
        return "Leak audit: dedupe found no pairs, so none lies on two sides."
    kinds = ", ".join(f"{many:,} {kind}" for kind, many in pairs["across_by_kind"].items())
    parts = [
        f"{count(pairs['across'], 'lies', 'lie')} on two sides ({kinds})"
        if pairs["across"]
        else "none lies on two sides",
        f"{count(pairs['together'], 'lies', 'lie')} on one side" if pairs["together"] else "",
        f"{count(pairs['left_out'], 'has', 'have')} a picture that takes no part" if pairs["left_out"] else "",
    ]
    apart = f" {count(pairs['apart'], 'more pair')} of mere look-alikes may be parted." if pairs["apart"] else ""
    return (
        f"Leak audit: of {count(number, 'pair')} that dedupe found, {listed(list(filter(None, parts)))}.{apart}{UNSEEN}"
    )
