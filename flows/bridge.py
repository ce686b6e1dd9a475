"""DVC's stages, and how one of them is run: by DVC itself, which decides what must run."""

import fcntl
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from flows import guard
from pipelines.core.errors import InputError, MiwakeError

Outcome = Literal["ran", "cached", "unchanged"]
"""cached: DVC restored the outputs of an earlier run with the same inputs; unchanged: they were in place."""

TAIL_LINES = 20


class StageFailedError(MiwakeError):
    """A stage's command failed; the message ends with its last lines."""


class StageStoppedError(MiwakeError):
    """A stage was ended from outside, before its command was done."""


class DvcBusyError(MiwakeError):
    """Another process uses the repository or the stage's outputs; worth another try."""


@dataclass(frozen=True)
class Stage:
    """One stage of dvc.yaml.

    Args:
        name: as DVC addresses it; an item of a matrix is `train@linear_probe-0`.
        upstream: the names of the stages whose outputs it reads.
    """

    name: str
    upstream: tuple[str, ...]

    @property
    def group(self) -> str:
        """The stage as dvc.yaml names it: `train` for every item of its matrix."""
        return self.name.partition("@")[0]


@dataclass(frozen=True)
class Result:
    """How a stage ended well, and after how many seconds."""

    outcome: Outcome
    seconds: float


def try_lock(file: IO[str]) -> bool:
    """Whether this process now holds the lock on `file`; the system lets it go however the process ends."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def read_stages(root: Path) -> list[Stage]:
    """The stages of `root`'s dvc.yaml, dependencies first; equal files give equal lists.

    Raises:
        InputError: there is no DVC repository, or its dvc.yaml cannot be read.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repo:
            # an edge leads from a stage to one whose output it reads; stages of *.dvc files run nothing
            graph = repo.index.graph
            upstream = {
                _address(stage): sorted(_address(found) for found in graph.successors(stage) if found.cmd)
                for stage in graph.nodes
                if stage.cmd
            }
    except DvcException as error:
        raise InputError(f"{root}: DVC cannot read the stages: {error}; see `dvc stage list`") from error
    return in_order(upstream)


def _address(stage: Any) -> str:
    """How DVC addresses a stage from the repository's root; its own `addressing` is from the working folder."""
    path = stage.path_in_repo
    return str(stage.name) if path == "dvc.yaml" else f"{path}:{stage.name}"


def in_order(upstream: Mapping[str, Iterable[str]]) -> list[Stage]:
    """The stages, each after all that it reads, and by name where either order would do.

    Args:
        upstream: for each stage the names of those it reads; without circles, which DVC refuses.
    """
    waiting = {name: tuple(sorted(names)) for name, names in upstream.items()}
    ordered: list[Stage] = []
    done: set[str] = set()
    while waiting:
        ready = sorted(name for name, names in waiting.items() if done.issuperset(names))
        ordered += [Stage(name, waiting.pop(name)) for name in ready]
        done.update(ready)
    return ordered


def select(stages: list[Stage], targets: Collection[str]) -> list[Stage]:
    """The stages that `targets` name, with everything they read; all of them when `targets` is empty.

    Raises:
        InputError: a target is no stage.
    """
    known = {stage.name for stage in stages} | {stage.group for stage in stages}
    unknown = sorted(set(targets) - known)
    if unknown:
        names = ", ".join(dict.fromkeys(stage.group for stage in stages))
        raise InputError(f"no stage is named {', '.join(unknown)}; dvc.yaml has {names}")
    if not targets:
        return stages
    wanted: set[str] = set()
    for stage in reversed(stages):
        if stage.name in targets or stage.group in targets or stage.name in wanted:
            wanted.update((stage.name, *stage.upstream))
    return [stage for stage in stages if stage.name in wanted]


def command(stage: str, *, force: bool) -> list[str]:
    """The command that brings one stage, and nothing before it, up to date."""
    # the flag goes before the word; without it, two of eight stages side by side fail over DVC's lock
    return [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", *(["-f"] * force), stage]


def environment() -> dict[str, str]:
    """This process's environment, in which `python` is this Python and prints line by line."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", "DVC_NO_ANALYTICS": "1"}


class StageRunner:
    """Runs stages for one run, a few at a time, and can end them all.

    Args:
        root: the repository.
        jobs: how many stages may run side by side.
    """

    def __init__(self, root: Path, *, jobs: int) -> None:
        self.root = root
        self._free = threading.Semaphore(jobs)
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._stopped = False

    def run(self, stage: str, *, force: bool, say: Callable[[str], None]) -> Result:
        """Bring `stage` up to date; blocks until a place is free and the stage is done.

        Args:
            stage: its name as DVC addresses it.
            force: run it even when nothing changed.
            say: called with every line that DVC and the stage print, as it comes.

        Raises:
            StageFailedError: with the last lines that the stage printed.
            StageStoppedError: `stop` was called, or something else ended the process.
            DvcBusyError: another DVC process uses the outputs.
        """
        with self._free:
            started = time.monotonic()
            process = self._start(command(stage, force=force))
            tail: deque[str] = deque(maxlen=TAIL_LINES)
            outcome: Outcome = "ran"
            assert process.stdout is not None
            try:
                for line in filter(None, map(str.rstrip, process.stdout)):
                    say(line)
                    tail.append(line)
                    outcome = read_outcome(line, stage) or outcome
                status = process.wait()
            finally:
                self._end(process)
                process.stdout.close()
            seconds = time.monotonic() - started
        if self._stopped:
            raise StageStoppedError(f"{stage} was stopped after {seconds:.0f} s; `dvc repro` continues where it ended")
        if status:
            raise failure(stage, status, list(tail))
        return Result(outcome, seconds)

    def stop(self) -> None:
        """End every stage that runs, with all its processes; stages still to come do not start."""
        with self._lock:
            self._stopped = True
            running = list(self._running)
        for process in running:
            self._end(process)

    def _start(self, stage_command: list[str]) -> subprocess.Popen[str]:
        with self._lock:
            if self._stopped:
                raise StageStoppedError("the run was stopped before this stage started")
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", guard.__file__, *stage_command],
                cwd=self.root,
                env=environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
            self._running.add(process)
            return process

    def _end(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        process.stdin.close()  # the guard ends the stage when this pipe closes
        process.wait()
        with self._lock:
            self._running.discard(process)


def read_outcome(line: str, stage: str) -> Outcome | None:
    """What a line of `dvc repro --single-item <stage>` says of the outcome, if anything."""
    if line.startswith(f"Stage '{stage}' is cached - skipping run"):
        return "cached"
    if line.startswith(f"Stage '{stage}' didn't change, skipping"):
        return "unchanged"
    return None


def failure(stage: str, status: int, tail: list[str]) -> MiwakeError:
    """The error for a `dvc repro` that ended with `status`, told by its last lines."""
    text = "\n".join(tail)
    if any(" is busy, it is being blocked by" in line or "Unable to acquire lock" in line for line in tail):
        return DvcBusyError(f"{stage}: another DVC process uses the repository: wait for it, then run again\n{text}")
    # 255 is DVC's own way to say that the command failed
    if 128 < status < 255:
        return StageStoppedError(f"{stage}: the process was ended by signal {status - 128}\n{text}")
    return StageFailedError(f"{stage} failed; its last lines:\n{text}")
