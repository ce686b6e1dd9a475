"""Training beside fastai, timm and a loop like torchvision's reference script: time, memory and accuracy on a CPU.

    python benchmarks/train.py CIFAR [--epochs 10] [--runs 1] [--train 9000] [--val 1000]
                               [--peers torchvision fastai timm]

CIFAR is CIFAR-10 as JPEGs: a folder with train/<class>/ and test/<class>/, or a tar of one. All train resnet18 on 9,000
of its pictures at 64 px, in batches of 64, from the same file of random weights, by SGD with momentum and one cycle,
flipped and moved at random, and validate on the same 1,000 after each epoch. Whole processes, in turn; who begins
changes from run to run. Ours is `python -m pipelines.train` on packs that ingest, dedupe, split and augment made
before, which are timed by themselves; the peers read the JPEGs, with two worker processes. Peers are installed into a
temporary folder; one that cannot be is skipped. peers_train/trainer.py says how alike the augmentations are.

Ten epochs take half an hour of two cores. Prints tables, then one JSON line. Accuracies are those after the last epoch,
with 1.96 standard deviations of a share of that many pictures.
"""

import argparse
import hashlib
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from measure import Claim, claim, made_folder, report
from training import choose, cifar_folder, history, prepare, recipe, train, write_project
from watching import ROOT, watch

PEERS = Path(__file__).parent / "peers_train"
PACKAGES = {
    "torchvision": [],
    # fastprogress 1.1 imports a web framework; fastai 2.8 and fasttransform ask for this plum-dispatch
    "fastai": ["fastai", "fastcore", "fastdownload", "fastprogress<1.1", "fasttransform", "plum-dispatch<2.10"],
    "timm": ["timm"],
}
GOALS = {"fastai": 0.5, "torchvision": 0.5, "timm": 0.6}
MEMORY_GOAL = 1.3
"""beside torchvision's loop"""
IMAGE_SIZE = 64


@dataclass(frozen=True)
class Trained:
    """One run: wall seconds, peak memory of the largest process in MB, and the accuracy after the last epoch."""

    seconds: float
    peak_mb: float
    accuracy: float


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cifar", type=Path)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--train", type=int, default=9000, help="pictures to train on")
    parser.add_argument("--val", type=int, default=1000, help="pictures to validate on")
    parser.add_argument("--peers", nargs="*", choices=PACKAGES, default=list(PACKAGES))
    parser.add_argument("--scratch", type=made_folder, help="where to work; hard links need CIFAR's file system")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.scratch) as temporary:
        scratch = Path(temporary).resolve()
        bench = Bench(scratch, options.epochs)
        num_classes = 10
        count = choose(
            cifar_folder(options.cifar, scratch),
            bench.pictures,
            train=options.train // num_classes,
            val=options.val // num_classes,
            test=1,  # the pipeline wants some; predicting ten costs nothing
        )
        packing = bench.prepare()
        print(f"{count:,} pictures; ingest, dedupe, split and augment, once: {packing:.1f} s", flush=True)
        peers = [name for name in options.peers if bench.install(name)]
        runs = bench.compare(["ours", *peers], options.runs)
    show(runs, epochs=options.epochs, num_train=count, num_val=options.val)
    if peers:
        report(claims(runs, num_val=options.val))


