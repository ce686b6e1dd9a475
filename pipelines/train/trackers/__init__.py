"""Experiment trackers: off by default, offline by default, and never what a training depends on.

Each is an extra of this package and a module here. What they write lies below `.miwake/trackers`; no output of a stage
changes by them.
"""

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipelines.core.errors import InputError
from pipelines.train.trackers.base import Backend, Start, Tracker, Wrong

__all__ = ["MAX_WRONG", "Tracker", "Wrong", "check_installed", "open_trackers"]

MAX_WRONG = 16
"""misclassified pictures an epoch"""


def check_installed(kinds: Sequence[str]) -> None:
    """Look for the packages of these kinds, without importing them.

    Raises:
        InputError: one is missing.
    """
    for kind in kinds:
        if importlib.util.find_spec(kind) is None:  # each package has the name of its kind
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
    """Give a tracker that tells all of these kinds; without kinds it does nothing, and nothing is imported.

    A tracker that fails is named on stderr with its reason, once, and told nothing more: the training goes on. A block
    that ends without `finish` leaves runs that broke off; they continue when the same key is opened with a past.

    Args:
        kinds: of params.train.Tracker.
        title: of the run, for people: member and fold.
        key: the same for the same training alone; safe as a file name.
        past: the figures of epochs 1, 2, … that are not trained again, because the training continues after them; told
            to trackers that do not have them.
        settings: what the training follows from, as JSON has it.
        folder: each kind writes into a folder of its name below it.

    Raises:
        InputError: a package is missing, or broken.
    """
    check_installed(kinds)
    tracker = _All()
    try:
        for kind in kinds:
            tracker.open(kind, Start(title, key, len(past), settings, folder / kind), past)
        yield tracker
    finally:
        tracker.close(None)


class _All:
    """All trackers of a training that have not failed."""

    def __init__(self) -> None:
        self._backends: dict[str, Backend] = {}

    def open(self, kind: str, start: Start, past: Sequence[Mapping[str, float]]) -> None:
        try:
            with self._told(kind):
                backend = importlib.import_module(f"pipelines.train.trackers.{kind}").open_run(start)
                self._backends[kind] = backend
                for number, figures in enumerate(past, start=1):
                    if number > backend.last:
                        backend.epoch(number, figures, ())
        except ImportError as error:
            raise InputError(
                f"train.trackers names {kind!r}, whose package is here but cannot be imported ({error}): run "
                f"`pip install --upgrade 'miwake[{kind}]'`, or take {kind} out of train.trackers"
            ) from error

    def epoch(self, number: int, figures: Mapping[str, float], wrong: Callable[[], Sequence[Wrong]]) -> None:
        behind = {kind: backend for kind, backend in self._backends.items() if backend.last < number}
        pictures = wrong()[:MAX_WRONG] if behind else ()
        for kind, backend in behind.items():
            with self._told(kind):
                backend.epoch(number, figures, pictures)

    def finish(self, figures: Mapping[str, float]) -> None:
        self.close(figures)

    def close(self, figures: Mapping[str, float] | None) -> None:
        while self._backends:
            kind, backend = self._backends.popitem()
            with self._told(kind):
                backend.close(figures)

    @contextmanager
    def _told(self, kind: str) -> Iterator[None]:
        """Drop the tracker where telling it fails."""
        failures = (OSError, *importlib.import_module(f"pipelines.train.trackers.{kind}").failures())
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
