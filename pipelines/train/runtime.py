"""Process-wide settings that must be made before torch is imported: the C allocator and torch's waiting threads."""

import ctypes
import os
import sys

SPIN_COUNT = 3000
"""checks for new work that an idle OpenMP thread makes before it sleeps"""
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Make glibc reuse freed blocks instead of returning them to the system, which would clear every page again.

    Training at 224 px on a CPU is twice as fast. Costs up to half as much memory again. MIWAKE_KEEP_MEMORY=0 leaves the
    allocator alone; systems without glibc are left alone too.
    """
    if os.environ.get("MIWAKE_KEEP_MEMORY", "1") == "0" or not sys.platform.startswith("linux"):
        return
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, -1)
    except (OSError, AttributeError):  # musl
        return


def limit_thread_spinning() -> None:
    """Make torch's idle CPU threads sleep after SPIN_COUNT checks; libgomp reads this when torch is imported.

    A step of resnet18 at 64 px on two idle cores takes 149 ms with 3000 checks and 182 ms with none
    (OMP_WAIT_POLICY=passive). Beside one other program it takes 580 and 520 ms; libgomp's default, which spins for
    hundreds of milliseconds, is two to five times slower there. The user's OMP_WAIT_POLICY and GOMP_SPINCOUNT win.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPIN_COUNT))
