"""Peers of dedupe: how they are installed, and how one run of them is timed."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

PEERS = Path(__file__).resolve().parent
ROOT = PEERS.parents[1]
PACKAGES = {
    "imagededup": ["imagededup", "PyWavelets"],
    "imagehash": ["imagehash", "PyWavelets"],
    "cleanvision": ["cleanvision", "imagehash", "PyWavelets"],
    "faiss": ["faiss-cpu"],
}
IMPORTS = {"imagededup": "imagededup.methods", "imagehash": "imagehash", "cleanvision": "cleanvision"}


@dataclass(frozen=True)
class PeerRun:
    """Seconds of one process.

    Args:
        whole: from outside, its start and imports included.
        inside: of its own work, by its own clock.
    """

    whole: float
    inside: float


def install(name: str, site: Path) -> bool:
    """Put a peer into `site`; False, with a word, where that fails."""
    for tool in (["uv", "pip"], [sys.executable, "-m", "pip"]):
        command = [*tool, "install", "--quiet", "--no-deps", "--target", str(site), *PACKAGES[name]]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        return True
    print(f"{name} cannot be installed here: skipped")
    return False


def peer(name: str, what: Path, pairs: Path, site: Path) -> PeerRun | None:
    """One run of a peer; None, with a word, where it cannot run."""
    command = [sys.executable, str(PEERS / "peer.py"), name, str(what), str(pairs)]
    started = time.perf_counter()
    done = subprocess.run(command, env=run_env(site), capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        print(f"{name} cannot run here: {done.stderr.strip().splitlines()[-1]}; skipped")
        return None
    return PeerRun(seconds, json.loads(done.stdout.splitlines()[-1])["seconds"])


def write_byte_code(code: str, site: Path) -> None:
    """Import once, untimed, what is timed afterwards: both sides start with their byte code made."""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=run_env(site), capture_output=True, check=False)


def run_env(site: Path) -> dict[str, str]:
    """The environment with the peers in it, behind our own packages."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**inherited, "PYTHONPATH": f"{PEERS}{os.pathsep}{ROOT}{os.pathsep}{site}"}
