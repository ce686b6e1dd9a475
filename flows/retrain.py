"""Scheduled retraining: the pipeline, then its new metrics against the committed ones."""

import contextlib
import datetime
import json
import subprocess
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Cancelled
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode

from flows import artifacts, compare
from flows.bridge import try_lock
from flows.markdown import page, table
from flows.pipeline import end_tasks, only_run, run_stages
from pipelines.core.errors import InputError, ParamsError
from pipelines.core.files import write_text
from pipelines.core.layout import Layout
from pipelines.core.params import load_params


@flow(name="retrain", log_prints=True, on_failure=[end_tasks], on_cancellation=[end_tasks], on_crashed=[end_tasks])
def retrain(refresh: bool = False, snapshot: str | None = None) -> str | State[str]:
    """Bring the pipeline up to date, and say whether the new model is better, worse or not clearly either.

    Runs on `retrain.cron` of params.yaml while `python -m flows.serve` runs, one at a time; by hand whenever you
    like. A rerun on the same day with the same params trains nothing. It commits nothing: the verdict is in the
    artifact `miwake-retrain`. To keep the new model, `git commit -a`; to go back, `miwake rollback`.

    The rule of the verdict stands in flows/compare.py: by accuracy, better or worse only where the interval of the
    difference leaves out zero.

    Args:
        refresh: read every source anew: the scheduled day becomes `ingest.snapshot` in params.yaml. When the run fails
            the new value stays, so that the next run continues.
        snapshot: read every source anew under this name, or go back to an older one; None keeps what stands there.
    """
    root = Path.cwd()
    layout = Layout(root)
    logger = get_run_logger()
    with contextlib.ExitStack() as held:
        (root / ".prefect").mkdir(exist_ok=True)
        if not try_lock(held.enter_context((root / ".prefect" / "retrain.lock").open("a"))):
            # a run that is due while the last one is not done would only do the same again
            return Cancelled(message="Another retrain of this folder is not done yet: run this one again after it.")
        held.enter_context(only_run(root))
        wanted = snapshot or (scheduled_day(layout) if refresh else None)
        if wanted is not None:
            write_snapshot(layout.params, wanted)
            logger.info("ingest.snapshot is now %s", wanted)
        run_stages(root)
        metrics = layout.stage("evaluate") / "metrics.json"
        new = compare.parse_metrics(metrics.read_text(encoding="utf-8"), str(metrics))
        committed = committed_text(root, "data/evaluate/metrics.json")
        old = None if committed is None else compare.parse_metrics(committed, "the committed metrics.json")
        found = compare.compare(old, new)
        artifacts.leave("retrain", retrain_page(found))
        logger.info("%s", found.sentence)
    return found.verdict


def scheduled_day(layout: Layout) -> str:
    """The day for which this run was scheduled, in the time zone of params.yaml, as 2026-11-21.

    Not the clock's: a run that starts late, or again, is still that day's.
    """
    zone = ZoneInfo(load_params(layout.params).retrain.timezone)
    scheduled: datetime.datetime = flow_run.scheduled_start_time
    return scheduled.astimezone(zone).date().isoformat()


def write_snapshot(path: Path, snapshot: str) -> None:
    """Set `ingest.snapshot` in params.yaml; every other line, comments too, stays as it is.

    Raises:
        ParamsError: the file has no such key, or would no longer be valid; then it stays as it was.
    """
    text = path.read_text(encoding="utf-8")
    try:
        start, end = value_span(YAML().compose(text), "ingest", "snapshot")
    except (YAMLError, KeyError) as error:
        raise ParamsError(f"{path} has no ingest.snapshot to set: {error}") from error
    # JSON's quotes and escapes are YAML's too; writing the whole document anew would turn `null` into nothing
    write_text(path, text[:start] + json.dumps(snapshot, ensure_ascii=False) + text[end:])
    try:
        load_params(path)
    except ParamsError:
        write_text(path, text)
        raise


def value_span(node: Any, *keys: str) -> tuple[int, int]:
    """Where the value at `keys` begins and ends in the text of a YAML document, in characters.

    Raises:
        KeyError: there is no such value.
    """
    for key in keys:
        pairs = node.value if isinstance(node, MappingNode) else []
        found = [value for name, value in pairs if name.value == key]
        if not found:
            raise KeyError(key)
        node = found[0]
    return node.start_mark.index, node.end_mark.index


def committed_text(root: Path, path: str) -> str | None:
    """What `path`, below `root`, holds in the last commit; None where there is none.

    Raises:
        InputError: git itself is missing.
    """
    try:
        found = subprocess.run(["git", "show", f"HEAD:./{path}"], cwd=root, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise InputError("git is not installed: without it there are no committed metrics to compare with") from error
    return found.stdout.decode("utf-8", "replace") if found.returncode == 0 else None


def retrain_page(found: compare.Comparison) -> str:
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
        "Accuracy decides: better or worse only where the interval of the change leaves out zero. On the same test "
        "pictures that interval is wider than it must be, so a small gain stays unclear."
    )
    return page("Retrain", f"**{found.sentence}**", table(header, rows) if rows else "", rule if rows else "")


def _shown(figure: compare.Figure) -> str:
    return f"{figure.value:.1%} ({figure.low:.1%} to {figure.high:.1%})"
