"""evaluate by part: the main job, 10,000 test pictures, and intervals of 1,000,000 predictions beside bootstraps.

    python benchmarks/evaluate.py [--runs 3] [--project FOLDER]

`main job`: `python -m pipelines.evaluate` and `report`, as whole processes, in FOLDER, where a project has run.
`10,000`: 30,000 pictures of 10 classes with features of 1,280 dimensions drawn around their classes, 10,000 of them for
the test; the networks are not asked, since what they are asked depends on no number of pictures (params bound it).
`intervals`: of accuracy, balanced accuracy, macro F1 and log loss over 1,000,000 predictions of 10 classes; a peer does
one draw of a bootstrap with scikit-learn's metrics, or torchmetrics' where it is installed, times 1,000.
"""

import argparse
import contextlib
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measure
import numpy as np
import project  # noqa: F401  (finds pipelines)
import pyarrow as pa

from pipelines.core.tables import FEATURES, PACK_INDEX, PREDICTIONS, write_table
from pipelines.evaluate import stage
from pipelines.evaluate.intervals import metric_intervals
from pipelines.evaluate.metrics import score
from pipelines.params.evaluate import EvaluateParams

PARTS = ("compute_figures", "leak_premium", "find_suspects", "slices", "look_at_features")
NUM_PICTURES, NUM_TEST, NUM_CLASSES, NUM_FEATURES = 30_000, 10_000, 10, 1280


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--project", type=Path)
    words = parser.parse_args()
    claims: dict[str, measure.Claim] = {}
    if words.project is not None:
        seconds = [
            sum(
                measure.run([sys.executable, "-m", f"pipelines.{name}"], cwd=words.project).seconds
                for name in ("evaluate", "report")
            )
            for _ in range(words.runs)
        ]
        claims["main job, evaluate and report"] = measure.claim(seconds, goal=15.0, unit="s")
    claims["10,000 test pictures, without networks"] = measure.claim(ten_thousand(words.runs), goal=60.0, unit="s")
    claims |= intervals(words.runs)
    measure.report(claims)
    print(f"peak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:,.0f} MB")


def ten_thousand(runs: int) -> list[float]:
    """Seconds of evaluate, and a table of its parts."""
    found: list[float] = []
    parts: dict[str, list[float]] = {name: [] for name in PARTS}
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        write_run(root)
        for name in PARTS:
            setattr(stage, name, timed(getattr(stage, name), parts[name]))
        for _ in range(runs):
            started = time.perf_counter()
            stage.evaluate(
                EvaluateParams(),
                folders={("probe", 0): root / "probe-0"},
                index=root / "index.parquet",
                manifest=None,
                out_dir=root / "out",
                ask=False,
            )
            found.append(time.perf_counter() - started)
    print("| part | seconds (median) |\n|---|--:|")
    for name, seconds in parts.items():
        print(f"| {name} | {np.median(seconds):.2f} |")
    return found


