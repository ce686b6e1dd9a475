"""Training on one NVIDIA GPU: speed, accuracy and memory on CIFAR-10, through the stages of the pipeline.

    python benchmarks/gpu.py CIFAR [--parts fine_tune scratch extras augmentation] [--best-minutes 10]
                             [--weights RESNET50] [--compile] [--scratch FOLDER]
    python benchmarks/gpu.py --smoke

CIFAR is CIFAR-10 as JPEGs: a folder with train/<class>/ and test/<class>/, or a tar of one. 100 pictures of each class
are taken from the 50,000 for validation; accuracies are of the 10,000 test pictures, whose predictions choose nothing.
Every time is of a whole process, `python -m pipelines.train`, imports included, unless the line says otherwise.

- fine_tune: resnet50, all of it, at 224 px for 15 epochs in bfloat16, beside the usual loop (peers_train/naive.py) on
  the same card, measured for some steps and scaled to as many pictures. RESNET50 is torchvision's state dict of
  ImageNet (.pth or .safetensors). Without it the network begins with random weights: the time is the same, and the
  accuracy says nothing of fine-tuning.
- scratch: from random weights to 94 % and to 96 %, and the best in so many minutes. Predictions are the mean over a
  picture and its mirror image.
- extras: what Mixup, CutMix, RandAugment and TrivialAugment add to a step, resnet18 at 32 px and resnet50 at 224 px.
- augmentation: the same draws on the CPU and on the GPU.

Packs of 60,000 pictures at 224 px take 9 GB below --scratch, the whole about 25 minutes. --smoke goes through
everything with drawn pictures and tiny sizes, on a GPU or without. Prints tables, then one JSON line.
"""

import argparse
import hashlib
import json
import os
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from gpu_recipes import FULL, SMOKE, Sizes, best, extras, fine_tuning, large, policies, small
from measure import Claim, claim, made_folder, report
from training import (
    Json,
    Project,
    choose,
    cifar_folder,
    draw_pictures,
    prepare,
    recipe,
    test_accuracy,
    train,
    write_project,
)
from watching import ROOT, Watched, watch

PARTS = ("fine_tune", "scratch", "extras", "augmentation")
NAIVE = Path(__file__).parent / "peers_train" / "naive.py"
EXTRA_GOAL = 1.1


