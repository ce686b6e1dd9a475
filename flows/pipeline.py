"""The whole pipeline as a Prefect flow: one task a DVC stage, independent stages side by side.

python -m flows.pipeline             # or `dvc repro`, which does the same without showing it
python -m flows.pipeline --force
"""

import argparse
import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.settings import SERVED_BY, folder_name, set_up_prefect

if __name__ == "__main__":
    set_up_prefect(Path.cwd())  # Prefect reads its settings while the next lines import it

from httpx import HTTPError
from prefect import Flow, Task, flow, get_run_logger, tags, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas import filters
from prefect.client.schemas.objects import FlowRun, State, StateType, TaskRun
from prefect.context import FlowRunContext
from prefect.futures import PrefectFuture, wait
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Crashed

from flows import artifacts
from flows.bridge import DvcBusyError, DvcStage, StageRunner, StageStoppedError, read_stages, select, try_lock
from pipelines.core.errors import MiwakeError, count
from pipelines.core.layout import Layout
from pipelines.parallel.pool import num_workers
from pipelines.params import Params, load_params
from pipelines.params.preflight import preflight

ALIVE = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]


class ServerGoneError(MiwakeError):
    """`python -m flows.serve`, which started this run, has ended."""


class RunCancelledError(MiwakeError):
    """Somebody cancelled this run."""


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
    """Bring one stage up to date; the run's state is Ran, Cached or Unchanged; Cancelled where it was stopped."""
    logger = get_run_logger()
    try:
        result = runner.run(stage, force=force, on_line=lambda line: logger.info("%s", line))
    except StageStoppedError as error:
        return Cancelled(message=str(error))
    return Completed(
        name=result.state.capitalize(), message=f"{result.state} in {result.seconds:.1f} s", data=result.state
    )