class Bench:
    """Runs ours and the peers.

    Args:
        scratch: a folder for everything.
        epochs: of each run.
    """

    def __init__(self, scratch: Path, epochs: int) -> None:
        self.scratch, self.epochs = scratch, epochs
        self.pictures, self.project = scratch / "pictures", scratch / "project"
        self.weights, self.site = scratch / "initial.safetensors", scratch / "site"

    def prepare(self) -> float:
        """Initial weights, and the packs; seconds of the latter."""
        watch([sys.executable, str(PEERS / "initial.py"), str(self.weights)], cwd=self.scratch)
        digest = hashlib.sha256(self.weights.read_bytes()).hexdigest()
        ours = recipe(
            # scratch, but from the weights that all begin with
            tuning="finetune",
            weights={"kind": "file", "path": str(self.weights), "sha256": digest},
            layer_decay=1.0,
            freeze_norms=False,
            image_size=IMAGE_SIZE,
            epochs=self.epochs,
        )
        moves = {"hflip": 0.5, "degrees": 10.0, "translate": 0.1, "scale": 0.1}
        write_project(
            self.project,
            self.pictures,
            image_size=IMAGE_SIZE,
            policies={"moves": moves},
            recipes={"ours": ours},
            device="cpu",
            num_threads=len(os.sched_getaffinity(0)),
        )
        return prepare(self.project)

    def install(self, name: str) -> bool:
        """Put a peer where it can be found; False, with a word, where that fails."""
        if not PACKAGES[name]:
            return True
        target = ["--no-deps", "--target", str(self.site / name), *PACKAGES[name]]
        for tool in (
            ["uv", "pip", "install", "--quiet", "--python", sys.executable],
            [sys.executable, "-m", "pip", "install", "--quiet"],
        ):
            try:
                subprocess.run([*tool, *target], check=True, capture_output=True)
            except (OSError, subprocess.CalledProcessError):
                continue
            return True
        print(f"{name} cannot be installed here: skipped")
        return False

    def compare(self, names: list[str], runs: int) -> dict[str, list[Trained]]:
        """Each in turn, as often as said."""
        found: dict[str, list[Trained]] = {name: [] for name in names}
        for number in range(runs):
            start = number % len(names)
            for name in names[start:] + names[:start]:
                one = self.ours() if name == "ours" else self.peer(name)
                found[name].append(one)
                print(f"{name}: {one.seconds:.1f} s, accuracy {one.accuracy:.3f}", flush=True)
        return found

    def ours(self) -> Trained:
        """The stage, whole."""
        done = train(self.project, "ours")
        return Trained(done.seconds, done.peak_mb, history(self.project, "ours", "val_accuracy")[-1])

    def peer(self, name: str) -> Trained:
        """A peer, whole."""
        result = self.scratch / f"{name}.json"
        command = [sys.executable, str(PEERS / "trainer.py"), name, str(self.pictures), str(self.weights), str(result)]
        path = f"{ROOT}{os.pathsep}{self.site / name}"
        options = ["--epochs", str(self.epochs), "--image-size", str(IMAGE_SIZE)]
        done = watch([*command, *options], cwd=self.scratch, env={"PYTHONPATH": path})
        return Trained(done.seconds, done.peak_mb, json.loads(result.read_text(encoding="utf-8"))["accuracies"][-1])


def show(runs: dict[str, list[Trained]], *, epochs: int, num_train: int, num_val: int) -> None:
    """The table of the runs themselves."""
    print(f"\n{'medians':14} {'seconds':>8} {'img/s':>8}  {'accuracy':>8} {'+-':>6} {'peak MB':>8}  n")
    for name, found in runs.items():
        seconds = statistics.median(one.seconds for one in found)
        accuracy = statistics.median(one.accuracy for one in found)
        peak = statistics.median(one.peak_mb for one in found)
        rate = epochs * num_train / seconds
        noise = either_way(accuracy, num_val)
        print(f"{name:14} {seconds:8.1f} {rate:8.1f}  {accuracy:8.3f} {noise:6.3f} {peak:8,.0f}  {len(found)}")
    print("img/s: training pictures over the whole process, imports and validation included")


def either_way(share: float, count: int) -> float:
    """1.96 standard deviations of a share of `count` pictures."""
    return 1.96 * math.sqrt(share * (1.0 - share) / count)


def claims(runs: dict[str, list[Trained]], *, num_val: int) -> dict[str, Claim]:
    """Ours beside each peer."""
    ours = runs["ours"]
    found = {}
    for name, goal in GOALS.items():
        if name in runs:
            theirs = [one.seconds for one in runs[name]]
            found[f"seconds, beside {name}"] = claim([one.seconds for one in ours], peer=theirs, goal=goal, unit="s")
    if "torchvision" in runs:
        theirs = [one.peak_mb for one in runs["torchvision"]]
        found["peak memory, beside torchvision"] = claim(
            [one.peak_mb for one in ours], peer=theirs, goal=MEMORY_GOAL, unit="MB"
        )
    for name in runs:
        if name != "ours":
            lead = [other.accuracy - one.accuracy for one, other in zip(ours, runs[name], strict=True)]
            noise = either_way(ours[0].accuracy, num_val) * math.sqrt(2.0)  # of a difference
            found[f"accuracy that {name} has more"] = claim(lead, goal=round(noise, 3), unit="")
    return found


if __name__ == "__main__":
    main()
