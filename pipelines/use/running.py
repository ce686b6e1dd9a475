"""`miwake run`: `dvc repro` with a line a stage, and at the end what the report says first."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from pipelines.core.errors import InputError, count
from pipelines.core.layout import OUTPUTS

Outcome = Literal["ran", "restored", "unchanged", "failed"]
"""restored: DVC had kept what an earlier run with the same inputs wrote"""

_BEGINS = re.compile(r"Running stage '(.+)':$")
_UNCHANGED = re.compile(r"Stage '(.+)' didn't change, skipping$")
_RESTORED = re.compile(r"Stage '(.+)' is cached - skipping run, checking out outputs")
_PROGRESS = re.compile(r"\S.*?: ([\d,]+) of ([\d,]+) \S.* left")
_SECONDS = re.compile(r" \[[\d.]+ s\]$")
_OF_DVC = re.compile(
    r"(> |Updating lock file|Generating lock file|Use `dvc push`|To track the changes|To enable auto staging"
    r"|\s*(git add|dvc config core\.autostage)|ERROR: failed to reproduce|Data and pipelines are up to date)"
)


@dataclass(frozen=True)
class StageLine:
    """How a stage ended.

    Args:
        name: as DVC addresses it: `train@linear_probe-0`.
        said: the last line that it printed, without its name and seconds; "" where it did not run.
    """

    name: str
    outcome: Outcome
    seconds: float
    said: str = ""


class Show(Protocol):
    """Is told what happens, as it happens."""

    def began(self, stage: str) -> None: ...

    def at(self, done: int, total: int, line: str) -> None:
        """`stage` said how far it is: `done` of `total` of its units."""

    def said(self, line: str) -> None:
        """A line of the stage that is no progress: a warning, or why it failed."""

    def ended(self, stage: StageLine) -> None: ...


def follow(lines: Iterator[str], show: Show, *, clock: Callable[[], float] = time.monotonic) -> list[StageLine]:
    """Tell `show` what the lines of `dvc repro` mean; the stages, in the order they ended."""
    ended: list[StageLine] = []
    running: StageLine | None = None

    def end(stage: StageLine) -> None:
        ended.append(stage)
        show.ended(stage)

    started = clock()
    for line in map(str.rstrip, lines):
        begins, unchanged, restored = _BEGINS.match(line), _UNCHANGED.match(line), _RESTORED.match(line)
        if begins or unchanged or restored:
            if running is not None:
                end(replace(running, seconds=clock() - started))
                running = None
            if begins:
                running, started = StageLine(begins[1], "ran", 0.0), clock()
                show.began(running.name)
            elif found := unchanged or restored:
                end(StageLine(found[1], "unchanged" if unchanged else "restored", 0.0))
        elif not line or _OF_DVC.match(line):
            if line.startswith("ERROR: failed to reproduce") and running is not None:
                end(replace(running, outcome="failed", seconds=clock() - started))
                running = None
        elif progress := _PROGRESS.match(line):
            show.at(int(progress[1].replace(",", "")), int(progress[2].replace(",", "")), line)
        elif running is not None and line.startswith(f"{running.name.partition('@')[0]}: ") and _SECONDS.search(line):
            running = replace(running, said=_SECONDS.sub("", line).partition(": ")[2])
        else:
            show.said(line)
    if running is not None:
        end(replace(running, seconds=clock() - started))
    return ended


def repro(root: Path, targets: list[str], show: Show, *, force: bool = False) -> list[StageLine]:
    """Run what changed of the pipeline in `root`.

    Args:
        targets: stages, each with all that it reads; all stages where there are none.
        force: run them though nothing changed.

    Raises:
        InputError: a stage failed, or DVC did; what they printed was shown.
        KeyboardInterrupt: after the stage that ran has ended.
    """
    words = [sys.executable, "-m", "dvc", "repro", *(["--force"] if force else []), *targets]
    with _started(words, root) as process:
        assert process.stdout is not None
        stages = follow(iter(process.stdout), show)
    failed = next((stage.name for stage in stages if stage.outcome == "failed"), None)
    if process.returncode:
        raise InputError(
            f"stage {failed} failed, for the reason above; what was finished before it is kept, and the next run "
            "goes on there"
            if failed
            else f"dvc repro ended with status {process.returncode}, for the reason above"
        )
    return stages


@contextmanager
def _started(words: list[str], root: Path) -> Iterator[subprocess.Popen[str]]:
    """The process; on Ctrl-C, which it is sent by the terminal as well, it is given time to end its stage."""
    # `python` in dvc.yaml is this Python, and prints line by line
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    environment = {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", "DVC_NO_ANALYTICS": "1"}
    with subprocess.Popen(
        words,
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
    ) as process:
        try:
            yield process
        except BaseException:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
            raise


# What a run would do --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pending:
    """What `dvc repro` would do now.

    Args:
        changed: keys of params whose values differ from those of the last run: "split.folds: 1 → 5".
        stages: that would run, as dvc.yaml names them, but for those that only read what these write.
    """

    changed: list[str]
    stages: list[str]


def pending(root: Path, now: Mapping[str, Any], before: Mapping[str, Any]) -> Pending:
    """Ask DVC what changed; of params, whose first stage would have to run, compare the values.

    Args:
        now: every value that the next run uses.
        before: those of the last one, data/params.yaml; empty where there was none.

    Raises:
        InputError: DVC cannot say.
    """
    words = [sys.executable, "-m", "dvc", "status", "--json"]
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, encoding="utf-8", check=False)
    try:
        found = {name.partition("@")[0] for name in json.loads(done.stdout)}
    except json.JSONDecodeError as error:
        raise InputError(f"dvc status: {done.stderr.strip() or done.stdout.strip()}") from error
    was = dict(leaves(before))
    changed = [(key, value) for key, value in leaves(now) if key not in was or was[key] != value] if was else []
    found |= {key.partition(".")[0] for key, _ in changed if key.partition(".")[0] in OUTPUTS}
    return Pending(
        [f"{key}: {_yaml(was.get(key))} → {_yaml(value)}" for key, value in changed],
        [name for name in OUTPUTS if name in found],
    )


def leaves(value: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested mappings, by dotted path."""
    if isinstance(value, Mapping) and value:
        for key, below in value.items():
            yield from leaves(below, f"{above}.{key}".removeprefix("."))
    else:
        yield above, value


