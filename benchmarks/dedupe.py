"""Dedupe beside imagededup, imagehash, cleanvision and faiss: recall, precision and time on planted copies.

    python benchmarks/dedupe.py CIFAR [--edits NAME=FOLDER] [--crowd 1000000] [--runs 3] [--skip-peers]

CIFAR holds train/<class>/*.jpg and test/<class>/*.jpg of CIFAR-10. The copies are planted by peers_dedupe/plant.py:
500 each of five kinds among 12,500 and among 62,500 pictures, and every kind x strength with `--edits`, which also
plants different things (peers_dedupe/different.py) among the same pictures. Peers are
installed into a temporary folder; one that cannot be is skipped. Ours is ingest and dedupe together, from the files to
duplicates.csv, with nothing left of an earlier run. Both sides are whole processes, imports included, timed from
outside, in turn, `--runs` times; medians; byte code is made before, untimed. "inside" is what a peer's own work takes
without its import. Searches of random hashes are timed inside alone. Prints tables, then one JSON line.

A pair counts as reported where dedupe would drop one of the two: kinds exact, pixels and near. Pairs of kind recut and
alike, of which both stay in one group, are scored in lines of their own, together with the former.
"""

import argparse
import csv
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent / "peers_dedupe"))
from judge import Figures, judge, read_truth
from measure import Claim, Run, claim, report, run
from plant import EDITS, FIVE, plant
from rivals import IMPORTS, PEERS, ROOT, PeerRun, install, peer, run_env, write_byte_code

PER_KIND = 500
STAGES = """
import json, sys
from pathlib import Path
from pipelines.params.dedupe import DedupeParams
from pipelines.params.ingest import IngestParams
from pipelines.dedupe import dedupe
from pipelines.ingest import ingest
sections, out = json.loads(sys.argv[1]), Path(sys.argv[2])
if sections["ingest"]:
    ingest(IngestParams.model_validate_json(json.dumps(sections["ingest"])), root=Path(), cache=out, out_dir=out / "in")
source = Path(sections["from"]) if sections["from"] else out / "in"
params = DedupeParams.model_validate_json(json.dumps(sections["dedupe"]))
print(dedupe(params, root=out, cache=out, ingest_dir=source, decisions_dir=out, out_dir=out / "out"))
"""
SEARCH = """
import sys, time
import numpy as np
from pipelines.dedupe.hashes import HashIndex
hashes = np.load(sys.argv[1])
started = time.perf_counter()
index = HashIndex(hashes)
rows = set(range(0, len(hashes), max(1, len(hashes) // 2000)))
total, few = 0, set()
for one, other in index.near(hashes, 7):
    total += len(one)
    few |= {pair for pair in zip(one.tolist(), other.tolist(), strict=True) if pair[0] in rows and pair[0] != pair[1]}
print(time.perf_counter() - started, len({tuple(sorted(pair)) for pair in few}))
"""
DEDUPE = {
    "near": True,
    "mirror": True,
    "rotations": False,
    "min_score": 0.95,
    "duplicates": "drop",
    "recrops": "keep",
    "label_conflicts": "hold",
    "embeddings": None,
    "reference_sets": [],
}


def ingest_section(folder: Path) -> dict[str, object]:
    """Ingest's params for one folder of class folders."""
    source = {"kind": "folder", "path": str(folder), "label_from": "first_folder", "symlinks": "skip", "hidden": "skip"}
    whole = {"contact": "", "connections": 1, "connections_per_host": 1, "delay_seconds": 0.0, "timeout_seconds": 9.0}
    retry = {"max_attempts": 1, "max_wait_seconds": 1.0, "max_redirects": 0, "robots": "obey", "private_hosts": []}
    limits = {"max_file_bytes": 1 << 26, "max_pixels": 100_000_000, "min_side": 8, "shard_bytes": 1 << 28}
    return {"snapshot": "1", "sources": [source], "download": whole | retry, "crop": {"kind": "none"}, **limits}


def ours(folder: Path | None, out: Path, *, ingested: Path | None = None, turns: bool = False) -> Run:
    """One process that ingests `folder`, or takes what was ingested, and dedupes it."""
    sections = {
        "ingest": None if folder is None else ingest_section(folder),
        "from": None if ingested is None else str(ingested),
        "dedupe": DEDUPE | {"rotations": turns},
    }
    out.mkdir(parents=True, exist_ok=True)
    return run([sys.executable, "-c", STAGES, json.dumps(sections), str(out)], cwd=ROOT)


def reported(duplicates: Path, kinds: tuple[str, ...]) -> list[tuple[str, str]]:
    """The pairs of some kinds."""
    with duplicates.open(newline="", encoding="utf-8") as file:
        return [(row["path_a"], row["path_b"]) for row in csv.DictReader(file) if row["kind"] in kinds]


