"""What a training tells a tracker, and what a tracker has to offer."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class Wrong:
    """A validation picture that was taken for something else.

    Args:
        pixels: (S, S, 3) uint8.
        actual, predicted: labels.
        confidence: the probability of the predicted label, 0..1.
    """

    image_id: str
    pixels: npt.NDArray[np.uint8]
    actual: str
    predicted: str
    confidence: float

    @property
    def caption(self) -> str:
        return f"{self.actual} → {self.predicted} ({100 * self.confidence:.1f} %)"


class Tracker(Protocol):
    """Is told how a training goes."""

    def epoch(self, number: int, figures: Mapping[str, float], wrong: Callable[[], Sequence[Wrong]]) -> None:
        """After epoch `number`, from 1; `wrong` is called once, and only where somebody wants the pictures."""
        ...

    def finish(self, figures: Mapping[str, float]) -> None:
        """The training has ended well; these figures are its result."""
        ...


@dataclass(frozen=True)
class Start:
    """The run that a training is to a tracker.

    Args:
        title: member and fold.
        key: the same for the same training alone, continued or repeated; safe as a file name.
        done: epochs that are not trained again, because the training continues after them.
        settings: what the training follows from, nested, as JSON has it.
        folder: for all that this kind of tracker writes; it need not exist.
    """

    title: str
    key: str
    done: int
    settings: Mapping[str, object]
    folder: Path

    @property
    def settings_text(self) -> str:
        return json.dumps(self.settings, indent=2, ensure_ascii=False)


class Backend(Protocol):
    """One run of one kind of tracker. What it raises besides OSError stands in its module's `failures()`."""

    @property
    def last(self) -> int:
        """The last epoch it already has, 0 for none: it is told of later ones alone."""
        ...

    def epoch(self, number: int, figures: Mapping[str, float], wrong: Sequence[Wrong]) -> None: ...

    def close(self, figures: Mapping[str, float] | None) -> None:
        """End the run: with its result, or None where the training broke off and may be continued."""
        ...


def flatten(settings: Mapping[str, object], prefix: str = "") -> dict[str, Scalar]:
    """{"a": {"b": 1}} as {"a.b": 1}; a list as its JSON text."""
    flat: dict[str, Scalar] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        elif value is None or isinstance(value, str | int | float):
            flat[prefix + name] = value
        else:
            flat[prefix + name] = json.dumps(value, ensure_ascii=False)
    return flat
