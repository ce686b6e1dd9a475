"""A Dask cluster in place of processes: the same bytes, and clear words where it cannot be used."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_ingest import picture, put, run

from pipelines.augment import packing
from pipelines.augment.packing import Row
from pipelines.core.decisions import WHOLE
from pipelines.core.errors import ImageError, MiwakeError
from pipelines.images.decoding import Pixels
from pipelines.ingest import run as ingest_run
from pipelines.parallel import dask_pool as dask
from pipelines.parallel.pool import map_chunks

ROOT = Path(__file__).parents[1]
pytest.importorskip("distributed", reason="the extra dask is not installed")


@contextlib.contextmanager
def started(*words: str, cwd: Path = ROOT, python_path: Path = ROOT) -> Iterator[subprocess.Popen[bytes]]:
    environment = {
        **os.environ,
        "PYTHONPATH": f"{python_path}:{python_path}/tests",
        "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1",  # each death costs seconds until a new worker is there
    }
    process = subprocess.Popen(
        [sys.executable, "-m", *words], cwd=cwd, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def scheduler(folder: Path) -> Iterator[str]:
    with scheduler_process(folder) as (address, _):
        yield address


@contextlib.contextmanager
def scheduler_process(folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    file = folder / "scheduler.json"
    words = ("--host", "tcp://127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file))
    with started("distributed.cli.dask_scheduler", *words) as process:
        deadline = time.monotonic() + 60
        while not file.exists() or "tcp://" not in file.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield next(word for word in file.read_text().split('"') if word.startswith("tcp://")), process


def worker(
    address: str, folder: Path, *more: str, cwd: Path = ROOT, python_path: Path = ROOT
) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    words = (address, "--nthreads", "1", "--no-dashboard", "--local-directory", str(folder), *(more or ("--no-nanny",)))
    return started("distributed.cli.dask_worker", *words, cwd=cwd, python_path=python_path)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("dask")
    with scheduler(folder) as address, worker(address, folder), worker(address, folder):
        from distributed import Client

        with Client(address, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
        yield address


def test_ingest_gives_the_same_bytes_as_in_one_process(
    tmp_path: Path, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(24):
        put(tmp_path / "pictures" / f"c{index % 3}" / f"{index}.jpg", picture(index % 20))
    put(tmp_path / "pictures" / "c0" / "broken.jpg", b"")
    alone = run(tmp_path)
    rejected = (tmp_path / "out/rejected.csv").read_bytes()
    monkeypatch.setattr(ingest_run, "FILES_PER_CHUNK", 3)
    monkeypatch.setattr(ingest_run, "BYTES_PER_CHUNK", 4000)
    monkeypatch.setenv("MIWAKE_DASK", cluster)
    (tmp_path / "cache").rename(tmp_path / "old cache")
    assert run(tmp_path, out="over dask").bytes == alone.bytes
    assert (tmp_path / "over dask/rejected.csv").read_bytes() == rejected


def packed(chunks: Sequence[packing._PackChunk]) -> Pixels:
    return np.concatenate(list(map_chunks(packing._pack_chunk, chunks, workers=1)))


def test_augment_packs_the_same_bytes(tmp_path: Path, cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(6):
        put(tmp_path / "pictures" / "c" / f"{index}.jpg", picture(index))
    rows = run(tmp_path).rows
    chunks = [
        packing._PackChunk(
            tmp_path / "out",
            (
                Row(
                    *(str(r["image_id"]), "c", "", "train", 0, ""),
                    *(str(r["shard"]), int(r["offset"]), int(r["size"]), int(r["width"]), int(r["height"])),
                    WHOLE,
                    "",
                ),
            ),
            "letterbox",
            24,
        )
        for r in rows
    ]
    alone = packed(chunks)
    assert alone.shape == (6, 24, 24, 3)
    monkeypatch.setenv("MIWAKE_DASK", cluster)
    over_dask = packed(chunks)
    assert over_dask.tobytes() == alone.tobytes()


def number_and_process(number: int) -> tuple[int, int]:
    time.sleep(0.05 * (number % 3))  # so that results would arrive out of order
    return number, os.getpid()


def test_results_come_in_order_and_from_both_workers(cluster: str) -> None:
    found = list(dask.map_over_dask(number_and_process, range(16), address=cluster))
    assert [number for number, _ in found] == list(range(16))
    processes = {process for _, process in found}
    assert len(processes) == 2
    assert os.getpid() not in processes
    assert list(dask.map_over_dask(number_and_process, [], address=cluster)) == []


def refuse(number: int) -> int:
    raise ImageError("truncated", str(number))


def test_an_error_of_the_work_is_the_callers_error(cluster: str) -> None:
    with pytest.raises(ImageError, match="truncated: 0"):
        list(dask.map_over_dask(refuse, range(4), address=cluster))


def die_once(marker: Path) -> int:
    if not marker.exists():
        marker.touch()
        os._exit(9)
    return 7


def die(_: int) -> int:
    os._exit(9)


def test_work_of_a_dead_worker_goes_to_another_and_what_kills_all_is_an_error(tmp_path: Path) -> None:
    with scheduler(tmp_path) as address, worker(address, tmp_path, "--nanny", "--nworkers", "2"):
        assert list(dask.map_over_dask(die_once, [tmp_path / "marker"], address=address)) == [7]
        with pytest.raises(MiwakeError, match="the same work killed one worker after the other, most likely because"):
            list(dask.map_over_dask(die, [1], address=address))


def slowly(number: int) -> int:
    time.sleep(0.2)
    return number


def test_a_scheduler_that_goes_away_is_an_error(tmp_path: Path) -> None:
    with scheduler_process(tmp_path) as (address, process), worker(address, tmp_path):
        results = dask.map_over_dask(slowly, range(40), address=address)
        assert next(results) == 0
        process.kill()
        with pytest.raises(MiwakeError, match="the scheduler is gone .*; start it again, and run again"):
            list(results)


def test_a_scheduler_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask, "CONNECT_SECONDS", 1)
    for address in ("tcp://127.0.0.1:1", "nonsense://x:1", "127.0.0.1:99999", "tls://127.0.0.1:1"):
        with pytest.raises(MiwakeError) as caught:
            list(dask.map_over_dask(number_and_process, [1], address=address))
        assert str(caught.value).startswith(f"MIWAKE_DASK={address}: no scheduler answers there (")
        assert "start one (`dask scheduler`), correct the address (tcp://host:8786)" in str(caught.value)


def test_a_scheduler_without_workers_or_with_strange_ones_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask, "CONNECT_SECONDS", 2)
    with scheduler(tmp_path) as address:
        with pytest.raises(MiwakeError, match=r"the scheduler has no workers; start some \(`dask worker tcp://127"):
            list(dask.map_over_dask(number_and_process, [1], address=address))
        monkeypatch.setattr(dask, "CONNECT_SECONDS", 60)
        nowhere = tmp_path / "nowhere"
        nowhere.mkdir()
        with (
            worker(address, tmp_path, cwd=nowhere, python_path=nowhere),
            pytest.raises(
                MiwakeError, match="cannot import this project .No module named 'pipelines'. .1 of 1 workers"
            ),
        ):
            list(dask.map_over_dask(number_and_process, [1], address=address))


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nonsense://x:1"])
def test_a_client_that_could_not_connect_is_not_left_to_the_garbage_collector(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which would close it at any time, such as while the next one holds the lock that closing needs."""
    import distributed

    clients: list[Any] = []
    own_start = distributed.Client.start

    def start(client: Any, **options: Any) -> None:
        clients.append(client)
        own_start(client, **options)

    monkeypatch.setattr(distributed.Client, "start", start)
    monkeypatch.setattr(dask, "CONNECT_SECONDS", 1)
    with pytest.raises(MiwakeError, match="no scheduler answers there"):
        list(dask.map_over_dask(number_and_process, [1], address=address))
    assert clients == []


def test_workers_of_another_version_are_refused(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask, "version", lambda _: "0")
    with pytest.raises(MiwakeError, match=r"worker tcp://127.0.0.1:\d+ runs other code or libraries \(2 of 2 workers"):
        list(dask.map_over_dask(number_and_process, [1], address=cluster))


def test_without_the_package_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.setenv("MIWAKE_DASK", "tcp://host:8786")
    with pytest.raises(MiwakeError, match="the package distributed is not installed; install it"):
        list(map_chunks(number_and_process, [1]))
