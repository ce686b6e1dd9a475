"""The `miwake` command: what a person asks of data and models, beside the stages that DVC runs.

    miwake ingest diff 1 2
    miwake validate
    miwake validate --write-suite suite.json

Works on the folder it is called in, the one of params.yaml. One group of subcommands a stage or subject; each function
here takes words from the command line to a function of its package, which it imports when it is called.
"""

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipelines.core.cycles import search_from_now_on
from pipelines.core.errors import InputError, MiwakeError
from pipelines.core.layout import Layout

app = typer.Typer(
    name="miwake",
    help="Image classification that can be reproduced: what to ask of data and models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
ingest_app = typer.Typer(help="Pictures as ingest packed them.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(ingest_app, name="ingest")


@app.callback()
def _miwake() -> None:
    """Image classification that can be reproduced: what to ask of data and models."""
    search_from_now_on()


@ingest_app.command("diff")
def ingest_diff(
    before: Annotated[
        str, typer.Argument(help="A snapshot (ingest.snapshot), a folder that ingest wrote, a manifest.")
    ],
    after: Annotated[str, typer.Argument(help="Likewise.")],
    as_json: Annotated[bool, typer.Option("--json", help="Everything, for a program.")] = False,
    limit: Annotated[int, typer.Option(min=0, help="Files shown of each kind.")] = 20,
) -> None:
    """Say which files two snapshots do not share: added, gone, changed, relabelled, moved."""
    from pipelines.ingest import diff

    cache = Layout(Path.cwd()).cache
    names = (before, after)
    found = diff.diff(*(diff.find_manifest(name, cache=cache) for name in names))
    if as_json:
        print(json.dumps(diff.as_json(found, names=names), ensure_ascii=False, indent=2))
        return
    for line in diff.describe(found, names=names, limit=limit):
        print(line)


@app.command("validate")
def validate(
    write_suite: Annotated[
        Path | None, typer.Option(help="Write the rules to this file, as a Great Expectations suite over the manifest.")
    ] = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="With --write-suite: without the expectations that need miwake.")
    ] = False,
) -> None:
    """Hold data/dedupe/manifest.parquet against the rules of params.yaml and say what is broken; write nothing."""
    from pipelines.core.params import load_params
    from pipelines.validate import export, outcome, stage

    layout = Layout(Path.cwd())
    whole = load_params(layout.params)
    params, unlabelled = whole.validate_, whole.split.unlabelled
    if write_suite is not None:
        count = export.write_suite(params, write_suite, cache=layout.cache, plain=plain)
        print(f"{write_suite}: {count} expectations")
        return
    if plain:
        raise InputError("--plain says what --write-suite leaves out: name its file too")
    found, _ = stage.look(
        params,
        manifest=layout.manifest,
        rejects=layout.rejects,
        cache=layout.cache,
        unlabelled=unlabelled,
        mirroring=whole.mirroring,
    )
    errors, warned = stage.broken(found, "error"), stage.broken(found, "warn")
    for severity, some in (("error", errors), ("warning", warned)):
        for one in some:
            print(f"{severity}: {outcome.explain(one, [])}")
    print(stage.ValidateArtifact.of(found, layout.stage("validate")))
    if errors:
        raise SystemExit(1)


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
