"""The rules on what changed since an earlier snapshot, and how that one is read."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.core.errors import InputError
from pipelines.params.base import path_below
from pipelines.params.validate import ValidateParams
from pipelines.validate.rule import (
    Arguments,
    AtMost,
    CheckResult,
    Expectation,
    expectation,
    mask,
    numbered,
)

if TYPE_CHECKING:
    import pandas as pd


Compared = Literal["files", "pictures"]
"""All files under the labels that they came with, or the pictures kept."""

_NUM_EDGES = 100


def label_shares(files: "pd.DataFrame", compared: Compared) -> dict[str, float]:
    """Each class's share of the files compared, sorted by label."""
    if compared == "files":
        column = files["original_label" if "original_label" in files else "label"]
    else:
        column = files.loc[mask(files["verdict"] == "keep"), "label"]
    codes, labels = numbered(column)
    counts = np.bincount(codes, minlength=len(labels))
    return {label: round(int(count) / len(codes), 9) for label, count in zip(labels, counts, strict=True)}


class Distribution(NamedTuple):
    """A distribution function at some places: at each the share of values below it, and up to it."""

    edges: list[float]
    below: list[float]
    up_to: list[float]


def distribution(values: npt.NDArray[np.float64]) -> Distribution:
    """Of `values` (N ≥ 1, finite), at their percentiles, each place once."""
    ordered = np.sort(values)
    ranks = np.unique(np.linspace(0, len(ordered) - 1, min(_NUM_EDGES, len(ordered))).round().astype(np.intp))
    edges = np.unique(ordered[ranks])
    below, up_to = _shares(ordered, edges)
    return Distribution(edges.tolist(), below.round(9).tolist(), up_to.round(9).tolist())


