"""The whole pipeline as a Prefect flow: one task a DVC stage, independent stages side by side.

python -m flows.pipeline             # or `dvc repro`, which does the same without showing it
python -m flows.pipeline --stop-after split --set split.test=0.3
"""

import argparse
import contextlib
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.settings import SERVED_BY, folder_name, set_up_prefect

if __name__ == "__main__":
    set_up_prefect(Path.cwd())  # Prefect reads its settings while the next lines import it

from httpx import HTTPError
from prefect import Flow, Task, flow, get_run_logger, tags
from prefect.assets import add_asset_metadata, materialize
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas import filters
from prefect.client.schemas.objects import FlowRun, State, StateType, TaskRun
from prefect.context import AssetContext, FlowRunContext
from prefect.futures import PrefectFuture, wait
from prefect.runtime import flow_run, task_run
from prefect.states import Cancelled, Completed, Crashed, Failed
from pydantic import ValidationError

from flows import artifacts
from flows.assets import asset_key, describe_outs, origin_of, repository_name
from flows.bridge import (
    DvcStage,
    NetworkError,
    StageFailedError,
    StageRunner,
    StageStoppedError,
    hold,
    read_repository,
    select,
)
from flows.options import PipelineOptions, copy_with, keep_experiment
from pipelines.core.errors import MiwakeError, count
from pipelines.core.layout import Layout
from pipelines.parallel.pool import num_workers
from pipelines.params import Params, load_params
from pipelines.params.preflight import preflight

OUTCOMES = ("ran", "restored", "unchanged", "failed", "cancelled", "not run")
EVERYTHING = PipelineOptions()
RETRY_SECONDS = [30.0, 120.0]
CANCEL_SECONDS = 1.5
"""between two looks at whether somebody cancelled the run"""
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
        outcome: ran | restored | unchanged | failed | cancelled | not run.
        detail: how long it took, where it comes from, or why it failed.
    """

    stage: str
    outcome: str
    detail: str

    @property
    def is_good(self) -> bool:
        return self.outcome in ("ran", "restored", "unchanged")


class StageWork:
    """What the tasks of one run share.

    Args:
        unchanged: the stages that DVC need not be asked about again.
    """

    def __init__(
        self, root: Path, params: Params, runner: StageRunner, *, force: bool, unchanged: Collection[str]
    ) -> None:
        self.layout, self.params, self.runner, self.force = Layout(root), params, runner, force
        self.unchanged = () if force else unchanged
        self.repository = repository_name(root)


def is_of_the_network(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Only ingest, and only for the network's sake, is worth another try: a stage that failed fails again."""
    return isinstance(state.result(raise_on_failure=False), NetworkError)


@materialize(
    "dvc://repository/out",  # each task has those of its stage
    by="dvc",
    name="stage",
    task_run_name="{stage.name}",
    cache_policy=NO_CACHE,  # DVC decides: a task that Prefect skips would not see that its outputs are gone
    retries=len(RETRY_SECONDS),
    retry_delay_seconds=RETRY_SECONDS,
    retry_condition_fn=is_of_the_network,
)
def repro_stage(work: StageWork, stage: DvcStage) -> State[str]:
    """Bring one stage up to date; the run's state is Ran, Restored, Unchanged, Failed or Cancelled."""
    if stage.name in work.unchanged:
        return unchanged("unchanged")
    logger, bar = get_run_logger(), artifacts.ProgressBar(stage.name)

    def on_line(line: str) -> None:
        logger.info("%s", line)
        bar.see(line)

    try:
        result = work.runner.run(stage.name, force=work.force, on_line=on_line)
    except StageStoppedError as error:
        return Cancelled(message=str(error))
    except NetworkError as error:
        if task_run.run_count <= len(RETRY_SECONDS):
            raise
        return Failed(message=str(error))
    except StageFailedError as error:
        return Failed(message=str(error))
    if result.state == "unchanged":
        return unchanged(f"unchanged, said DVC in {result.seconds:.1f} s")
    bar.done()
    known = describe_outs(work.layout.root, stage)
    for out, metadata in known.items():
        add_asset_metadata(asset_key(work.repository, out), metadata)
    origin = origin_of(work.layout.root, known) if result.state == "restored" else ""
    artifacts.publish_stage(stage, work.layout, work.params)
    message = f"{result.state} in {result.seconds:.1f} s{origin}"
    return Completed(name=result.state.capitalize(), message=message, data=result.state)


