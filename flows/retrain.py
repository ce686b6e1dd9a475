"""Scheduled retraining: the pipeline, then its new metrics against the committed ones."""

import datetime
from pathlib import Path
from shutil import which
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq
from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Cancelled

from flows import artifacts, compare
from flows.bridge import try_lock
from flows.markdown import page, table
from flows.pipeline import RunCancelledError, cancelled, end_tasks, exclusive_run, run_stages
from pipelines.core.errors import InputError
from pipelines.core.git import committed_text
from pipelines.core.layout import Layout
from pipelines.params import load_params
from pipelines.params.edit import write_snapshot


@flow(name="retrain", log_prints=True, on_failure=[end_tasks], on_cancellation=[end_tasks], on_crashed=[end_tasks])
def retrain(refresh: bool = False, snapshot: str | None = None) -> str | State[str]:
    """Bring the pipeline up to date, and say whether the new model is better, worse or not clearly either.

    Runs on `retrain.cron` of params.yaml while `python -m flows.serve` runs, one at a time; by hand whenever you
    like. A rerun on the same day with the same params trains nothing. It commits nothing: the verdict is in the
    artifact `miwake-retrain`. To keep the new model, `git commit -a`; to go back, `miwake rollback`.

    The rule of the verdict stands in flows/compare.py: by accuracy on the test pictures that both runs have, better or
    worse only where the interval of the difference leaves out zero.

    Args:
        refresh: read every source anew: the scheduled day becomes `ingest.snapshot` in params.yaml. When the run fails
            the new value stays, so that the next run continues.
        snapshot: read every source anew under this name, or go back to an older one; None keeps what stands there.
    """
    root = Path.cwd()
    (root / ".prefect").mkdir(exist_ok=True)
    with (root / ".prefect" / "retrain.lock").open("a") as file:
        if not try_lock(file):
            # a run that is due while the last one is not done would only do the same again
            return Cancelled(message="Another retrain of this folder is not done yet: run this one again after it.")
        try:
            with exclusive_run(root):
                found = _retrain(root, refresh, snapshot)
        except RunCancelledError as error:
            return cancelled(error)
    artifacts.publish("retrain", retrain_page(found))
    get_run_logger().info("%s", found.sentence)
    return found.verdict


def _retrain(root: Path, refresh: bool, snapshot: str | None) -> compare.RunComparison:
    """Run the pipeline and compare what it brought with the last commit; the caller holds `root`."""
    if which("git") is None:
        raise InputError("git is not installed: without it there are no committed metrics to compare with")
    layout = Layout(root)
    wanted = snapshot or (scheduled_day(layout) if refresh else None)
    if wanted is not None:
        write_snapshot(layout.params, wanted)
        get_run_logger().info("ingest.snapshot is now %s", wanted)
    run_stages(root)
    metrics = layout.stage("evaluate") / "metrics.json"
    new = compare.parse_metrics(metrics.read_text(encoding="utf-8"), str(metrics))
    committed = committed_text(root / "data/evaluate/metrics.json")
    old = None if committed is None else compare.parse_metrics(committed, "the committed metrics.json")
    tables = [layout.stage("evaluate") / "predictions.parquet", layout.pack_index]
    before = [None if old is None else committed_table(root, path) for path in tables]
    after = [pq.read_table(path) if path.exists() else None for path in tables]
    return compare.compare(old, new, compare.shared_test_set(*before, *after))


def scheduled_day(layout: Layout) -> str:
    """The day for which this run was scheduled, in the time zone of params.yaml, as 2026-11-21.

    Not the clock's: a run that starts late, or again, is still that day's.
    """
    zone = ZoneInfo(load_params(layout.params).retrain.timezone)
    scheduled: datetime.datetime = flow_run.scheduled_start_time
    return scheduled.astimezone(zone).date().isoformat()


def committed_table(root: Path, path: Path) -> pa.Table | None:
    """The Parquet table that DVC stored as `path` for the last commit; None where its cache does not hold it."""
    from dvc.api import read
    from dvc.exceptions import DvcException

    try:
        data = read(path.relative_to(root).as_posix(), repo=str(root), rev="HEAD", mode="rb")
    except (DvcException, OSError):
        return None
    return pq.read_table(pa.BufferReader(data))


def retrain_page(found: compare.RunComparison) -> str:
    """The verdict in a sentence, and every metric of both runs."""
    rows = [
        (
            row.metric.replace("_", " "),
            _shown(row.old),
            _shown(row.new),
            f"{(row.new.value - row.old.value) * 100:+.1f}",
            f"{row.low * 100:+.1f} to {row.high * 100:+.1f}",
            row.verdict,
        )
        for row in found.differences
    ]
    header = ["metric", "committed:", "new:", "change, points:", "interval:", "verdict"]
    rule = (
        "Accuracy decides, on the test pictures that both runs have and neither learnt from: better or worse only "
        "where the interval of the change leaves out zero. The table shows each run on all of its own test pictures."
    )
    return page("Retrain", f"**{found.sentence}**", table(header, rows) if rows else "", rule if rows else "")


def _shown(estimate: compare.Estimate) -> str:
    return f"{estimate.value:.1%} ({estimate.low:.1%} to {estimate.high:.1%})"
