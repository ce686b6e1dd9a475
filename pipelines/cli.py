"""The `miwake` command: what a person asks of data and models, beside the stages that DVC runs.

    miwake new my-job --from ~/pictures
    miwake run
    miwake refresh
    miwake status
    miwake params split.seed
    miwake ingest diff 1 2
    miwake run -S split.folds=5 --name folds
    miwake report diff HEAD folds
    miwake review
    miwake validate
    miwake validate --write-suite suite.json
    miwake predict pictures/
    miwake audit shop/
    miwake latency
    miwake rollback
    miwake champion rollback

Works on the folder it is called in, the one of params.yaml. The functions are in `pipelines/commands/`.
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands import champion, data, export, machine, models, params, predict, project, report, review
from pipelines.core.errors import MiwakeError

HELP = "Image classification that can be reproduced: what to ask of data and models."


def _group(text: str) -> typer.Typer:
    """A command that holds others; `text` is its line of `--help`."""
    group = typer.Typer(
        help=text, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
    )
    group.callback()(lambda: None)
    return group


app = _group(HELP)
app.info.name = "miwake"


def _say_version(wanted: bool) -> None:
    if wanted:
        import tomllib

        code = Path(__file__).parents[1]
        version = tomllib.loads((code / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
        print(f"miwake {version}, Python {sys.version.split()[0]}, code in {code}")
        raise typer.Exit


@app.callback()
def _miwake(
    version: Annotated[
        bool,
        typer.Option("--version", help="Say which miwake this is, and where.", callback=_say_version, is_eager=True),
    ] = False,
) -> None:
    """Image classification that can be reproduced: what to ask of data and models."""


app.command("new")(project.new)
app.command("run")(project.run)
app.command("refresh")(project.refresh)
app.command("params")(params.params)
app.command("status")(data.status)
app.command("review")(review.review)
app.command("validate")(data.validate)
app.command("predict")(predict.predict)
app.command("audit")(predict.audit)
app.command("export")(export.export)
app.command("latency")(models.latency)
app.command("rollback")(models.rollback)
app.command("doctor")(machine.doctor)

ingest_app = _group("Pictures as ingest packed them.")
ingest_app.command("diff")(data.ingest_diff)
app.add_typer(ingest_app, name="ingest")

decisions_app = _group("What people decided about pictures.")
decisions_app.command("check")(review.decisions_check)
app.add_typer(decisions_app, name="decisions")

champion_app = _group("The model in use, of those that are registered.")
champion_app.command("show")(champion.show)
champion_app.command("promote")(champion.promote)
champion_app.command("rollback")(champion.rollback)
app.add_typer(champion_app, name="champion")

report_app = _group("What evaluate found.")
report_app.command("open")(report.report_open)
report_app.command("diff")(report.report_diff)
report_app.command("experiments")(report.experiments)
app.add_typer(report_app, name="report")


def main() -> None:
    """Run the command: status 0, 1 for an error a person can act on, 2 for words that it does not know."""
    for stream in (sys.stdout, sys.stderr):  # names in any script, whatever the locale
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]
    try:
        app(prog_name="miwake")
    except MiwakeError as error:
        print(f"miwake: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except BrokenPipeError:  # `miwake … | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None


if __name__ == "__main__":
    main()
