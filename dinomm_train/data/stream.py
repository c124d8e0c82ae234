"""Stored arrays by position: whole batches at once, straight into the memory they travel in."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass

import numpy as np
import xxhash
from jaxtyping import Int64, Shaped, UInt8, UInt64

from bigearth_prep.bands import SENSORS, Sensor
from dinomm_train.data.batch_memory import BatchMemory
from dinomm_train.data.stored_split import StoredSplit
from dinomm_train.errors import TrainError

_MAX_GAP_BYTES = 1 << 14
"""Unwanted bytes that are read along rather than beginning another read: headers, JSON."""

_MAX_BUFFERS = 512
"""Pieces of one read; systems allow 1,024."""

_UNWANTED = memoryview(bytearray(_MAX_GAP_BYTES))
"""Takes the bytes between two pieces. All threads write here and none reads."""


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


@dataclass(frozen=True, kw_only=True, slots=True)
class PendingBatch:
    """A batch that threads are filling."""

    batch: StoredBatch
    parts: tuple[Future[None], ...]

    def result(self) -> StoredBatch:
        """The batch, once it is full.

        Raises:
            TrainError: a shard could not be read.
        """
        for part in self.parts:
            part.result()
        return self.batch


@dataclass(frozen=True, kw_only=True, slots=True)
class _Run:
    """One read: pieces of a shard that lie one behind the other."""

    shard: int
    offset: int
    into: list[memoryview]


_Piece = tuple[int, int, memoryview]
"""Shard, offset, and where the bytes go."""


class ShardReader:
    """Reads samples of one split; usable from several threads."""

    def __init__(
        self, split: StoredSplit, memory: BatchMemory | None = None, *, verify: bool = False
    ) -> None:
        """Read from the split.

        Args:
            split: The samples.
            memory: Where batches lie; the reader's own by default.
            verify: Whether each sample is held against its checksum.

        Raises:
            TrainError: checksums are asked for and the manifest has none.
        """
        self._split = split
        self._memory = memory or BatchMemory()
        self._checksums = split.checksums() if verify else None

    def read(self, positions: Int64[np.ndarray, " batch"]) -> StoredBatch:
        """The samples at these positions, in this order.

        Raises:
            TrainError: a shard cannot be read or ends early, or a sample is not what was stored.
        """
        blocks, batch = self._empty_batch(positions)
        self._fill(blocks, positions, self._stored_order(positions))
        return batch

    def begin(
        self, positions: Int64[np.ndarray, " batch"], pool: Executor, parts: int
    ) -> PendingBatch:
        """The same, read by the pool's threads in so many parts."""
        blocks, batch = self._empty_batch(positions)
        rows = np.array_split(self._stored_order(positions), parts)
        filling = (pool.submit(self._fill, blocks, positions, part) for part in rows if len(part))
        return PendingBatch(batch=batch, parts=tuple(filling))

    def _empty_batch(
        self, positions: Int64[np.ndarray, " batch"]
    ) -> tuple[dict[Sensor, UInt8[np.ndarray, " byte"]], StoredBatch]:
        arrays = self._split.arrays
        # A block for each sensor: torch knows pinned memory by where a block begins.
        blocks = {
            sensor: self._memory.take(len(positions) * stored.sample_bytes)
            for sensor, stored in arrays.items()
        }
        s2, s1 = (
            blocks[sensor].view(arrays[sensor].dtype).reshape(len(positions), *arrays[sensor].shape)
            for sensor in SENSORS
        )
        sample_ids = self._split.sample_ids[positions]
        return blocks, StoredBatch(s2=s2, s1=s1, positions=positions, sample_ids=sample_ids)

    def _stored_order(self, positions: Int64[np.ndarray, " batch"]) -> Int64[np.ndarray, " batch"]:
        # Disks and parallel file systems like ascending addresses.
        offsets = self._split.arrays["s2"].offsets[positions]
        return np.lexsort((offsets, self._split.shard_of[positions]))

    def _fill(
        self,
        blocks: dict[Sensor, UInt8[np.ndarray, " byte"]],
        positions: Int64[np.ndarray, " batch"],
        rows: Int64[np.ndarray, " row"],
    ) -> None:
        split = self._split
        views = {sensor: block.data for sensor, block in blocks.items()}
        for run in _joined(self._pieces(views, positions[rows], rows.tolist())):
            split.store.open(split.shards[run.shard]).read(run.offset, run.into)
        if self._checksums is not None:
            for row in rows.tolist():
                self._check(views, row, int(positions[row]))

    def _pieces(
        self,
        views: dict[Sensor, memoryview],
        positions: Int64[np.ndarray, " row"],
        rows: Sequence[int],
    ) -> Iterator[_Piece]:
        arrays = self._split.arrays
        held = [
            (views[sensor], arrays[sensor].sample_bytes, arrays[sensor].offsets[positions].tolist())
            for sensor in SENSORS
            if arrays[sensor].sample_bytes
        ]
        for number, shard in enumerate(self._split.shard_of[positions].tolist()):
            row = rows[number]
            for view, size, offsets in held:
                yield shard, offsets[number], view[row * size : (row + 1) * size]

    def _check(self, views: dict[Sensor, memoryview], row: int, position: int) -> None:
        assert self._checksums is not None
        digest = xxhash.xxh3_64()
        for sensor in SENSORS:
            size = self._split.arrays[sensor].sample_bytes
            digest.update(views[sensor][row * size : (row + 1) * size])
        if digest.intdigest() != int(self._checksums[position]):
            shard = self._split.shard_paths[self._split.shard_of[position]]
            raise TrainError(
                f"sample {self._split.key(position)} in {shard} is not what was stored: its "
                "checksum differs from the manifest's; copy the shard again"
            )


def _joined(pieces: Iterable[_Piece]) -> Iterator[_Run]:
    """Reads that cover the pieces; neighbours within a shard share one."""
    run, end = None, 0
    for shard, offset, buffer in pieces:
        gap = offset - end
        if (
            run is not None
            and run.shard == shard
            and 0 <= gap <= _MAX_GAP_BYTES
            and len(run.into) < _MAX_BUFFERS
        ):
            run.into.extend((_UNWANTED[:gap], buffer) if gap else (buffer,))
        else:
            if run is not None:
                yield run
            run = _Run(shard=shard, offset=offset, into=[buffer])
        end = offset + len(buffer)
    if run is not None:
        yield run
