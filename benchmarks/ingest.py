"""Ingest beside plain loops that walk, read, hash and decode: whole processes, in turn, on one core or as said.

    python benchmarks/ingest.py [FOLDER] [--label-from last_folder] [--runs 5] [--memory] [--million]

FOLDER holds a folder of small pictures for each class, such as CIFAR-10's 60,000 JPEGs (cifar10.tar.gz unpacked);
without it 20,000 pictures of 32 px are drawn. 1,000 pictures of 1024x768 are always drawn. Ingest does more than the
loops: it also makes thumbnails and figures and writes every byte into a shard. The opencv loop runs where opencv can
be installed into a temporary folder (pip or uv). Measured are

- one process beside Pillow and opencv, on the small pictures;
- one thread beside them on the large ones, where decoding alone, at a quarter of the size, is more than half of what
  Pillow's whole loop takes; and ingest as it comes, in threads on all cores, which has the goal;
- the same with the files and free memory at hand before each run. A virtual machine that returns free memory to its
  host pays several times as much for every page that it touches first, and of all these only ingest writes; the last
  line says whether this is such a machine;
- two processes beside one, on the small pictures and on five times as many, hard-linked. What a process takes to start
  and import is a sixth of what all of 60,000 files take: only the larger set can show how the rest scales, and has the
  goal; on the smaller one a second process must do no harm. The first process is one of the two and writes besides,
  so both are measured on one core too, where `taskset` can see to that;
- a run with nothing changed, and one with one file in a hundred new, beside the first run;
- the peak memory of each;
- --memory: peak memory for ten times the small pictures, hard-linked: first run, nothing changed, grown;
- --million: the time and memory of 1,000,000 drawn pictures of 32 px (drawing them takes about 15 minutes).

Prints a table, then one JSON line.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from measure import Claim, Run, claim, made_folder, report, run

ROOT = Path(__file__).resolve().parents[1]
_TOUCH = """
import mmap, time
with mmap.mmap(-1, 1 << 30) as memory:
    started = time.perf_counter()
    for place in range(0, 1 << 30, mmap.PAGESIZE):
        memory[place] = 1
    print((time.perf_counter() - started) * 1e6 * mmap.PAGESIZE / (1 << 30))
