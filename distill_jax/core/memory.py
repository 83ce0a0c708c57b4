"""Memory that was freed stays with the process, for the next step to use."""

import ctypes
import os

_MMAP_THRESHOLD, _TRIM_THRESHOLD, _ARENA_MAX = -3, -1, -8
"""Parameters of glibc's ``mallopt``."""
_MOST = 2**31 - 1
FEW_CORES = 8
"""Up to which threads that allocate in one place do not get into each other's way."""


def keep_freed_memory() -> None:
    """Let glibc keep what is freed; elsewhere nothing is done.

    By default it gives each large block back to the system and has it zeroed anew, page by page,
    when it asks again: on CPUs XLA does so for the intermediate values of every single step. Blocks
    of threads other than the first would be given back all the same, so that on machines of few
    cores all allocate where the first one does.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return
    mallopt(_MMAP_THRESHOLD, _MOST)
    mallopt(_TRIM_THRESHOLD, _MOST)
    if (os.cpu_count() or 1) <= FEW_CORES:
        mallopt(_ARENA_MAX, 1)
