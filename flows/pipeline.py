"""The whole pipeline as a Prefect flow: one task a DVC stage, independent stages side by side.

python -m flows.pipeline             # or `dvc repro`, which does the same without showing it
python -m flows.pipeline --force
"""

import argparse
import contextlib
import hashlib
import logging
import os
import re
import sys
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.settings import set_up_prefect

if __name__ == "__main__":
    set_up_prefect(Path.cwd())  # Prefect reads its settings while the next lines import it

from prefect import Task, flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.client.schemas.objects import State, TaskRun
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.futures import PrefectFuture
from prefect.states import Completed

from flows import artifacts
from flows.bridge import DvcBusyError, Stage, StageRunner, read_stages, select
from pipelines.core.errors import MiwakeError, count
from pipelines.core.layout import Layout
from pipelines.core.params import Params, load_params

SLOT_SECONDS = 5
"""how long a run waits for the repository before it gives up"""
LEASE_SECONDS = 60
"""after this time a run that was killed no longer holds the repository"""


class RepositoryBusyError(MiwakeError):
    """Another run works in this repository."""


class PipelineFailedError(MiwakeError):
    """At least one stage failed; names each, with its last lines, and those that could not start."""


@dataclass(frozen=True)
class StageOutcome:
    """What became of one stage.

    Args:
        stage: its name as DVC addresses it.
        outcome: ran | cached | unchanged | failed | not run.
        detail: how long it took, or why it failed.
    """

    stage: str
    outcome: str
    detail: str

    @property
    def is_good(self) -> bool:
        return self.outcome in ("ran", "cached", "unchanged")


def is_busy(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Only a busy DVC is worth another try: a stage that failed fails again."""
    return isinstance(state.result(raise_on_failure=False), DvcBusyError)


@task(
    name="stage",
    task_run_name="{stage}",
    cache_policy=NO_CACHE,  # DVC decides: a task that Prefect skips would not see that its outputs are gone
    retries=3,
    retry_delay_seconds=[2, 5, 15],
    retry_condition_fn=is_busy,
)
def repro_stage(runner: StageRunner, stage: str, force: bool) -> State[str]:
    """Bring one stage up to date; the run's state is Ran, Cached or Unchanged."""
    logger = get_run_logger()
    result = runner.run(stage, force=force, say=lambda line: logger.info("%s", line))
    return Completed(
        name=result.outcome.capitalize(), message=f"{result.outcome} in {result.seconds:.1f} s", data=result.outcome
    )


@flow(name="pipeline", log_prints=True)
def pipeline(force: bool = False, stages: list[str] | None = None) -> dict[str, str]:
    """Bring every stage up to date, or those named and what they read; what is up to date does not run.

    One run at a time: a second one ends at once with a message. A rerun overwrites `data/`, which DVC versions.
    Each stage leaves an artifact `miwake-<stage>`; from the command line: `python -m flows.pipeline`.

    Args:
        force: run every stage even when nothing changed.
        stages: only these and what they read, by the names in dvc.yaml; all of them when empty.
    """
    root = Path.cwd()
    with repository_slot(root):
        return run_stages(root, force=force, targets=stages or [])


@contextlib.contextmanager
def repository_slot(root: Path) -> Generator[None]:
    """Hold the one slot of this repository while the block runs.

    Raises:
        RepositoryBusyError: another run holds it.
    """
    name = slot_name(root)
    with get_client(sync_client=True) as client:
        try:
            client.read_global_concurrency_limit_by_name(name)
        except ObjectNotFound:
            with contextlib.suppress(ObjectAlreadyExists):  # another run was faster
                client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=1))
    with contextlib.ExitStack() as held:
        try:
            # without `strict` a limit that is missing is ignored
            held.enter_context(
                concurrency(name, timeout_seconds=SLOT_SECONDS, lease_duration=LEASE_SECONDS, strict=True)
            )
        except TimeoutError as error:
            raise RepositoryBusyError(
                f"another run works in {root}, so this one changed nothing: run it again when that one has ended "
                f"(a run that was killed lets go after {LEASE_SECONDS} s; the limit is `{name}`)"
            ) from error
        yield


def slot_name(root: Path) -> str:
    """The name of the concurrency limit that guards `root`: one repository, one name, one server for many."""
    where = root.resolve()
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", where.name)
    return f"miwake-{readable}-{hashlib.sha256(os.fsencode(where)).hexdigest()[:8]}"


