"""`python -m flows.serve`: Prefect's server and UI on this machine, both flows served, until Ctrl-C."""

import argparse
import asyncio
import contextlib
import functools
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from flows.bridge import try_lock
from flows.guard import start_guarded
from flows.settings import HOST, REPORTS_AT, REPORTS_IN, SERVED_BY, folder_name, set_up_prefect
from pipelines.core.errors import InputError, MiwakeError
from pipelines.core.files import write_text
from pipelines.core.layout import Layout
from pipelines.params import load_params
from pipelines.params.preflight import preflight

HERE = "http://127.0.0.1:* http://localhost:* ws://127.0.0.1:* ws://localhost:*"
POLICY = (
    '<meta http-equiv="Content-Security-Policy" '
    f"content=\"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob: {HERE}\">"
)
START_SECONDS = 120
"""the first start builds the UI and the database: about 7 s on an idle machine"""


class ServerError(MiwakeError):
    """The server did not start."""


@contextlib.contextmanager
def single_server(home: Path, address: str) -> Generator[None]:
    """Hold the folder's lock: two at once would each run every schedule.

    Raises:
        InputError: another process serves this folder.
    """
    home.mkdir(parents=True, exist_ok=True)
    with (home / "serve.lock").open("a+") as lock:
        if not try_lock(lock):
            lock.seek(0)
            raise InputError(f"this folder is served already: open {lock.read().strip()}, or end it")
        lock.truncate(0)
        lock.write(f"{address} (process {os.getpid()})\n")
        lock.flush()
        yield


@contextlib.contextmanager
def server(port: int, log: Path) -> Generator[None]:
    """Run Prefect's server while the block runs.

    The server ends with this process, however that ends. When it ends before, it is started again: runs that are under
    way go on.

    Args:
        port: on 127.0.0.1.
        log: where its output goes.

    Raises:
        InputError: the port is taken.
        ServerError: the server ended, or is not healthy in time; with its last lines.
    """
    address = f"http://{HOST}:{port}"
    refuse_taken_port(port)
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)]
    ended = threading.Event()

    def launch() -> subprocess.Popen[bytes]:
        return start_guarded(command, stdout=output, env={**os.environ, "PREFECT_UI_API_URL": f"{address}/api"})

    def keep(process: subprocess.Popen[bytes]) -> None:
        while not ended.wait(0.5):
            if process.poll() is not None:
                print(f"Prefect's server has ended ({log}): it is started again", file=sys.stderr, flush=True)
                process = launch()
        assert process.stdin is not None
        process.stdin.close()
        process.wait()

    with log.open("wb") as output:
        first = launch()
        keeper = threading.Thread(target=keep, args=(first,))
        try:
            wait_until_healthy(address, first, log)
            block_analytics(Path(os.environ["PREFECT_SERVER_UI_STATIC_DIRECTORY"]))
            keeper.start()
            yield
        finally:
            ended.set()
            if keeper.ident is None:  # the first one never came up
                keep(first)
            else:
                keeper.join()


@contextlib.contextmanager
def report_server(port: int, folder: Path) -> Generator[None]:
    """Serve the reports of earlier runs while the block runs; the runs are told where by the environment.

    Args:
        port: on 127.0.0.1; another one when it is taken, which links of earlier runs do not know.
        folder: holds a page a run.
    """
    try:
        refuse_taken_port(port)
    except InputError:
        print(
            f"port {port} is taken: reports are served on another one, links of earlier runs lead nowhere", flush=True
        )
        port = 0
    folder.mkdir(parents=True, exist_ok=True)

    class Reports(SimpleHTTPRequestHandler):
        def list_directory(self, path: object) -> None:  # noqa: ARG002, http.server's form
            self.send_error(404, "no list of reports: the runs' artifacts link to each")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer((HOST, port), functools.partial(Reports, directory=str(folder))) as reports:
        threading.Thread(target=reports.serve_forever, daemon=True).start()
        os.environ[REPORTS_AT] = f"http://{HOST}:{reports.server_port}"
        os.environ[REPORTS_IN] = str(folder.resolve())
        try:
            yield
        finally:
            reports.shutdown()


