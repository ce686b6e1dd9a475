"""What is to be looked at: suspects, mistakes, duplicates, conflicts, look-alikes, low quality, rejects.

Read once from the tables of a finished run; what was decided meanwhile stands in data/decisions alone.
"""

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.core.errors import InputError
from pipelines.core.layout import Layout
from pipelines.core.tables import DEDUPED, FEATURES, PENULTIMATE, read_table

TITLES = {
    "suspects": "Suspects",
    "conflicts": "Under two labels",
    "mistakes": "Mistakes",
    "duplicates": "Duplicates",
    "look_alikes": "Look-alikes",
    "quality": "Low quality",
    "rejects": "Rejects",
}
NEIGHBOURS = 6
MOST_FEATURES = 100_000
"""pictures whose features are held for neighbours, 0.3 GB; with more, there are none"""
_QUEUE_OF_VERDICT = {"conflict": "conflicts", "copy": "duplicates", "keep": "look_alikes"}


@dataclass(frozen=True)
class Item:
    """A picture, a pair, or a file that is none.

    Args:
        number: its place in the queue.
        image_id: "" of a reject.
        other_id: of a pair, the second picture; "" else.
        label: that it came under; of the second of a pair `other_label`.
        suggested: what the model or the data would have instead; "" where they say nothing.
        reasons: why it is here, a sentence each.
        subset: train, val or test; "" where it is not known.
    """

    queue: str
    number: int
    image_id: str
    label: str
    path: str
    reasons: list[str]
    suggested: str = ""
    subset: str = ""
    other_id: str = ""
    other_label: str = ""
    other_path: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Queues:
    """All queues of a project; empty ones are left out.

    Args:
        items: by queue.
        labels: of all pictures, sorted.
    """

    layout: Layout
    title: str
    items: dict[str, list[Item]] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)

    @cached_property
    def places(self) -> dict[str, tuple[str, int, int]]:
        """image_id to shard, offset and size."""
        table = read_table(self.layout.manifest, DEDUPED, columns=["image_id", "shard", "offset", "size"])
        columns = (table[name].to_pylist() for name in ("image_id", "shard", "offset", "size"))
        return {image_id: place for image_id, *place in zip(*columns, strict=True)}  # type: ignore[misc]

    @cached_property
    def labels_of(self) -> dict[str, tuple[str, str]]:
        """image_id to label and path, of what dedupe kept."""
        table = read_table(self.layout.manifest, DEDUPED, columns=["image_id", "label", "source_path", "verdict"])
        columns = (table[name].to_pylist() for name in table.column_names)
        return {
            image_id: (label, path)
            for image_id, label, path, verdict in zip(*columns, strict=True)
            if verdict == "keep"
        }

    def neighbours(self, image_id: str) -> list[dict[str, Any]]:
        """The pictures whose features are most alike, with label, path and cosine; none without features."""
        ids, rows = self._features
        at = ids.get(image_id)
        if at is None:
            return []
        cosines = rows @ rows[at]
        names = list(ids)
        nearest = [names[i] for i in np.argsort(-cosines, kind="stable")[: NEIGHBOURS + 1].tolist() if i != at]
        found = []
        for one in nearest[:NEIGHBOURS]:
            label, path = self.labels_of.get(one, ("", ""))
            found.append({"image_id": one, "label": label, "path": path, "cosine": round(float(cosines[ids[one]]), 3)})
        return found

    @cached_property
    def _features(self) -> tuple[dict[str, int], npt.NDArray[np.float32]]:
        """Row by image_id, and (N, D) of length 1, of the first member that has features."""
        from pipelines.evaluate.leaks import matrix
        from pipelines.evaluate.strangers import unit

        files = sorted(self.layout.stage("train").glob("*/features.parquet"))
        files += sorted(self.layout.stage("train").glob("*/penultimate.parquet"))
        for path in files:
            schema = FEATURES if path.name == "features.parquet" else PENULTIMATE
            table = read_table(path, schema, columns=["image_id", "plain"])
            if table.num_rows <= MOST_FEATURES:
                return {one: row for row, one in enumerate(table["image_id"].to_pylist())}, unit(matrix(table["plain"]))
        return {}, np.zeros((0, 0), np.float32)


