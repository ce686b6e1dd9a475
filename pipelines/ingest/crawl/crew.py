"""Does jobs in a few threads: hosts take turns, and one that must wait holds up no other."""

import heapq
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Self, TypeVar

from pipelines.ingest.download.gate import Gate
from pipelines.params.ingest import DownloadParams

T = TypeVar("T")
# waiting jobs for each that may run: enough that one slow host leaves work for the others
_WAITING_PER_CONNECTION = 4


@dataclass(eq=False)
class Job(Generic[T]):
    """Something to do.

    Args:
        host: that it asks.
        call: does it; told how often it was tried before. Gives what came, or the seconds until another try.
        tries: so far.
    """

    host: str
    call: Callable[[int], T | float]
    tries: int = 0


class Crew(Generic[T]):
    """Threads that do jobs; all have ended when its `with` block has.

    Args:
        params: the number of connections, in all and to one host.
        gate: knows when a host may be asked.
        stop: ends what is under way, if the block ends by an error.
    """

    def __init__(self, params: DownloadParams, *, gate: Gate, stop: Callable[[], None]) -> None:
        self._params = params
        self._gate = gate
        self._stop = stop
        self._pool = ThreadPoolExecutor(params.connections, thread_name_prefix="crawl")
        self._queues: dict[str, deque[Job[T]]] = {}
        self._later: list[tuple[float, int, Job[T]]] = []
        self._flying: dict[Future[T | float], Job[T]] = {}
        self._active: Counter[str] = Counter()
        self._next_at: dict[str, float] = {}
        self._number = 0
        self._num_open = 0

    @property
    def busy(self) -> bool:
        """Whether there is anything to wait for."""
        return self._num_open > 0

    @property
    def full(self) -> bool:
        """Whether it has all the jobs that it can choose from with profit."""
        return self._num_open >= self._params.connections * _WAITING_PER_CONNECTION

    def add(self, job: Job[T]) -> None:
        """Take a job, to be done after those of the same host that it has."""
        self._num_open += 1
        self._queues.setdefault(job.host, deque()).append(job)

    def land(self) -> list[tuple[Job[T], T]]:
        """Wait until at least one job is done; give what came. Only while `busy`.

        Raises:
            Whatever a job raises.
        """
        landed: list[tuple[Job[T], T]] = []
        while not landed:
            next_at = self._start()
            pause = None if next_at is None else max(0.001, next_at - time.monotonic())
            if not self._flying:
                self._gate.sleep(pause or 0.0)
                continue
            for future in wait(self._flying, pause, FIRST_COMPLETED).done:
                job = self._flying.pop(future)
                self._active[job.host] -= 1
                came = future.result()
                if isinstance(came, float):
                    job.tries += 1
                    self._number += 1
                    heapq.heappush(self._later, (time.monotonic() + came, self._number, job))
                else:
                    self._num_open -= 1
                    landed.append((job, came))
        return landed

    def _start(self) -> float | None:
        """Start what may be started now; give the time at which the next job may be, None if that is not known."""
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            job = heapq.heappop(self._later)[2]
            self._queues.setdefault(job.host, deque()).appendleft(job)
        times = [self._later[0][0]] if self._later else []
        for host, waiting in list(self._queues.items()):
            while waiting and self._active[host] < self._params.connections_per_host:
                if len(self._flying) >= self._params.connections:
                    return min(times, default=None)
                ready_at = max(self._gate.ready_at(host), self._next_at.get(host, 0.0))
                # beyond that the gate refuses, and says so
                if now < ready_at <= now + self._params.max_wait_seconds:
                    times.append(ready_at)
                    break
                job = waiting.popleft()
                self._active[host] += 1
                self._next_at[host] = now + self._gate.delay(host)
                self._flying[self._pool.submit(job.call, job.tries)] = job
            if not waiting:
                del self._queues[host]
        return min(times, default=None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._stop()
        self._pool.shutdown(cancel_futures=True)
