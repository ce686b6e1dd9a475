"""Memory that numpy frees and takes again."""

import numpy as np

# the largest block by whose release glibc raises its thresholds, less the few bytes that it keeps for itself
_BLOCK = 2**25 - 2**14


def keep_freed_memory() -> None:
    """Let this process keep up to 64 MB that it freed, rather than return them at once.

    glibc returns an array's memory to the system when it is freed, and the system clears each page before it gives it
    out again: of the time that laying thumbnails on each other took, two thirds. Once a large block was freed, glibc
    holds on to blocks up to its size. The block is never written to, so it costs nothing; under another C library
    nothing changes.
    """
    np.empty(_BLOCK, np.uint8)
