"""Many chunks of work over the cores of this machine; results never depend on how many there are.

The environment variable MIWAKE_WORKERS sets the number of processes, or of threads where those do as well (default: the
cores that this process may use).
With 1 everything runs in this process. With more, work also starts here, and processes are started only once enough
is left to pay for starting them: small data sets never wait for a pool.

MIWAKE_DASK=tcp://host:8786 names the scheduler of a Dask cluster, which then does all the work (`dask_pool`).
"""

import collections
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from threadpoolctl import threadpool_limits

from pipelines.core.errors import MiwakeError, ParamsError

Chunk = TypeVar("Chunk")
Result = TypeVar("Result")

# a spawned worker imports for about 0.4 s before its first chunk
POOL_PAYS_SECONDS = 2.0
# enough to keep workers busy while the parent packs a result; more would only hold memory
CHUNKS_IN_FLIGHT = 2
# where this process does chunks too, and cannot hand over the next one meanwhile
HELPED_IN_FLIGHT = 3
# results that then may wait for an earlier one, for each that is in flight
HELPED_WAITING = 4
# pieces of work that wait for each process before the one that has them does the next itself
SHARED_IN_FLIGHT = 3

# the processes beside this one: those it started, or, in one of these, the one that did
_beside: set[object] = set()


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


def works_alone() -> bool:
    """Whether no processes were started beside this one, so that other cores may have nothing to do."""
    return not _beside


class Side:
    """Takes work that is to be done beside the main line: by other processes once there are any, else at once.

    Given to `map_chunks`, it keeps the processes that are started there until its block ends.

    Args:
        workers: processes, this one included; `num_workers()` when None. A Dask cluster is not used, and leaves none.

    Attributes:
        num_others: processes beside this one that `start` starts at most.
    """

    def __init__(self, workers: int | None = 1) -> None:
        self.num_others = 0 if dask_address() else (num_workers() if workers is None else workers) - 1
        self._stack = ExitStack()
        self._processes: Executor | None = None
        self._starting: list[Future[Any]] = []
        self._shared: list[Future[Any]] = []

    @property
    def has_processes(self) -> bool:
        """Whether work is done elsewhere from now on: what it needs must be where another process finds it."""
        return self._processes is not None

    def start(self, module: str, *, most: int | None = None) -> list[Future[Any]]:
        """Start the other processes, if that was not done before.

        Args:
            module: what they import first.
            most: no more than so many.

        Returns:
            For each process what ends when it is ready; nothing where there is to be none.
        """
        num_processes = self.num_others if most is None else min(self.num_others, most)
        if self._processes is None and num_processes > 0:
            import multiprocessing
            from concurrent.futures import ProcessPoolExecutor

            # spawn: forking a process that has threads (BLAS, arrow) may deadlock
            context = multiprocessing.get_context("spawn")
            pool = ProcessPoolExecutor(num_processes, mp_context=context, initializer=_settle_in)
            self._processes = self._stack.enter_context(pool)
            _beside.add(pool)
            self._starting = [pool.submit(_import, module) for _ in range(num_processes)]
        return self._starting

    def submit(self, function: Callable[[Chunk], Result], argument: Chunk) -> Future[Result]:
        """`function(argument)`; both must pickle."""
        if self._processes is not None:
            return self._processes.submit(function, argument)
        return _at_once(function, argument)

    def share(self, function: Callable[[Chunk], Result], argument: Chunk) -> Future[Result]:
        """As `submit`, but at once where the others have enough of such work waiting; for one thread of this process.

        Without an end to what waits, chunks would wait behind it, and this process for them.
        """
        self._shared = [one for one in self._shared if not one.done()]
        if len(self._shared) >= SHARED_IN_FLIGHT * self.num_others:
            return _at_once(function, argument)
        self._shared.append(self.submit(function, argument))
        return self._shared[-1]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._processes is not None and error is not None:
            self._processes.shutdown(wait=False, cancel_futures=True)
        _beside.discard(self._processes)
        self._processes = None
        self._stack.__exit__(kind, error, trace)
        if isinstance(error, BrokenExecutor):
            raise MiwakeError(
                "a worker process was killed, most likely because memory ran out: set MIWAKE_WORKERS to a smaller "
                "number (1 needs the least) and run again"
            ) from error


