"""Ready lines for data/decisions: what would take the offenders out, give them one name, or tell them apart.

Nothing is decided here. A picture stands in every file with one and the same line, so that files can be appended one
after the other; where a person must choose, each choice has its line, and dedupe refuses two that disagree. A file
begins with a line end, since the file that it is appended to may lack one.
"""

import csv
import io
import shlex
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.core.errors import count
from pipelines.core.files import write_text
from pipelines.core.tables import short_id
from pipelines.validate.class_rules import MaxConflictFraction
from pipelines.validate.frames import Frames
from pipelines.validate.outcome import Outcome

if TYPE_CHECKING:
    import pandas as pd

FOLDER = "cures"
_Line = tuple[str, ...]


def write_cures(outcomes: list[Outcome], frames: Frames, out_dir: Path) -> dict[str, list[str]]:
    """Write `cures/<rule>.{drop,relabel,keep}.csv` for the broken rules that decisions cure.

    Returns:
        for each of these rules what to tell a person, a line a file.
    """
    broken = [outcome for outcome in outcomes if not outcome.success]
    ids = {
        outcome.rule.name: _ids(outcome, frames.files)
        for outcome in broken
        if outcome.rule.drop and not outcome.refused
    }
    num_kept = frames.files.loc[frames.files["verdict"] == "keep", "image_id"].nunique()
    # to drop every picture cures nothing
    ids = {name: found for name, found in ids.items() if len(found) < num_kept}
    reasons: dict[str, list[str]] = {}
    for outcome in broken:
        for image_id in ids.get(outcome.rule.name, []):
            reasons.setdefault(image_id, []).append(outcome.rule.drop)
    path_of: dict[str, str] = dict(frames.files.groupby("image_id")["source_path"].min()) if broken else {}
    said: dict[str, list[str]] = {}
    # the rule on conflicts, where it is broken, has all that is held
    settled = any(isinstance(outcome.rule, MaxConflictFraction) for outcome in broken)
    for outcome in broken:
        rule, name = outcome.rule, outcome.rule.name
        is_other = settled and not isinstance(rule, MaxConflictFraction)
        held = frames.files[:0] if is_other else rule.held(outcome.offenders, frames)
        labels = outcome.offenders["label"].to_pylist()
        spelled = _rename(frames.files, rule.spellings(labels, frames.files))
        kinds: dict[str, list[_Line]] = {
            "relabel": sorted({*spelled, *_choices(held, frames.files)}),
            "keep": _different(held, frames),
            "drop": [(image_id, ", ".join(reasons[image_id])) for image_id in ids.get(name, [])],
        }
        for kind, lines in kinds.items():
            if lines:
                path = out_dir / FOLDER / f"{name}.{kind}.csv"
                write_text(path, _csv([(*_short(line, kind), path_of.get(line[0], "")) for line in lines]))
                said.setdefault(name, []).append(_told(outcome, kind, len(lines), path, choose=not held.empty))
    return said


def _ids(outcome: Outcome, files: "pd.DataFrame") -> list[str]:
    """The pictures that must go for the rule to hold, sorted; of a class: all of its pictures."""
    found = {image_id for image_id in outcome.offenders["image_id"].to_pylist() if image_id}
    labels = [row["label"] for row in outcome.offenders.to_pylist()] if not found else []
    if labels:
        found = set(files.loc[files["label"].isin(labels) & (files["verdict"] != "drop"), "image_id"].dropna())
    return sorted(found)


def _choices(held: "pd.DataFrame", files: "pd.DataFrame") -> Iterable[_Line]:
    """Lines for relabel.csv: each picture that is held, under each label of its group."""
    labels_of = files[files["image_id"].isin(held["image_id"])].groupby("group")["label"].unique()
    for image_id, group in zip(held["image_id"], held["group"], strict=True):
        for label in labels_of[group]:
            yield (image_id, label, "two labels")


def _different(held: "pd.DataFrame", frames: Frames) -> list[_Line]:
    """Lines for keep.csv: pairs that are held, but those of equal pixels."""
    ids = set(held["image_id"])
    return [
        (row["image_a"], row["image_b"], "two pictures")
        for row in frames.conflicts
        if row["image_a"] in ids and row["image_b"] in ids and row["kind"] not in ("exact", "pixels")
    ]


def _short(line: _Line, kind: str) -> _Line:
    return (short_id(line[0]), short_id(line[1]), *line[2:]) if kind == "keep" else (short_id(line[0]), *line[1:])


def _rename(files: "pd.DataFrame", names: dict[str, str]) -> Iterable[_Line]:
    """Lines for relabel.csv: each picture that takes part, under its label's new name."""
    some = files[files["label"].isin(names) & (files["verdict"] != "drop")]
    for image_id, label in zip(some["image_id"], some["label"], strict=True):
        # what begins with `new class` may be a label that no picture came under
        yield (image_id, names[label], "new class: spelling")


def _told(outcome: Outcome, kind: str, num_lines: int, path: Path, *, choose: bool) -> str:
    here = Path.cwd()
    shown = shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))
    append = f"`cat {shown} >> data/decisions/{kind}.csv`"
    if kind == "keep":
        return f"to cure it where two pictures are different: leave their lines in {shown}, then {append}"
    if kind == "relabel" and choose:
        return f"to cure it: leave each picture's right line in {shown}, then {append}"
    if kind == "relabel":
        names = Counter(outcome.offenders["label"].to_pylist())
        labels = count(len(names), "label")
        return f"to cure it: {append} gives {count(num_lines, 'picture')} of {labels} the usual spelling"
    return f"to cure it: {append} drops {count(num_lines, 'picture')}"


def _csv(lines: Iterable[_Line]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return "\n" + text.getvalue()
