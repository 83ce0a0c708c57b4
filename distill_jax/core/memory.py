"""Memory of a long run: what was freed stays for the next step, old programs are dropped."""

import ctypes
import gc
import os
from pathlib import Path

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


MOST_MAPS = 15_000
"""Areas of memory. Linux allows a process 65,530; each part of a compiled program takes three."""


def many_programs() -> bool:
    """Whether the process has more than ``MOST_MAPS`` areas; False where nobody counts them."""
    maps = Path("/proc/self/maps")
    return maps.exists() and maps.read_bytes().count(b"\n") > MOST_MAPS


def drop_programs() -> None:
    """Let go of everything compiled; what is called again is compiled again, or read from the
    cache on disk."""
    import jax  # not before it is needed: every command reads this module

    jax.clear_caches()
    gc.collect()