def unchanged(message: str) -> State[str]:
    """The state of a stage that did not run: nothing was materialised."""
    context = AssetContext.get()
    if context is not None:
        context.downstream_assets = set()
    return Completed(name="Unchanged", message=message, data="unchanged")


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


def run_name() -> str:
    """The name of the present flow run, by its options."""
    return PipelineOptions.model_validate(flow_run.parameters.get("options") or {}).title


@flow(
    name="pipeline",
    flow_run_name=run_name,
    log_prints=True,
    on_failure=[end_tasks],
    on_cancellation=[end_tasks],
    on_crashed=[end_tasks],
)
def pipeline(options: PipelineOptions = EVERYTHING) -> State[Any]:
    """Bring every stage up to date, or those up to a last one; what is up to date does not run.

    One run at a time: a second one waits. A rerun overwrites `data/`, which DVC versions; with overrides it works in a
    copy and overwrites nothing. Each stage that ran leaves an artifact `miwake-<stage>`; from the command line:
    `python -m flows.pipeline`.

    Args:
        options: the last stage, whether to force, and values that differ from params.yaml for this run alone.
    """
    root, targets = Path.cwd(), [] if options.stop_after == "report" else [options.stop_after]
    try:
        with exclusive_run(root):
            if not options.changes:
                outcomes = run_stages(root, force=options.force, targets=targets)
                return Completed(message=end_message(root, outcomes), data=outcomes)
            with copy_with(root, options.changes) as copy:
                outcomes = run_stages(copy, force=options.force, targets=targets)
                message, name = end_message(copy, outcomes), keep_experiment(copy, options.changes)
            return Completed(message=f"{message}; kept as `dvc exp apply {name}`", data=outcomes)
    except RunCancelledError as error:
        return cancelled(error)
    except MiwakeError as error:
        return Failed(message=str(error))