def timed(function: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    def run(*words: Any, **names: Any) -> Any:
        started = time.perf_counter()
        try:
            return function(*words, **names)
        finally:
            seconds.append(time.perf_counter() - started)

    return run


def write_run(root: Path) -> None:
    """A pack index, and predictions and features of one frozen member, which is right nine times of ten."""
    rng = np.random.default_rng(0)
    classes = [f"class {k}" for k in range(NUM_CLASSES)]
    ids = [f"{i:064x}" for i in range(NUM_PICTURES)]
    actual = rng.integers(NUM_CLASSES, size=NUM_PICTURES)
    subset = np.repeat(["test", "val", "train"], [NUM_TEST, NUM_TEST // 2, NUM_PICTURES - 3 * NUM_TEST // 2])
    filler = {"factors": [""] * NUM_PICTURES, "copy": [0] * NUM_PICTURES, "position": list(range(NUM_PICTURES))}
    columns = {"image_id": ids, "label": [classes[k] for k in actual], "class_index": actual, "group": ids}
    columns |= {"subset": subset, "fold": np.where(subset == "val", 0, -1), **filler}
    index = pa.table(columns).select(PACK_INDEX.names).cast(PACK_INDEX)
    write_table(index, root / "index.parquet", classes=classes)
    rows = np.flatnonzero(subset != "train")
    table = pa.table(
        {
            "image_id": [ids[row] for row in rows],
            "subset": subset[rows],
            "class_index": actual[rows],
            "probabilities": list(told(rng, actual[rows]).astype(np.float32)),
        }
    )
    write_table(table.cast(PREDICTIONS), root / "probe-0" / "predictions.parquet", classes=classes)
    features = rng.normal(size=(NUM_PICTURES, NUM_FEATURES)) + 4 * rng.normal(size=(NUM_CLASSES, NUM_FEATURES))[actual]
    values = [row.tobytes() for row in features.astype("<f2")]
    table = pa.table({"image_id": ids, "class_index": actual, "plain": values, "edited": values})
    write_table(table.cast(FEATURES), root / "probe-0" / "features.parquet")


def told(rng: np.random.Generator, actual: np.ndarray) -> np.ndarray:
    """(N, K) probabilities whose largest is that of the true class nine times of ten."""
    logits = rng.normal(size=(len(actual), NUM_CLASSES))
    right = rng.random(len(actual)) < 0.9
    logits[np.arange(len(actual)), np.where(right, actual, rng.integers(NUM_CLASSES, size=len(actual)))] += 4
    likely = np.exp(logits)
    return np.asarray(likely / likely.sum(axis=1, keepdims=True))


def intervals(runs: int) -> dict[str, measure.Claim]:
    """Four intervals over a million predictions, beside 1,000 draws of a bootstrap."""
    rng = np.random.default_rng(1)
    actual = rng.integers(NUM_CLASSES, size=1_000_000)
    probabilities = told(rng, actual)
    scored, groups = score(actual, probabilities), np.arange(len(actual))
    ours, sklearn_seconds, torch_seconds = [], [], []
    for _ in range(runs):
        started = time.perf_counter()
        metric_intervals(scored, groups, 0.95)
        ours.append(time.perf_counter() - started)
        sklearn_seconds.append(1000 * seconds_of(draw_by_sklearn, rng, actual, probabilities))
        with contextlib.suppress(ImportError):
            torch_seconds.append(1000 * seconds_of(draw_by_torchmetrics, rng, actual, probabilities))
    found = {"intervals of 1,000,000": measure.claim(ours, goal=10.0, unit="s")}
    for name, peer in (("scikit-learn", sklearn_seconds), ("torchmetrics", torch_seconds)):
        if peer:
            found[f"the same beside 1,000 draws by {name}"] = measure.claim(ours, goal=1.0, unit="s", peer=peer)
    return found


def seconds_of(draw: Callable[..., None], rng: np.random.Generator, actual: np.ndarray, likely: np.ndarray) -> float:
    started = time.perf_counter()
    draw(rng.integers(len(actual), size=len(actual)), actual, likely)
    return time.perf_counter() - started


def draw_by_sklearn(rows: np.ndarray, actual: np.ndarray, likely: np.ndarray) -> None:
    from sklearn import metrics

    true, told_rows = actual[rows], likely[rows]
    predicted = told_rows.argmax(axis=1)
    metrics.accuracy_score(true, predicted)
    metrics.balanced_accuracy_score(true, predicted)
    metrics.f1_score(true, predicted, average="macro")
    metrics.log_loss(true, told_rows, labels=range(NUM_CLASSES))


def draw_by_torchmetrics(rows: np.ndarray, actual: np.ndarray, likely: np.ndarray) -> None:
    import torch
    from torchmetrics.functional import classification  # type: ignore[import-not-found]

    true, told_rows = torch.from_numpy(actual[rows]), torch.from_numpy(likely[rows])
    classification.multiclass_accuracy(told_rows, true, NUM_CLASSES, average="micro")
    classification.multiclass_accuracy(told_rows, true, NUM_CLASSES, average="macro")
    classification.multiclass_f1_score(told_rows, true, NUM_CLASSES, average="macro")


if __name__ == "__main__":
    main()