"""


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--label-from", choices=("first_folder", "last_folder", "whole_path"), default="last_folder")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--million", action="store_true")
    parser.add_argument("--scratch", type=made_folder, help="where to work; hard links need FOLDER's file system")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.scratch) as temporary:
        scratch = Path(temporary)
        name, small = f"{options.folder}", options.folder and options.folder.resolve()
        if small is None:
            name, small = "20,000 drawn of 32 px", draw(scratch / "small", 20_000, (32, 32))
        large = draw(scratch / "large", 1000, (1024, 768))
        bench = Bench(scratch, options.label_from, options.runs, opencv(scratch / "opencv"))
        claims = bench.loops(name, small, goal=0.5)
        claims |= bench.loops("1,000 drawn of 1024x768, one thread", large, goal=1.0)
        claims |= bench.loops("1,000 drawn of 1024x768, all cores", large, goal=0.6, workers=all_cores())
        name_at_hand = "1,000 drawn of 1024x768, all cores, memory at hand"
        claims |= bench.loops(name_at_hand, large, goal=0.6, workers=all_cores(), at_hand=True)
        claims |= bench.cores(name, small, goal=1.0)
        # 1.6 times as fast is 0.625 of the time
        claims |= bench.cores(f"{name}, five times", link_tree(small, scratch / "fivefold", times=5), goal=0.625)
        claims |= bench.reruns(name, small)
        if options.memory:
            claims |= bench.tenfold(name, small)
        if options.million:
            claims |= bench.once("1,000,000 drawn of 32 px", draw(scratch / "million", 1_000_000, (32, 32)))
        first, again = first_touch(), first_touch()
    report(claims)
    print(f"a page of memory, touched first: {first:.1f} us; touched first a moment later: {again:.1f} us")


class Bench:
    """Runs ingest and its peers.

    Args:
        scratch: a folder for outputs.
        label_from: of the folder source.
        runs: of each, after one unmeasured that warms the page cache.
        site: where opencv was installed; None for none.
    """

    def __init__(self, scratch: Path, label_from: str, runs: int, site: Path | None) -> None:
        self.scratch, self.label_from, self.runs, self.site = scratch, label_from, runs, site

    def ingest(self, folder: Path, *, workers: int = 1, fresh: bool = True, before: Sequence[str] = ()) -> Run:
        """One run; `fresh`: with nothing in the cache; `before`: the command that runs it."""
        from ruamel.yaml import YAML

        project = self.scratch / "project"
        if fresh:
            shutil.rmtree(project, ignore_errors=True)
        project.mkdir(exist_ok=True)
        params = YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text(encoding="utf-8"))
        number = len(list(project.glob(".miwake/snapshots/*")))  # a name keeps its files
        params["ingest"] = section(folder, self.label_from) | {"snapshot": f"{number + 1}"}
        (project / "params.yaml").write_text(json.dumps(params), encoding="utf-8")
        command = [*before, sys.executable, "-m", "pipelines.ingest"]
        environment = {"MIWAKE_WORKERS": str(workers), "MIWAKE_DASK": "", "PYTHONPATH": str(ROOT)}
        return run(command, cwd=project, env=environment)

    def loop(self, name: str, folder: Path, *, path: str = "") -> Run:
        command = [sys.executable, str(ROOT / "benchmarks" / name), str(folder)]
        return run(command, cwd=ROOT, env={"PYTHONPATH": path})

    def loops(
        self, name: str, folder: Path, *, goal: float, workers: int = 1, at_hand: bool = False
    ) -> dict[str, Claim]:
        """Ingest beside the plain loops; `at_hand`: with files and free memory at hand before each run."""
        ours: list[Run] = []
        pillow: list[Run] = []
        cv: list[Run] = []
        turns = [
            (ours, partial(self.ingest, folder, workers=workers)),
            (pillow, partial(self.loop, "pillow_loop.py", folder)),
        ]
        if self.site:
            turns.append((cv, partial(self.loop, "opencv_loop.py", folder, path=str(self.site))))
        for _ in range(self.runs + 1):
            for found, start in turns:
                if at_hand:
                    take_to_hand(folder)
                found.append(start())
        seconds = [r.seconds for r in ours[1:]]
        claims = {
            f"{name}: beside Pillow": claim(seconds, peer=[r.seconds for r in pillow[1:]], goal=goal, unit="s"),
            f"{name}: peak memory": claim([r.peak_mb for r in ours[1:]], goal=600, unit="MB"),
        }
        if cv:
            # no goal was set: opencv decodes faster than Pillow, and does nothing else
            claims[f"{name}: beside opencv"] = claim(seconds, peer=[r.seconds for r in cv[1:]], goal=1.5, unit="s")
        return claims

    def cores(self, name: str, folder: Path, *, goal: float) -> dict[str, Claim]:
        """Two processes beside one, and beside one that has a single core."""
        taskset = shutil.which("taskset")
        one, two, bound = [], [], []
        for _ in range(self.runs + 1):
            one.append(self.ingest(folder))
            two.append(self.ingest(folder, workers=2))
            if taskset:
                bound.append(self.ingest(folder, before=[taskset, "--cpu-list", "0"]))
        ours = [r.seconds for r in two[1:]]
        claims = {
            f"{name}: two processes beside one": claim(ours, peer=[r.seconds for r in one[1:]], goal=goal, unit="s"),
            f"{name}: two processes, peak memory": claim([r.peak_mb for r in two[1:]], goal=600, unit="MB"),
        }
        if bound:
            peer = [r.seconds for r in bound[1:]]
            claims[f"{name}: two cores beside one"] = claim(ours, peer=peer, goal=goal, unit="s")
        return claims

    def reruns(self, name: str, folder: Path) -> dict[str, Claim]:
        """Nothing changed, and grown by one in a hundred, beside the first run."""
        first, nothing, grown = [], [], []
        copy = link_tree(folder, self.scratch / "growing", times=1)
        more = sorted(path for path in copy.rglob("*") if path.is_file())[::100]
        for number in range(self.runs + 1):
            first.append(self.ingest(copy))
            nothing.append(self.ingest(copy, fresh=False))
            for path in more:
                target = path.with_name(f"{path.stem}-{number}{path.suffix}")
                shutil.copyfile(path, target)
                os.utime(target, (1_600_000_000, 1_600_000_000))  # a file younger than 2 s would be read again
            grown.append(self.ingest(copy, fresh=False))
        peer = [r.seconds for r in first[1:]]
        return {
            f"{name}: nothing changed": claim([r.seconds for r in nothing[1:]], peer=peer, goal=0.35, unit="s"),
            f"{name}: 1 % new": claim([r.seconds for r in grown[1:]], peer=peer, goal=0.5, unit="s"),
            f"{name}: nothing changed, peak memory": claim([r.peak_mb for r in nothing[1:]], goal=600, unit="MB"),
            f"{name}: 1 % new, peak memory": claim([r.peak_mb for r in grown[1:]], goal=600, unit="MB"),
        }

    def tenfold(self, name: str, folder: Path) -> dict[str, Claim]:
        """Peak memory for ten times the files."""
        tree = link_tree(folder, self.scratch / "tenfold", times=10)
        return self.once(f"{name}, tenfold", tree)

    def once(self, name: str, folder: Path) -> dict[str, Claim]:
        """Time and memory of one first run, one with nothing changed, and one with a new file in each class."""
        first, nothing = self.ingest(folder), self.ingest(folder, fresh=False)
        for place in sorted({path.parent for path in folder.rglob("*") if path.is_file()}):
            path = min(path for path in place.iterdir() if path.is_file())
            shutil.copyfile(path, path.with_name("new" + path.suffix))
        grown = self.ingest(folder, fresh=False)
        claims = {
            f"{name}: first run, peak memory": claim([first.peak_mb], goal=600, unit="MB"),
            f"{name}: nothing changed, peak memory": claim([nothing.peak_mb], goal=600, unit="MB"),
            f"{name}: grown, peak memory": claim([grown.peak_mb], goal=600, unit="MB"),
        }
        for what, found in (("nothing changed", nothing), ("grown", grown)):
            claims[f"{name}: {what}"] = claim([found.seconds], peer=[first.seconds], goal=0.35, unit="s")
        return claims


def all_cores() -> int:
    """As many as ingest would use by itself."""
    sys.path.insert(0, str(ROOT))
    from pipelines.parallel.pool import num_workers

    return num_workers()


def take_to_hand(folder: Path) -> None:
    """Read every file, and touch as much memory as any of the runs needs."""
    for path in folder.rglob("*"):
        if path.is_file():
            path.read_bytes()
    first_touch()


def first_touch() -> float:
    """Touch 1 GiB and give it back: microseconds a page. In a process of its own: the peak memory of a process that is
    started here would never be below this one's."""
    found = subprocess.run([sys.executable, "-c", _TOUCH], capture_output=True, text=True, check=True)
    return float(found.stdout)


