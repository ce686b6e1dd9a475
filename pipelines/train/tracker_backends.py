"""The four kinds of experiment trackers. Each package is imported when a run of its kind is opened.

Libraries' own reports home, DVCLive's use of Git, and system monitoring are off.
"""

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL.Image import Image

MLFLOW_KEY = "miwake.key"
"""tag that a run is found by"""
SHEET_COLUMNS = 4
SHEET_TILE = 160
"""px of an image on a contact sheet"""
SHEET_LINE = 14
"""px of a line of text; two below each image"""


@dataclass(frozen=True)
class Misclassified:
    """A misclassified validation image.

    Args:
        pixels: (S, S, 3) uint8.
        actual, predicted: labels.
        confidence: probability of the predicted label.
    """

    image_id: str
    pixels: npt.NDArray[np.uint8]
    actual: str
    predicted: str
    confidence: float

    @property
    def caption(self) -> str:
        return f"{self.actual} → {self.predicted} ({100 * self.confidence:.1f} %)"


@dataclass(frozen=True)
class TrackedRun:
    """The run that a training is to a tracker.

    Args:
        title: member and fold.
        key: identifies the training; safe as a file name.
        done: number of epochs that a checkpoint has.
        settings: the recipe, nested JSON values.
        folder: for all that this kind of tracker writes; it need not exist.
    """

    title: str
    key: str
    done: int
    settings: Mapping[str, object]
    folder: Path


class TrackerBackend(Protocol):
    """One run of one kind of tracker; see `open_trackers` for what a key and a past mean."""

    last_epoch: int
    """the last epoch it has, 0 for none: only later ones are logged"""

    def __init__(self, run: TrackedRun) -> None: ...

    @staticmethod
    def failures() -> tuple[type[Exception], ...]:
        """The library's own errors; it may raise OSError besides."""
        ...

    def log_epoch(self, epoch: int, metrics: Mapping[str, float], images: Sequence[Misclassified]) -> None: ...

    def close(self, metrics: Mapping[str, float] | None) -> None:
        """End the run: with its result, or None where the training was interrupted."""
        ...


class DvcliveBackend:
    """DVCLive: JSON and TSV files."""

    @staticmethod
    def failures() -> tuple[type[Exception], ...]:
        from dvclive.error import DvcLiveError

        return (DvcLiveError,)

    def __init__(self, run: TrackedRun) -> None:
        from dvclive import Live

        class LiveWithoutDvc(Live):  # type: ignore[misc]
            """Ignores the repository, since a stage is no DVC experiment of its own."""

            def _init_dvc(self) -> None:
                return

        folder = run.folder / run.key
        resume = run.done > 0 and (folder / "metrics.json").is_file()
        self._live: Any = LiveWithoutDvc(str(folder), resume=resume, report=None, save_dvc_exp=False, dvcyaml=None)
        # a resumed run stands at its next step
        self.last_epoch: int = self._live.step - 1 if resume else 0
        self._live.log_params({"title": run.title, **run.settings})

    def log_epoch(self, epoch: int, metrics: Mapping[str, float], images: Sequence[Misclassified]) -> None:
        self._live.step = epoch
        for name, value in metrics.items():
            self._live.log_metric(name, value)
        if images:
            # viewers show a folder of numbered images with a slider
            self._live.log_image(f"wrong/{epoch}.png", contact_sheet(images))
            text = Path(self._live.plots_dir) / "images" / "wrong" / f"{epoch}.txt"
            text.write_text(captions(images), encoding="utf-8")
        self._live.next_step()
        self.last_epoch = epoch

    def close(self, metrics: Mapping[str, float] | None) -> None:
        for name, value in (metrics or {}).items():
            self._live.log_metric(name, value, plot=False)
        self._live.end()