def run_stages(root: Path, *, force: bool = False, targets: Sequence[str] = ()) -> dict[str, str]:
    """Run the stages as tasks of the current flow run, and leave their artifacts.

    Args:
        root: the repository; the caller holds its slot.
        force: run every stage even when nothing changed.
        targets: only these stages and what they read.

    Returns:
        For each stage, in order, what became of it: ran, cached or unchanged.

    Raises:
        PipelineFailedError: a stage failed. Those that do not need it have run to their end.
    """
    logger = get_run_logger()
    layout = Layout(root)
    params = load_params(layout.params)
    chosen = select(read_stages(root), targets)
    runner = StageRunner(root, jobs=num_jobs(params, os.cpu_count() or 1))
    futures: dict[str, PrefectFuture[State[str]]] = {}
    try:
        for stage in chosen:
            upstream = [futures[name] for name in stage.upstream if name in futures]
            futures[stage.name] = repro_stage.submit(runner, stage.name, force, return_state=False, wait_for=upstream)
        outcomes = _watch(chosen, futures, layout, params)
    finally:
        # a cancelled run gets here at once, while its tasks still wait for their stages
        runner.stop()
    artifacts.leave("pipeline", artifacts.pipeline_page([(o.stage, o.outcome, o.detail) for o in outcomes]))
    if not all(outcome.is_good for outcome in outcomes):
        raise PipelineFailedError(explain(outcomes))
    logger.info("%s", summary(outcomes))
    report = layout.stage("report") / "index.html"
    if report.exists():
        logger.info("The report: %s", report)
    return {outcome.stage: outcome.outcome for outcome in outcomes}


def _watch(
    stages: Sequence[Stage], futures: Mapping[str, PrefectFuture[State[str]]], layout: Layout, params: Params
) -> list[StageOutcome]:
    """Wait for every stage, and show what each left as soon as all of its matrix is done."""
    outcomes: list[StageOutcome] = []
    groups = list(dict.fromkeys(stage.group for stage in stages))
    for group in groups:
        found = [_outcome(stage.name, futures[stage.name]) for stage in stages if stage.group == group]
        outcomes += found
        is_drawn = group == "report" and all(outcome.is_good for outcome in found)
        for name in pages_after(group, groups):
            if any(o.outcome != "not run" for o in outcomes if o.stage.partition("@")[0] == name):
                artifacts.leave(name, artifacts.stage_page(name, layout, params, with_picture=is_drawn))
    return outcomes


def pages_after(group: str, groups: Sequence[str]) -> list[str]:
    """Whose pages are left when `group` is done: its own; evaluate's waits for the report, which draws its picture."""
    if "report" not in groups or "evaluate" not in groups:
        return [group]
    return {"evaluate": [], "report": ["evaluate", "report"]}.get(group, [group])


def _outcome(stage: str, future: PrefectFuture[State[str]]) -> StageOutcome:
    """Wait for one task and say what became of it."""
    future.wait()
    state = future.state
    if state.is_completed():
        return StageOutcome(stage, str(state.name).lower(), state.message or "")
    if state.name == "NotReady":
        return StageOutcome(stage, "not run", "a stage that it reads failed")
    error = state.result(raise_on_failure=False)
    return StageOutcome(stage, "failed", str(error) if isinstance(error, MiwakeError) else state.message or "")


def num_jobs(params: Params, num_cores: int) -> int:
    """How many stages run side by side: each of them computes with `train.num_threads` threads."""
    return max(1, num_cores // params.train.num_threads)


def summary(outcomes: Sequence[StageOutcome]) -> str:
    """One line: how many stages ran, were cached, …; in the order ran, cached, unchanged, failed, not run."""
    counts = dict.fromkeys(("ran", "cached", "unchanged", "failed", "not run"), 0)
    for outcome in outcomes:
        counts[outcome.outcome] += 1
    return f"{count(len(outcomes), 'stage')}: " + ", ".join(f"{n} {kind}" for kind, n in counts.items() if n)


def explain(outcomes: Sequence[StageOutcome]) -> str:
    """Why the pipeline failed: every failed stage with its last lines, then those that could not start."""
    parts = [summary(outcomes)]
    parts += [outcome.detail for outcome in outcomes if outcome.outcome == "failed"]
    waiting = [outcome.stage for outcome in outcomes if outcome.outcome == "not run"]
    if waiting:
        parts.append(f"Not run: {', '.join(waiting)}. Mend the above and run again: finished stages are kept.")
    return "\n\n".join(parts)


def main() -> None:
    """The command line: `python -m flows.pipeline`."""
    parser = argparse.ArgumentParser(prog="python -m flows.pipeline", description="Run the pipeline under Prefect.")
    parser.add_argument("stages", nargs="*", help="only these and what they read; all when none is named")
    parser.add_argument("--force", action="store_true", help="run every stage even when nothing changed")
    given = parser.parse_args()
    logging.getLogger("prefect").setLevel(logging.INFO)
    try:
        pipeline(force=given.force, stages=given.stages)
    except MiwakeError as error:
        print(f"pipeline: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    report = Layout(Path.cwd()).stage("report") / "index.html"
    print(f"The report: {report}" if report.exists() else "No report: the stages named do not make one.")


if __name__ == "__main__":
    main()
