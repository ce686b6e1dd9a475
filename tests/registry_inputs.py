"""A project that has run, in git and under DVC, with two commits that can each be a version."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from use_inputs import FOLDS, MEMBERS, shared_project

from pipelines.core.files import write_text

ROOT = Path(__file__).resolve().parent.parent

# the outputs alone: what ran stays, and nothing runs
DVC_YAML = """
stages:
  params: {cmd: "true", outs: [{data/params.yaml: {cache: false}}]}
  ingest: {cmd: "true", outs: [data/ingest]}
  dedupe: {cmd: "true", outs: [data/dedupe]}
  split: {cmd: "true", outs: [data/split]}
  augment: {cmd: "true", outs: [data/augment]}
"""


def git(repo: Path, *words: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *who, *words], cwd=repo, check=True, capture_output=True, text=True).stdout


def dvc(repo: Path, *words: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", *words], cwd=repo, check=True, capture_output=True)


def registry_project(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One commit; its data/evaluate/metrics.json is in git."""
    shutil.copytree(shared_project(tmp_path_factory).root, folder)
    text = DVC_YAML
    for member in MEMBERS:
        for fold in FOLDS:
            text += f'  {member}{fold}: {{cmd: "true", outs: [data/train/{member}-{fold}]}}\n'
    files = sorted(path.name for path in (folder / "data" / "evaluate").iterdir())
    kept = ", ".join(f"data/evaluate/{name}" for name in files if name not in ("metrics.json", "compared.csv"))
    text += (
        f'  evaluate: {{cmd: "true", outs: [{kept}], metrics: [{{data/evaluate/metrics.json: {{cache: false}}}}]}}\n'
    )
    write_text(folder / "dvc.yaml", text)
    write_text(folder / ".dvc" / "config", "[core]\n    analytics = false\n")
    write_text(folder / ".dvc" / ".gitignore", "/cache\n/tmp\n/config.local\n")
    write_text(folder / ".gitignore", ".miwake\n")
    git(folder, "init", "-q")
    dvc(folder, "commit", "-f", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "one")
    return folder


def another_run(repo: Path, title: str) -> None:
    """Commit a run whose first model differs from the last by what its figures say."""
    figures = repo / "data" / "evaluate" / "figures.json"
    found = json.loads(figures.read_text(encoding="utf-8"))
    found["accuracy"]["value"] = min(found["accuracy"]["value"] + 0.001, found["accuracy"]["high"])
    write_text(figures, json.dumps(found))
    write_text(repo / "title.txt", title)
    dvc(repo, "commit", "-f", "-q", "evaluate")
    git(repo, "add", "-A")
    git(repo, "commit", "-qm", title)
