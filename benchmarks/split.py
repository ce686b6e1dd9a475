"""split and validate at scale: a drawn manifest of --images rows, each stage in a process of its own.

    python benchmarks/split.py --images 1000000

Times are of the stage's function, apart from imports; the median of --runs. The peer is scikit-learn's
StratifiedGroupKFold, on the same labels and groups,
for `--peer-images` pictures of people who have several classes each.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import project  # noqa: F401  (finds pipelines)
import pyarrow as pa

from pipelines.core.files import write_csv
from pipelines.core.tables import DEDUPED, write_table
from pipelines.params import load_params

ROOT = Path(__file__).parents[1]
PAIRS = ("image_a", "image_b", "path_a", "path_b", "label_a", "label_b", "kind", "score", "verdict")
REJECTS = ("source", "source_path", "label", "reason", "detail")

SPLIT = (
    "from pipelines.split import split as stage; "
    # heavy groups may leave a class too few units, which is no matter of time
    "call = lambda: stage(params.split.model_copy(update={'rare_classes': 'train_only', **{}}), "
    "manifest=m, duplicates=d, out_dir=o)"
)
VALIDATE = (
    "import great_expectations; from pipelines.validate import validate as stage; "
    "call = lambda: stage(params.validate_, manifest=m, rejects=r, out_dir=o)"
)
STAGES = {
    "split, exact": SPLIT,
    "split, stable": SPLIT.replace("**{}", "'method': 'stable'"),
    "split, given": SPLIT.replace("**{}", "'method': 'given', 'leaks': 'keep_train'"),
    "split, 9 folds": SPLIT.replace("**{}", "'folds': 9"),
    "split, by person": SPLIT.replace("**{}", "'group_by': 'source'"),
    "validate": VALIDATE,
}


def draw_manifest(folder: Path, num_images: int, *, people: int, groups: str = "light") -> None:
    """A manifest of `num_images` files of 100 classes, and its pairs; a thousandth of the pictures are blank.

    Args:
        groups: of near copies that are all kept. light: 1 % of the files, in pairs. heavy: half of the files, in
            groups of up to a two-hundredth of all, many of two classes.
    """
    random = np.random.default_rng(0)
    ids = np.array([f"{value:016x}" * 4 for value in random.integers(0, 2**63, num_images).tolist()])
    label = np.sort(random.integers(0, 100, num_images))
    starts = np.ones(num_images, dtype=bool)
    if groups == "light":
        starts[1::200] = False
    else:
        sizes = np.minimum(random.zipf(1.6, num_images // 4), num_images // 200)
        first = np.cumsum(sizes)
        starts[: num_images // 2] = False
        starts[first[first < num_images // 2]] = True
        starts[0] = True
        label[: num_images // 2] = random.integers(0, 100, num_images)[: num_images // 2]
        lead = np.maximum.accumulate(np.where(starts, np.arange(num_images), 0))
        same = random.random(num_images) < 0.9
        label = np.where(same, label[lead], label)
    lead = np.maximum.accumulate(np.where(starts, np.arange(num_images), 0))
    columns = {name: pa.nulls(num_images, kind) for name, kind in zip(DEDUPED.names, DEDUPED.types, strict=True)}
    columns |= {
        "image_id": pa.array(ids),
        "label": pa.array([f"class {k:03}" for k in label.tolist()]),
        "group": pa.array(ids[lead]),
        "verdict": pa.array(["keep"] * num_images),
        "best_id": pa.array(ids),
        "source": pa.array([f"person {k}" for k in random.integers(0, people, num_images).tolist()]),
        "source_path": pa.array([f"class/{k}.jpg" for k in range(num_images)]),
        "width": pa.array(random.integers(64, 512, num_images), pa.int32()),
        "height": pa.array(random.integers(64, 512, num_images), pa.int32()),
        "size": pa.array(random.integers(1000, 90_000, num_images), pa.int64()),
        "contrast": pa.array(np.where(random.random(num_images) < 0.001, 0, 40), pa.float32()),
        "given_subset": pa.array(random.choice(["train", "test"], num_images, p=[0.8, 0.2])),
    }
    write_table(pa.table(columns, schema=DEDUPED), folder / "manifest.parquet")
    copies = np.flatnonzero(~starts)
    pairs = (
        (a, b, "", "", "", "", "near", "0.9900", "keep") for a, b in zip(ids[copies], ids[lead[copies]], strict=True)
    )
    write_csv(folder / "duplicates.csv", PAIRS, pairs)
    write_csv(folder / "rejected.csv", REJECTS, [])


def measure(code: str, folder: Path) -> tuple[float, float]:
    """Seconds of one call of the stage, and the peak memory of its process in MB."""
    script = (
        "import time, resource; from pathlib import Path; from pipelines.params import load_params\n"
        f"params = load_params(Path({str(ROOT / 'params.yaml')!r})); folder = Path({str(folder)!r})\n"
        "m, r, o = folder / 'manifest.parquet', folder / 'rejected.csv', folder / 'out'\n"
        "d = folder / 'duplicates.csv'\n"
        f"{code}\nstarted = time.perf_counter(); call(); seconds = time.perf_counter() - started\n"
        "print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    seconds, megabytes = done.stdout.split()[-2:]
    return float(seconds), float(megabytes)


def timed(what: str, code: str, folder: Path, num_images: int, runs: int) -> dict[str, Any]:
    """Measure one stage, print its line, and give its claim."""
    taken = [measure(code, folder) for _ in range(runs)]
    seconds = [value for value, _ in taken]
    middle = statistics.median(seconds)
    print(f"{what:<30}{middle:>10.2f}{max(megabytes for _, megabytes in taken):>8.0f}", flush=True)
    claim = {
        "ours": middle,
        "peer": None,
        "ratio": None,
        "goal": 15 if what.startswith("validate") else 20,
        "higher_is_better": False,
        "n": runs,
        "spread": max(seconds) - min(seconds),
    }
    return {f"{what}, seconds for {num_images}": claim}


def deviation(bin_of: np.ndarray, label: np.ndarray, num_bins: int) -> float:
    """Mean of |pictures - ideal| over classes and bins of equal shares."""
    counts = np.zeros((label.max() + 1, num_bins))
    np.add.at(counts, (label, bin_of), 1)
    return float(np.abs(counts - counts.sum(axis=1, keepdims=True) / num_bins).mean())


def against_peer(folder: Path, num_images: int) -> dict[str, float]:
    """Time and evenness of 5 equal parts by person, ours and scikit-learn's."""
    import pyarrow.parquet as pq
    from sklearn.model_selection import StratifiedGroupKFold

    from pipelines.split import split

    draw_manifest(folder, num_images, people=num_images // 20)
    table = pq.read_table(folder / "manifest.parquet", columns=["label", "source", "image_id", "group"])
    # the peer knows one relation only: people
    params = load_params(ROOT / "params.yaml").split.model_copy(
        update={"folds": 4, "test_fraction": 0.2, "group_by": "source"}
    )
    full = pq.read_table(folder / "manifest.parquet")
    full = full.set_column(full.schema.get_field_index("group"), "group", full["image_id"])
    write_table(full.select(DEDUPED.names), folder / "manifest.parquet")
    write_csv(folder / "duplicates.csv", PAIRS, [])
    started = time.perf_counter()
    artifact = split(
        params,
        manifest=folder / "manifest.parquet",
        duplicates=folder / "duplicates.csv",
        out_dir=folder / "out",
    )
    ours_seconds = time.perf_counter() - started
    found = pq.read_table(artifact.splits)
    _, ours_label = np.unique(found["label"].to_numpy(zero_copy_only=False), return_inverse=True)
    ours = deviation(found["fold"].to_numpy().astype(int) + 1, ours_label, 5)
    _, label = np.unique(table["label"].to_numpy(zero_copy_only=False), return_inverse=True)
    bin_of = np.zeros(num_images, dtype=int)
    started = time.perf_counter()
    peer = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    for fold, (_, held) in enumerate(peer.split(label, label, table["source"].to_numpy(zero_copy_only=False))):
        bin_of[held] = fold
    peer_seconds = time.perf_counter() - started
    return {"ours": ours, "peer": deviation(bin_of, label, 5), "ours_s": ours_seconds, "peer_s": peer_seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--peer-images", type=int, default=50_000)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    claims: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(f"{'stage':<30}{'seconds':>10}{'MB':>8}   {arguments.images} pictures, median of {arguments.runs}")
        # of fewer pictures, heavy groups leave hardly a class enough units for nine folds
        for groups in ("light", "heavy") if arguments.images >= 500_000 else ("light",):
            draw_manifest(folder, arguments.images, people=arguments.images // 20, groups=groups)
            for stage, code in STAGES.items():
                # people of 20 pictures each and heavy groups link everything to everything
                if groups == "heavy" and stage in ("split, by person", "validate"):
                    continue
                claims |= timed(f"{stage}, {groups} groups", code, folder, arguments.images, arguments.runs)
        peer = against_peer(folder, arguments.peer_images)
    print(
        f"mean |pictures - ideal| of a class in a part, {arguments.peer_images} pictures by person: "
        f"{peer['ours']:.2f} in {peer['ours_s']:.1f} s; "
        f"StratifiedGroupKFold {peer['peer']:.2f} in {peer['peer_s']:.1f} s"
    )
    claims["mean deviation by person, pictures"] = {
        "ours": peer["ours"],
        "peer": peer["peer"],
        "ratio": peer["ours"] / peer["peer"],
        "goal": 1.0,
        "higher_is_better": False,
        "n": 1,
        "spread": 0.0,
    }
    print(json.dumps(claims))


if __name__ == "__main__":
    main()