@dataclass
class Bench:
    """Runs the parts.

    Args:
        scratch: a folder for everything.
        cifar: with train/<class>/ and test/<class>/.
        sizes: of everything.
        weights: of resnet50; None for random ones.
        compile: whether the long trainings are compiled.
        memory: filled with the largest memory of every training, MB: of the process, of the GPU.
    """

    scratch: Path
    cifar: Path
    sizes: Sizes
    weights: Path | None
    compile: bool
    memory: dict[str, tuple[float, float]] = field(default_factory=dict)

    def project(self, image_size: int, per_class: int | None, recipes: dict[str, Json]) -> Project:
        """A pipeline ready to train `recipes`; packs are made once for each size and number."""
        found = Project(self.scratch / f"{image_size}px-{per_class or 'all'}")
        made = found.pictures.exists()
        if not made:
            choose(self.cifar, found.pictures, train=per_class, val=self.sizes.val, test=None)
        cores = len(os.sched_getaffinity(0))
        machine = {"device": "auto", "deterministic": False, "num_threads": cores, "max_device_cache_bytes": 1 << 37}
        write_project(
            found.root, found.pictures, image_size=image_size, policies=policies(), recipes=recipes, **machine
        )
        if not made:
            seconds = prepare(found.root)
            print(f"ingest, dedupe, split and augment at {image_size} px: {seconds:.1f} s", flush=True)
        return found

    def train(self, root: Path, member: str, title: str) -> Watched:
        """One member, whole; tells of it."""
        done = train(root, member)
        self.memory[title] = (done.peak_mb, done.device_mb)
        accuracy, count = test_accuracy(root, member)
        print(
            f"{title}: {done.seconds:.1f} s, {len(done.epochs)} epochs, {done.rate:,.0f} img/s while training, "
            f"{accuracy:.4f} of {count:,} test pictures",
            flush=True,
        )
        return done

    def fine_tune(self) -> dict[str, Claim]:
        """resnet50 at 224 px, beside the usual loop."""
        sizes, weights = self.sizes, None
        if self.weights:
            digest = hashlib.sha256(self.weights.read_bytes()).hexdigest()
            weights = {"kind": "file", "path": str(self.weights.resolve()), "sha256": digest}
        else:
            print(f"no weights given: {sizes.large_model} begins with random ones, its accuracy is not fine-tuning's")
        whole = fine_tuning(sizes, weights, compiled=self.compile)
        project = self.project(sizes.large, sizes.pictures, {"fine_tune": whole})
        count = project.num_train
        done = self.train(project.root, "fine_tune", f"{sizes.large_model}, {sizes.large} px")
        # from the end of the first epoch to the end of the last: validation and checkpoints included
        sustained = count * (len(done.epochs) - 1) / (done.epochs[-1] - done.epochs[0])
        naive = self.naive(project.pictures / "train")
        theirs = count * sizes.fine_tune_epochs / naive
        print(f"sustained {sustained:,.0f} img/s; the usual loop {naive:,.0f} img/s, so {theirs:,.0f} s for as many")
        return {
            "fine-tune: seconds for 1,000 pictures, sustained": claim([1000 / sustained], goal=1000 / 4500, unit="s"),
            "fine-tune: whole": claim([done.seconds], goal=240, unit="s"),
            "fine-tune: whole, beside the usual loop": claim([done.seconds], peer=[theirs], goal=0.25, unit="s"),
        }

    def naive(self, pictures: Path) -> float:
        """Pictures a second of the usual loop."""
        sizes, result = self.sizes, self.scratch / "naive.json"
        options = {
            "--model": sizes.large_model,
            "--image-size": sizes.large,
            "--batch-size": sizes.large_batch,
            "--steps": sizes.naive_steps,
            "--workers": len(os.sched_getaffinity(0)),
        }
        flat = [str(word) for pair in options.items() for word in pair]
        done = watch([sys.executable, str(NAIVE), str(pictures), str(result), *flat], cwd=self.scratch)
        self.memory["the usual loop"] = (done.peak_mb, done.device_mb)
        rate: float = json.loads(result.read_text(encoding="utf-8"))["pictures_a_second"]
        return rate

    def small(self, recipes: dict[str, Json]) -> Path:
        """The project of all pictures at 32 px."""
        return self.project(self.sizes.small, self.sizes.pictures, recipes).root

    def from_scratch(self, best_minutes: float) -> dict[str, Claim]:
        """To 94 %, to 96 %, and the best in `best_minutes`."""
        claims: dict[str, Claim] = {}
        goals = {
            "94 %": (small(self.sizes, self.sizes.quick_epochs), 15, 0.06),
            "96 %": (small(self.sizes, 40, augmentation="crops_erased"), 60, 0.04),
        }
        if self.sizes is SMOKE:
            del goals["96 %"]
        for title, (whole, seconds, errors) in goals.items():
            root = self.small({"net": whole})
            done = self.train(root, "net", f"to {title}: {whole['model']}, {whole['epochs']} epochs")
            claims[f"to {title}: whole"] = claim([done.seconds], goal=seconds, unit="s")
            claims[f"to {title}: test error"] = claim([1 - test_accuracy(root, "net")[0]], goal=errors, unit="")
        return claims | self.best(best_minutes)

    def best(self, minutes: float) -> dict[str, Claim]:
        """The most epochs that `minutes` have room for, by what two of them take."""
        root = self.small({"trial": best(self.sizes, 2, compiled=self.compile)})
        trial = train(root, "trial")
        epoch = trial.epochs[1] - trial.epochs[0]
        # the trial's other seconds come again
        epochs = max(2, int((minutes * 60 - (trial.seconds - 2 * epoch)) / epoch))
        root = self.small({"best": best(self.sizes, epochs, compiled=self.compile)})
        done = self.train(root, "best", f"best: {self.sizes.best_model}, {epochs} epochs")
        error = 1 - test_accuracy(root, "best")[0]
        return {
            f"best in {minutes:g} minutes: whole": claim([done.seconds], goal=minutes * 60, unit="s"),
            f"best in {minutes:g} minutes: test error": claim([error], goal=0.023, unit=""),
        }

    def extras(self, runs: int) -> dict[str, Claim]:
        """What mixing and automatic augmentation add to a step."""
        sizes, variants = self.sizes, extras(self.sizes)
        at_small = {name: small(sizes, sizes.extra_epochs, **changes) for name, changes in variants.items()}
        at_large = {
            name: recipe(**large(sizes) | {"epochs": sizes.extra_epochs} | changes)
            for name, changes in variants.items()
        }
        projects = {f"{sizes.small_model}, {sizes.small} px": self.small(at_small)}
        if sizes is not SMOKE:
            steps = self.project(sizes.large, sizes.step_pictures, at_large)
            projects[f"{sizes.large_model}, {sizes.large} px"] = steps.root
        claims: dict[str, Claim] = {}
        for title, root in projects.items():
            rates: dict[str, list[float]] = {name: [] for name in variants}
            for _ in range(runs):
                for name in variants:
                    rates[name].append(self.train(root, name, f"{title}, {name}").rate)
            seconds = {name: [1000 / rate for rate in found] for name, found in rates.items()}
            plain = seconds.pop("plain")
            for name, found in seconds.items():
                claims[f"{title}: 1,000 pictures with {name}"] = claim(found, peer=plain, goal=EXTRA_GOAL, unit="s")
        return claims

    def augmentation(self) -> None:
        """The table of both devices."""
        from devices import compare, show

        from pipelines.params.augment import AugmentPolicy

        found = {name: AugmentPolicy.model_validate_json(json.dumps(one)) for name, one in policies().items()}
        sizes = sorted({self.sizes.small, self.sizes.large})
        show(compare(found, image_sizes=sizes, batch_size=self.sizes.large_batch, seconds=self.sizes.seconds))