def section(folder: Path, label_from: str) -> dict[str, object]:
    """The params of ingest."""
    source = {"kind": "folder", "path": str(folder), "label_from": label_from, "symlinks": "skip", "hidden": "skip"}
    return {
        "snapshot": "1",
        "sources": [source],
        "download": {
            "contact": "",
            "connections": 1,
            "connections_per_host": 1,
            "delay_seconds": 0.0,
            "timeout_seconds": 10.0,
            "max_attempts": 1,
            "max_wait_seconds": 1.0,
            "max_redirects": 0,
            "robots": "obey",
            "private_hosts": [],
        },
        "crop": {"kind": "none"},
        "max_file_bytes": 1 << 26,
        "max_pixels": 100_000_000,
        "min_side": 8,
        "shard_bytes": 1 << 28,
    }


def opencv(site: Path) -> Path | None:
    """Install opencv into a folder of its own; None, with a word, where that cannot be done."""
    package = "opencv-python-headless"
    installers = (
        ["uv", "pip", "install", "--quiet", "--python", sys.executable],
        [sys.executable, "-m", "pip", "install", "-qq"],
    )
    for installer in installers:
        command = [*installer, "--no-deps", "--target", str(site), package]
        if shutil.which(command[0]) and subprocess.run(command, capture_output=True, check=False).returncode == 0:
            return site
    print(f"{package} cannot be installed: measured without the opencv loop", file=sys.stderr)
    return None


def link_tree(folder: Path, target: Path, *, times: int) -> Path:
    """Hard links (or copies) of every file of `folder`, so many times over, each time below a folder of its own."""
    for number in range(times):
        copy = target / str(number) if times > 1 else target
        try:
            shutil.copytree(folder, copy, copy_function=os.link)
        except shutil.Error:
            shutil.copytree(folder, copy, dirs_exist_ok=True)
    return target


def draw(folder: Path, number: int, size: tuple[int, int]) -> Path:
    """Draw JPEGs of smooth random pictures in ten classes; the same ones every time."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(42)
    for index in range(number):
        path = folder / f"class-{index % 10}" / f"{index:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = random.integers(0, 256, (max(4, size[1] // 32), max(4, size[0] // 32), 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC), np.int16)
        grain = random.integers(-6, 7, smooth.shape, dtype=np.int16)  # as much detail as a photograph: 150 KB
        Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8)).save(path, quality=90)
    return folder


if __name__ == "__main__":
    main()
