"""The main job and its parts as whole processes, beside the goals.

    python benchmarks/pipeline.py [--runs 3] [--pictures FOLDER]

FOLDER holds class folders of pictures, such as CIFAR-10's 60,000 JPEGs (cifar10.tar.gz unpacked): ingest in one
process is measured in turn with a plain Pillow loop over the same files, and `dvc repro` through split.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from measure import Claim, claim, report, run
from repository import ROOT, copy_repository, environment, folder_source, set_params

LIGHT_STAGES = ("ingest", "dedupe", "split", "report")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--pictures", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="miwake-") as scratch:
        claims = imports(arguments.runs) | main_job(Path(scratch), arguments.runs)
        if arguments.pictures:
            claims |= many_pictures(Path(scratch), arguments.pictures, arguments.runs)
    report(claims)


def imports(runs: int) -> dict[str, Claim]:
    """What a stage costs before it does anything."""
    found = {}
    for stage in LIGHT_STAGES:
        command = [sys.executable, "-c", f"import pipelines.{stage}"]
        run(command, cwd=ROOT, env=environment())  # byte code
        seconds = [run(command, cwd=ROOT, env=environment()).seconds for _ in range(runs)]
        found[f"import pipelines.{stage}"] = claim(seconds, goal=0.6, unit="s")
    return found


def main_job(scratch: Path, runs: int) -> dict[str, Claim]:
    """`dvc repro` of the committed params in a fresh copy, then again with nothing to do."""
    whole, nothing = [], []
    for number in range(runs):
        copy = copy_repository(scratch / f"main-{number}")
        whole.append(run(["dvc", "repro"], cwd=copy, env=environment()))
        nothing.append(run(["dvc", "repro"], cwd=copy, env=environment()))
    return {
        "dvc repro, fresh": claim([r.seconds for r in whole], goal=90, unit="s"),
        "dvc repro, fresh, peak memory": claim([r.peak_mb for r in whole], goal=2000, unit="MB"),
        "dvc repro, nothing to do": claim([r.seconds for r in nothing], goal=4, unit="s"),
    }


def many_pictures(scratch: Path, pictures: Path, runs: int) -> dict[str, Claim]:
    """Ingest beside a Pillow loop, in turn, and the way through split, on a folder of many pictures."""
    copy = copy_repository(scratch / "many")
    set_params(copy, ingest__sources=[folder_source(pictures)])
    run([sys.executable, "-m", "pipelines.params"], cwd=copy)
    one_process = {**environment(), "MIWAKE_WORKERS": "1"}
    ours, peer = [], []
    for _ in range(runs):
        ours.append(run([sys.executable, "-m", "pipelines.ingest"], cwd=copy, env=one_process))
        peer.append(run([sys.executable, str(ROOT / "benchmarks" / "pillow_loop.py"), str(pictures)], cwd=copy))
    through_split = []
    for number in range(runs):
        copy = copy_repository(scratch / f"many-{number}")
        set_params(copy, ingest__sources=[folder_source(pictures)])
        through_split.append(run(["dvc", "repro", "split"], cwd=copy, env=environment()))
    seconds = [r.seconds for r in ours]
    return {
        "ingest, one process": claim(seconds, goal=5, unit="s"),
        "ingest, one process, beside Pillow": claim(seconds, peer=[r.seconds for r in peer], goal=0.6, unit="s"),
        "ingest, one process, peak memory": claim([r.peak_mb for r in ours], goal=600, unit="MB"),
        "dvc repro split": claim([r.seconds for r in through_split], goal=15, unit="s"),
    }


if __name__ == "__main__":
    main()
