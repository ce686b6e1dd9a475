"""DVC's stages, and how to run one: through `dvc repro`, which decides whether it must run."""

import contextlib
import fcntl
import os
import queue
import re
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from graphlib import TopologicalSorter
from pathlib import Path
from typing import IO, Any, Literal

from flows.guard import start_guarded
from pipelines.core.errors import InputError, MiwakeError

StageState = Literal["ran", "restored", "unchanged"]
"""restored: DVC brought back what an earlier run with the same inputs wrote; unchanged: it was in place"""

TAIL_LINES = 20
BUSY_SECONDS = 2.0
NETWORK = re.compile(r"timed? ?out|unreachable|connection (?:refused|reset|aborted)|name resolution|HTTP 5\d\d", re.I)


class StageFailedError(MiwakeError):
    """A stage's command failed; the message ends with its last lines."""


class StageStoppedError(MiwakeError):
    """A stage was ended from outside, before its command was done."""


class DvcBusyError(MiwakeError):
    """Another process uses the repository or the stage's outputs; worth another try."""


class NetworkError(StageFailedError):
    """ingest failed, and its last lines speak of the network; worth another try."""


@dataclass(frozen=True)
class DvcStage:
    """One stage of dvc.yaml.

    Args:
        name: as DVC addresses it; an item of a matrix is `train@linear_probe-0`.
        upstream: the names of the stages whose outputs it reads.
        outs: the paths that it writes, from the repository's root.
    """

    name: str
    upstream: tuple[str, ...]
    outs: tuple[str, ...] = ()

    @property
    def group(self) -> str:
        """The stage as dvc.yaml names it: `train` for every item of its matrix."""
        return self.name.partition("@")[0]


@dataclass(frozen=True)
class StageResult:
    """How a stage ended well, and after how many seconds."""

    state: StageState
    seconds: float


def try_lock(file: IO[str]) -> bool:
    """Take the lock on `file` unless another process holds it; the system frees it however this process ends."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def hold(root: Path, on_wait: Callable[[], None]) -> Generator[None]:
    """Hold the repository while the block runs; behind another run that holds it, wait.

    Args:
        on_wait: called every two seconds of waiting; may raise.
    """
    (root / ".prefect").mkdir(exist_ok=True)
    with (root / ".prefect" / "run.lock").open("a") as file:
        while not try_lock(file):
            on_wait()
            time.sleep(BUSY_SECONDS)
        yield


def read_stages(root: Path) -> list[DvcStage]:
    """The stages of `root`'s dvc.yaml, dependencies first; equal files give equal lists.

    Raises:
        InputError: there is no DVC repository, or its dvc.yaml cannot be read.
    """
    return read_repository(root)[0]


def read_repository(root: Path, *, with_status: bool = False) -> tuple[list[DvcStage], frozenset[str]]:
    """The stages as `read_stages` gives them, and those of which DVC knows that they would not run.

    A stage that DVC finds in order but that reads one which is not, may still have to run: it is not among them.

    Args:
        with_status: whether to ask; else, and while another DVC process works, none is known.

    Raises:
        InputError: there is no DVC repository, or its dvc.yaml cannot be read.
    """
    from dvc.exceptions import DvcException
    from dvc.lock import LockError
    from dvc.repo import Repo

    changed: set[str] | None = None
    try:
        with Repo(str(root)) as repo:
            # an edge leads from a stage to one whose output it reads; stages of *.dvc files have no command
            graph = repo.index.graph
            nodes = [stage for stage in graph.nodes if stage.cmd]
            upstream = {_address(one): [_address(o) for o in graph.successors(one) if o.cmd] for one in nodes}
            outs = {
                _address(one): tuple(
                    sorted(Path(out.fs_path).relative_to(root.resolve()).as_posix() for out in one.outs)
                )
                for one in nodes
            }
            if with_status:
                with contextlib.suppress(LockError):
                    # by the address from the working folder, which may be another one
                    status = repo.status()
                    changed = {_address(one) for one in nodes if one.addressing in status}
    except DvcException as error:
        raise InputError(f"{root}: DVC cannot read the stages: {error}; see `dvc stage list`") from error
    stages = [replace(stage, outs=outs[stage.name]) for stage in in_order(upstream)]
    unchanged: set[str] = set()
    if changed is not None:
        for stage in stages:
            if stage.name not in changed and unchanged.issuperset(stage.upstream):
                unchanged.add(stage.name)
    return stages, frozenset(unchanged)


def _address(stage: Any) -> str:
    """How DVC addresses a stage from the repository's root; its own `addressing` is from the working folder."""
    path = stage.path_in_repo
    return str(stage.name) if path == "dvc.yaml" else f"{path}:{stage.name}"


def in_order(upstream: Mapping[str, Iterable[str]]) -> list[DvcStage]:
    """The stages, each after all that it reads, and by name where either order would do.

    Args:
        upstream: for each stage the names of those it reads; without circles, which DVC refuses.
    """
    sorter = TopologicalSorter(upstream)
    sorter.prepare()
    ordered: list[DvcStage] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        ordered += [DvcStage(name, tuple(sorted(upstream[name]))) for name in ready]
        sorter.done(*ready)
    return ordered


