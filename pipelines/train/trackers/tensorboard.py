"""TensorBoard: event files; `tensorboard --logdir .miwake/trackers/tensorboard` shows them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipelines.train.trackers.base import Start, Wrong
from pipelines.train.trackers.sheet import listing, sheet


def failures() -> tuple[type[Exception], ...]:
    return ()


def open_run(start: Start) -> "Run":
    return Run(start)


class Run:
    def __init__(self, start: Start) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # what a killed process wrote of later epochs, and of an earlier run of the same training, is not shown
        folder = start.folder / start.key
        is_new = start.done == 0 or not folder.is_dir()
        writer: Any = SummaryWriter  # its methods have no types
        self._writer = writer(str(folder), purge_step=1 if is_new else start.done + 1)
        self.last = 0 if is_new else start.done
        if is_new:
            self._writer.add_text("settings", _indented(start.settings_text), 1)

    def epoch(self, number: int, figures: Mapping[str, float], wrong: Sequence[Wrong]) -> None:
        writer = self._writer
        for name, value in figures.items():
            writer.add_scalar(name, value, number)
        if wrong:
            writer.add_image("wrong", np.asarray(sheet(wrong)), number, dataformats="HWC")
            writer.add_text("wrong", listing(wrong), number)
        writer.flush()
        self.last = number

    def close(self, figures: Mapping[str, float] | None) -> None:
        for name, value in (figures or {}).items():
            self._writer.add_scalar(f"result/{name}", value, self.last)
        self._writer.close()


def _indented(text: str) -> str:
    """As Markdown shows text as it stands."""
    return "".join(f"    {line}\n" for line in text.splitlines())