def refuse_taken_port(port: int) -> None:
    """Raise InputError when something listens on `port`, and say what."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            who = "another Prefect server" if is_healthy(f"http://{HOST}:{port}") else "another program"
            raise InputError(
                f"port {port} is taken by {who}: choose another one (`python -m flows.serve --port {port + 1}`)"
                + (f", or use that server (PREFECT_API_URL=http://{HOST}:{port}/api)" if "server" in who else "")
            ) from error


def wait_until_healthy(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return once the server answers; raise ServerError when it ends before, or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while not is_healthy(address):
        if process.poll() is not None or time.monotonic() > deadline:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            what = "did not start" if process.poll() is not None else f"does not answer after {START_SECONDS} s"
            raise ServerError(f"Prefect's server {what}; the end of {log}:\n{tail}")
        time.sleep(0.2)


def block_analytics(pages: Path) -> None:
    """Let the server's pages talk to this machine alone, and make them set no cookie for an analytics host.

    Args:
        pages: where the server has copied its UIs to.
    """
    for page in pages.glob("*/index.html"):
        text = page.read_text(encoding="utf-8")
        if POLICY not in text:
            write_text(page, text.replace("<head>", f"<head>{POLICY}", 1))
    for script in pages.glob("*/assets/index-*.js"):
        text = script.read_text(encoding="utf-8")
        without = re.sub(r"\{return`[0-9a-f]{32}`\}", "{return``}", text)  # the key, without which they ask nobody
        if without != text:
            write_text(script, without)


def is_healthy(address: str) -> bool:
    """Whether a Prefect server answers there."""
    try:
        with urllib.request.urlopen(f"{address}/api/health", timeout=2) as answer:
            return bool(answer.read().strip() == b"true")
    except (OSError, ValueError):
        return False


def crash_orphans(root: Path) -> None:
    """Set the runs of `root` that a dead `flows.serve` left behind to Crashed, and their tasks.

    A run ends with the process that served it, but when that was killed nobody could say so. The caller holds the
    folder's lock, so no other process serves it. Runs of the command line are taken for dead when no run is at work.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas import filters
    from prefect.client.schemas.objects import State
    from prefect.states import Crashed

    from flows.pipeline import ALIVE, end_tasks

    gone: State[None] = Crashed(
        message="It ended with the process that ran it. Run it again: finished stages are kept."
    )
    with (root / ".prefect" / "run.lock").open("a") as lock, get_client(sync_client=True) as client:
        is_idle = try_lock(lock)
        runs = client.read_flow_runs(
            flow_run_filter=filters.FlowRunFilter(
                tags=filters.FlowRunFilterTags(all_=[folder_name(root)]),
                state=filters.FlowRunFilterState(type=filters.FlowRunFilterStateType(any_=ALIVE)),
            )
        )
        for run in runs:
            if run.deployment_id is None and not is_idle:
                continue
            client.set_flow_run_state(run.id, gone, force=True)
            end_tasks(None, run, gone)


def serve_flows(root: Path, address: str) -> None:
    """Serve both flows until the process is told to end; runs that are under way end too."""
    # Prefect reads its settings, the server's address among them, while it is imported
    from prefect.deployments.runner import RunnerDeployment
    from prefect.runner import Runner
    from prefect.schedules import Cron

    from flows.pipeline import pipeline
    from flows.retrain import retrain

    class InterruptibleRunner(Runner):
        def handle_sigterm(self, *_: object, **__: object) -> None:
            # Prefect's own way leaves at once, with tracebacks, and the schedules not paused
            signal.raise_signal(signal.SIGINT)

    params = load_params(Layout(root).params).retrain
    by_hand = pipeline.to_deployment(
        name=folder_name(root),
        tags=[folder_name(root)],
        description=f"Every stage of {root}/dvc.yaml; what is up to date does not run.",
    )
    scheduled = retrain.to_deployment(
        name=folder_name(root),
        tags=[folder_name(root)],
        description=f"Retrains on `{params.cron}` ({params.timezone}), of {root}/params.yaml.",
        schedule=Cron(params.cron, timezone=params.timezone),
        parameters={"refresh": params.refresh},
    )
    assert isinstance(by_hand, RunnerDeployment)  # the other type is for callers that await
    assert isinstance(scheduled, RunnerDeployment)
    # schedules pause when this ends, so that the next start does not run everything that was missed
    runner = InterruptibleRunner(pause_on_shutdown=True)
    for deployment in (by_hand, scheduled):
        runner.add_deployment(deployment)
    os.environ[SERVED_BY] = str(os.getpid())
    crash_orphans(root)
    print(welcome(root, address, params.cron, params.timezone), flush=True)
    try:
        asyncio.run(runner.start())
    finally:
        if is_healthy(address):
            crash_orphans(root)


def welcome(root: Path, address: str, cron: str, timezone: str) -> str:
    """What to open and what to click."""
    return f"""
    miwake is served from {root}

      {address}
        run it now     Deployments > pipeline / {folder_name(root)} > Run > Quick run
        evaluation     {address}/v2/artifacts/key/miwake-evaluate  (after the first run)
        report         {address}/v2/artifacts/key/miwake-full-report  (a link a run)
        next retrain   {cron} ({timezone}), as params.yaml says; restart this after changing it

    Ctrl-C ends everything.
"""


def main() -> None:
    """The command line: `python -m flows.serve`."""
    parser = argparse.ArgumentParser(prog="python -m flows.serve", description=__doc__)
    parser.add_argument("--port", type=int, default=4200, help="of the UI, on 127.0.0.1 (default: 4200)")
    port = parser.parse_args().port
    root = Path.cwd()
    # SIGTERM unwinds like Ctrl-C, so that the server is ended too
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell makes a background process ignore it
    set_up_prefect(root)
    try:
        for line in preflight(root):
            print(line, flush=True)
        with contextlib.ExitStack() as stack:
            home = root / ".prefect"
            api = os.environ.get("PREFECT_API_URL")
            address = f"http://{HOST}:{port}" if api is None else api.removesuffix("/").removesuffix("/api")
            stack.enter_context(single_server(home, address))
            if api is None:
                print("Prefect's server starts: some seconds ...", flush=True)
                stack.enter_context(server(port, home / "server.log"))
                os.environ["PREFECT_API_URL"] = f"{address}/api"
            stack.enter_context(report_server(port + 1, home / "reports"))
            serve_flows(root, address)
    except MiwakeError as error:
        print(f"serve: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("ended")


if __name__ == "__main__":
    main()