def show(name: str, figures: Figures, seconds: float, inside: float | None = None) -> None:
    """One line of the table."""
    kinds = "  ".join(f"{figures.recall[kind]:5.3f}" for kind in FIVE)
    print(
        f"{name:28} {kinds}  {figures.all_recall:6.3f} {figures.precision:9.3f} {figures.aligned_precision:8.3f} "
        f"{figures.pairs:7,} {seconds:8.1f} {'' if inside is None else f'{inside:.1f}':>8}"
    )


def in_turn(folder: Path, out: Path, site: Path, rivals: list[str], runs: int) -> dict[str, list[PeerRun]]:
    """`runs` whole processes of ours and of each rival, one after the other; a rival that cannot run is left out."""
    write_byte_code("import pipelines.ingest, pipelines.dedupe", site)
    for rival in rivals:
        write_byte_code(f"import {IMPORTS[rival]}", site)
    taken: dict[str, list[PeerRun]] = {name: [] for name in ("ours", *rivals)}
    for _ in range(runs):
        shutil.rmtree(out, ignore_errors=True)  # ingest would find that nothing changed
        seconds = ours(folder, out).seconds
        taken["ours"].append(PeerRun(seconds, seconds))
        for rival in rivals:
            spent = peer(rival, folder, out.with_name(f"{rival}.csv"), site) if rival in taken else None
            if spent is None:
                taken.pop(rival, None)
            else:
                taken[rival].append(spent)
    return taken


def five(cifar: Path, scratch: Path, site: Path, runs: int, peers: bool) -> dict[str, Claim]:
    """Recall, precision and time among 12,500 and 62,500."""
    sets = {"12,500": [cifar / "test"], "62,500": [cifar / "test", cifar / "train"]}
    plant(FIVE, scratch / "five", sets, PER_KIND)
    claims: dict[str, Claim] = {}
    # among 62,500 imagededup's search would take a quarter of an hour, cleanvision's two minutes
    for name, rivals, most, goals in (
        ("12,500", ["imagededup", "imagehash", "cleanvision"], 0.1, (0.97, 0.97)),
        ("62,500", ["imagehash"], 2.0, (0.95, 0.9)),
    ):
        folder, truth = scratch / "five" / name, read_truth(scratch / "five" / f"{name}.truth.csv")
        able = [rival for rival in rivals if peers and install(rival, site)]
        taken = in_turn(folder, scratch / "run" / name, site, able, runs)
        print(f"\n{name} pictures{'':13}", *(f"{kind:>6}" for kind in FIVE), end="")
        print("  recall precision  aligned   pairs  seconds   inside")
        times = [one.whole for one in taken["ours"]]
        duplicates = scratch / "run" / name / "out" / "duplicates.csv"
        kinds = ("exact", "pixels", "near")
        copies = judge(folder, reported(duplicates, kinds), truth)
        show("ours, copies", copies, statistics.median(times))
        for words, more in (("other cuts", ("recrop",)), ("look-alikes", ("recrop", "similar"))):
            figures = judge(folder, reported(duplicates, kinds + more), truth)
            show(f"... and {words}", figures, statistics.median(times))
        missed = [1 - copies.all_recall, 1 - copies.precision]
        claims[f"{name}: planted copies missed"] = claim([missed[0]], goal=1 - goals[0], unit="")
        claims[f"{name}: false pairs, plain judge"] = claim([missed[1]], goal=1 - goals[1], unit="")
        for rival in [rival for rival in rivals if rival in taken]:
            theirs = [one.whole for one in taken[rival]]
            with (scratch / "run" / f"{rival}.csv").open(newline="", encoding="utf-8") as file:
                figures = judge(folder, [(one, second) for one, second in csv.reader(file)], truth)
            show(rival, figures, statistics.median(theirs), statistics.median(one.inside for one in taken[rival]))
            if rival == rivals[0]:
                claims[f"{name}: ingest and dedupe, beside {rival}"] = claim(times, peer=theirs, goal=most, unit="s")
    return claims