def map_chunks(
    function: Callable[[Chunk], Result],
    chunks: Sequence[Chunk],
    *,
    workers: int | None = None,
    pool_pays_seconds: float = POOL_PAYS_SECONDS,
    threads: bool = False,
    side: Side | None = None,
) -> Iterator[Result]:
    """Yield `function(chunk)` for every chunk, in the order of `chunks`.

    A few results a worker (`CHUNKS_IN_FLIGHT`) exist before they are asked for, so memory is bounded.

    Args:
        function: a module-level function of one argument; it and the chunks must pickle.
        chunks: the work.
        workers: processes, or threads; `num_workers()` when None.
        pool_pays_seconds: processes are started when at least so much work is estimated to be left; 0: they do all.
        threads: in place of processes, threads of this one, from the first chunk on: they cost nothing to start, and
            are as fast where `function` spends its time in code that lets other threads run, such as decoders.
        side: who keeps the processes. This one then is one of the `workers`: whenever it would wait for another, it
            does a chunk.

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
            yield from _ordered(pool.submit, function, chunks, workers * CHUNKS_IN_FLIGHT)
        return
    if side is not None and side.has_processes:
        pool_pays_seconds = 0.0
    started = time.monotonic()
    done = 0
    while done < len(chunks):
        if workers > 1 and len(chunks) - done > 1:
            # before the first chunk nothing is known: only a pool that always pays is started then
            left = (time.monotonic() - started) / done * (len(chunks) - done) if done else 0.0
            if left >= pool_pays_seconds:
                break
        yield function(chunks[done])
        done += 1
    if done < len(chunks):
        helps = side is not None
        with nullcontext(side) if side is not None else Side(workers + 1) as keeper:
            starting = keeper.start(function.__module__, most=len(chunks) - done)
            # while they import, this process goes on
            while pool_pays_seconds and done < len(chunks) and not any(one.done() for one in starting):
                yield function(chunks[done])
                done += 1
            in_flight = len(starting) * (HELPED_IN_FLIGHT if helps else CHUNKS_IN_FLIGHT)
            yield from _ordered(keeper.submit, function, chunks[done:], in_flight, helps=helps)


def _at_once(function: Callable[[Chunk], Result], argument: Chunk) -> Future[Result]:
    done: Future[Result] = Future()
    done.set_result(function(argument))
    return done


def _settle_in() -> None:
    """Begin as a worker process, one of as many as there are cores: BLAS needs no threads of its own."""
    threadpool_limits(1, user_api="blas")
    _beside.add(os.getppid())


def _import(module: str) -> None:
    import_module(module)  # what it returns would not pickle


def dask_address() -> str:
    """MIWAKE_DASK: where the scheduler of a Dask cluster listens; "" for this machine alone."""
    return os.environ.get("MIWAKE_DASK", "").strip()


def _ordered(
    submit: Callable[[Callable[[Chunk], Result], Chunk], Future[Result]],
    function: Callable[[Chunk], Result],
    chunks: Sequence[Chunk],
    in_flight: int,
    *,
    helps: bool = False,
) -> Iterator[Result]:
    waiting: collections.deque[Future[Result]] = collections.deque()
    left = collections.deque(chunks)
    most = HELPED_WAITING * in_flight if helps else in_flight
    try:
        while left or waiting:
            while left and len(waiting) < most and sum(not one.done() for one in waiting) < in_flight:
                waiting.append(submit(function, left.popleft()))
            if helps and left and len(waiting) < most and not (waiting and waiting[0].done()):
                waiting.append(_at_once(function, left.popleft()))
            else:
                yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
