"""`miwake doctor`: what this machine lacks for miwake, and what to do about it."""

import importlib.metadata
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipelines.core.errors import MiwakeError
from pipelines.core.layout import Layout

LEAST_MEMORY, LEAST_DISK = 4e9, 5e9
"""bytes: a linear probe of 2,700 pictures takes 3 GB; a run of them leaves 1 GB beside 2 to 7 GB of environment"""
PREFECT_PORT = 4200
PACKAGES = ("torch", "torchvision", "timm", "dvc", "prefect", "great-expectations", "pandas", "scikit-learn", "pillow")


@dataclass(frozen=True)
class Diagnosis:
    """One thing that was looked at.

    Args:
        found: what is there.
        remedy: what to do; "" where nothing must be done.
    """

    name: str
    found: str
    remedy: str = ""


def examine(root: Path) -> Iterator[Diagnosis]:
    """Look at the machine, and at the project in `root` where there is one."""
    yield _python()
    yield _packages()
    yield _git()
    yield _cores()
    yield _memory()
    yield _disk(root)
    yield _gpu()
    yield _fonts()
    yield _port()
    if (root / "dvc.yaml").is_file() and Layout(root).params.is_file():
        yield _project(root)


def _python() -> Diagnosis:
    fits = (3, 11) <= sys.version_info[:2] <= (3, 13)
    return Diagnosis(
        "python", platform.python_version(), "" if fits else "miwake runs with Python 3.11 to 3.13: `make env`"
    )


def _packages() -> Diagnosis:
    found, missing = [], []
    for name in PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    return Diagnosis("packages", ", ".join(found), f"{', '.join(missing)} are missing: `make env`" if missing else "")


def _git() -> Diagnosis:
    if shutil.which("git") is None:
        return Diagnosis("git", "not installed", "install git: without it nothing can be compared or taken back")
    said = subprocess.run(["git", "--version"], capture_output=True, text=True, check=False).stdout.strip()
    named = subprocess.run(["git", "config", "user.email"], capture_output=True, text=True, check=False).stdout.strip()
    remedy = (
        "" if named else "say who you are: `git config --global user.name` and `user.email`, else nothing is committed"
    )
    return Diagnosis("git", said.removeprefix("git version "), remedy)


def _cores() -> Diagnosis:
    from pipelines.parallel.pool import num_workers

    try:
        return Diagnosis("cores", f"{num_workers()} used, of {os.cpu_count()}")
    except MiwakeError as error:
        return Diagnosis("cores", str(os.cpu_count()), str(error))


def _memory(limit: Path = Path("/sys/fs/cgroup/memory.max")) -> Diagnosis:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return Diagnosis("memory", "not known on this system")
    size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    text = limit.read_text(encoding="ascii").strip() if limit.is_file() else "max"
    if text.isdigit():
        size = min(size, int(text))
    remedy = f"training wants {LEAST_MEMORY / 1e9:.0f} GB: lower batch_size and image_size, or use another machine"
    return Diagnosis("memory", f"{size / 1e9:.1f} GB", remedy if size < LEAST_MEMORY else "")


def _disk(root: Path) -> Diagnosis:
    free = shutil.disk_usage(root).free
    remedy = f"a run wants {LEAST_DISK / 1e9:.0f} GB: make room, or `dvc cache dir` elsewhere"
    return Diagnosis("disk", f"{free / 1e9:.1f} GB free", remedy if free < LEAST_DISK else "")


def _gpu() -> Diagnosis:
    import torch

    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        return Diagnosis("gpu", f"{names}, CUDA {torch.version.cuda}")
    if torch.backends.mps.is_available():
        return Diagnosis("gpu", "Apple's, by MPS")
    if shutil.which("nvidia-smi") is None:
        return Diagnosis("gpu", "none: networks run on the CPU")
    build = f"torch {torch.__version__}"
    remedy = "the driver is there, but torch does not see it: `make env TORCH=auto` takes the build for this driver"
    return Diagnosis("gpu", f"an NVIDIA driver, {build}", remedy)


def _fonts() -> Diagnosis:
    from pipelines.report.confusion import installed_fonts

    letters = {"Latin": "a", "Greek": "α", "Cyrillic": "я", "Japanese": "見", "Korean": "한", "Arabic": "ع"}
    known = set().union(*installed_fonts().values())
    lacking = [name for name, letter in letters.items() if ord(letter) not in known]
    found = ", ".join(name for name in letters if name not in lacking)
    # labels that no font can write are numbered in confusion_matrix.png; the report itself needs no font
    return Diagnosis("fonts", f"for {found}" + (f"; none for {', '.join(lacking)}" if lacking else ""))


def _port() -> Diagnosis:
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("127.0.0.1", PREFECT_PORT))
        except OSError:
            return Diagnosis(
                "port",
                f"{PREFECT_PORT} is taken: `make ui` says by whom, `python -m flows.serve --port N` takes another",
            )
    return Diagnosis("port", f"{PREFECT_PORT} is free for `make ui`")


def _project(root: Path) -> Diagnosis:
    from pipelines.params.command import check_project
    from pipelines.params.load import load_params

    try:
        check_project(root, by_dvc=True)
        params = load_params(Layout(root).params)
    except MiwakeError as error:
        return Diagnosis("project", str(root), str(error))
    return Diagnosis("project", f"{root}: params.yaml is fine, {len(params.train.all_members)} members")
