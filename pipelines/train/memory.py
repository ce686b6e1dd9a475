"""The C library's allocator, told what this process does: take and free the same large blocks again and again."""

import ctypes
import os
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_memory() -> None:
    """Let glibc keep freed blocks, in place of giving each back and having the next one cleared, page by page.

    Training at 224 px is twice as fast, ingesting large pictures in two threads by a seventh. Costs up to half as much
    memory again. MIWAKE_KEEP_MEMORY=0 leaves the allocator alone; so do other systems.
    """
    if os.environ.get("MIWAKE_KEEP_MEMORY", "1") == "0" or not sys.platform.startswith("linux"):
        return
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, -1)
    except (OSError, AttributeError):  # another C library: musl
        return
