"""MLflow: a store of files, unless MLFLOW_TRACKING_URI names a server."""

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.train.trackers.base import Start, Wrong, flatten
from pipelines.train.trackers.sheet import listing, sheet

KEY = "miwake.key"


def failures() -> tuple[type[Exception], ...]:
    from mlflow.exceptions import MlflowException

    return (MlflowException,)


def open_run(start: Start) -> "Run":
    return Run(start)


class Run:
    def __init__(self, start: Start) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        # stores of files are no longer developed, and refused without this; others need a database or a server
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        from mlflow import MlflowClient
        from mlflow.entities import Param

        uri = os.environ.get("MLFLOW_TRACKING_URI") or start.folder.resolve().as_uri()
        self._client: Any = MlflowClient(tracking_uri=uri)
        experiment = _experiment(self._client, os.environ.get("MLFLOW_EXPERIMENT_NAME", "miwake"))
        # continued even where it has ended: the process was killed after its last epoch
        same = self._client.search_runs([experiment], f"tags.`{KEY}` = '{start.key}'", max_results=1)
        if same and start.done > 0:
            self._id: str = same[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
        else:
            self._id = self._client.create_run(experiment, run_name=start.title, tags={KEY: start.key}).info.run_id
            params = [Param(name, str(value)) for name, value in flatten(start.settings).items()]
            self._client.log_batch(self._id, params=params)
        self.last: int = max((self._last(name) for name in self._client.get_run(self._id).data.metrics), default=0)

    def _last(self, name: str) -> int:
        return max(int(metric.step) for metric in self._client.get_metric_history(self._id, name))

    def _log(self, figures: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(self._id, metrics=[Metric(name, value, now, step) for name, value in figures.items()])

    def epoch(self, number: int, figures: Mapping[str, float], wrong: Sequence[Wrong]) -> None:
        if wrong:
            self._client.log_image(self._id, sheet(wrong), artifact_file=f"wrong/epoch-{number:04d}.png")
            self._client.log_text(self._id, listing(wrong), f"wrong/epoch-{number:04d}.txt")
        # last, and at once: an epoch that has figures is whole
        self._log(figures, number)
        self.last = number

    def close(self, figures: Mapping[str, float] | None) -> None:
        if figures:
            self._log(figures, self.last)
        self._client.set_terminated(self._id, "FAILED" if figures is None else "FINISHED")


def _experiment(client: Any, name: str) -> str:
    """Its id; another training may make it at the same time."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException:
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)
