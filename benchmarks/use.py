"""`miwake predict` beside the bare network and beside the loop that one would write by hand.

    python benchmarks/use.py --project FOLDER --pictures FOLDER [--num 512] [--runs 3]

`first answer`: the whole command for one picture, imports and networks loaded, beside Python importing torch and timm.
`bare network`: the same networks on squares that lie in memory, in batches of 32. `miwake predict` reads and decodes
files besides, so that its goal is 1 / .9 of that time.
`plain loop`: torch, Pillow and torchvision's transforms in one thread, batches of 32, the same network and views.
`memory`: of the whole command for all pictures, beside that for a quarter of them.

FOLDER of --project is one that has run, or a model folder. The three are run in turn; where fewer than --num pictures
are there, they are taken again.
"""

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import measure
import numpy as np
import project  # noqa: F401  (finds pipelines)

from pipelines.use.classifier import Classifier, load_classifier, prepare
from pipelines.use.model_folder import read_model
from pipelines.use.pictures import Picture
from pipelines.use.predict import BATCH, predict

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--num", type=int, default=512)
    parser.add_argument("--runs", type=int, default=3)
    words = parser.parse_args()
    found = sorted(path for path in words.pictures.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        raise SystemExit(f"{words.pictures} holds no picture ({', '.join(sorted(SUFFIXES))}): name another folder")
    paths = list(itertools.islice(itertools.cycle(found), words.num))
    classifier = load_classifier(read_model(words.project), device="cpu")
    pictures = [Picture(str(path), path.read_bytes) for path in paths]
    squares = np.stack([prepare(path.read_bytes(), classifier.info) for path in paths])

    def ours() -> None:
        for _ in predict(classifier, pictures):
            pass

    def bare() -> None:
        for start in range(0, len(squares), BATCH):
            classifier.answer(squares[start : start + BATCH])

    loop = plain_loop(classifier, paths)
    for work in (ours, bare, loop):  # first use of threads and memory
        work()
    seconds: dict[str, list[float]] = {"ours": [], "bare": [], "loop": []}
    for _ in range(words.runs):
        for name, work in (("ours", ours), ("bare", bare), ("loop", loop)):
            started = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - started)
    per_thousand = {name: [1000 * one / len(paths) for one in some] for name, some in seconds.items()}
    one, imports, quarter, whole = commands(words.project, paths, words.runs)
    measure.report(
        {
            "1,000 pictures, bare network": measure.claim(
                per_thousand["ours"], goal=1 / 0.9, unit="s", peer=per_thousand["bare"]
            ),
            "1,000 pictures, plain loop": measure.claim(
                per_thousand["ours"], goal=1.0, unit="s", peer=per_thousand["loop"]
            ),
            "first answer": measure.claim([run.seconds for run in one], goal=4.0, unit="s"),
            "first answer, torch and timm": measure.claim(
                [run.seconds for run in one], goal=1.5, unit="s", peer=[run.seconds for run in imports]
            ),
            "memory, a quarter of the pictures": measure.claim(
                [run.peak_mb for run in whole], goal=1.05, unit="MB", peer=[run.peak_mb for run in quarter]
            ),
        }
    )


def plain_loop(classifier: Classifier, paths: list[Path]) -> Callable[[], None]:
    """What the tutorials of torchvision do, of the first member alone; the others would be asked in the same way."""
    import torch
    from PIL import Image
    from torchvision import transforms

    member = classifier.explained
    change = transforms.Compose(
        [
            transforms.Resize((member.image_size, member.image_size)),
            transforms.ToTensor(),
            transforms.Normalize(member.spec.mean, member.spec.std),
        ]
    )

    @torch.inference_mode()
    def loop() -> None:
        for start in range(0, len(paths), BATCH):
            images = []
            for path in paths[start : start + BATCH]:
                with Image.open(path) as image:
                    images.append(change(image.convert("RGB")))
            batch = torch.stack(images)
            for views in range(len(member.tta)):
                inputs = batch.flip(3) if views % 2 else batch
                with torch.autocast("cpu", torch.bfloat16, enabled=member.precision == "bfloat16"):
                    member.module(inputs).softmax(dim=1)

    return loop


def commands(model: Path, paths: list[Path], runs: int) -> tuple[list[measure.Run], ...]:
    """The whole command for one picture; what it imports alone; the command for a quarter of all pictures, and all."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        (root / "all").mkdir()
        (root / "quarter").mkdir()
        for number, path in enumerate(paths):
            for folder in ("all", "quarter") if number % 4 == 0 else ("all",):
                (root / folder / f"{number:06d}{path.suffix}").write_bytes(path.read_bytes())
        command = [sys.executable, "-m", "pipelines.cli", "predict", "--model", str(model.absolute())]
        command += ["--device", "cpu", "--out", str(root / "x.csv")]
        named = (
            [*command, str(paths[0].absolute())],
            [sys.executable, "-c", "import torch, timm"],
            [*command, str(root / "quarter")],
            [*command, str(root / "all")],
        )
        found: tuple[list[measure.Run], ...] = ([], [], [], [])
        for _ in range(runs):
            for some, words in zip(found, named, strict=True):
                some.append(measure.run(words, cwd=root))
        return found


if __name__ == "__main__":
    main()