class WandbBackend:
    """Weights & Biases: offline unless WANDB_MODE or WANDB_API_KEY is set; `wandb sync` uploads later."""

    @staticmethod
    def failures() -> tuple[type[Exception], ...]:
        import wandb
        from wandb.sdk.mailbox import MailboxClosedError

        # ValueError for settings, also from the environment; MailboxClosedError when its service process has died
        return (wandb.Error, ValueError, MailboxClosedError)

    def __init__(self, run: TrackedRun) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        online = "WANDB_MODE" in os.environ or "WANDB_API_KEY" in os.environ
        quiet = {} if online else {"silent": True}
        settings = wandb.Settings(
            console="off",
            disable_git=True,
            save_code=False,
            x_disable_meta=True,
            x_disable_machine_info=True,
            x_disable_stats=True,
            x_save_requirements=False,
            **quiet,
        )
        run.folder.mkdir(parents=True, exist_ok=True)
        self._run: Any = wandb.init(
            # wandb appends a folder of its own name
            dir=run.folder.parent,
            id=run.key,
            name=run.title,
            project=os.environ.get("WANDB_PROJECT", "miwake"),
            mode=None if online else "offline",
            config=dict(run.settings),
            resume="allow" if online else None,
            reinit="create_new",
            settings=settings,
        )
        # the server knows the next step. Offline a resumed run is a new file with the same id and the whole past, since
        # a killed process loses up to 32 KiB that it had not written
        self.last_epoch: int = max(0, self._run.step - 1)

    def log_epoch(self, epoch: int, metrics: Mapping[str, float], images: Sequence[Misclassified]) -> None:
        from wandb import Image

        pictures = [Image(each.pixels, caption=each.caption) for each in images]
        # committed, or it would be held back until the next epoch
        self._run.log({**metrics, **({"wrong": pictures} if pictures else {})}, step=epoch, commit=True)
        self.last_epoch = epoch

    def close(self, metrics: Mapping[str, float] | None) -> None:
        self._run.summary.update(dict(metrics or {}))
        self._run.finish(exit_code=1 if metrics is None else 0)


