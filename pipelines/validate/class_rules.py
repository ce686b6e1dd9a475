"""The rules on labels and classes, and what helps where pictures that stand under two labels are held back."""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from pipelines.validate.rule import (
    SETTLE,
    Arguments,
    AtMost,
    CheckResult,
    Mask,
    Observed,
    Rule,
    expectation,
    mask,
    numbered,
    settle,
)

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.validate.frames import Frames, Pairs


def class_sizes(files: "pd.DataFrame") -> dict[str, int]:
    """Pictures kept of each class that has a file, dropped ones apart; sorted by label."""
    codes, labels = numbered(files["label"])
    taking_part = mask(files["verdict"] != "drop")
    kept = mask(files["verdict"] == "keep")
    present = np.bincount(codes[taking_part], minlength=len(labels))
    counts = np.bincount(codes[kept], minlength=len(labels))
    return {label: int(counts[k]) for k, label in enumerate(labels) if present[k]}


# how labels are written --------------------------------------------------------------------------


def written_well(label: str) -> str:
    """`label` as ingest writes labels: NFC, without leading or trailing spaces."""
    return unicodedata.normalize("NFC", label).strip()


def spelling(label: str) -> str:
    """What is left of `label` without case, width, spaces and punctuation: equal for look-alikes.

    `Les paul`, `LesPaul`, `les-paul ` and `ＬｅｓＰａｕｌ` are all `lespaul`. Accents and symbols count: `C+` is not
    `C`. A label of punctuation alone stays itself.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", label).casefold())
    # P: punctuation, Z: spaces, C: control and invisible characters such as the zero-width space
    kept = "".join(letter for letter in folded if unicodedata.category(letter)[0] not in "PZC")
    return kept or label


@expectation("ExpectLabelsToBeWrittenWell", "label", "verdict")
def labels_written_well(files: "pd.DataFrame") -> CheckResult:
    """Every label is a text in NFC, not empty, without spaces at its ends."""
    guilty = tuple(label for label in class_sizes(files) if not label.strip() or written_well(label) != label)
    return CheckResult(not guilty, len(guilty), labels=guilty)


class LabelText(Rule):
    name = "label_text"
    description = "every label is a text in Unicode's NFC form, not empty, without spaces at its ends"
    fault = "{n} [label is|labels are] empty, not in Unicode's NFC form, or with a space at an end"
    cure = (
        "write {label} anew: a line in data/decisions/relabel.csv for each picture, "
        "`<image_id>,<label>,new class: spelling`"
    )
    kind = "ExpectLabelsToBeWrittenWell"

    def spellings(self, labels: list[str], files: "pd.DataFrame") -> dict[str, str]:  # noqa: ARG002
        return {label: written_well(label) for label in labels if label.strip()}


@expectation("ExpectLabelsNotToLookAlike", "label", "verdict")
def labels_differ(files: "pd.DataFrame") -> CheckResult:
    """No two labels have the same `spelling`."""
    labels = list(class_sizes(files))
    spelled = Counter(map(spelling, labels))
    guilty = tuple(label for label in labels if spelled[spelling(label)] > 1)
    return CheckResult(not guilty, len(guilty), labels=guilty)


class LabelLookAlikes(Rule):
    name = "label_look_alikes"
    description = "no two labels differ in case, width, spaces or punctuation alone"
    fault = "{n} [label differs|labels differ] from another in case, width, spaces or punctuation alone"
    cure = (
        "if they are one class, give it one name: rename the folder, or add a line to data/decisions/relabel.csv for "
        "each picture, `<image_id>,{label},spelling`; if they are not, set validate.label_look_alikes: off"
    )
    of_classes = True
    kind = "ExpectLabelsNotToLookAlike"

    def spellings(self, labels: list[str], files: "pd.DataFrame") -> dict[str, str]:
        """To the most frequent of the labels that look alike."""
        sizes = class_sizes(files)
        best: dict[str, str] = {}
        for label in sorted(labels, key=lambda one: (-sizes.get(one, 0), one)):
            best.setdefault(spelling(label), label)
        return {label: best[spelling(label)] for label in labels if best[spelling(label)] != label}


# how many classes there are, and how large -------------------------------------------------------


class _ClassRule(Rule):
    """A rule on classes, which pictures that are held under two labels may break: more pictures would not help."""

    of_classes = True
    observe = "value"

    def _of(self, labels: Sequence[str], held: "pd.DataFrame") -> "pd.DataFrame":
        return held[held["label"].isin(labels)]

    def _is_enough(self, labels: Sequence[str], files: "pd.DataFrame") -> bool:  # noqa: ARG002
        """Whether the rule holds once all of `files` count."""
        return False

    def _held_of(self, labels: Sequence[str], frames: "Frames") -> "pd.DataFrame":
        files = frames.files
        return self._of(labels, files[(files["verdict"] == "conflict").fillna(False)])

    def held(self, offenders: pa.Table, frames: "Frames") -> "pd.DataFrame":
        """With the pictures of other labels that they are held for."""
        groups = self._held_of(offenders["label"].to_pylist(), frames)["group"]
        return frames.files[frames.files["group"].isin(groups) & (frames.files["verdict"] == "conflict")]

    def what_helps(self, labels: Sequence[str], frames: "Frames", mirroring: Sequence[str]) -> str:
        held = self._held_of(labels, frames)
        if held.empty:
            return self.cure
        first = held.sort_values(["label", "source_path"]).iloc[0]
        named = sorted(set(held["label"]))
        pairs = tuple(row for row in frames.conflicts if {row["label_a"], row["label_b"]} & set(named))
        of = "" if len(named) > 3 else " of " + " and ".join(map(repr, named))
        found = f"{held['image_id'].nunique():,} pictures{of} are held, since they stand under other labels too: "
        found += _turned(pairs, mirroring) + settle(first["image_id"], first["source_path"])
        counted = frames.files[frames.files["verdict"].isin(["keep", "conflict"])]
        return found if self._is_enough(labels, counted) else f"{found}; or {self.cure}"


def _turned(pairs: "Pairs", mirroring: Sequence[str]) -> str:
    """Which of the pairs only match mirrored or turned, and what tells dedupe that these are different pictures."""
    moves = [row.get("transform") or "none" for row in pairs]
    mirrored = sum("mirror" in move for move in moves)
    turned = sum(move.startswith("rotate") for move in moves)
    found = ""
    if mirrored:
        training = f", and for training {' and '.join(mirroring)}" if mirroring else ""
        found += (
            f"{mirrored:,} of {len(pairs):,} pairs are mirror images: where left and right tell classes apart, set "
            f"dedupe.mirror: false{training}; else "
        )
    if turned:
        found += (
            f"{turned:,} of {len(pairs):,} pairs are turned by 90, 180 or 270 degrees: where that tells classes apart, "
            "set dedupe.rotations: false; else "
        )
    return found


class MinClasses(_ClassRule):
    name = "min_classes"
    description = "there are enough classes with a picture kept"
    fault = "{n} [class has|classes have] a picture kept, fewer than {limit}"
    cure = (
        "add pictures of another class; where a class has lost all of its pictures, look at "
        "data/dedupe/duplicates.csv and data/decisions/drop.csv"
    )
    frame = "pictures"
    kind = "ExpectColumnUniqueValueCountToBeBetween"

    def arguments(self) -> Arguments:
        return {"column": "label", "min_value": self.limit}

    def can_accept(self, observed: Observed) -> bool:
        return observed not in (0, 1)  # of fewer than two classes nothing can be told apart

    def _of(self, labels: Sequence[str], held: "pd.DataFrame") -> "pd.DataFrame":  # noqa: ARG002
        return held

    def _is_enough(self, labels: Sequence[str], files: "pd.DataFrame") -> bool:  # noqa: ARG002
        return isinstance(self.limit, int) and bool(files["label"].nunique() >= self.limit)


@expectation("ExpectClassesToHavePictures", "label", "verdict")
def class_pictures(files: "pd.DataFrame", *, min_value: int) -> CheckResult:
    """Every class has at least `min_value` pictures kept; observed: the smallest class."""
    sizes = class_sizes(files)
    guilty = tuple(label for label, size in sizes.items() if size < min_value)
    return CheckResult(not guilty, min(sizes.values(), default=None), labels=guilty)


class MinImagesPerClass(_ClassRule):
    name = "min_images_per_class"
    description = "every class has enough pictures kept"
    fault = "{n} [class has|classes have] fewer than {limit} pictures"
    cure = (
        "add pictures of {label}, or merge it into another class with a line in data/decisions/relabel.csv for each "
        "picture, or take it out with data/decisions/drop.csv"
    )
    frame = "classes"
    kind = "ExpectClassesToHavePictures"
    drop = "class too small"

    def arguments(self) -> Arguments:
        return {"min_value": self.limit}

    def _is_enough(self, labels: Sequence[str], files: "pd.DataFrame") -> bool:
        sizes = files.groupby("label")["image_id"].nunique()
        return isinstance(self.limit, int) and all(int(sizes.get(label, 0)) >= self.limit for label in labels)


@expectation("ExpectClassesToBeBalanced", "label", "verdict")
def imbalance(files: "pd.DataFrame", *, max_value: float) -> CheckResult:
    """The largest class has at most `max_value` times the pictures of any other that has one; observed: most times."""
    sizes = {label: size for label, size in class_sizes(files).items() if size}
    largest = max(sizes.values(), default=0)
    times = {label: largest / size for label, size in sizes.items()}
    guilty = tuple(label for label, value in times.items() if value > max_value)
    return CheckResult(not guilty, max(times.values(), default=None), labels=guilty)


class MaxImbalance(_ClassRule, AtMost):
    name = "max_imbalance"
    description = "no class is too small beside the largest one (times smaller)"
    fault = "{n} [class is|classes are] more than {limit} times smaller than the largest one"
    cure = (
        "add pictures of {label}, merge it into another class (data/decisions/relabel.csv), or drop some of the "
        "largest class (data/decisions/drop.csv)"
    )
    kind = "ExpectClassesToBeBalanced"


@expectation("ExpectFewConflicts", "image_id", "label", "verdict")
def conflicts(files: "pd.DataFrame", *, max_value: float) -> CheckResult:
    """Of all files, at most this fraction are of a picture that stands under two labels.

    These are held back; with `dedupe.label_conflicts: keep` they are the equal files that have two labels.
    """
    taking_part: Mask = mask(files["verdict"] != "drop")
    found = files.loc[taking_part, ["image_id", "label"]]
    pairs = found[found["image_id"].duplicated(keep=False)].drop_duplicates()
    torn = pairs.loc[pairs["image_id"].duplicated(), "image_id"].unique()
    held = mask(files["verdict"] == "conflict")
    if len(torn):
        held |= mask(files["image_id"].isin(torn)) & taking_part
    return CheckResult.of_fraction(held, max_value)


class MaxConflictFraction(AtMost):
    name = "max_conflict_fraction"
    description = "of all files, few are of pictures that stand under two labels"
    fault = "{n} [file is of a picture that stands|files are of pictures that stand] under two labels"
    cure = SETTLE
    of_classes = True
    kind = "ExpectFewConflicts"
    drop = "two labels"

    def held(self, offenders: pa.Table, frames: "Frames") -> "pd.DataFrame":
        named = offenders["image_id"].to_pylist()
        return frames.files[frames.files["image_id"].isin(named) & (frames.files["verdict"] != "drop")]

    def what_helps(self, labels: Sequence[str], frames: "Frames", mirroring: Sequence[str]) -> str:  # noqa: ARG002
        return _turned(frames.conflicts, mirroring) + self.cure


RULES = (LabelText, LabelLookAlikes, MinClasses, MinImagesPerClass, MaxImbalance)
