"""Ingest beside a plain Pillow loop that walks, reads, hashes and decodes: whole processes, in turn, one core each.

    python benchmarks/ingest.py [FOLDER] [--label-from last_folder] [--runs 5]

FOLDER holds a folder of pictures for each class; without it two sets are drawn: 20,000 pictures of 32 px and 1,000
of 1024x768. Ingest does more than the loop: it also makes thumbnails and writes every byte into a shard. Prints a
table, then one JSON line.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from measure import Claim, Run, claim, report, run

ROOT = Path(__file__).resolve().parents[1]
INGEST = """
import sys
from pathlib import Path
from pipelines.core.params.ingest import IngestParams
from pipelines.ingest import ingest
out = Path(sys.argv[2])
params = IngestParams.model_validate_json(sys.argv[1])
print(ingest(params, root=Path(), cache=out.with_name("cache"), out_dir=out, workers=1))
"""


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--label-from", choices=("first_folder", "last_folder", "whole_path"), default="last_folder")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    claims: dict[str, Claim] = {}
    with tempfile.TemporaryDirectory() as scratch:
        if options.folder:
            claims |= compare(
                options.folder.name, options.folder.resolve(), options.label_from, Path(scratch), options.runs
            )
        else:
            for name, count, size in (("drawn, 32 px", 20_000, (32, 32)), ("drawn, 1024x768", 1000, (1024, 768))):
                folder = draw(Path(scratch) / name, count, size)
                claims |= compare(name, folder, options.label_from, Path(scratch), options.runs)
    report(claims)


def compare(name: str, folder: Path, label_from: str, scratch: Path, runs: int) -> dict[str, Claim]:
    """Run ingest and the loop in turn; one round before, unmeasured, warms the page cache for both."""
    source = {"kind": "folder", "path": str(folder), "label_from": label_from, "symlinks": "skip", "hidden": "skip"}
    section = {
        "snapshot": "1",
        "sources": [source],
        "download": {
            "contact": "",
            "connections": 1,
            "connections_per_host": 1,
            "delay_seconds": 0.0,
            "timeout_seconds": 10.0,
            "tries": 1,
            "max_wait_seconds": 1.0,
            "max_redirects": 0,
            "robots": "obey",
            "open_hosts": [],
        },
        "crop": {"kind": "none"},
        "max_file_bytes": 1 << 26,
        "max_pixels": 100_000_000,
        "min_side": 8,
        "shard_bytes": 1 << 28,
    }
    ours: list[Run] = []
    peer: list[Run] = []
    for _ in range(runs + 1):
        ours.append(run([sys.executable, "-c", INGEST, json.dumps(section), str(scratch / "out")], cwd=ROOT))
        peer.append(run([sys.executable, str(ROOT / "benchmarks" / "pillow_loop.py"), str(folder)], cwd=ROOT))
    ours, peer = ours[1:], peer[1:]
    return {
        f"ingest of {name}, beside Pillow": claim(
            [r.seconds for r in ours], peer=[r.seconds for r in peer], goal=0.6, unit="s"
        ),
        f"ingest of {name}, peak memory": claim([r.peak_mb for r in ours], goal=600, unit="MB"),
    }


def draw(folder: Path, count: int, size: tuple[int, int]) -> Path:
    """Draw `count` JPEGs of smooth random pictures in ten classes; the same ones every time."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(42)
    for index in range(count):
        path = folder / f"class-{index % 10}" / f"{index:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = random.integers(0, 256, (max(4, size[1] // 32), max(4, size[0] // 32), 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC), np.int16)
        grain = random.integers(-6, 7, smooth.shape, dtype=np.int16)  # as much detail as a photograph: 150 KB
        Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8)).save(path, quality=90)
    return folder


if __name__ == "__main__":
    main()
