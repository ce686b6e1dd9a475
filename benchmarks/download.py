"""The urls source beside img2dataset: small JPEGs from a server on this machine, in a process of its own.

    python benchmarks/download.py [--files 3000] [--runs 5] [--img2dataset FOLDER] [--connections 16]

FOLDER is where img2dataset lies (`uv pip install --target FOLDER img2dataset`, then remove FOLDER/dataclasses.py, an
old copy of a module that Python has); without it the goal is absolute. Both fetch the same list over and over, in
turn, with nothing fetched before. Ours asks for robots.txt, keeps a journal and stores every file by its sha256; no
pause between requests, since the server is our own. img2dataset runs in one process with as many threads, does not
resize, and writes files. Prints a table, then one JSON line.
"""

import argparse
import asyncio
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from measure import Claim, claim, report

ROOT = Path(__file__).resolve().parents[1]
OURS = """
import json, sys, time
from pathlib import Path
from pipelines.params.ingest import IngestParams
from pipelines.ingest.listing import Place
from pipelines.ingest.urls import list_urls
params = IngestParams.model_validate_json(sys.argv[1])
root = Path(sys.argv[2])
started = time.perf_counter()
listing = list_urls(params.sources[0], source="0-urls", place=Place(root, root / "cache", params))
print(json.dumps([len(listing.paths), time.perf_counter() - started]))
"""
PEER = """
import json, sys
from pathlib import Path
from img2dataset import download
urls, out, threads = sys.argv[1:]
download(url_list=urls, output_folder=out, input_format="txt", output_format="files", processes_count=1,
         thread_count=int(threads), resize_mode="no", enable_wandb=False, number_sample_per_shard=100_000,
         disallowed_header_directives=[], timeout=10, retries=2)
# by its own account: starting its processes and waiting for its loggers takes seconds more
stats = [json.loads(path.read_text()) for path in Path(out).glob("*_stats.json")]
print()
print(json.dumps([sum(s["successes"] for s in stats), sum(s["end_time"] - s["start_time"] for s in stats)]))
"""


class Serve(asyncio.Protocol):
    """Answers GET with one picture of a few, as fast as Python can: 20,000 a second on one core."""

    bodies: list[bytes]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.waiting = b""

    def data_received(self, data: bytes) -> None:
        self.waiting += data
        while (end := self.waiting.find(b"\r\n\r\n")) >= 0:
            line, self.waiting = self.waiting[: self.waiting.find(b"\r\n")], self.waiting[end + 4 :]
            path = line.split(b" ")[1]
            if path == b"/robots.txt":
                self.transport.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                continue
            number = int(path.strip(b"/").split(b".")[0])
            body = self.bodies[number % len(self.bodies)] + b"%d" % number  # all different, by what follows the picture
            self.transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
            )


async def serve() -> None:
    """Serve until killed; the first line of output is the port."""
    import io

    import numpy as np
    from PIL import Image

    Serve.bodies = []
    random = np.random.default_rng(42)
    for _ in range(50):
        small = Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        small.resize((256, 256), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)  # 10 KB, as search previews
        Serve.bodies.append(buffer.getvalue())
    server = await asyncio.get_running_loop().create_server(Serve, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextlib.contextmanager
def server() -> Iterator[int]:
    """Start the server; gives its port."""
    with subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()


def section(connections: int) -> str:
    """Params of ingest for the list urls.txt."""
    return json.dumps(
        {
            "snapshot": "1",
            "sources": [{"kind": "urls", "path": "urls.txt", "format": "text", "gone": "drop"}],
            "download": {
                "contact": "",
                "connections": connections,
                "connections_per_host": connections,
                "delay_seconds": 0.0,
                "timeout_seconds": 10.0,
                "max_attempts": 3,
                "max_wait_seconds": 1.0,
                "max_redirects": 5,
                "robots": "obey",
                "private_hosts": ["127.0.0.1"],
            },
            "crop": {"kind": "none"},
            "max_file_bytes": 1 << 26,
            "max_pixels": 100_000_000,
            "min_side": 8,
            "shard_bytes": 1 << 28,
        }
    )


def rate(command: list[str], num_files: int, env: dict[str, str] | None = None) -> float:
    """Files a second that a process says of itself, start-up apart.

    Raises:
        SystemExit: it failed or did not fetch every file.
    """
    import os

    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{command[1:3]} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    fetched, seconds = json.loads(done.stdout.strip().splitlines()[-1])
    if fetched != num_files:
        raise SystemExit(f"{command[1:3]} fetched {fetched} of {num_files} files")
    return float(fetched / seconds)


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=3000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--img2dataset", type=Path)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve())
        return
    ours: list[float] = []
    peer: list[float] = []
    with tempfile.TemporaryDirectory() as scratch, server() as port:
        root = Path(scratch)
        urls = [f"http://127.0.0.1:{port}/{number}.jpg" for number in range(options.files)]
        (root / "urls.txt").write_text("".join(f"{url} class-{i % 10}\n" for i, url in enumerate(urls)))
        (root / "plain.txt").write_text("".join(f"{url}\n" for url in urls))
        params = section(options.connections)
        for _ in range(options.runs + 1):
            shutil.rmtree(root / "cache", ignore_errors=True)
            ours.append(rate([sys.executable, "-c", OURS, params, scratch], options.files))
            if options.img2dataset:
                shutil.rmtree(root / "peer", ignore_errors=True)
                command = [sys.executable, "-c", PEER, str(root / "plain.txt"), str(root / "peer")]
                env = {"PYTHONPATH": str(options.img2dataset)}
                peer.append(rate([*command, str(options.connections)], options.files, env))
    ours, peer = ours[1:], peer[1:]  # the first warms what both read
    claims: dict[str, Claim] = {"seconds for 1,000 files": claim([1000 / r for r in ours], goal=2.0, unit="s")}
    if peer:
        claims["beside img2dataset"] = claim(
            [1000 / r for r in ours], peer=[1000 / r for r in peer], goal=1.25, unit="s"
        )
    report(claims)


if __name__ == "__main__":
    main()
