"""What a person asks of data: `miwake ingest diff`, `status`, `validate`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.core.errors import InputError
from pipelines.core.layout import Layout
from pipelines.params.inputs import refuse_input_in_outputs

if TYPE_CHECKING:
    from pipelines.params import Params

SHOWN = 8
"""changed params that `status` lists"""


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


def status(
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing where nothing changed.")] = False,
) -> None:
    """Say what is new in the sources since the snapshot was read, and what a run would do; read no picture."""
    from pipelines.ingest import changes, snapshots
    from pipelines.params import load_params

    layout = Layout(Path.cwd())
    params = load_params(layout.params)
    refuse_input_in_outputs(params, layout)
    lines = changes.status(params.ingest, root=layout.root, cache=layout.cache)
    for line in lines:
        print(f"status: {line}")
    if not lines and not quiet:
        name = params.ingest.snapshot
        read = snapshots.find_finished(layout.cache, name) is not None
        print(
            f"status: nothing that can be seen without reading changed since snapshot {name!r}"
            if read
            else f"status: snapshot {name!r} was not read here yet: `miwake run` does"
        )
    if not quiet and (layout.root / "dvc.yaml").is_file():
        _say_what_would_run(params, layout)


def _say_what_would_run(params: "Params", layout: Layout) -> None:
    from pipelines.params.load import read_yaml
    from pipelines.use.running import pending

    before = read_yaml(layout.resolved) if layout.resolved.is_file() else {}
    found = pending(layout.root, params.model_dump(mode="json", by_alias=True), before)
    for line in found.changed[:SHOWN]:
        print(f"status: params: {line}")
    if len(found.changed) > SHOWN:
        print(f"status: params: and {len(found.changed) - SHOWN} more, see `dvc params diff` after a run")
    if found.stages:
        print(f"status: `miwake run` would do {', '.join(found.stages)}, and what depends on what they write")
    else:
        print("status: every stage is up to date with its inputs")


def validate(
    write_suite: Annotated[
        Path | None, typer.Option(help="Write the rules to this file, as a Great Expectations suite over the manifest.")
    ] = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="With --write-suite: without the expectations that need miwake.")
    ] = False,
) -> None:
    """Hold data/dedupe/manifest.parquet against the rules of params.yaml and say what is broken; write nothing."""
    from pipelines.params import load_params
    from pipelines.validate import outcome, stage, suite

    layout = Layout(Path.cwd())
    whole = load_params(layout.params)
    params, unlabelled = whole.validate_, whole.split.unlabelled
    if write_suite is not None:
        count = suite.write_suite(params, write_suite, cache=layout.cache, plain=plain)
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
