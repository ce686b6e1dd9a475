"""Recall, precision and time of dedupe on a folder of ingest in which near copies were planted.

usage: python benchmarks/dedupe.py INGEST_DIR TRUTH_CSV      (TRUTH_CSV: kind,original,copy as source paths)

A pair that was not planted counts as right where the two thumbnails, mean and contrast taken out, correlate with
at least 0.95 as they lie or mirrored. That judge aligns nothing: copies that are shifted by a few pixels count as
false, so the precision is a lower bound.
"""

import csv
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from pipelines.core.params.dedupe import DedupeParams
from pipelines.dedupe import dedupe

_RUNS = 3


def _unit(thumbnail: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    flat = thumbnail.astype(np.float64).ravel()
    flat = flat - flat.mean()
    unit: np.ndarray[tuple[int], np.dtype[np.float64]] = flat / max(float(np.linalg.norm(flat)), 1e-6)
    return unit


def main() -> None:
    ingest_dir, truth_csv = Path(sys.argv[1]), Path(sys.argv[2])
    params = DedupeParams(near=True, mirror=True, min_score=0.95, copies="drop", conflicts="hold")
    seconds = []
    with tempfile.TemporaryDirectory() as scratch:
        for _ in range(_RUNS):
            started = time.perf_counter()
            artifact = dedupe(params, ingest_dir=ingest_dir, decisions_dir=Path(scratch), out_dir=Path(scratch) / "out")
            seconds.append(time.perf_counter() - started)
        with artifact.duplicates.open(newline="", encoding="utf-8") as file:
            found = {tuple(sorted((row["path_a"], row["path_b"]))) for row in csv.DictReader(file)}
    with truth_csv.open(newline="", encoding="utf-8") as file:
        truth = {tuple(sorted((row["original"], row["copy"]))): row["kind"] for row in csv.DictReader(file)}
    thumbnails = np.load(ingest_dir / "thumbnails.npy", mmap_mode="r")
    paths = pq.read_table(ingest_dir / "manifest.parquet", columns=["source_path"])["source_path"].to_pylist()
    row_of = {path: row for row, path in enumerate(paths)}
    natural = 0
    for one, other in found - truth.keys():
        first, second = thumbnails[row_of[one]], thumbnails[row_of[other]]
        alike = (float(_unit(first) @ _unit(second)), float(_unit(first[:, ::-1]) @ _unit(second)))
        natural += int(max(alike) >= 0.95)
    kinds = sorted(set(truth.values()))
    print(f"{'kind':12} recall")
    for kind in kinds:
        pairs = {pair for pair, its in truth.items() if its == kind}
        print(f"{kind:12} {len(pairs & found) / len(pairs):.3f}")
    recall = len(found & truth.keys()) / len(truth)
    precision = (len(found & truth.keys()) + natural) / max(1, len(found))
    spread = max(seconds) - min(seconds)
    claims = {"recall": recall, "precision_lower_bound": precision, "seconds": statistics.median(seconds)}
    for name, value in claims.items():
        print(f"{name:24} {value:.4f}")
    print(
        json.dumps(
            {
                f"dedupe_{name}_{len(paths)}": {
                    "ours": round(value, 4),
                    "peer": None,
                    "ratio": None,
                    "goal": None,
                    "higher_is_better": name != "seconds",
                    "n": _RUNS,
                    "spread": round(spread, 3) if name == "seconds" else 0.0,
                }
                for name, value in claims.items()
            }
        )
    )


if __name__ == "__main__":
    main()
