"""Whole processes, timed from outside: wall seconds and peak memory, medians, in turn."""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


@dataclass(frozen=True)
class Run:
    """One finished process.

    Args:
        seconds: wall time.
        peak_mb: resident memory of its largest single process, children included, MB (10^6 bytes).
    """

    seconds: float
    peak_mb: float


def run(command: Sequence[str], *, cwd: Path, env: Mapping[str, str] | None = None) -> Run:
    """Run `command` to its end.

    Raises:
        SystemExit: the command failed; its output is shown.
    """
    started = time.perf_counter()
    process = subprocess.Popen(
        list(command),
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    output = process.stdout.read()
    # wait4 counts the process and all children that it waited for
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed with {process.returncode} in {cwd}:\n{output[-4000:]}")
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return Run(seconds, usage.ru_maxrss * unit / 1e6)


@dataclass(frozen=True)
class Claim:
    """One measured figure beside its goal.

    Args:
        ours: median.
        peer: median of what it is compared with, in the same unit; None where the goal is absolute.
        goal: of ours / peer where there is a peer, else of ours.
        n: runs of each.
        spread: lowest and highest of ours.
        unit: of ours and peer.
    """

    ours: float
    peer: float | None
    goal: float
    n: int
    spread: tuple[float, float]
    unit: str

    @property
    def ratio(self) -> float | None:
        return None if self.peer is None else self.ours / self.peer

    @property
    def kept(self) -> bool:
        return (self.ours if self.ratio is None else self.ratio) <= self.goal


def claim(ours: Sequence[float], *, goal: float, unit: str, peer: Sequence[float] | None = None) -> Claim:
    """Medians of runs, made in turn with those of a peer where there is one."""
    return Claim(
        ours=statistics.median(ours),
        peer=None if peer is None else statistics.median(peer),
        goal=goal,
        n=len(ours),
        spread=(min(ours), max(ours)),
        unit=unit,
    )


def made_folder(path: str) -> Path:
    """For argparse: the folder there, made where it is missing."""
    found = Path(path)
    found.mkdir(parents=True, exist_ok=True)
    return found


def machine() -> str:
    """The processor, cores and versions that a figure belongs to."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    packages = " ".join(filter(None, map(_package, ("dvc", "torch", "pillow", "simplejpeg"))))
    return f"{name}, {cores} cores, {platform.system()}, Python {platform.python_version()}, {packages}"


def _package(name: str) -> str:
    """Name and version; nothing where it is not installed: a machine lent for its GPU may do without DVC."""
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return ""


def report(claims: Mapping[str, Claim]) -> None:
    """Print the table, then one JSON line."""
    print(f"\n{machine()}\n")
    width = max(map(len, claims))
    print(f"{'':{width}}  {'ours':>10} {'peer':>10} {'ratio':>6} {'goal':>6}  kept   n  spread")
    for name, c in claims.items():
        ours = f"{c.ours:,.2f} {c.unit}"
        peer = "" if c.peer is None else f"{c.peer:,.2f} {c.unit}"
        ratio = "" if c.ratio is None else f"{c.ratio:.2f}"
        kept = "yes" if c.kept else "NO"
        spread = f"{c.spread[0]:,.2f} to {c.spread[1]:,.2f}"
        print(f"{name:{width}}  {ours:>10} {peer:>10} {ratio:>6} {c.goal:>6g}  {kept:4} {c.n:>3}  {spread}")
    line = {
        name: {
            "ours": round(c.ours, 4),
            "peer": None if c.peer is None else round(c.peer, 4),
            "ratio": None if c.ratio is None else round(c.ratio, 4),
            "goal": c.goal,
            "higher_is_better": False,
            "n": c.n,
            "spread": [round(value, 4) for value in c.spread],
        }
        for name, c in claims.items()
    }
    print(json.dumps(line))
