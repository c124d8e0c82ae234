"""Which shards an epoch needs when, and how much of a dataset is needed at once."""

import numpy as np
from jaxtyping import Int32, Int64

from bigearth_prep.card import ShardCard
from dinomm_train.data.order import SampleOrder
from dinomm_train.data.shard_file import ShardUses

BATCHES_AHEAD = 2
"""Batches being read while one trains."""


def expected_uses(
    shards: tuple[ShardCard, ...], order: SampleOrder, epoch: int, start_step: int = 0
) -> ShardUses:
    """The shards that an epoch reads from this step on, then those that begin the next epoch.

    Ranks have the same uses, so that those of a machine fetch the same shards at about the same
    time, and a shard is needed until the last of them has read it.
    """
    steps = order.steps_per_epoch
    used = order.shard_of[order.epoch(epoch)[: steps * order.global_batch]]
    used = used[start_step * order.global_batch :]
    found, first, last = _first_and_last(used)
    by_need = np.argsort(first, kind="stable")
    following = np.setdiff1d(order.blocks(epoch + 1)[0], found)
    indices = np.concatenate([found[by_need], following])
    last_steps = np.full(len(indices), steps - 1)
    last_steps[: len(found)] = start_step + last[by_need] // order.global_batch
    return ShardUses(shards=tuple(shards[index] for index in indices), last_steps=last_steps)


def peak_bytes(shards: tuple[ShardCard, ...], order: SampleOrder, epochs: int) -> int:
    """The most bytes of shards that are needed at once in any epoch.

    That is every shard of a block, and of those that the batches reach which are read ahead: in
    most cases the block being read, and the one after it.
    """
    sizes = np.array([shard.bytes for shard in shards])
    counts = np.bincount(order.shard_of, minlength=len(shards))
    if not order.block_shards:
        return int(sizes[counts > 0].sum())
    window = (BATCHES_AHEAD + 1) * order.global_batch
    return max(_peak_of_epoch(order, epoch, sizes, counts, window) for epoch in range(epochs))


def _peak_of_epoch(
    order: SampleOrder,
    epoch: int,
    sizes: Int64[np.ndarray, " shard"],
    counts: Int64[np.ndarray, " shard"],
    window: int,
) -> int:
    # The next epoch's first block is fetched while the last ones of this are read.
    blocks = (*order.blocks(epoch), order.blocks(epoch + 1)[0])
    samples = np.cumsum([counts[block].sum() for block in blocks])
    filled = np.concatenate([[0], np.cumsum([sizes[block].sum() for block in blocks])])
    reached = np.searchsorted(samples, samples - 1 + window, side="right")
    reached = np.minimum(reached, len(blocks) - 1)
    return int((filled[reached + 1] - filled[:-1]).max())


def _first_and_last(
    values: Int32[np.ndarray, " value"],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each value once, with where it comes first and last."""
    found, first = np.unique(values, return_index=True)
    _, from_end = np.unique(values[::-1], return_index=True)
    return found, first, len(values) - 1 - from_end