def _shares(
    ordered: npt.NDArray[np.float64], edges: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(E,) shares of the values below, and up to, each of (E,) edges."""
    below, up_to = (np.searchsorted(ordered, edges, side=side) / len(ordered) for side in ("left", "right"))
    return below, up_to


@expectation("ExpectLabelsNotToDrift", "label", "original_label", "verdict")
def label_shift(
    files: "pd.DataFrame", *, compared: Compared, reference: dict[str, float], max_value: float
) -> CheckResult:
    """Total variation distance of the classes' shares from `reference`; offenders are the classes that make up half
    of it, the most changed first."""
    now = label_shares(files, compared)
    if not now:
        return CheckResult(True, None)
    change = {label: abs(now.get(label, 0.0) - reference.get(label, 0.0)) for label in sorted({*now, *reference})}
    distance = sum(change.values()) / 2
    guilty: list[str] = []
    left = distance
    for label, value in sorted(change.items(), key=lambda item: (-item[1], item[0])):
        if left <= 0 or distance <= max_value:
            break
        guilty.append(label)
        left -= value
    return CheckResult(distance <= max_value, round(distance, 6), labels=tuple(guilty))


@expectation("ExpectFigureNotToDrift", "verdict")
def figure_shift(
    files: "pd.DataFrame",
    *,
    column: str,
    compared: Compared,
    edges: list[float],
    below: list[float],
    up_to: list[float],
    max_value: float,
) -> CheckResult:
    """Largest distance between the distribution functions of `column` now and then, at and just below `edges`."""
    values = files[column] if compared == "files" else files.loc[mask(files["verdict"] == "keep"), column]
    ordered = np.sort(values.to_numpy(dtype=np.float64, na_value=np.nan))
    ordered = ordered[: int(np.searchsorted(ordered, np.nan))]  # missing ones are sorted to the end
    if not len(ordered):
        return CheckResult(True, None)
    # where many values are the same, the functions may be far apart just below an edge and equal on it
    now = np.concatenate(_shares(ordered, np.array(edges)))
    distance = float(np.abs(now - np.array([*below, *up_to])).max())
    return CheckResult(distance <= max_value, round(distance, 6))


FIGURES = ("brightness", "contrast", "sharpness", "entropy", "aspect", "bytes_per_pixel")
SNAPSHOTS = "snapshots"
"""The folder of the cache where ingest keeps what finished runs wrote, by ingest.snapshot."""


@dataclass(frozen=True)
class Reference:
    """What earlier pictures were like.

    Args:
        name: as params say.
        compared: whether it holds all files, or the pictures kept alone.
        labels: each class's share, sorted by label.
        figures: the distribution of each of FIGURES.
    """

    name: str
    compared: Compared
    labels: dict[str, float]
    figures: dict[str, Distribution]


def read_reference(name: str, *, cache: Path | None, unlabelled: str | None = None) -> Reference:
    """Read the manifest that `drift_from` names.

    Args:
        cache: .miwake in the folder where relative paths start; None: only paths are looked at.
        unlabelled: split.unlabelled, which is no class.

    Raises:
        InputError: there is none, it is no manifest, or it has no picture.
    """
    path = _find(name, cache)
    wrong = "compare with another one, or set validate.drift_from: null"
    try:
        found = pq.read_schema(path).names
        compared: Compared = "pictures" if "verdict" in found else "files"
        columns = ["label", *FIGURES, *(["verdict"] if compared == "pictures" else [])]
        missing = [column for column in columns if column not in found]
        if missing:
            raise InputError(
                f"validate.drift_from {name!r}: {path} has no column {', '.join(missing)}: it is no manifest, or of "
                f"another version; {wrong}"
            )
        table = pq.read_table(path, columns=columns)
    except pa.ArrowException as error:
        raise InputError(f"validate.drift_from {name!r}: {path} is no Parquet file ({error}); {wrong}") from error
    if compared == "pictures":
        table = table.filter(pc.equal(table["verdict"], "keep"))
    if not table.num_rows:
        raise InputError(f"validate.drift_from {name!r}: {path} holds no picture; {wrong}")
    counted = {row["values"]: row["counts"] for row in pc.value_counts(table["label"]).to_pylist()}
    counted.pop(unlabelled or "", 0)
    total = sum(counted.values())
    labels = {str(label): round(counted[label] / total, 9) for label in sorted(counted, key=str)}
    figures = {}
    for column in FIGURES:
        values = table[column].cast(pa.float64()).drop_null().to_numpy()
        values = values[np.isfinite(values)]
        if len(values):
            figures[column] = distribution(values)
    return Reference(name, compared, labels, figures)


def _find(name: str, cache: Path | None) -> Path:
    path = path_below(cache.parent if cache else Path(), name)
    places = [path / "manifest.parquet", path]
    # a name, not a path that would lead elsewhere
    if cache is not None and Path(name).name == name and name not in (".", ".."):
        places.insert(0, cache / SNAPSHOTS / name / "manifest.parquet")
    for path in places:
        if path.is_file():
            return path
    folder = (cache or Path(".miwake")) / SNAPSHOTS
    known = sorted(file.parent.name for file in folder.glob("[!.]*/manifest.parquet"))
    raise InputError(
        f"validate.drift_from {name!r} is no snapshot in {folder} (there are: {', '.join(known) or 'none'}), no folder "
        "with a manifest.parquet and no manifest: name one of these, bring the snapshot back (set ingest.snapshot to "
        "it and run `dvc repro ingest`), or set it to null"
    )


class _DriftRule(AtMost):
    """A rule that holds the pictures against a reference; without one it is off.

    Attributes:
        what: has hardly changed.
    """

    what: ClassVar[str]

    def __init__(self, params: ValidateParams, reference: Reference | None = None, *, unlabelled: bool = False):
        super().__init__(params, reference, unlabelled=unlabelled)
        self.is_on = self.is_on and reference is not None
        self.then = reference or Reference("", "files", {}, {})
        self.description = self.what.replace("{name}", repr(self.then.name))

    def arguments(self) -> Arguments:
        return super().arguments() | {"compared": self.then.compared}


class MaxLabelDrift(_DriftRule):
    name = "max_label_drift"
    what = "the classes' shares have hardly changed since {name} (total variation distance)"
    fault = "the classes' shares have changed since validate.drift_from (total variation distance)"
    cure = (
        "look at what was added or lost of {label} (`miwake ingest diff`); if the change is meant, raise the limit or "
        "compare with a later snapshot"
    )
    of_classes = True
    kind = "ExpectLabelsNotToDrift"

    def arguments(self) -> Arguments:
        return super().arguments() | {"reference": self.then.labels}


class MaxQualityDrift(_DriftRule):
    name = "max_quality_drift"
    what = "the pictures' quality has hardly changed since {name} (Kolmogorov-Smirnov distance)"
    fault = "the pictures' quality has changed since validate.drift_from (Kolmogorov-Smirnov distance)"
    cure = (
        "look at the pictures that were added (`miwake ingest diff`): another camera, size or compression may be "
        "behind it; if the change is meant, raise the limit or compare with a later snapshot"
    )
    kind = "ExpectFigureNotToDrift"

    @property
    def expectations(self) -> tuple[Expectation, ...]:
        return tuple(
            (self.kind, self.arguments() | {"column": column} | figure._asdict())
            for column, figure in self.then.figures.items()
        )


RULES = (MaxLabelDrift, MaxQualityDrift)
