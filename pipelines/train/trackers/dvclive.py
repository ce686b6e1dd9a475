"""DVCLive: plain files, JSON and TSV. Git and DVC are left alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.train.trackers.base import Start, Wrong
from pipelines.train.trackers.sheet import listing, sheet


def failures() -> tuple[type[Exception], ...]:
    from dvclive.error import DvcLiveError

    return (DvcLiveError,)


def open_run(start: Start) -> "Run":
    return Run(start)


class Run:
    def __init__(self, start: Start) -> None:
        from dvclive import Live

        class Apart(Live):  # type: ignore[misc]
            """Without a look at the repository: a run of the pipeline is DVC's already, no experiment of its own."""

            def _init_dvc(self) -> None:
                return

        folder = start.folder / start.key
        resume = start.done > 0 and (folder / "metrics.json").is_file()
        self._live: Any = Apart(str(folder), resume=resume, report=None, save_dvc_exp=False, dvcyaml=None)
        # a continued run's step is the next one
        self.last: int = self._live.step - 1 if resume else 0
        self._live.log_params({"title": start.title, **start.settings})

    def epoch(self, number: int, figures: Mapping[str, float], wrong: Sequence[Wrong]) -> None:
        self._live.step = number
        for name, value in figures.items():
            self._live.log_metric(name, value)
        if wrong:
            # a folder of numbered pictures is shown with a slider
            self._live.log_image(f"wrong/{number}.png", sheet(wrong))
            text = Path(self._live.plots_dir) / "images" / "wrong" / f"{number}.txt"
            text.write_text(listing(wrong), encoding="utf-8")
        self._live.next_step()
        self.last = number

    def close(self, figures: Mapping[str, float] | None) -> None:
        for name, value in (figures or {}).items():
            self._live.log_metric(name, value, plot=False)
        self._live.end()
