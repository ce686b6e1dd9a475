"""How far a long stage has come: a bar on a terminal, a line now and then in a log."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

LINE_EVERY_SECONDS = 10.0


class Advance(Protocol):
    """Is told how many more units are done.

    Args:
        more: units, 0 for none.
        num_bytes: that they had, where that is of interest.
        note: how it goes, shown from now on until another is given: "loss 0.123".
    """

    def __call__(self, more: int, num_bytes: int = 0, *, note: str | None = None) -> None: ...


@contextmanager
def progress(title: str, total: int, *, unit: str, done: int = 0) -> Iterator[Advance]:
    """Give a function that is told how many more units are done.

    Args:
        title: of the stage.
        total: units to do.
        unit: what is counted, plural: "files".
        done: units of an earlier run; they say nothing about how fast this one is.
    """
    if not sys.stderr.isatty():
        yield _line_now_and_then(title, total, unit, done)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit + "{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total, completed=done, rate="", note="")
        rate = _Rate()

        def advance(more: int, num_bytes: int = 0, *, note: str | None = None) -> None:
            rate.add(more, num_bytes)
            bar.update(task, advance=more, rate=f", {rate}")
            if note is not None:
                bar.update(task, note=note)

        yield advance


class _Rate:
    """Units and bytes a second, since the beginning."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._units = 0
        self._bytes = 0

    def add(self, units: int, num_bytes: int) -> None:
        self._units += units
        self._bytes += num_bytes

    @property
    def units_a_second(self) -> float:
        return self._units / max(1e-9, time.monotonic() - self._started)

    def __str__(self) -> str:
        megabytes = self._bytes / max(1e-9, time.monotonic() - self._started) / 1e6
        return f"{self.units_a_second:,.0f} a second" + (f", {megabytes:,.1f} MB a second" if self._bytes else "")


def _line_now_and_then(title: str, total: int, unit: str, done: int) -> Advance:
    said = time.monotonic()
    rate = _Rate()
    last_note = ""

    def advance(more: int, num_bytes: int = 0, *, note: str | None = None) -> None:
        nonlocal done, said, last_note
        done += more
        last_note = last_note if note is None else note
        rate.add(more, num_bytes)
        now = time.monotonic()
        if now - said >= LINE_EVERY_SECONDS:
            said = now
            left = (total - done) / (rate.units_a_second or 1.0)
            line = f"{title}: {done:,} of {total:,} {unit}, {rate}, {left:,.0f} s left"
            print(f"{line}, {last_note}" if last_note else line, file=sys.stderr)

    return advance