def end_message(root: Path, outcomes: Mapping[str, str]) -> str:
    """What a run ends with: how many stages did what, and the accuracy where there is one."""
    metrics = Layout(root).stage("evaluate") / "metrics.json"
    text = summary([StageOutcome(stage, outcome, "") for stage, outcome in outcomes.items()])
    if "evaluate" not in outcomes or not metrics.exists():
        return text
    found = json.loads(metrics.read_text(encoding="utf-8"))["accuracy"]
    return f"{text}; accuracy {found['value']:.1%} ({found['low']:.1%} to {found['high']:.1%})"


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
    waits: list[bool] = []

    def on_wait() -> None:
        if not waits:
            get_run_logger().info("Another run works in %s: this one waits for its end.", root)
        waits.append(True)
        stop_if_cancelled()

    with hold(root, on_wait):
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
        For each stage, in order, what became of it: ran, restored or unchanged.

    Raises:
        PipelineFailedError: a stage failed. Those that do not need it have run to their end.
        RunCancelledError: somebody cancelled the run; its stages are ended.
    """
    layout = Layout(root)
    params = load_params(layout.params)
    stages, in_order = read_repository(root, with_status=not force)
    chosen = select(stages, targets)
    devices = device_places(params)
    runner = StageRunner(root, jobs=num_jobs(params, num_cores=num_workers()), devices=devices)
    work = StageWork(root, params, runner, force=force, unchanged=in_order)
    futures: dict[str, PrefectFuture[State[str]]] = {}
    try:
        for stage in chosen:
            upstream = [futures[name] for name in stage.upstream if name in futures]
            assets = [asset_key(work.repository, out) for out in stage.outs]
            futures[stage.name] = repro_stage.with_options(name=stage.name, assets=assets).submit(
                work, stage, return_state=False, wait_for=upstream
            )
        outcomes = [_outcome(stage.name, futures[stage.name]) for stage in chosen]
    finally:
        # a cancelled run gets here at once, while its tasks still wait for their stages
        runner.stop()
    if any(outcome.outcome != "unchanged" for outcome in outcomes):
        rows = [(outcome.stage, outcome.outcome, outcome.detail) for outcome in outcomes]
        artifacts.publish("pipeline", artifacts.pipeline_page(rows), summary(outcomes))
    if not all(outcome.is_good for outcome in outcomes):
        raise PipelineFailedError(explain(outcomes))
    get_run_logger().info("%s", summary(outcomes))
    return {outcome.stage: outcome.outcome for outcome in outcomes}


def _outcome(stage: str, future: PrefectFuture[State[str]]) -> StageOutcome:
    """Wait for one task and say what became of it."""
    while wait([future], timeout=CANCEL_SECONDS).not_done:
        stop_if_cancelled()
    future.wait()
    state = future.state
    if state.is_completed():
        return StageOutcome(stage, str(state.name).lower(), state.message or "")
    if state.name == "NotReady":
        return StageOutcome(stage, "not run", "a stage that it reads failed")
    return StageOutcome(stage, "cancelled" if state.is_cancelled() else "failed", state.message or "")


def num_jobs(params: Params, *, num_cores: int) -> int:
    """How many stages run side by side: each computes with `train.num_threads` threads."""
    return max(1, num_cores // params.train.num_threads)


def device_places(params: Params, env: Mapping[str, str] = os.environ, dev: Path = Path("/dev")) -> list[str] | None:
    """CUDA_VISIBLE_DEVICES for each of the stages that may run side by side, each with `train.num_devices` GPUs.

    None where there is no GPU that this process may use, or training is to do without.
    """
    visible = env.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        found = [str(n) for n in range(len(list(dev.glob("nvidia[0-9]*"))))]
    else:
        found = [name.strip() for name in visible.split(",") if name.strip()]
    if not found or params.train.device not in ("auto", "cuda"):
        return None
    each = max(1, params.train.num_devices)
    return [",".join(found[at : at + each]) for at in range(0, max(1, len(found) - each + 1), each)]


def summary(outcomes: Sequence[StageOutcome]) -> str:
    """One line: how many stages ran, were restored, …; in the order of OUTCOMES."""
    counts = dict.fromkeys(OUTCOMES, 0)
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
    parser.add_argument("--stop-after", default="report", help="the last stage (default: report)")
    parser.add_argument("--force", action="store_true", help="run every stage even when nothing changed")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a value for this run alone")
    parser.add_argument("--member", action="append", default=[], help="only this member; may be given again")
    given = parser.parse_args()
    logging.getLogger("prefect").setLevel(logging.INFO)
    try:
        for line in preflight(Path.cwd()):
            print(line, flush=True)
        options = PipelineOptions(
            stop_after=given.stop_after, force=given.force, overrides=tuple(given.set), members=tuple(given.member)
        )
    except MiwakeError as error:
        print(f"pipeline: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except ValidationError as error:
        first = error.errors()[0]
        print(f"pipeline: {'.'.join(map(str, first['loc']))} {first['input']!r}: {first['msg']}", file=sys.stderr)
        raise SystemExit(2) from None
    with tags(folder_name(Path.cwd())):
        state = pipeline(options, return_state=True)
    if not state.is_completed():
        print(f"pipeline: {state.message}", file=sys.stderr)
        raise SystemExit(1)
    print(state.message)
    report = Layout(Path.cwd()).stage("report") / "index.html"
    if report.exists() and not options.changes:
        print(f"The report: {report}")


if __name__ == "__main__":
    main()
