"""Which sample comes when: one order per run seed and epoch, cut into batches and ranks' shares."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32, Int64

from dinomm_train.config import SamplingConfig
from dinomm_train.data.draws import Purpose, hash_words
from dinomm_train.data.stored_split import StoredSplit
from dinomm_train.errors import TrainError


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleOrder:
    """The order of all epochs of a run; ranks, threads and storage have no say in it."""

    shard_of: Int32[np.ndarray, " sample"]
    """Which shard holds each sample."""

    seed: int
    """The run's seed."""

    global_batch: int
    """Samples per step over all ranks together."""

    block_shards: int = 0
    """Shards that are mixed at a time; zero mixes all of them."""

    @classmethod
    def of(cls, split: StoredSplit, sampling: SamplingConfig) -> "SampleOrder":
        """The order in which a run goes through the split.

        Raises:
            TrainError: the split does not fill one global batch.
        """
        limit = sampling.sample_limit or len(split)
        order = cls(
            shard_of=split.shard_of[:limit],
            seed=sampling.seed,
            global_batch=sampling.global_batch,
            block_shards=sampling.block_shards if sampling.shuffle == "block" else 0,
        )
        steps_per_epoch(len(order.shard_of), order.global_batch)
        return order

    @property
    def steps_per_epoch(self) -> int:
        """Whole global batches in an epoch."""
        return steps_per_epoch(len(self.shard_of), self.global_batch)

    @property
    def dropped_per_epoch(self) -> int:
        """Samples at the end of each epoch's order that fill no batch: others each time."""
        return len(self.shard_of) - self.steps_per_epoch * self.global_batch

    def epoch(self, epoch: int) -> Int64[np.ndarray, " sample"]:
        """All positions once, in the order of this epoch."""
        if not self.block_shards:
            return epoch_order(len(self.shard_of), self.seed, epoch)
        return block_order(self.shard_of, self.seed, epoch, self.block_shards)

    def blocks(self, epoch: int) -> tuple[Int64[np.ndarray, " shard"], ...]:
        """The shards that are mixed at a time, in the order of this epoch."""
        shard_count = int(self.shard_of.max()) + 1
        if not self.block_shards:
            return (np.arange(shard_count),)
        shards = shard_order(shard_count, self.seed, epoch)
        return tuple(
            shards[first : first + self.block_shards]
            for first in range(0, shard_count, self.block_shards)
        )


def epoch_order(sample_count: int, seed: int, epoch: int) -> Int64[np.ndarray, " sample"]:
    """All positions of a split once, shuffled; ranks and batch size have no say in it."""
    return np.argsort(_sample_words(sample_count, seed, epoch), kind="stable")


def block_order(
    shard_of: Int32[np.ndarray, " sample"], seed: int, epoch: int, block_shards: int
) -> Int64[np.ndarray, " sample"]:
    """All positions once: shards in an order of their own, samples shuffled within each block."""
    if not len(shard_of):
        return np.arange(0)
    shards = shard_order(int(shard_of.max()) + 1, seed, epoch)
    block_of = np.empty(len(shards), dtype=np.int64)
    block_of[shards] = np.arange(len(shards)) // block_shards
    words = _sample_words(len(shard_of), seed, epoch)
    return np.lexsort((words, block_of[shard_of]))


def shard_order(shard_count: int, seed: int, epoch: int) -> Int64[np.ndarray, " shard"]:
    """All shards of a split once, in the order in which blocks take them."""
    numbers = np.arange(shard_count, dtype=np.uint64)
    words = hash_words(seed, epoch, int(Purpose.SHARD_ORDER), numbers)
    return np.argsort(words, kind="stable")


def _sample_words(sample_count: int, seed: int, epoch: int) -> np.ndarray:
    positions = np.arange(sample_count, dtype=np.uint64)
    return hash_words(seed, epoch, int(Purpose.ORDER), positions)


def steps_per_epoch(sample_count: int, global_batch: int) -> int:
    """Whole global batches in an epoch; the samples left over come up in other epochs.

    Raises:
        TrainError: there is not one whole batch.
    """
    if sample_count < global_batch:
        raise TrainError(
            f"{sample_count:,} samples do not fill one global batch of {global_batch:,}; "
            "lower sampling.global_batch or use a larger dataset"
        )
    return sample_count // global_batch


def step_positions(
    order: Int64[np.ndarray, " sample"], step: int, global_batch: int
) -> Int64[np.ndarray, " batch"]:
    """The positions of one step's global batch; `step` counts from the epoch's start."""
    return order[step * global_batch : (step + 1) * global_batch]


def share_size(global_batch: int, world: int) -> int:
    """Samples per rank of each global batch.

    Raises:
        TrainError: the batch cannot be shared out evenly.
    """
    if global_batch % world:
        fewer = next(one for one in range(world, 0, -1) if global_batch % one == 0)
        more = next((one for one in range(world, global_batch + 1) if global_batch % one == 0), 0)
        numbers = f"{fewer:,} or {more:,}" if more else f"{fewer:,}"
        raise TrainError(
            f"a global batch of {global_batch:,} cannot be shared evenly by {world:,} processes; "
            f"start {numbers} of them, or, for a new run alone, set sampling.global_batch to a "
            "multiple of them"
        )
    return global_batch // world


def rank_share(
    positions: Int64[np.ndarray, " batch"], rank: int, world: int
) -> Int64[np.ndarray, " share"]:
    """This rank's part of a global batch; the ranks' parts, one after another, are the batch.

    Raises:
        TrainError: the batch cannot be shared out evenly.
    """
    size = share_size(len(positions), world)
    return positions[rank * size : (rank + 1) * size]
