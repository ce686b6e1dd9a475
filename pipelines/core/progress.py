"""How far a long stage has come: a bar on a terminal, a line now and then in a log."""

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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
    started = said = time.monotonic()
    num_units = total_bytes = 0
    last_note = ""
    bar = None
    with ExitStack() as stack:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            state = TextColumn(unit + "{task.fields[state]}", markup=False)
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                state,
                TimeRemainingColumn(),
            )
            bar = stack.enter_context(Progress(*columns, console=Console(stderr=True), transient=True))
            task = bar.add_task(title, total=total, completed=done, state="")

        def advance(more: int, num_bytes: int = 0, *, note: str | None = None) -> None:
            nonlocal num_units, total_bytes, last_note, said
            num_units += more
            total_bytes += num_bytes
            last_note = last_note if note is None else note
            now = time.monotonic()
            seconds = max(1e-9, now - started)
            state = f", {num_units / seconds:,.0f} a second"
            if total_bytes:
                state += f", {total_bytes / seconds / 1e6:,.1f} MB a second"
            if bar is not None:
                bar.update(task, advance=more, state=state + (f", {last_note}" if last_note else ""))
            elif now - said >= LINE_EVERY_SECONDS:
                said = now
                so_far = done + num_units
                left = (total - so_far) * seconds / max(1, num_units)
                line = f"{title}: {so_far:,} of {total:,} {unit}{state}, {left:,.0f} s left"
                print(f"{line}, {last_note}" if last_note else line, file=sys.stderr)

        yield advance
