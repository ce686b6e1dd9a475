"""How far a long stage has come: a bar on a terminal, a line now and then in a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LINE_EVERY_SECONDS = 10.0


@contextmanager
def progress(title: str, total: int, *, unit: str) -> Iterator[Callable[[int], None]]:
    """Give a function that is told how many more units are done.

    Args:
        title: of the stage.
        total: units to do.
        unit: what is counted, plural: "files".
    """
    if not sys.stderr.isatty():
        yield _line_now_and_then(title, total, unit)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda more: bar.advance(task, more)


def _line_now_and_then(title: str, total: int, unit: str) -> Callable[[int], None]:
    started = said = time.monotonic()
    done = 0

    def advance(more: int) -> None:
        nonlocal done, said
        done += more
        now = time.monotonic()
        if now - said >= LINE_EVERY_SECONDS:
            said = now
            rate = done / (now - started)
            left = (total - done) / rate if rate else 0.0
            print(f"{title}: {done:,} of {total:,} {unit}, {rate:,.0f} a second, {left:,.0f} s left", file=sys.stderr)

    return advance