def search(scratch: Path, site: Path, peers: bool) -> dict[str, Claim]:
    """All pairs of 1,000,000 random hashes, of which some are near others, within 7 bits."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, 1_000_000, dtype=np.uint64)
    bits = np.uint64(1) << rng.integers(0, 64, (100_000, 7)).astype(np.uint64)
    hashes[:100_000] = hashes[-100_000:] ^ np.bitwise_or.reduce(bits, axis=1)
    np.save(scratch / "hashes.npy", hashes)
    done = subprocess.run(
        [sys.executable, "-c", SEARCH, str(scratch / "hashes.npy")],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    seconds, count = done.stdout.split()
    print(f"\nsearch of 1,000,000 hashes within 7 bits: {float(seconds):.1f} s, {count} pairs of 2,000 of them")
    if not peers or not install("faiss", site):
        return {}
    theirs = peer("faiss", scratch / "hashes.npy", scratch / "faiss.csv", site)
    if theirs is None:
        return {}
    with (scratch / "faiss.csv").open(encoding="utf-8") as file:
        found = sum(1 for _ in file)
    print(f"faiss, flat binary index, 2,000 queries scaled to all: {theirs.inside:.1f} s, {found} pairs")
    beside = claim([float(seconds)], peer=[theirs.inside], goal=0.05, unit="s")
    return {"search of 1,000,000 hashes, beside faiss": beside}


def edits(given: list[str], scratch: Path) -> None:
    """The share of each kind x strength that is a copy, and that is at least in one group."""
    import pyarrow.parquet as pq

    share: dict[str, dict[str, str]] = {}
    for one in given:
        name, _, folder = one.partition("=")
        plant(EDITS, scratch / f"edits-{name}", {name: [Path(folder)]}, 60)
        out = scratch / "run" / f"edits-{name}"
        ours(scratch / f"edits-{name}" / name, out, turns=True)
        table = pq.read_table(out / "out" / "manifest.parquet", columns=["source_path", "best_id", "group"]).to_pydict()
        row_of = {path: row for row, path in enumerate(table["source_path"])}
        with (scratch / f"edits-{name}" / f"{name}.truth.csv").open(newline="", encoding="utf-8") as file:
            truth = [(row["kind"], row_of[row["original"]], row_of[row["copy"]]) for row in csv.DictReader(file)]
        for kind in EDITS:
            pairs = [(first, second) for its, first, second in truth if its == kind]
            copy, group = (
                sum(table[column][first] == table[column][second] for first, second in pairs) / len(pairs)
                for column in ("best_id", "group")
            )
            share.setdefault(kind, {})[name] = f"{copy:.2f} / {group:.2f}"
    names = [one.partition("=")[0] for one in given]
    print(f"\n{'copy / in one group':34}", *(f"{name:>14}" for name in names))
    for kind, found in share.items():
        print(f"{kind:34}", *(f"{found[name]:>14}" for name in names))


def different(given: list[str], scratch: Path) -> dict[str, Claim]:
    """How many different things are taken for copies: real pictures with another part or colour, and drawn twins."""
    import pyarrow.parquet as pq
    from different import REAL, draw_twins, plant_different

    rows: dict[str, list[tuple[str, str, str]]] = {"drawn": draw_twins(scratch / "different" / "drawn", 104, 224, 0.3)}
    for one in given:
        name, _, folder = one.partition("=")
        rows[name] = plant_different(Path(folder), scratch / "different" / name, 60)
    false, total = 0, 0
    for name, pairs in rows.items():
        out = scratch / "run" / f"different-{name}"
        ours(scratch / "different" / name, out)
        table = pq.read_table(out / "out" / "manifest.parquet", columns=["source_path", "best_id"]).to_pydict()
        best = dict(zip(table["source_path"], table["best_id"], strict=True))
        found = Counter(kind for kind, one, other in pairs if best[one] == best[other])
        print(f"different things taken for copies, {name}:", dict(found), "of", dict(Counter(row[0] for row in pairs)))
        false, total = false + found.total() * (name != "drawn"), total + len(pairs) * (name != "drawn")
    return (
        {f"different of {len(REAL)} kinds, taken for copies": claim([false / total], goal=0.03, unit="")}
        if total
        else {}
    )


def crowd(cifar: Path, count: int, scratch: Path) -> dict[str, Claim]:
    """Time and memory of the stage on very many small pictures."""
    command = [
        sys.executable,
        str(PEERS / "crowd.py"),
        str(cifar / "test"),
        str(scratch / "crowd"),
        "--count",
        str(count),
    ]
    subprocess.run(command, cwd=ROOT, env=run_env(scratch), check=True)
    spent = ours(None, scratch / "run" / "crowd", ingested=scratch / "crowd")
    return {
        f"dedupe of {count:,} pictures": claim([spent.seconds], goal=600, unit="s"),
        f"dedupe of {count:,} pictures, peak memory": claim([spent.peak_mb], goal=4000, unit="MB"),
    }


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cifar", type=Path)
    parser.add_argument("--edits", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--crowd", type=int, default=0)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--skip-peers", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        site = scratch / "site"
        claims = five(options.cifar, scratch, site, options.runs, not options.skip_peers)
        claims |= search(scratch, site, not options.skip_peers)
        edits(options.edits, scratch)
        claims |= different(options.edits, scratch)
        if options.crowd:
            claims |= crowd(options.cifar, options.crowd, scratch)
        report(claims)


if __name__ == "__main__":
    main()
