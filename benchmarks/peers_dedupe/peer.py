"""One peer on one folder, in a process of its own: prints a JSON line with its seconds and writes the pairs it reports.

    python benchmarks/peers_dedupe/peer.py imagededup|imagehash|cleanvision FOLDER PAIRS_CSV
    python benchmarks/peers_dedupe/peer.py faiss HASHES_NPY PAIRS_CSV

Its seconds leave out the import; benchmarks/dedupe.py times the whole process too. imagehash has no search: its hashes
are compared all with all in numpy, 10 bits apart at most, as in imagededup's default. faiss searches a subsample of
2,000 queries; its seconds are scaled to all of them.
"""

import csv
import itertools
import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from plant import pictures_of

BITS = 10
RADIUS = 7
FAISS_QUERIES = 2000

Pairs = list[tuple[str, str]]


def imagededup(folder: Path) -> tuple[float, Pairs]:
    """PHash with its defaults: what its README shows."""
    from imagededup.methods import PHash  # type: ignore[import-not-found]  # installed by the benchmark

    started = time.perf_counter()
    method = PHash(verbose=False)
    encoded = method.encode_images(image_dir=str(folder), recursive=True)
    found = method.find_duplicates(encoding_map=encoded, scores=True)
    seconds = time.perf_counter() - started
    return seconds, [(name, other) for name, others in found.items() for other, _ in others]


def imagehash(folder: Path) -> tuple[float, Pairs]:
    """phash, then numpy."""
    import imagehash as package  # type: ignore[import-not-found]

    names = pictures_of(folder)
    started = time.perf_counter()
    hashes = np.array([int(str(package.phash(Image.open(folder / name))), 16) for name in names], np.uint64)
    pairs = []
    for row in range(len(hashes) - 1):
        near = np.flatnonzero(np.bitwise_count(hashes[row + 1 :] ^ hashes[row]) <= BITS)
        pairs += [(names[row], names[row + 1 + other]) for other in near.tolist()]
    return time.perf_counter() - started, pairs


def cleanvision(folder: Path) -> tuple[float, Pairs]:
    """Its two kinds of duplicates."""
    from cleanvision import Imagelab  # type: ignore[import-not-found]

    started = time.perf_counter()
    lab: Any = Imagelab(data_path=str(folder))
    lab.find_issues(issue_types={"exact_duplicates": {}, "near_duplicates": {}}, verbose=False)
    seconds = time.perf_counter() - started
    pairs: Pairs = []
    for kind in ("exact_duplicates", "near_duplicates"):
        for group in lab.info.get(kind, {}).get("sets", []):
            inside = [Path(path).resolve().relative_to(folder.resolve()).as_posix() for path in group]
            pairs += itertools.combinations(inside, 2)
    return seconds, pairs


def faiss(hashes: Path) -> tuple[float, Pairs]:
    """The flat binary index: every query with every hash."""
    import faiss as package  # type: ignore[import-not-found]

    every = np.load(hashes).view(np.uint8).reshape(-1, 8)
    package.omp_set_num_threads(2)
    index = package.IndexBinaryFlat(64)
    index.add(every)
    few = every[:: max(1, len(every) // FAISS_QUERIES)]
    started = time.perf_counter()
    # strictly within, so one more
    bounds, _, found = index.range_search(few, RADIUS + 1)
    seconds = (time.perf_counter() - started) * len(every) / len(few)
    rows = np.arange(0, len(every), max(1, len(every) // FAISS_QUERIES))
    query = np.repeat(rows, np.diff(bounds.astype(np.int64)))
    return seconds, [(str(one), str(other)) for one, other in zip(query.tolist(), found.tolist(), strict=True)]


def write(path: Path, pairs: Iterable[tuple[str, str]]) -> None:
    """Each pair once, the smaller first."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(sorted({tuple(sorted(pair)) for pair in pairs if pair[0] != pair[1]}))


if __name__ == "__main__":
    run = {"imagededup": imagededup, "imagehash": imagehash, "cleanvision": cleanvision, "faiss": faiss}[sys.argv[1]]
    spent, reported = run(Path(sys.argv[2]))
    write(Path(sys.argv[3]), reported)
    print(json.dumps({"seconds": spent, "pairs": len(reported)}))
