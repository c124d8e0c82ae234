"""Stored arrays by position: positional reads straight into a batch, never a scan of a tar."""

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, Shaped, UInt64

from bigearth_prep.bands import SENSORS
from dinomm_train.data.index import StoredSplit
from dinomm_train.errors import TrainError

MAX_OPEN_SHARDS = 256
"""Shard files kept open by a reader; systems commonly allow a process 1,024 open files."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredBatch:
    """Samples as stored: both sensors, in their stored types."""

    s2: Shaped[np.ndarray, "batch s2_band height width"]
    """Sentinel-2 arrays."""

    s1: Shaped[np.ndarray, "batch s1_band height width"]
    """Sentinel-1 arrays."""

    positions: Int64[np.ndarray, " batch"]
    """Where the samples stand in their split."""

    sample_ids: UInt64[np.ndarray, " batch"]
    """One number per sample that stands for its key."""


class ShardReader:
    """Reads samples of one split; usable from several threads, and picklable."""

    def __init__(self, split: StoredSplit, max_open_shards: int = MAX_OPEN_SHARDS) -> None:
        self._split = split
        self._max_open_shards = max_open_shards
        self._open_shards: OrderedDict[int, _ShardFile] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type["ShardReader"], tuple[StoredSplit, int]]:
        return ShardReader, (self._split, self._max_open_shards)

    def read(self, positions: Int64[np.ndarray, " batch"]) -> StoredBatch:
        """The samples at these positions, in this order.

        Raises:
            TrainError: a shard cannot be read or ends early.
        """
        split = self._split
        arrays = {
            sensor: np.empty((len(positions), *stored.shape), stored.dtype)
            for sensor, stored in split.arrays.items()
        }
        # Disks and parallel file systems like ascending addresses.
        stored_order = np.lexsort(
            (split.arrays["s2"].offsets[positions], split.shard_of[positions])
        )
        for row in stored_order:
            position = positions[row]
            shard = self._shard_file(int(split.shard_of[position]))
            for sensor in SENSORS:
                shard.read_into(arrays[sensor][row], int(split.arrays[sensor].offsets[position]))
        return StoredBatch(
            s2=arrays["s2"],
            s1=arrays["s1"],
            positions=positions,
            sample_ids=split.sample_ids[positions],
        )

    def _shard_file(self, index: int) -> "_ShardFile":
        with self._lock:
            shard = self._open_shards.pop(index, None) or _ShardFile(self._split.shard_paths[index])
            self._open_shards[index] = shard
            if len(self._open_shards) > self._max_open_shards:
                self._open_shards.popitem(last=False)
            return shard


class _ShardFile:
    """An open shard. It closes when its last user lets go, so no thread loses it while reading."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise TrainError(
                f"shard {path} cannot be opened ({error.strerror}); check that it is there"
            ) from error

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    def read_into(self, array: Shaped[np.ndarray, "band height width"], offset: int) -> None:
        """Fill a contiguous array from the shard's bytes at this offset."""
        left = memoryview(array.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
        while left:
            try:
                count = os.preadv(self._descriptor, [left], offset)
            except OSError as error:
                raise TrainError(
                    f"shard {self._path} cannot be read at byte {offset:,} ({error.strerror}); "
                    "check the disk, then run the same command again"
                ) from error
            if not count:
                raise TrainError(
                    f"shard {self._path} ends at byte {offset:,}, {len(left):,} bytes short of a "
                    "sample; copy it again"
                )
            left, offset = left[count:], offset + count
