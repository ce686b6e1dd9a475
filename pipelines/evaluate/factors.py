"""Members that each tell one factor of the labels (gender, status), joined to one that tells the labels."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.core.errors import InputError
from pipelines.core.tables import LABEL, PACK_INDEX, read_table
from pipelines.evaluate.members import Member, Names, Packed, Predictions, average, require_same_pictures
from pipelines.evaluate.metrics import Floats

_SMALLEST = 1e-12
"""probability of a value: so that one certain factor does not make every label impossible"""


@dataclass(frozen=True)
class Factors:
    """How labels are joined from factors.

    Args:
        names: F factors, in the order in which labels join them.
        labels: the values of a combination, (F,) each, to the class of the label that they make.
    """

    names: list[str]
    labels: dict[tuple[str, ...], int]


def read_factors(index: Path, classes: list[str]) -> Factors:
    """What the pictures of the pack index say.

    A label may come from several combinations (rare ones that split merged); a combination that stands under several
    labels, as after a relabelling, belongs to the one with the most of its pictures.

    Raises:
        InputError: no picture has factors, or a label has no combination.
    """
    table = read_table(index, PACK_INDEX, columns=["class_index", "factors"])
    found = Counter(zip(table["factors"].to_pylist(), table["class_index"].to_pylist(), strict=True))
    parsed = {text: _parse(text, index) for text, _ in found}
    names = list(dict.fromkeys(name for text in sorted(parsed, key=str) for name in parsed[text]))
    if not names:
        raise InputError(
            f"{index} knows no factors of its labels, but a member was trained on one: run `dvc repro`, or set the "
            "recipe's target: label"
        )
    votes: dict[tuple[str, ...], Counter[int]] = {}
    for (text, class_index), count in found.items():
        if all(name in parsed[text] for name in names):
            votes.setdefault(tuple(parsed[text][name] for name in names), Counter())[class_index] += count
    labels = {values: min(v, key=lambda k: (-v[k], k)) for values, v in sorted(votes.items())}
    lacking = [classes[k] for k in sorted(set(range(len(classes))) - set(labels.values()))]
    if lacking:
        raise InputError(
            f"no picture of {', '.join(lacking)} says which {' and which '.join(names)} it is: members that tell these "
            "apart cannot tell that label; take every picture from a table with label columns, or use members with "
            "target: label"
        )
    return Factors(names, labels)


def join_factors(members: Sequence[Member], factors: Factors, packed: Packed) -> Member:
    """One member that tells labels: P(label) is the product over factors of P(the label's value), renormalised.

    Several members of one factor are averaged first. Only combinations that exist as labels get a share.

    Args:
        members: those whose target is a factor, at least one.
        factors: how labels are joined.
        packed: for the labels of the pictures.

    Raises:
        InputError: a factor has no member, is unknown, or its members disagree on pictures or values.
    """
    for member in members:
        if member.target not in factors.names:
            raise InputError(
                f"{member.name} tells {member.target} apart, which is not among the factors of the labels "
                f"({', '.join(factors.names)}): change its recipe's target"
            )
    by_factor = {name: [m for m in members if m.target == name] for name in factors.names}
    missing = [name for name, found in by_factor.items() if not found]
    if missing:
        raise InputError(
            f"members tell {' and '.join(dict.fromkeys(m.target for m in members))} apart, but none tells "
            f"{' or '.join(missing)}, without which no label is known: add a recipe with target: {missing[0]} to "
            "train.members, or give these target: label"
        )
    joined = {}
    for subset in ("test", "val"):
        told = [_of_pictures(found, subset) for found in by_factor.values()]
        for name, (image_ids, _) in zip(factors.names[1:], told[1:], strict=True):
            if list(image_ids) != list(told[0][0]):
                raise InputError(
                    f"members of {factors.names[0]} and of {name} predicted different {subset} pictures: "
                    "run `dvc repro train` so that all are trained on the same split"
                )
        likely = np.zeros((len(told[0][0]), len(packed.classes)))
        for values, label in factors.labels.items():
            columns = [_column(found[0], value) for found, value in zip(by_factor.values(), values, strict=True)]
            likely[:, label] += np.prod([told[f][1][:, c] for f, c in enumerate(columns)], axis=0)
        joined[subset] = _under_labels(told[0][0], likely / likely.sum(axis=1, keepdims=True), packed)
    # a recipe's name has no space: the two cannot be taken for each other
    name = " × ".join(factors.names) if len(factors.names) > 1 else f"label by {factors.names[0]}"
    return Member(name, LABEL, packed.classes, test=joined["test"], val=joined["val"])


def _of_pictures(members: Sequence[Member], subset: str) -> tuple[Names, Floats]:
    """Pictures, each once, and the mean of what the members of one factor say: (N,) and (N, V)."""
    found: list[Predictions] = [member.test if subset == "test" else member.val for member in members]
    for member, one in zip(members, found, strict=True):
        if member.classes != members[0].classes:
            raise InputError(
                f"{members[0].name} and {member.name} know different values of {member.target}: run `dvc repro train`"
            )
        require_same_pictures(found[0], members[0].name, one, member.name, subset)
    mean = average(found)
    image_ids, rows = np.unique(mean.image_ids.astype(np.str_), return_index=True)
    return image_ids.astype(object), np.maximum(mean.probabilities[rows], _SMALLEST)


def _column(member: Member, value: str) -> int:
    if value not in member.classes:
        raise InputError(
            f"{member.name} does not know the {member.target} {value!r}, which a label has: run `dvc repro train`"
        )
    return member.classes.index(value)


def _under_labels(image_ids: Names, probabilities: Floats, packed: Packed) -> Predictions:
    """What is said of pictures, as the pack index lists them: once a label that a picture stands under."""
    packed.require_known(image_ids)
    keys = [(row, k) for row, image_id in enumerate(image_ids) for k in packed.classes_of[image_id]]
    rows = np.array([row for row, _ in keys], np.int64)
    return Predictions(image_ids[rows], np.array([k for _, k in keys], np.int64), probabilities[rows])


def _parse(text: str | None, index: Path) -> dict[str, str]:
    """A cell of `factors`; nothing where a picture came without."""
    if not text:
        return {}
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{index} has factors {text!r}, which are no JSON: run `dvc repro augment`") from error
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise InputError(f"{index} has factors {text!r}, not an object of texts: run `dvc repro augment`")
    return found
