"""Memory for batches, used again and again: fresh pages cost more than reading into them does."""

import ctypes
import threading
import weakref
from collections import defaultdict

import numpy as np
import torch
from jaxtyping import UInt8


class BatchMemory:
    """Blocks of bytes; one comes back for the next batch when nothing refers to it any more."""

    def __init__(self, *, pinned: bool = False) -> None:
        """Start with none.

        Args:
            pinned: Take memory from which a GPU copies while the host goes on. Torch keeps it for
                the next batch, but not before such a copy has ended.
        """
        self._pinned = pinned
        self._free: defaultdict[int, list[UInt8[np.ndarray, " byte"]]] = defaultdict(list)
        self._lock = threading.Lock()

    def take(self, size: int) -> UInt8[np.ndarray, " byte"]:
        """So many bytes of whatever content, which nobody else has as long as they are used."""
        if self._pinned:
            return torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy()
        if not size:
            return np.empty(0, dtype=np.uint8)
        with self._lock:
            free = self._free[size]
            block = free.pop() if free else np.empty(size, dtype=np.uint8)
        # Every view of the array keeps the lease, whose end puts the block back.
        lease = (ctypes.c_uint8 * size).from_buffer(block.data)
        weakref.finalize(lease, free.append, block).atexit = False
        return np.frombuffer(memoryview(lease), dtype=np.uint8)
