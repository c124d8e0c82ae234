"""Memory that a task frees is kept for its next patch instead of going back to the system.

Every patch takes and frees the same few arrays. As glibc is set up in a Dask worker, each is
mapped anew from the system, which clears its pages first: a quarter of the time of a shard, spent
in the kernel, where workers wait for each other.
"""

import ctypes
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's `mallopt`, by malloc.h."""

_LARGEST_KEPT = 32 << 20
"""Bytes: the most that glibc takes as a bound of what it maps by itself."""

_MOST_FREE = 64 << 20
"""Bytes that may lie free at the end of the heap."""


@cache
def keep_freed_memory() -> None:
    """Have this process keep up to 64 MiB of freed memory; once, and with glibc alone."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT)
        mallopt(_TRIM_THRESHOLD, _MOST_FREE)
