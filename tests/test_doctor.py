"""`miwake doctor`: each thing is looked at, what is missing has a remedy, and the status says whether one is needed."""

import json
import shutil
import socket
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_cli import miwake
from test_ingest import put

from pipelines.use import doctor


def only(found: doctor.Diagnosis, *, says: str, remedy: str) -> None:
    assert says in found.found
    assert remedy in found.remedy
    assert bool(remedy) == bool(found.remedy)


def test_it_says_what_is_there_and_ends_with_one_where_something_is_to_do(tmp_path: Path) -> None:
    put(tmp_path / "dvc.yaml", b"stages: {}\n")
    put(tmp_path / "params.yaml", b"ingest:\n  sources:\n  - kind: sampel\n")
    found = miwake("doctor", "--json", cwd=tmp_path)
    assert found.returncode == 1, found.stderr
    rows = {row["name"]: row for row in json.loads(found.stdout)}
    assert list(rows) == [
        "python", "packages", "git", "cores", "memory", "disk", "gpu", "fonts", "port", "project"
    ]  # fmt: skip
    assert "torch " in rows["packages"]["found"]
    assert "did you mean" in rows["project"]["remedy"]


def test_without_a_project_only_the_machine_is_looked_at(tmp_path: Path) -> None:
    assert [one.name for one in doctor.examine(tmp_path)][-1] == "port"


def test_little_memory_and_disk_have_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "memory.max", b"1000000000\n")
    only(doctor._memory(tmp_path / "memory.max"), says="1.0 GB", remedy="lower batch_size")
    only(doctor._memory(tmp_path / "absent"), says="GB", remedy="")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2e9))
    only(doctor._disk(tmp_path), says="2.0 GB free", remedy="make room")


def test_a_driver_that_torch_does_not_see_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "nvidia-smi" else name)
    only(doctor._gpu(), says="none: networks run on the CPU", remedy="")
    monkeypatch.setattr(shutil, "which", lambda name: name)
    only(doctor._gpu(), says="an NVIDIA driver", remedy="`make env TORCH=auto`")


def test_a_taken_port_and_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setattr(doctor, "PREFECT_PORT", taken.getsockname()[1])
        only(
            doctor._port(),
            says="is taken: `make ui` says by whom, `python -m flows.serve --port N` takes another",
            remedy="",
        )
    monkeypatch.setattr(doctor, "PACKAGES", ("torch", "no-such-package"))
    only(doctor._packages(), says="torch", remedy="no-such-package are missing: `make env`")


def test_git_without_a_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(words: list[str], **_: Any) -> SimpleNamespace:
        return SimpleNamespace(stdout="git version 2.39.5\n" if "--version" in words else "")

    monkeypatch.setattr(subprocess, "run", run)
    only(doctor._git(), says="2.39.5", remedy="git config --global user.name")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    only(doctor._git(), says="not installed", remedy="install git")
