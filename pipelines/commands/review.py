"""Looking at pictures and deciding: `miwake review`, `miwake decisions check`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pipelines.core.errors import InputError
from pipelines.core.layout import Layout


def review(
    port: Annotated[int, typer.Option(help="On this machine; 0 takes a free one.")] = 0,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page.")] = True,
) -> None:
    """Open a page of suspects, duplicates, mistakes and rejects, and decide by keyboard; Ctrl-C ends it."""
    import socket
    import webbrowser

    import uvicorn

    from pipelines.params import load_params
    from pipelines.use.decisions import DecisionFiles
    from pipelines.use.review.queues import read_queues
    from pipelines.use.review.server import Review, make_app

    layout = Layout(Path.cwd())
    params = load_params(layout.params)
    queues = read_queues(layout, params.report.title or "Review")
    found = Review(queues, DecisionFiles(layout.decisions), max_pixels=params.ingest.max_pixels)
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("127.0.0.1", port))
        except OSError as error:
            raise InputError(
                f"port {port} cannot be used ({error.strerror}): leave --port out for a free one"
            ) from error
        port = listening.getsockname()[1]
        address = f"http://127.0.0.1:{port}/?token={found.token}"
        print(f"review: {address}", flush=True)
        print("review: decisions are written to data/decisions as you make them; Ctrl-C ends this", flush=True)
        if browser:
            webbrowser.open(address)
        config = uvicorn.Config(make_app(found, port=port), log_level="warning", access_log=False)
        uvicorn.Server(config).run(sockets=[listening])
    print("review: ended. `miwake run` does what follows from the decisions")


def decisions_check(
    as_json: Annotated[bool, typer.Option("--json", help="For a program.")] = False,
) -> None:
    """Hold data/decisions against the pictures: unknown ids and labels, contradictions, rows without effect."""
    from pipelines.core.tables import MANIFEST, read_table
    from pipelines.use.decisions import check

    layout = Layout(Path.cwd())
    table = read_table(layout.ingest_manifest, MANIFEST, columns=["image_id", "label"])
    lines = check(layout.decisions, table["image_id"].to_pylist(), set(table["label"].unique().to_pylist()))
    if as_json:
        print(json.dumps({"problems": lines}, ensure_ascii=False, indent=2))
    for line in lines if not as_json else []:
        print(line)
    if lines:
        raise SystemExit(1)
    if not as_json:
        print("decisions: every row is about a picture that is there, and none contradicts another")