def _yaml(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if value is not None else "null"


# What the run says --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """The beginning of data/report/summary.md.

    Args:
        run: the line that names it: id, snapshot, members, decisions.
        sentences: of the verdict.
        to_do: headlines of what to do first, the most worth while first.
    """

    run: str
    sentences: str
    to_do: list[str]


def read_verdict(summary: str) -> Verdict:
    """Read summary.md as `report` writes it."""
    blocks = summary.split("\n\n")
    run, sentences = (_plain(block) for block in [*blocks, "", "", ""][1:3])
    return Verdict(
        run, sentences, [_plain(text) for text in re.findall(r"^\d+\. \*\*(.+?)\*\*", summary, re.MULTILINE)]
    )


def _plain(text: str) -> str:
    """Markdown's and HTML's escapes taken back."""
    text = re.sub(r"\\([\\`*_{}\[\]|#~!$])", r"\1", text)
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def totals(stages: list[StageLine]) -> str:
    """ "3 stages ran, 1 restored, 6 unchanged"."""
    number = {
        outcome: sum(stage.outcome == outcome for stage in stages) for outcome in ("ran", "restored", "unchanged")
    }
    words = [f"{number[outcome]} {outcome}" for outcome in ("restored", "unchanged") if number[outcome]]
    return ", ".join([f"{count(number['ran'], 'stage')} ran", *words])