def select(stages: list[DvcStage], targets: Collection[str]) -> list[DvcStage]:
    """The stages that `targets` name, with everything they read; all of them when `targets` is empty.

    Raises:
        InputError: a target is no stage.
    """
    known = {stage.name for stage in stages} | {stage.group for stage in stages}
    if unknown := sorted(set(targets) - known):
        names = ", ".join(dict.fromkeys(stage.group for stage in stages))
        raise InputError(f"no stage is named {', '.join(unknown)}; dvc.yaml has {names}")
    if not targets:
        return stages
    wanted: set[str] = set()
    for stage in reversed(stages):
        if stage.name in targets or stage.group in targets or stage.name in wanted:
            wanted.update((stage.name, *stage.upstream))
    return [stage for stage in stages if stage.name in wanted]


class StageRunner:
    """Runs stages for one run, a few at a time, and can end them all.

    Args:
        root: the repository.
        jobs: how many stages may run side by side.
        devices: for each of them the CUDA devices that it may see, as CUDA_VISIBLE_DEVICES names them; all see all
            devices when None.
    """

    def __init__(self, root: Path, *, jobs: int, devices: Sequence[str] | None = None) -> None:
        self.root = root
        self._places: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        for number in range(jobs if devices is None else min(jobs, len(devices))):
            self._places.put(None if devices is None else devices[number])
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._stopped = False

    def run(self, stage: str, *, force: bool, on_line: Callable[[str], None]) -> StageResult:
        """Bring `stage`, and nothing before it, up to date; block until a place is free and the stage is done.

        While another DVC process uses what the stage needs, wait for it.

        Args:
            stage: its name as DVC addresses it.
            force: run it even when nothing changed.
            on_line: called with every line that DVC and the stage print, as it comes.

        Raises:
            StageFailedError: with the last lines that the stage printed.
            StageStoppedError: `stop` was called, or something else ended the process.
        """
        place = self._places.get()
        try:
            while True:
                try:
                    return self._repro(stage, force, on_line, place)
                except DvcBusyError:
                    on_line("another DVC process works here: this stage waits for its end")
                    time.sleep(BUSY_SECONDS)
        finally:
            self._places.put(place)

    def _repro(self, stage: str, force: bool, on_line: Callable[[str], None], place: str | None) -> StageResult:
        """One `dvc repro`; DvcBusyError where it did not get to the stage."""
        started = time.monotonic()
        process = self._start(stage, force, place)
        tail: deque[str] = deque(maxlen=TAIL_LINES)
        state: StageState = "ran"
        assert process.stdout is not None
        try:
            for line in filter(None, map(str.rstrip, process.stdout)):
                on_line(line)
                tail.append(line)
                state = read_state(line, stage) or state
            status = process.wait()
        finally:
            self._end(process)
            process.stdout.close()
        seconds = time.monotonic() - started
        if self._stopped:
            raise StageStoppedError(f"{stage} was stopped after {seconds:.0f} s; `dvc repro` continues where it ended")
        if status:
            raise failure(stage, status, list(tail))
        return StageResult(state, seconds)

    def stop(self) -> None:
        """End every stage that runs, with all its processes; stages still to come do not start."""
        with self._lock:
            self._stopped = True
            running = list(self._running)
        for process in running:
            self._end(process)

    def _start(self, stage: str, force: bool, place: str | None) -> subprocess.Popen[str]:
        # --wait-for-lock stands before the word: without it, two of eight stages side by side fail over DVC's lock
        dvc = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", *(["-f"] * force), stage]
        # `python` in dvc.yaml is this Python, and prints line by line
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        environment = {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", "DVC_NO_ANALYTICS": "1"}
        if place is not None:
            environment["CUDA_VISIBLE_DEVICES"] = place
        with self._lock:
            if self._stopped:
                raise StageStoppedError("the run was stopped before this stage started")
            process = start_guarded(
                dvc,
                cwd=self.root,
                env=environment,
                stdout=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                errors="replace",
            )
            self._running.add(process)
            return process

    def _end(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        process.stdin.close()  # the guard ends the stage when this pipe closes
        process.wait()
        with self._lock:
            self._running.discard(process)


def read_state(line: str, stage: str) -> StageState | None:
    """The state that a line of `dvc repro --single-item <stage>` tells, if any."""
    if line.startswith(f"Stage '{stage}' is cached - skipping run"):
        return "restored"
    if line.startswith(f"Stage '{stage}' didn't change, skipping"):
        return "unchanged"
    return None


def failure(stage: str, status: int, tail: list[str]) -> MiwakeError:
    """The error for a `dvc repro` that ended with `status`, by its last lines."""
    text = "\n".join(tail)
    if any(" is busy, it is being blocked by" in line or "Unable to acquire lock" in line for line in tail):
        return DvcBusyError(f"{stage}: another DVC process uses the repository: wait for it, then run again\n{text}")
    # 255 is DVC's own way to say that the command failed
    if 128 < status < 255:
        return StageStoppedError(f"{stage}: the process was ended by signal {status - 128}\n{text}")
    kind = NetworkError if stage == "ingest" and NETWORK.search(text) else StageFailedError
    return kind(f"{stage} failed; its last lines:\n{text}")
