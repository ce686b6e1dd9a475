"""What helps where dedupe holds pictures that stand under two labels: more pictures would not."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.core.tables import short_id
from pipelines.validate.rule import SETTLE, Rule

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.validate.frames import Frames

Pairs = tuple[dict[str, str], ...]
ON_CLASSES = ("min_classes", "min_images_per_class", "max_imbalance")


def read_conflicts(duplicates: Path) -> Pairs:
    """The rows of duplicates.csv that are one picture under two labels; none where there is no file."""
    if not duplicates.exists():
        return ()
    with duplicates.open(encoding="utf-8", errors="replace", newline="") as file:
        return tuple(row for row in csv.DictReader(file) if row.get("verdict") == "conflict")


def held_of(rule: Rule, labels: Sequence[str], frames: "Frames") -> "pd.DataFrame":
    """The files that are held, of the classes that break `rule`, a rule on classes: without `labels` of all."""
    files = frames.files
    held = files[(files["verdict"] == "conflict").fillna(False)]
    return held[held["label"].isin(labels)] if rule.name != "min_classes" else held


def what_helps(rule: Rule, labels: Sequence[str], frames: "Frames", mirroring: Sequence[str]) -> str:
    """`rule.cure`, or how to settle the pictures that are held.

    Args:
        labels: of the offenders.
        mirroring: what to change so that training mirrors no picture.
    """
    if rule.name == "max_conflict_fraction":
        return _turned(frames.conflicts, mirroring) + rule.cure
    held = held_of(rule, labels, frames) if rule.name in ON_CLASSES else frames.files[:0]
    if held.empty:
        return rule.cure
    first = held.sort_values(["label", "source_path"]).iloc[0]
    settle = SETTLE.replace("{image_id}", short_id(first["image_id"])).replace(
        "{file}", csv_value(first["source_path"])
    )
    named = sorted(set(held["label"]))
    pairs = tuple(row for row in frames.conflicts if {row["label_a"], row["label_b"]} & set(named))
    of = "" if len(named) > 3 else " of " + " and ".join(map(repr, named))
    found = f"{held['image_id'].nunique():,} pictures{of} are held, since they stand under other labels too: "
    return found + _turned(pairs, mirroring) + settle + ("" if _enough(rule, labels, frames) else f"; or {rule.cure}")


def printable(text: str) -> str:
    """Names come from outside: what a terminal would obey is shown as a replacement sign."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def csv_value(text: str) -> str:
    """As a value of a CSV line, for a terminal."""
    doubled = printable(text).replace('"', '""')
    return f'"{doubled}"' if set(text) & set(',;"') else doubled


def _enough(rule: Rule, labels: Sequence[str], frames: "Frames") -> bool:
    """Whether the rule holds once all that is held counts."""
    files = frames.files[frames.files["verdict"].isin(["keep", "conflict"])]
    limit = rule.limit
    if not isinstance(limit, int) or rule.name == "max_imbalance":
        return False
    if rule.name == "min_classes":
        return bool(files["label"].nunique() >= limit)
    sizes = files.groupby("label")["image_id"].nunique()
    return all(int(sizes.get(label, 0)) >= limit for label in labels)


def _turned(pairs: Pairs, mirroring: Sequence[str]) -> str:
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
