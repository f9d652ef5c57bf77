"""Keeps memory that a batch gives back for the next one, where the C library is glibc.

A model's intermediate results come and go with each batch. By default glibc returns blocks of more
than 128 kB, and the free end of a thread's heap, to the system at once, which zeroes and maps them
anew for the next batch: a model with 8 MB of them spent a quarter of its time on that. What is kept
instead is what the largest batch took.
"""

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt's names for what is set
_KEPT = 1 << 29
_LARGEST = 1 << 25  # glibc takes no more: larger blocks are always mapped


def keep_freed() -> bool:
    """Sets it for this process, unless its environment says something about it (`MALLOC_…`,
    `GLIBC_TUNABLES`) or there is no such setting; True if it was set."""
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(
        mallopt(_MMAP_THRESHOLD, _LARGEST) and mallopt(_TRIM_THRESHOLD, _KEPT)
    )
