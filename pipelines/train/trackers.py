"""Experiment trackers: off by default, offline by default, and never able to stop or change a training.

Each kind is an extra of this package and a class of `tracker_backends`. They write below `.miwake/trackers`.
"""

import contextlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pipelines.augmentation.packs import PackReader, Rows
from pipelines.core.errors import InputError
from pipelines.train import tracker_backends
from pipelines.train.tracker_backends import Misclassified, TrackedRun, TrackerBackend

MAX_MISCLASSIFIED = 16
"""misclassified images logged an epoch"""


class Tracker(Protocol):
    """Is told how a training goes."""

    def log_epoch(
        self, epoch: int, metrics: Mapping[str, float], misclassified: Callable[[], Sequence[Misclassified]]
    ) -> None:
        """After `epoch`, from 1; `misclassified` is called once, and only if a backend wants the images."""
        ...

    def finish(self, metrics: Mapping[str, float]) -> None:
        """The training ended well, with this result."""
        ...


def check_installed(kinds: Sequence[str]) -> None:
    """Check that the packages of these kinds are installed, without importing them.

    Raises:
        InputError: one is missing.
    """
    for kind in kinds:
        if importlib.util.find_spec(kind) is None:  # each package is named as its kind
            raise InputError(
                f"train.trackers names {kind!r}, whose package is not installed: run `pip install 'miwake[{kind}]'`, "
                f"or take {kind} out of train.trackers"
            )


@contextmanager
def open_trackers(
    kinds: Sequence[str],
    *,
    title: str,
    key: str,
    past: Sequence[Mapping[str, float]],
    settings: Mapping[str, object],
    folder: Path,
) -> Iterator[Tracker]:
    """Give a tracker that logs to all of these kinds; without kinds it does nothing and imports nothing.

    A backend that fails is dropped, with one line on stderr, and the training goes on. A run whose block ends without
    `finish` counts as interrupted, and is continued when the same key is opened with a past.

    Args:
        kinds: of params.train.Tracker.
        title: member and fold, for people.
        key: identifies the training; safe as a file name.
        past: metrics of the epochs 1, 2, … that a checkpoint has; logged to backends that lack them.
        settings: the recipe, as JSON values.
        folder: each kind writes into a folder of its name below it.

    Raises:
        InputError: a package is missing or cannot be imported.
    """
    check_installed(kinds)
    tracker = _Trackers()
    try:
        for kind in kinds:
            tracker.open(kind, TrackedRun(title, key, len(past), settings, folder / kind), past)
        yield tracker
    finally:
        tracker.close(None)


class _Trackers:
    """The backends of a training that have not failed."""

    def __init__(self) -> None:
        self._backends: dict[str, TrackerBackend] = {}

    def open(self, kind: str, run: TrackedRun, past: Sequence[Mapping[str, float]]) -> None:
        try:
            with self._dropped_on_failure(kind):
                backend = tracker_backends.BACKENDS[kind](run)
                self._backends[kind] = backend
                for epoch, metrics in enumerate(past, start=1):
                    if epoch > backend.last_epoch:
                        backend.log_epoch(epoch, metrics, ())
        except ImportError as error:
            raise InputError(
                f"train.trackers names {kind!r}, whose package is here but cannot be imported ({error}): run "
                f"`pip install --upgrade 'miwake[{kind}]'`, or take {kind} out of train.trackers"
            ) from error

    def log_epoch(
        self, epoch: int, metrics: Mapping[str, float], misclassified: Callable[[], Sequence[Misclassified]]
    ) -> None:
        behind = {kind: backend for kind, backend in self._backends.items() if backend.last_epoch < epoch}
        images = misclassified()[:MAX_MISCLASSIFIED] if behind else ()
        for kind, backend in behind.items():
            with self._dropped_on_failure(kind):
                backend.log_epoch(epoch, metrics, images)

    def finish(self, metrics: Mapping[str, float]) -> None:
        self.close(metrics)

    def close(self, metrics: Mapping[str, float] | None) -> None:
        while self._backends:
            kind, backend = self._backends.popitem()
            with self._dropped_on_failure(kind):
                backend.close(metrics)

    @contextmanager
    def _dropped_on_failure(self, kind: str) -> Iterator[None]:
        failures: tuple[type[Exception], ...] = (OSError, *tracker_backends.BACKENDS[kind].failures())
        try:
            yield
        except failures as error:
            print(
                f"train: the tracker {kind} fails ({type(error).__name__}: {error}): it is told nothing more, and "
                "training goes on without it",
                file=sys.stderr,
            )
            backend = self._backends.pop(kind, None)
            if backend is not None:
                with contextlib.suppress(*failures):
                    backend.close(None)


def most_confident_mistakes(
    probabilities: npt.NDArray[np.float64],
    labels: Rows,
    *,
    classes: Sequence[str],
    reader: PackReader,
    rows: Rows,
    limit: int,
) -> list[Misclassified]:
    """Return at most `limit` misclassified images, the most confident first; of equal ones the first row.

    Args:
        probabilities: (N, K).
        labels: (N,) int64, the truth.
        classes: K labels.
        rows: (N,) of the reader's index.
    """
    predicted = probabilities.argmax(axis=1)
    confidence = probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    chosen = wrong[np.argsort(-confidence[wrong], kind="stable")][:limit]
    return [
        Misclassified(
            image_id=str(reader.index.image_id[rows[i]]),
            pixels=np.array(reader.picture(int(rows[i]))),
            actual=classes[labels[i]],
            predicted=classes[predicted[i]],
            confidence=float(confidence[i]),
        )
        for i in chosen
    ]
