"""The whole pipeline on a folder of real pictures, by the committed params: one row of the README's table.

    python benchmarks/real_pictures.py FOLDER [FOLDER ...] [--member RECIPE] [--image-size PX] [--keep OUT]

Each FOLDER holds a folder for each class. The pipeline runs in a fresh copy of this repository; with --keep the
reports stay in OUT/<folder name>/. --member names another built-in recipe (linear_probe_large needs --image-size 288).
"""

import argparse
import csv
import json
import shutil
import tempfile
from collections import Counter
from pathlib import Path

from measure import machine, run
from repository import copy_repository, environment, folder_source, set_params


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--member", default="linear_probe")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="miwake-") as scratch:
        for folder in arguments.folders:
            copy = copy_repository(Path(scratch) / folder.name)
            set_params(
                copy,
                ingest__sources=[folder_source(folder)],
                augment__image_size=arguments.image_size,
                train__members=[arguments.member],
                report__title=folder.name,
            )
            seconds = run(["dvc", "repro"], cwd=copy, env=environment()).seconds
            rows.append({"name": folder.name, "seconds": round(seconds, 1), **found(copy / "data")})
            if arguments.keep:
                shutil.copytree(copy / "data" / "report", arguments.keep / folder.name, dirs_exist_ok=True)
                shutil.copy(copy / "data" / "dedupe" / "duplicates.csv", arguments.keep / folder.name)
    print(f"\n{machine()}\n")
    print("| pictures | classes | files | kept | copies | conflicts | test | accuracy | balanced | seconds |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    for row in rows:
        print(
            f"| {row['name']} | {row['num_classes']} | {row['files']} | {row['kept']} | {row['copies']} "
            f"| {row['conflicts']} | {row['num_images']} | {row['accuracy']} | {row['balanced']} | {row['seconds']} |"
        )
    print(json.dumps(rows, ensure_ascii=False))


def found(data: Path) -> dict[str, object]:
    """The figures that the stages wrote."""
    import pyarrow.parquet as pq

    metrics = json.loads((data / "evaluate" / "metrics.json").read_text(encoding="utf-8"))
    verdicts = Counter(pq.read_table(data / "dedupe" / "manifest.parquet", columns=["verdict"])["verdict"].to_pylist())
    with (data / "ingest" / "rejected.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        num_rejected = sum(1 for _ in csv.DictReader(file))
    return {
        "files": verdicts.total() + num_rejected,
        "rejected": num_rejected,
        "kept": verdicts["keep"],
        "copies": verdicts["copy"],
        "conflicts": verdicts["conflict"],
        "num_classes": metrics["num_classes"],
        "num_images": metrics["num_images"],
        "accuracy": interval(metrics["accuracy"]),
        "balanced": interval(metrics["balanced_accuracy"]),
    }


def interval(figure: dict[str, float]) -> str:
    return f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})"


if __name__ == "__main__":
    main()
