"""The `miwake` command: what a person asks of data and models, beside the stages that DVC runs.

    miwake params split.seed
    miwake status
    miwake ingest diff 1 2
    miwake report diff HEAD~1 HEAD
    miwake validate
    miwake validate --write-suite suite.json
    miwake latency
    miwake rollback

Works on the folder it is called in, the one of params.yaml. One group of subcommands a stage or subject; each function
here takes words from the command line to a function of its package, which it imports when it is called.
"""

import difflib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipelines.core.errors import InputError, MiwakeError
from pipelines.core.layout import Layout
from pipelines.params.inputs import refuse_input_in_outputs

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
report_app = typer.Typer(help="What evaluate found.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(report_app, name="report")


@report_app.callback()
def _report() -> None:
    """What evaluate found."""


@app.callback()
def _miwake() -> None:
    """Image classification that can be reproduced: what to ask of data and models."""


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


@report_app.command("diff")
def report_diff(
    before: Annotated[str, typer.Argument(help="A commit.")],
    after: Annotated[str, typer.Argument(help="A later one.")] = "HEAD",
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path(".miwake/report_diff.html"),
) -> None:
    """Write the page of two commits: metrics, both matrices, the pictures that changed sides."""
    from pipelines.core.files import write_text
    from pipelines.evaluate.change import Answer, change
    from pipelines.params import load_params
    from pipelines.report import compare

    layout = Layout(Path.cwd())
    params = load_params(layout.params)
    files = [f"data/evaluate/{name}" for name in ("metrics.json", "compared.csv")]
    old, new = (compare.read_run(one, *(_git("show", f"{one}:./{file}") for file in files)) for one in (before, after))
    answers = [Answer(i, *answer, old.answers[i][1]) for i, answer in new.answers.items() if i in old.answers]
    known = compare.known_pictures(
        compare.changed_sides(old, new),
        layout=layout,
        size=params.report.picture_size,
        max_pixels=params.ingest.max_pixels,
    )
    told = change(answers, known.groups, confidence=new.metrics["confidence"], num_before=len(old.answers))
    write_text(out, compare.compare_page(old, new, change=told, known=known, language=params.report.language))
    print(f"{out}: {len(answers)} pictures are in both")


@app.command("params")
def params(
    key: Annotated[str, typer.Argument(help="Explain this one; its last word may do: test_fraction.")] = "",
) -> None:
    """Print every value that the next run uses, defaults too; or explain one key: meaning, values, default."""
    from pipelines.params.load import load_params, read_yaml
    from pipelines.params.reference import explain_key
    from pipelines.params.resolve import resolved_text
    from pipelines.params.schema import params_schema

    path = Layout(Path.cwd()).params
    found = load_params(path)
    if not key:
        print(resolved_text(found), end="")
        return
    values = found.model_dump(mode="json", by_alias=True)
    for line in explain_key(key, schema=params_schema(), values=values, written=read_yaml(path)):
        print(line)


@app.command("status")
def status(
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing where nothing changed.")] = False,
) -> None:
    """Say what is new, changed or gone in the sources since the snapshot was read, and what to do; read no picture."""
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
            else f"status: snapshot {name!r} was not read here yet: `make repro` does"
        )


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


@app.command("latency")
def latency() -> None:
    """Measure how many milliseconds each trained member takes here, for one picture and for 32 (.miwake/latency.json).

    No stage does this: it says nothing about the pictures, and changes from run to run.
    """
    from pipelines.evaluate.cost import write_latency
    from pipelines.params import load_params
    from pipelines.train.device import choose_device

    layout = Layout(Path.cwd())
    params = load_params(layout.params).train
    found = write_latency(
        layout.members(params),
        device=str(choose_device(params.device)),
        num_threads=params.num_threads,
        path=layout.latency,
    )
    machine = found["machine"]
    print(f"latency: on {machine['device']} ({machine['processor']}), {machine['num_threads']} threads, all views")
    for name, sizes in found["members"].items():
        one, many = (sizes[size]["median_ms"] for size in ("1", "32"))
        print(f"latency: {name}: {one:,.1f} ms for one picture, {many:,.1f} ms for 32 ({32_000 / many:,.0f} a second)")


@app.command("rollback")
def rollback(
    revision: Annotated[str, typer.Argument(help="A commit.")] = "HEAD",
    force: Annotated[
        bool, typer.Option("--force", help="Give up uncommitted edits of params.yaml and data that is not stored.")
    ] = False,
) -> None:
    """Bring params.yaml, dvc.lock, the metrics and all of data/ back to a commit.

    Decisions, dvc.yaml, code and git's index stay as they are.
    """
    import fcntl

    from ruamel.yaml import YAML

    if (guard := Path(".prefect/run.lock")).exists():
        try:  # held until this process ends
            fcntl.flock(os.open(guard, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError("a run is under way in this folder: wait for its end, or cancel it") from error
    lock = YAML(typ="safe", pure=True).load(_git("show", f"{revision}:./dvc.lock"))
    outs = [out["path"] for stage in lock["stages"].values() for out in stage.get("outs", [])]
    # what git tracks of them, such as metrics.json; DVC brings back the rest
    tracked = ["params.yaml", "dvc.lock", *_git("ls-tree", "-r", "--name-only", revision, "--", *outs).splitlines()]
    params, committed = Path("params.yaml"), _git("show", "HEAD:./params.yaml")
    now = params.read_text(encoding="utf-8") if params.exists() else committed
    changes = list(difflib.unified_diff(committed.splitlines(), now.splitlines(), n=0))[2:]
    # a scheduled run writes ingest.snapshot itself
    edits = [line for line in changes if re.match(r"[+-](?!\s*snapshot:)", line)]
    blob = _git("hash-object", "params.yaml").strip() if edits else ""
    if edits and not force and not _git("log", "--all", "-1", "--format=%h", f"--find-object={blob}"):
        shown = "\n".join(edits[:20])
        raise InputError(
            f"params.yaml has edits that are in no commit and would be lost: commit them, or use --force\n{shown}"
        )
    _git("restore", f"--source={revision}", "--worktree", "--", *tracked)
    done = subprocess.run([sys.executable, "-m", "dvc", "checkout", *(["--force"] * force)], check=False)
    if done.returncode:
        raise InputError(
            f"{', '.join(tracked)} are those of {revision}, but DVC could not bring back all of data/, for the reason "
            "above: `dvc pull` fetches what is missing here; `miwake rollback --force` gives up what is not stored"
        )
    print(f"{', '.join(tracked)} and data/ are those of {revision}")
    changed = _git(
        "diff", "--relative", "--name-only", revision, "--", "dvc.yaml", "pipelines", "data/decisions"
    ).splitlines()
    kept = dict.fromkeys(name if name.startswith("data/") else name.partition("/")[0] for name in changed)
    if kept:
        print(f"Not touched, and the next run reads them: {', '.join(kept)}")


def _git(*words: str) -> str:
    """What `git` prints; InputError with its message when it fails."""
    try:
        done = subprocess.run(
            ["git", "-c", "core.quotepath=off", *words], capture_output=True, check=False, encoding="utf-8"
        )
    except FileNotFoundError as error:
        raise InputError("git is not installed: without it there is no commit to go back to") from error
    if done.returncode:
        raise InputError(f"git {words[0]}: {done.stderr.strip()}")
    return done.stdout


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
