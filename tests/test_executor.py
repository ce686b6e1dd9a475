"""Work over processes: the same results in the same order, however many there are."""

import multiprocessing
import os
import threading
import time
from pathlib import Path

import pytest

from pipelines.core.errors import MiwakeError, ParamsError
from pipelines.parallel.pool import CHUNKS_IN_FLIGHT, _container_cores, map_chunks, num_workers


def square(number: int) -> int:
    time.sleep(0.02 * (number % 3))  # so that results would arrive out of order
    return number * number


def fail_at_three(number: int) -> int:
    if number == 3:
        raise ValueError("three")
    return number


def die_elsewhere(process: int) -> int:
    if os.getpid() != process:
        os._exit(9)
    time.sleep(0.05)
    return process


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_chunks(workers: int) -> None:
    found = map_chunks(square, range(12), workers=workers, pool_pays_seconds=0)
    assert list(found) == [n * n for n in range(12)]


def test_no_chunks_give_no_results() -> None:
    assert list(map_chunks(square, [], workers=2, pool_pays_seconds=0)) == []
    assert list(map_chunks(square, [], workers=2, threads=True)) == []


def test_threads_share_this_process_from_the_first_chunk_on() -> None:
    assert list(map_chunks(square, range(12), workers=3, threads=True)) == [n * n for n in range(12)]
    found = list(map_chunks(slow_thread_of, range(12), workers=3, threads=True))
    assert {process for process, _ in found} == {os.getpid()}
    assert len({thread for _, thread in found}) == 3
    assert threading.get_ident() not in {thread for _, thread in found}


def test_one_worker_is_one_thread_even_where_threads_would_do() -> None:
    found = list(map_chunks(slow_thread_of, range(3), workers=1, threads=True))
    assert found == [(os.getpid(), threading.get_ident())] * 3


def test_threads_run_no_further_ahead_than_is_asked_for() -> None:
    begun: list[int] = []
    found = map_chunks(begun.append, range(50), workers=2, threads=True)
    next(found)
    time.sleep(0.05)
    assert len(begun) <= 2 * CHUNKS_IN_FLIGHT
    found.close()  # type: ignore[attr-defined]  # a generator
    assert len(begun) < 50


def slow_thread_of(_: int) -> tuple[int, int]:
    time.sleep(0.02)
    return os.getpid(), threading.get_ident()


def test_little_work_stays_in_this_process() -> None:
    assert set(map_chunks(process_of, range(20), workers=2)) == {os.getpid()}


def test_this_process_is_one_of_the_workers_and_goes_on_while_others_start() -> None:
    found = list(map_chunks(slow_process_of, range(60), workers=2, pool_pays_seconds=0.5))
    assert found.count(os.getpid()) > 1
    assert len(set(found)) == 2
    assert len(set(map_chunks(slow_process_of, range(12), workers=3, pool_pays_seconds=0))) <= 3


def test_results_keep_their_order_when_this_process_helps() -> None:
    assert list(map_chunks(square, range(40), workers=3, pool_pays_seconds=0)) == [n * n for n in range(40)]


def test_a_caller_that_stops_leaves_no_process_behind() -> None:
    results = map_chunks(slow_process_of, range(50), workers=2, pool_pays_seconds=0)
    next(results)
    assert multiprocessing.active_children()
    results.close()  # type: ignore[attr-defined]  # a generator
    assert not multiprocessing.active_children()


def slow_process_of(_: int) -> int:
    time.sleep(0.1)
    return os.getpid()


def process_of(_: int) -> int:
    return os.getpid()


@pytest.mark.parametrize(("workers", "threads"), [(1, False), (2, False), (2, True)])
def test_an_error_of_the_work_is_the_callers_error(workers: int, threads: bool) -> None:
    with pytest.raises(ValueError, match="three"):
        list(map_chunks(fail_at_three, range(8), workers=workers, pool_pays_seconds=0, threads=threads))


def test_a_killed_worker_is_an_error_with_a_remedy() -> None:
    with pytest.raises(MiwakeError, match="a worker process was killed, .* set MIWAKE_WORKERS to a smaller number"):
        list(map_chunks(die_elsewhere, [os.getpid()] * 200, workers=2, pool_pays_seconds=0))


def test_the_environment_sets_the_number_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIWAKE_WORKERS", "3")
    assert num_workers() == 3
    monkeypatch.delenv("MIWAKE_WORKERS")
    assert num_workers() >= 1
    for wrong in ("0", "-1", "two", "1.5", "²"):
        monkeypatch.setenv("MIWAKE_WORKERS", wrong)
        with pytest.raises(ParamsError, match="must be a whole number from 1 on; unset it for all cores"):
            num_workers()


def test_a_containers_share_of_time_limits_the_workers(tmp_path: Path) -> None:
    limit = tmp_path / "cpu.max"
    limit.write_text("150000 100000\n")
    assert _container_cores(limit) == 2
    limit.write_text("max 100000\n")
    assert _container_cores(limit) > 1000
    assert _container_cores(tmp_path / "absent") > 1000
