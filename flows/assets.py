"""What DVC's outputs are to Prefect: assets, with what dvc.lock, git and the tables say about them."""

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from flows.bridge import DvcStage

ROWS_OF = {
    "data/ingest": "manifest.parquet",
    "data/dedupe": "manifest.parquet",
    "data/split": "splits.parquet",
    "data/augment": "index.parquet",
}
"""the table of a folder whose rows are its pictures"""


def repository_name(root: Path) -> str:
    """The name of the repository: the last part of its remote `origin`, else its folder, which worktrees share."""
    remote = _git(root, "config", "--get", "remote.origin.url")
    if remote:
        return re.split(r"[/:]", remote.rstrip("/").removesuffix(".git"))[-1]
    common = _git(root, "rev-parse", "--git-common-dir")
    folder = (root / common).resolve().parent if common else root.resolve()
    return folder.name


def asset_key(repository: str, out: str) -> str:
    """`dvc://guitars/data/split`; what Prefect does not allow in a key becomes a dash."""
    return "dvc://" + re.sub(r"[^A-Za-z0-9._/@-]+", "-", f"{repository}/{out}")


def describe_outs(root: Path, stage: DvcStage) -> dict[str, dict[str, Any]]:
    """By output of `stage` what is known: digest, size, number of files, rows, accuracy, the code's commit."""
    locked = YAML(typ="safe").load((root / "dvc.lock").read_text(encoding="utf-8"))["stages"].get(stage.name, {})
    outs = {out["path"]: out for out in locked.get("outs", [])}
    commit = _git(root, "rev-parse", "--short", "HEAD")
    shared = {"stage": stage.name, **({"commit": commit} if commit else {})}
    metrics = root / "data" / "evaluate" / "metrics.json"
    if stage.name == "evaluate" and metrics.exists():
        shared["accuracy"] = json.loads(metrics.read_text(encoding="utf-8")).get("accuracy")
    found = {}
    for path in stage.outs:
        out = outs.get(path, {})
        rows = _rows(root / path / ROWS_OF[path] if path in ROWS_OF else root / path)
        found[path] = {
            **{name: out[name] for name in ("md5", "size", "nfiles") if name in out},
            **({} if rows is None else {"rows": rows}),
            **shared,
        }
    return found


def origin_of(root: Path, outs: Mapping[str, Mapping[str, Any]]) -> str:
    """Which commit first had these outputs: ", as in commit 1a2b3c4 of 2026-11-30"; "" where none has them."""
    digest = next((out["md5"] for out in outs.values() if "md5" in out), "")
    log = _git(root, "log", "--all", "--reverse", "--format=%h of %cs", f"-S{digest}", "--", "dvc.lock")
    return f", as in commit {log.splitlines()[0]}" if digest and log else ""


def _rows(path: Path) -> int | None:
    """The rows of a table; None where `path` is none."""
    if path.suffix == ".parquet" and path.is_file():
        import pyarrow.parquet as pq

        return int(pq.read_metadata(path).num_rows)
    if path.suffix == ".csv" and path.is_file():
        with path.open("rb") as file:
            return max(0, sum(1 for _ in file) - 1)
    return None


def _git(root: Path, *words: str) -> str:
    """What git prints; "" where it fails or is not there."""
    try:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
