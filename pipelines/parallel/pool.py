"""Many chunks of work over the cores of this machine; results never depend on how many there are.

MIWAKE_WORKERS sets the number of processes, or of threads where those do as well (default: the cores that this process
may use). With 1 everything runs in this process. With more, work also starts here, and processes are started only once
enough is left to pay for starting them: small data sets never wait for a pool.

MIWAKE_DASK=tcp://host:8786 names the scheduler of a Dask cluster, which then does all the work (`dask_pool`).
"""

import collections
import math
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import TypeVar

from threadpoolctl import threadpool_limits

from pipelines.core.errors import MiwakeError, ParamsError

Chunk = TypeVar("Chunk")
Result = TypeVar("Result")

# a spawned worker imports for about 0.4 s before its first chunk
POOL_PAYS_SECONDS = 2.0
# for each worker: enough to keep it busy while the parent packs results; more would only hold memory
CHUNKS_IN_FLIGHT = 3
# results that may wait for an earlier one, for each other process
_MOST_WAITING = 12


def num_workers() -> int:
    """The number of processes to use: MIWAKE_WORKERS, or the cores that this process may use.

    Raises:
        ParamsError: MIWAKE_WORKERS is no whole number from 1 on.
    """
    wanted = os.environ.get("MIWAKE_WORKERS", "").strip()
    if wanted:
        if not (wanted.isascii() and wanted.isdigit() and int(wanted) >= 1):
            raise ParamsError(f"MIWAKE_WORKERS={wanted!r}: must be a whole number from 1 on; unset it for all cores")
        return int(wanted)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, _container_cores()))


def _container_cores(path: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Cores that a container may use: Docker's --cpus limits time and leaves every core visible."""
    try:
        quota, period = path.read_text(encoding="ascii").split()
        return math.ceil(int(quota) / int(period))
    except (OSError, ValueError):  # no such limit ("max"), or another system
        return 1 << 16


def dask_address() -> str:
    """MIWAKE_DASK: where the scheduler of a Dask cluster listens; "" for this machine alone."""
    return os.environ.get("MIWAKE_DASK", "").strip()


def map_chunks(
    function: Callable[[Chunk], Result],
    chunks: Sequence[Chunk],
    *,
    workers: int | None = None,
    pool_pays_seconds: float = POOL_PAYS_SECONDS,
    threads: bool = False,
) -> Iterator[Result]:
    """Yield `function(chunk)` for every chunk, in the order of `chunks`.

    A few results a worker (`CHUNKS_IN_FLIGHT`) exist before they are asked for, so memory is bounded.

    Args:
        function: a module-level function of one argument; it and the chunks must pickle.
        chunks: the work.
        workers: processes, or threads; `num_workers()` when None.
        pool_pays_seconds: processes are started when at least so much work is estimated to be left; 0: they do all.
        threads: use threads in place of processes, from the first chunk on: they cost nothing to start, and are as fast
            where `function` spends its time in code that lets other threads run, such as decoders.

    Raises:
        MiwakeError: a worker was killed, or the Dask cluster cannot be used; what `function` raises is raised here.
    """
    address = dask_address()
    if address:
        from pipelines.parallel.dask_pool import map_over_dask

        yield from map_over_dask(function, chunks, address=address)
        return
    workers = num_workers() if workers is None else workers
    if threads and workers > 1:
        with ThreadPoolExecutor(workers, thread_name_prefix="chunk") as pool:
            yield from in_order(pool.submit, function, chunks, workers * CHUNKS_IN_FLIGHT)
        return
    started = time.monotonic()
    done = 0
    while done < len(chunks):
        if workers > 1 and len(chunks) - done > 1:
            # before the first chunk nothing is known: only a pool that always pays is started then
            left = (time.monotonic() - started) / done * (len(chunks) - done) if done else 0.0
            if left >= pool_pays_seconds:
                yield from _map_over_processes(function, chunks[done:], workers)
                return
        yield function(chunks[done])
        done += 1


def _map_over_processes(function: Callable[[Chunk], Result], chunks: Sequence[Chunk], workers: int) -> Iterator[Result]:
    """As `map_chunks`. This process is one of the `workers`: it does a chunk whenever the others have enough to do,
    while they start too."""
    others = min(workers, len(chunks)) - 1
    left = collections.deque(chunks)
    waiting: collections.deque[Future[Result]] = collections.deque()
    # spawn: forking a process that has threads (BLAS, arrow) may deadlock
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(others, mp_context=context, initializer=_start_worker, initargs=(function.__module__,))
    try:
        while left or waiting:
            while left and sum(not one.done() for one in waiting) < others * CHUNKS_IN_FLIGHT:
                waiting.append(pool.submit(function, left.popleft()))
            if not left or waiting[0].done() or len(waiting) >= others * _MOST_WAITING:
                yield waiting.popleft().result()
            else:
                waiting.append(Future())
                waiting[-1].set_result(function(left.popleft()))
    except BrokenExecutor as error:
        raise MiwakeError(
            "a worker process was killed, most likely because memory ran out: set MIWAKE_WORKERS to a smaller "
            "number (1 needs the least) and run again"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker(module: str) -> None:
    """Begin as one of as many processes as there are cores: BLAS needs no threads of its own."""
    threadpool_limits(1, user_api="blas")
    import_module(module)


def in_order(
    submit: Callable[[Callable[[Chunk], Result], Chunk], "Future[Result]"],
    function: Callable[[Chunk], Result],
    chunks: Sequence[Chunk],
    in_flight: int,
) -> Iterator[Result]:
    """Submit chunks, `in_flight` at a time, and yield their results in order; cancel the rest if the caller stops."""
    waiting: collections.deque[Future[Result]] = collections.deque()
    try:
        for chunk in chunks:
            waiting.append(submit(function, chunk))
            if len(waiting) >= in_flight:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