def end_tasks(flow: Flow[..., Any] | None, flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001, Prefect's form
    """Give the tasks of a run that did not complete an end: they would stay Running or Pending for good."""
    alive = filters.TaskRunFilterStateType(any_=ALIVE)
    ended: State[None] = Crashed(message=state.message) if state.is_crashed() else Cancelled(name="NotRun")
    with get_client(sync_client=True) as client:
        for one in client.read_task_runs(
            flow_run_filter=filters.FlowRunFilter(id=filters.FlowRunFilterId(any_=[flow_run.id])),
            task_run_filter=filters.TaskRunFilter(state=filters.TaskRunFilterState(type=alive)),
        ):
            client.set_task_run_state(one.id, ended, force=True)


@flow(name="pipeline", log_prints=True, on_failure=[end_tasks], on_cancellation=[end_tasks], on_crashed=[end_tasks])
def pipeline(force: bool = False, stages: list[str] | None = None) -> dict[str, str] | State[Any]:
    """Bring every stage up to date, or those named and what they read; what is up to date does not run.

    One run at a time: a second one waits. A rerun overwrites `data/`, which DVC versions.
    Each stage leaves an artifact `miwake-<stage>`; from the command line: `python -m flows.pipeline`.

    Args:
        force: run every stage even when nothing changed.
        stages: only these and what they read, by the names in dvc.yaml; all of them when empty.
    """
    root = Path.cwd()
    try:
        with exclusive_run(root):
            return run_stages(root, force=force, targets=stages or [])
    except RunCancelledError as error:
        return cancelled(error)


def cancelled(error: RunCancelledError) -> State[Any]:
    """The state of a run that saw by itself that it was cancelled."""
    state: State[Any] = Cancelled(message=str(error))
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    end_tasks(None, context.flow_run, state)
    return state


@contextlib.contextmanager
def exclusive_run(root: Path) -> Generator[None]:
    """Hold `root` while the block runs: a run that finds another one at work waits for its end.

    Raises:
        ServerGoneError: `flows.serve` has ended; when it ends later, this process ends with it, and its stages too.
        RunCancelledError: somebody cancelled it while it waited.
    """
    served_by = os.environ.get(SERVED_BY)
    if served_by:
        if os.getppid() != int(served_by):
            raise ServerGoneError("the `python -m flows.serve` that started this run has ended: run it again")
        threading.Thread(target=_end_without, args=(int(served_by),), daemon=True).start()
    (root / ".prefect").mkdir(exist_ok=True)
    with (root / ".prefect" / "run.lock").open("a") as file:
        if not try_lock(file):
            get_run_logger().info("Another run works in %s: this one waits for its end.", root)
            while not try_lock(file):
                time.sleep(2)
                stop_if_cancelled()
        yield


def stop_if_cancelled() -> None:
    """Raise RunCancelledError when somebody cancelled this run.

    `flows.serve` ends a run that is cancelled, but does not see it any more once its server was lost, and never sees
    runs of the command line.
    """
    try:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(flow_run.id).state
    except HTTPError:  # the server is lost: `flows.serve` starts it again
        return
    if state is not None and state.type in (StateType.CANCELLING, StateType.CANCELLED):
        raise RunCancelledError("The run was cancelled. Finished stages are kept.")


def _end_without(parent: int) -> None:
    """End this process as soon as `parent` is gone: nobody could cancel it any more."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)  # the stages' guards see it


def run_stages(root: Path, *, force: bool = False, targets: Sequence[str] = ()) -> dict[str, str]:
    """Run the stages as tasks of the current flow run, and leave their artifacts.

    Args:
        root: the repository; the caller holds it (`exclusive_run`).
        force: run every stage even when nothing changed.
        targets: only these stages and what they read.

    Returns:
        For each stage, in order, what became of it: ran, cached or unchanged.

    Raises:
        PipelineFailedError: a stage failed. Those that do not need it have run to their end.
        RunCancelledError: somebody cancelled the run; its stages are ended.
    """
    logger = get_run_logger()
    layout = Layout(root)
    params = load_params(layout.params)
    chosen = select(read_stages(root), targets)
    num_gpus = len(list(Path("/dev").glob("nvidia[0-9]*")))
    runner = StageRunner(root, jobs=num_jobs(params, num_cores=num_workers(), num_gpus=num_gpus))
    futures: dict[str, PrefectFuture[State[str]]] = {}
    try:
        for stage in chosen:
            upstream = [futures[name] for name in stage.upstream if name in futures]
            futures[stage.name] = repro_stage.with_options(name=stage.name).submit(
                runner, stage.name, force, return_state=False, wait_for=upstream
            )
        outcomes = _watch(chosen, futures, layout, params)
    finally:
        # a cancelled run gets here at once, while its tasks still wait for their stages
        runner.stop()
    artifacts.publish("pipeline", artifacts.pipeline_page([(o.stage, o.outcome, o.detail) for o in outcomes]))
    if not all(outcome.is_good for outcome in outcomes):
        raise PipelineFailedError(explain(outcomes))
    logger.info("%s", summary(outcomes))
    report = layout.stage("report") / "index.html"
    if report.exists():
        logger.info("The report: %s", report)
    return {outcome.stage: outcome.outcome for outcome in outcomes}


def _watch(
    stages: Sequence[DvcStage], futures: Mapping[str, PrefectFuture[State[str]]], layout: Layout, params: Params
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
                artifacts.publish(name, artifacts.stage_page(name, layout, params, with_picture=is_drawn))
    return outcomes


def pages_after(group: str, groups: Sequence[str]) -> list[str]:
    """Whose pages are left when `group` is done: its own; evaluate's waits for the report, which draws its picture."""
    if group == "params":  # its file is in git
        return []
    if "report" not in groups or "evaluate" not in groups:
        return [group]
    return {"evaluate": [], "report": ["evaluate", "report"]}.get(group, [group])


def _outcome(stage: str, future: PrefectFuture[State[str]]) -> StageOutcome:
    """Wait for one task and say what became of it."""
    while wait([future], timeout=5).not_done:
        stop_if_cancelled()
    future.wait()
    state = future.state
    if state.is_completed():
        return StageOutcome(stage, str(state.name).lower(), state.message or "")
    if state.name == "NotReady":
        return StageOutcome(stage, "not run", "a stage that it reads failed")
    error = state.result(raise_on_failure=False)
    return StageOutcome(stage, "failed", str(error) if isinstance(error, MiwakeError) else state.message or "")


def num_jobs(params: Params, *, num_cores: int, num_gpus: int) -> int:
    """How many stages run side by side: each computes with `train.num_threads` threads, and trains on its own GPU."""
    jobs = max(1, num_cores // params.train.num_threads)
    return min(jobs, num_gpus) if num_gpus and params.train.device != "cpu" else jobs


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
        for line in preflight(Path.cwd()):
            print(line, flush=True)
        with tags(folder_name(Path.cwd())):
            pipeline(force=given.force, stages=given.stages)
    except MiwakeError as error:
        print(f"pipeline: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    report = Layout(Path.cwd()).stage("report") / "index.html"
    print(f"The report: {report}" if report.exists() else "No report: the stages named do not make one.")


if __name__ == "__main__":
    main()
