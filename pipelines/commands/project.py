"""A project from its beginning to a finished run: `miwake new`, `run`, `refresh`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.core.errors import InputError
from pipelines.core.layout import Layout

if TYPE_CHECKING:
    from pipelines.use.running import Show, StageLine


def new(
    folder: Annotated[Path, typer.Argument(help="The project's folder, which is made.")],
    pictures: Annotated[
        Path | None, typer.Option("--from", help="A folder that holds a folder of pictures for each class.")
    ] = None,
    table: Annotated[Path | None, typer.Option(help="A CSV, Parquet or JSON Lines table, a row a picture.")] = None,
    image_column: Annotated[str | None, typer.Option(help="The table's column of paths, URLs or pictures.")] = None,
    label_column: Annotated[list[str] | None, typer.Option(help="Its column of labels; several are joined.")] = None,
    search: Annotated[
        list[str] | None, typer.Option(help="A class to search pictures of on the web; once for each class.")
    ] = None,
    title: Annotated[str, typer.Option(help="Of the report.")] = "",
) -> None:
    """Begin a project of your own, from pictures in class folders, a table or search words."""
    from pipelines.use import project

    if sum(bool(one) for one in (pictures, table, search)) > 1:
        raise InputError("--from, --table and --search each name the source: give one; more go below ingest.sources")
    source: dict[str, Any] = {"kind": "sample"}
    found = "drawn guitars, since no source was named"
    if pictures is not None:
        source, found = project.folder_source(pictures, project=folder)
    elif table is not None:
        source, found = project.table_source(
            table, image_column=image_column, label_columns=label_column or [], project=folder
        )
    elif search:
        source, found = project.search_source(search)
    words = folder.absolute().name.replace("-", " ").replace("_", " ").strip()
    begun = project.begin(folder, source=source, found=found, title=title or words[:1].upper() + words[1:])
    print(f"{begun.folder}: {begun.found}")
    if not begun.committed:
        print("Not committed, for git lacks a name: `git config user.name` and `user.email`, then `git commit -a`")
    print(f"Next: cd {begun.folder} && miwake run")


def run(
    stage: Annotated[str, typer.Argument(help="Run this stage and all that it reads; all stages without it.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Also what did not change.")] = False,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", "-S", help="Try key=value: params.yaml stays as it is, the result is an experiment."),
    ] = None,
    name: Annotated[str, typer.Option(help="Of the experiment.")] = "",
) -> None:
    """Run what changed: a line a stage, then the verdict, what to do first, and where the report lies."""
    from pipelines.params import preflight
    from pipelines.use import running

    layout = Layout(Path.cwd())
    _is_project(layout)
    for line in preflight.preflight(layout.root):
        print(line)
    if overrides or name:
        if stage or force:
            raise InputError("an experiment runs all that changes: leave out the stage and --force")
        _run_experiment(layout.root, overrides or [], name)
        return
    stages = running.repro(layout.root, [stage] * bool(stage), _display(), force=force)
    print(running.totals(stages))
    summary = layout.stage("report") / "summary.md"
    if not stage and summary.is_file():
        verdict = running.read_verdict(summary.read_text(encoding="utf-8"))
        print(f"\n{verdict.sentences}")
        if verdict.to_do:
            print("\nWhat to do first:")
        for number, line in enumerate(verdict.to_do[:3], start=1):
            print(f"  {number}. {line}")
        print(f"\nThe report: {summary.with_name('index.html')}")


def _run_experiment(root: Path, overrides: list[str], name: str) -> None:
    from pipelines.use import experiments, running

    name = name or experiments.default_name(overrides)
    found = experiments.run(root, name, overrides, _display())
    print(running.totals(found))
    print_table(
        experiments.HEADER,
        experiments.table(root, [one for one in experiments.experiments(root) if one.name == name]),
    )
    print(f"\nThe page of both: miwake report diff HEAD {name}. To take it over: dvc exp apply {name}")


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as their texts; on a terminal and in a file alike."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def _is_project(layout: Layout) -> None:
    if not (layout.root / "dvc.yaml").is_file() or not layout.params.is_file():
        raise InputError(
            f"{layout.root} is no project, for it has no params.yaml and dvc.yaml: go to the folder of one, or begin "
            "one with `miwake new my-job --from PICTURES`"
        )


def refresh(
    name: Annotated[
        str, typer.Argument(help="Of the new snapshot; the next number, or today's date, without it.")
    ] = "",
) -> None:
    """Read the sources anew: name a new snapshot in params.yaml, then run. What did not change is not read again."""
    from pipelines.ingest.snapshots import list_snapshots
    from pipelines.params import load_params
    from pipelines.params.edit import write_snapshot
    from pipelines.use.project import next_snapshot

    layout = Layout(Path.cwd())
    _is_project(layout)
    before = load_params(layout.params).ingest.snapshot
    after = name or next_snapshot(before, list_snapshots(layout.cache))
    write_snapshot(layout.params, after)
    print(f"ingest.snapshot: {after} (`{before}` brings its pictures back)")
    run(stage="", force=False)


def _display() -> "Show":
    """Lines as they come; on a terminal, with a bar for the stage that runs."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)

    class Display:
        bar: Progress | None = None

        def began(self, stage: str) -> None:
            if console.is_terminal:
                self.bar = Progress(
                    SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(24),
                    TimeElapsedColumn(), TextColumn("{task.fields[line]}", markup=False),
                    console=console, transient=True,
                )  # fmt: skip
                self.task = self.bar.add_task(stage, total=None, line="")
                self.bar.start()

        def at(self, done: int, total: int, line: str) -> None:
            if self.bar is not None:
                self.bar.update(self.task, completed=done, total=total, line=line.partition(": ")[2])
            else:
                print(line, flush=True)

        def said(self, line: str) -> None:
            if self.bar is not None:
                self.bar.console.print(line, markup=False, highlight=False)
            else:
                print(line, file=sys.stderr, flush=True)

        def ended(self, stage: "StageLine") -> None:
            if self.bar is not None:
                self.bar.stop()
                self.bar = None
            seconds = f"{stage.seconds:6.1f} s" if stage.outcome in ("ran", "failed") else " " * 8
            print(f"{stage.name:<24} {stage.outcome:<9} {seconds}  {stage.said}".rstrip(), flush=True)

    return Display()