def read_queues(layout: Layout, title: str) -> Queues:
    """Read the tables of a run; a stage that has not run yet has no queue.

    Raises:
        InputError: not even dedupe has run.
    """
    if not layout.manifest.is_file():
        raise InputError(f"{layout.manifest} does not exist, so there is nothing to review: run `miwake run` first")
    found = Queues(layout, title)
    evaluate = layout.stage("evaluate")
    makers = {
        "suspects": (evaluate / "suspects.csv", _suspects),
        "mistakes": (evaluate / "mistakes.csv", _mistakes),
        "quality": (layout.stage("validate") / "offenders.csv", _quality),
        "rejects": (layout.rejects, _rejects),
    }
    every: dict[str, list[Item]] = {name: list(make(_rows(path))) for name, (path, make) in makers.items()}
    for item in _pairs(_rows(layout.duplicates)):
        every.setdefault(item.queue, []).append(item)
    found.items = {name: _numbered(every[name]) for name in TITLES if every.get(name)}
    labels = read_table(layout.manifest, DEDUPED, columns=["label"])["label"]
    found.labels = sorted(set(labels.unique().to_pylist()))
    return found


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _numbered(items: Iterable[Item]) -> list[Item]:
    from dataclasses import replace

    return [replace(item, number=number) for number, item in enumerate(items)]


def _suspects(rows: list[dict[str, str]]) -> Iterator[Item]:
    for row in rows:
        sure, chance = float(row["probability_suggested"]), row.get("probability_wrong") or ""
        wrong = [f"Of such suspects, about {100 * float(chance):.0f} % are wrong labels."] if chance else []
        yield Item(
            "suspects", 0, row["image_id"], row["label"], row["source_path"],
            [f"A model that never learnt from this picture holds it for {row['suggested']} ({_percent(sure)}), not "
             f"{row['label']} ({_percent(float(row['probability_label']))}).", *wrong],
            suggested=row["suggested"], subset=row["subset"],
        )  # fmt: skip


def _mistakes(rows: list[dict[str, str]]) -> Iterator[Item]:
    causes = {
        "label": "The likely cause: a wrong label.",
        "picture": "The likely cause: a poor picture.",
        "too_few": "The likely cause: too few pictures like it to learn from.",
        "model": "The likely cause: the model.",
    }
    for row in rows:
        told = [(row["predicted"], row["confidence"]), *((row[f"top{n}"], row[f"top{n}_probability"]) for n in (2, 3))]
        top = ", ".join(f"{label} {_percent(float(value))}" for label, value in told if label)
        yield Item(
            "mistakes", 0, row["image_id"], row["actual"], row["source_path"],
            [f"The model said {top}.", *filter(None, [causes.get(row["cause"])])],
            suggested=row["predicted"], subset="test",
        )  # fmt: skip


def _quality(rows: list[dict[str, str]]) -> Iterator[Item]:
    broken: dict[str, tuple[str, str, list[str]]] = {}
    for row in rows:
        if row["image_id"]:
            one = broken.setdefault(row["image_id"], (row["label"], row["source_path"], []))
            one[2].append(f"It breaks the rule {row['rule']} ({row['severity']}).")
    for image_id, (label, path, reasons) in broken.items():
        yield Item("quality", 0, image_id, label, path, reasons)


def _rejects(rows: list[dict[str, str]]) -> Iterator[Item]:
    for row in rows:
        detail = f": {row['detail']}" if row["detail"] else ""
        reason = f"It could not be used: {row['reason']}{detail}. Replace or remove it at its source ({row['source']})."
        yield Item("rejects", 0, "", row["label"], row["source_path"], [reason])


def _pairs(rows: list[dict[str, str]]) -> Iterator[Item]:
    said = {
        "conflict": "The same picture stands under two labels, and takes no part until one is chosen.",
        "copy": "One of these was left out as a copy of the other.",
        "keep": "Alike, but perhaps two pictures: both take part, on one side of the split.",
    }
    for row in rows:
        if row["verdict"] not in _QUEUE_OF_VERDICT:
            continue
        how = f"Found as {row['kind']}, score {float(row['score']):.3f}" if row["score"] else f"Found as {row['kind']}"
        edit = f", {row['transform']}" if row["transform"] not in ("", "none") else ""
        yield Item(
            _QUEUE_OF_VERDICT[row["verdict"]], 0, row["image_a"], row["label_a"], row["path_a"],
            [said[row["verdict"]], f"{how}{edit}."],
            other_id=row["image_b"], other_label=row["label_b"], other_path=row["path_b"],
        )  # fmt: skip


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %" if value < 0.9995 else "99.9 %+"


def per_class(items: Iterable[Item]) -> Mapping[str, int]:
    """How many items each label has, by label; a pair counts under both of its labels."""
    found: dict[str, int] = {}
    for item in items:
        for label in {item.label, item.other_label} - {""}:
            found[label] = found.get(label, 0) + 1
    return dict(sorted(found.items()))