def show_memory(memory: dict[str, tuple[float, float]]) -> None:
    """The table of every training."""
    print(f"\n{'largest memory':40} {'process MB':>11} {'GPU MB':>9}")
    for title, (process, gpu) in memory.items():
        print(f"{title:40} {process:11,.0f} {gpu:9,.0f}")


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cifar", type=Path, nargs="?")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--best-minutes", type=float, default=10.0)
    parser.add_argument("--runs", type=int, default=1, help="of the extras")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--scratch", type=made_folder)
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    if not options.cifar and not options.smoke:
        parser.error("give the folder or the tar of CIFAR-10, or --smoke")
    sys.path.insert(0, str(ROOT))
    import torch

    gpu = torch.cuda.is_available()
    if not gpu and not options.smoke:
        raise SystemExit("torch finds no NVIDIA GPU here: only --smoke runs without one")
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name() if gpu else 'no GPU'}")
    claims: dict[str, Claim] = {}
    with tempfile.TemporaryDirectory(dir=options.scratch) as temporary:
        scratch = Path(temporary).resolve()
        cifar = draw_pictures(scratch / "drawn") if options.smoke else cifar_folder(options.cifar, scratch)
        bench = Bench(scratch, cifar, SMOKE if options.smoke else FULL, options.weights, options.compile)
        for part in options.parts:
            match part:
                case "fine_tune":
                    claims |= bench.fine_tune()
                case "scratch":
                    claims |= bench.from_scratch(0.0 if options.smoke else options.best_minutes)
                case "extras":
                    claims |= bench.extras(options.runs)
                case "augmentation":
                    bench.augmentation()
    if claims:
        show_memory(bench.memory)
        report(claims)


if __name__ == "__main__":
    main()