class MlflowBackend:
    """MLflow: a folder of files unless MLFLOW_TRACKING_URI names a server."""

    @staticmethod
    def failures() -> tuple[type[Exception], ...]:
        from mlflow.exceptions import MlflowException

        return (MlflowException,)

    def __init__(self, run: TrackedRun) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        # MLflow refuses folders of files without this; the alternatives are a database or a server
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        from mlflow import MlflowClient
        from mlflow.entities import Param

        uri = os.environ.get("MLFLOW_TRACKING_URI") or run.folder.resolve().as_uri()
        self._client: Any = MlflowClient(tracking_uri=uri)
        experiment = _mlflow_experiment(self._client, os.environ.get("MLFLOW_EXPERIMENT_NAME", "miwake"))
        # even one that has ended: the process may have been killed after its last epoch
        same = self._client.search_runs([experiment], f"tags.`{MLFLOW_KEY}` = '{run.key}'", max_results=1)
        if same and run.done > 0:
            self._id: str = same[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
        else:
            self._id = self._client.create_run(experiment, run_name=run.title, tags={MLFLOW_KEY: run.key}).info.run_id
            params = [Param(name, str(value)) for name, value in flatten(run.settings).items()]
            self._client.log_batch(self._id, params=params)
        logged = (self._client.get_metric_history(self._id, m) for m in self._client.get_run(self._id).data.metrics)
        self.last_epoch: int = max((int(metric.step) for history in logged for metric in history), default=0)

    def _log(self, metrics: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(self._id, metrics=[Metric(name, value, now, step) for name, value in metrics.items()])

    def log_epoch(self, epoch: int, metrics: Mapping[str, float], images: Sequence[Misclassified]) -> None:
        if images:
            self._client.log_image(self._id, contact_sheet(images), artifact_file=f"wrong/epoch-{epoch:04d}.png")
            self._client.log_text(self._id, captions(images), f"wrong/epoch-{epoch:04d}.txt")
        # last and in one batch: an epoch that has metrics is complete
        self._log(metrics, epoch)
        self.last_epoch = epoch

    def close(self, metrics: Mapping[str, float] | None) -> None:
        if metrics:
            self._log(metrics, self.last_epoch)
        self._client.set_terminated(self._id, "FAILED" if metrics is None else "FINISHED")


class TensorboardBackend:
    """TensorBoard: event files."""

    @staticmethod
    def failures() -> tuple[type[Exception], ...]:
        return ()

    def __init__(self, run: TrackedRun) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = run.folder / run.key
        is_new = run.done == 0 or not folder.is_dir()
        writer: Any = SummaryWriter  # its methods have no types
        # hides later steps: of a killed process, or of an earlier run of the same training
        self._writer = writer(str(folder), purge_step=1 if is_new else run.done + 1)
        self.last_epoch = 0 if is_new else run.done
        if is_new:
            text = json.dumps(run.settings, indent=2, ensure_ascii=False)
            # Markdown shows indented lines as they are
            self._writer.add_text("settings", "".join(f"    {line}\n" for line in text.splitlines()), 1)

    def log_epoch(self, epoch: int, metrics: Mapping[str, float], images: Sequence[Misclassified]) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, epoch)
        if images:
            self._writer.add_image("wrong", np.asarray(contact_sheet(images)), epoch, dataformats="HWC")
            self._writer.add_text("wrong", captions(images), epoch)
        self._writer.flush()
        self.last_epoch = epoch

    def close(self, metrics: Mapping[str, float] | None) -> None:
        for name, value in (metrics or {}).items():
            self._writer.add_scalar(f"result/{name}", value, self.last_epoch)
        self._writer.close()


BACKENDS: dict[str, type[TrackerBackend]] = {
    "dvclive": DvcliveBackend,
    "wandb": WandbBackend,
    "mlflow": MlflowBackend,
    "tensorboard": TensorboardBackend,
}


def _mlflow_experiment(client: Any, name: str) -> str:
    """Id of the experiment, which another training may be creating."""
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


def flatten(settings: Mapping[str, object], prefix: str = "") -> dict[str, str | int | float | bool | None]:
    """{"a": {"b": 1}} to {"a.b": 1}; lists become JSON text."""
    flat: dict[str, str | int | float | bool | None] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        elif value is None or isinstance(value, str | int | float):
            flat[prefix + name] = value
        else:
            flat[prefix + name] = json.dumps(value, ensure_ascii=False)
    return flat


def contact_sheet(images: Sequence[Misclassified]) -> "Image":
    """Draw the images in rows of four, each above its number, confidence and labels, for trackers without captions.

    The font has Latin letters only; `captions` has the same numbers with labels in any script.

    Args:
        images: at least one.
    """
    from PIL import Image, ImageDraw, ImageFont

    rows, columns = -(-len(images) // SHEET_COLUMNS), min(SHEET_COLUMNS, len(images))
    page = Image.new("RGB", (columns * SHEET_TILE, rows * (SHEET_TILE + 2 * SHEET_LINE)), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(SHEET_LINE - 3)
    for number, each in enumerate(images):
        x, y = number % SHEET_COLUMNS * SHEET_TILE, number // SHEET_COLUMNS * (SHEET_TILE + 2 * SHEET_LINE)
        # enlarged images of 32 px are clearer as pixels than blurred
        method = Image.Resampling.NEAREST if each.pixels.shape[0] < SHEET_TILE else Image.Resampling.LANCZOS
        page.paste(Image.fromarray(each.pixels).resize((SHEET_TILE - 4, SHEET_TILE - 4), method), (x + 2, y + 2))
        lines = (f"{number + 1}: {each.actual}", f"-> {each.predicted} ({100 * each.confidence:.1f} %)")
        for line, text in enumerate(lines):
            while draw.textlength(text, font=font) > SHEET_TILE - 4:
                text = text[:-2] + "…"
            draw.text((x + 2, y + SHEET_TILE + line * SHEET_LINE), text, fill="black", font=font)
    return page


def captions(images: Sequence[Misclassified]) -> str:
    """A line an image: number on the sheet, caption, image id."""
    return "".join(f"{number}. {each.caption}, {each.image_id}\n" for number, each in enumerate(images, start=1))
