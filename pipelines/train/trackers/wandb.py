"""Weights & Biases: offline, unless WANDB_MODE or WANDB_API_KEY is set; `wandb sync` uploads such runs later."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.train.trackers.base import Start, Wrong


def failures() -> tuple[type[Exception], ...]:
    import wandb
    from wandb.sdk.mailbox import MailboxClosedError

    # ValueError: its settings, from the environment too; MailboxClosedError: its service has died
    return (wandb.Error, ValueError, MailboxClosedError)


def open_run(start: Start) -> "Run":
    return Run(start)


class Run:
    def __init__(self, start: Start) -> None:
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
        start.folder.mkdir(parents=True, exist_ok=True)
        self._run: Any = wandb.init(
            # it adds a folder of its own name
            dir=start.folder.parent,
            id=start.key,
            name=start.title,
            project=os.environ.get("WANDB_PROJECT", "miwake"),
            mode=None if online else "offline",
            config=dict(start.settings),
            resume="allow" if online else None,
            reinit="create_new",
            settings=settings,
        )
        # its server knows the next step. Offline a run that continues is told all again, under the same id: what a
        # killed process had not written yet (seen: up to 32 KiB) is lost
        self.last: int = max(0, self._run.step - 1)

    def epoch(self, number: int, figures: Mapping[str, float], wrong: Sequence[Wrong]) -> None:
        from wandb import Image

        pictures = [Image(each.pixels, caption=each.caption) for each in wrong]
        # committed, or it would be kept back until the next epoch
        self._run.log({**figures, **({"wrong": pictures} if pictures else {})}, step=number, commit=True)
        self.last = number

    def close(self, figures: Mapping[str, float] | None) -> None:
        self._run.summary.update(dict(figures or {}))
        self._run.finish(exit_code=1 if figures is None else 0)
