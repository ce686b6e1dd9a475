"""What a person asks of trained models: `miwake latency`, `rollback`."""

import difflib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipelines.core.errors import InputError
from pipelines.core.git import git
from pipelines.core.layout import Layout


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
    lock = YAML(typ="safe", pure=True).load(git("show", f"{revision}:./dvc.lock"))
    outs = [out["path"] for stage in lock["stages"].values() for out in stage.get("outs", [])]
    # what git tracks of them, such as metrics.json; DVC brings back the rest
    tracked = ["params.yaml", "dvc.lock", *git("ls-tree", "-r", "--name-only", revision, "--", *outs).splitlines()]
    params, committed = Path("params.yaml"), git("show", "HEAD:./params.yaml")
    now = params.read_text(encoding="utf-8") if params.exists() else committed
    changes = list(difflib.unified_diff(committed.splitlines(), now.splitlines(), n=0))[2:]
    # a scheduled run writes ingest.snapshot itself
    edits = [line for line in changes if re.match(r"[+-](?!\s*snapshot:)", line)]
    blob = git("hash-object", "params.yaml").strip() if edits else ""
    if edits and not force and not git("log", "--all", "-1", "--format=%h", f"--find-object={blob}"):
        shown = "\n".join(edits[:20])
        raise InputError(
            f"params.yaml has edits that are in no commit and would be lost: commit them, or use --force\n{shown}"
        )
    git("restore", f"--source={revision}", "--worktree", "--", *tracked)
    done = subprocess.run([sys.executable, "-m", "dvc", "checkout", *(["--force"] * force)], check=False)
    if done.returncode:
        raise InputError(
            f"{', '.join(tracked)} are those of {revision}, but DVC could not bring back all of data/, for the reason "
            "above: `dvc pull` fetches what is missing here; `miwake rollback --force` gives up what is not stored"
        )
    print(f"{', '.join(tracked)} and data/ are those of {revision}")
    changed = git(
        "diff", "--relative", "--name-only", revision, "--", "dvc.yaml", "pipelines", "data/decisions"
    ).splitlines()
    kept = dict.fromkeys(name if name.startswith("data/") else name.partition("/")[0] for name in changed)
    if kept:
        print(f"Not touched, and the next run reads them: {', '.join(kept)}")
