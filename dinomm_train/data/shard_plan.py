"""Which shards are needed when, and how much of a dataset is needed at once."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32, Int64

from bigearth_prep.card import ShardCard
from dinomm_train.data.order import SampleOrder
from dinomm_train.data.shard_file import ShardUses

BATCHES_AHEAD = 2
"""Batches being read while one is worked on."""

_BATCHES_BEHIND = 1
"""Batches whose shards stay after they were read, for ranks that are a step behind."""


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
    first_steps, last_steps = (np.full(len(indices), steps - 1) for _ in range(2))
    first_steps[: len(found)] = start_step + first[by_need] // order.global_batch
    last_steps[: len(found)] = start_step + last[by_need] // order.global_batch
    return ShardUses(
        shards=tuple(shards[index] for index in indices),
        first_steps=first_steps,
        last_steps=last_steps,
    )


def uses_of_batches(
    shards: tuple[ShardCard, ...],
    shard_of: Int32[np.ndarray, " sample"],
    batches: Sequence[Int64[np.ndarray, " _"]],
) -> ShardUses:
    """The shards that these batches of positions read; a step is a batch's number."""
    lengths = np.array([len(batch) for batch in batches], dtype=np.int64)
    steps = np.repeat(np.arange(len(batches)), lengths)
    used = shard_of[np.concatenate([np.zeros(0, dtype=np.int64), *batches])]
    found, first, last = _first_and_last(used)
    by_need = np.argsort(first, kind="stable")
    return ShardUses(
        shards=tuple(shards[index] for index in found[by_need]),
        first_steps=steps[first[by_need]],
        last_steps=steps[last[by_need]],
    )


def bytes_at_once(uses: ShardUses) -> int:
    """The most bytes of shards that are held at once when each batch is read with the next ones."""
    sizes = np.array([shard.bytes for shard in uses.shards], dtype=np.int64)
    begins = np.maximum(uses.first_steps - BATCHES_AHEAD, 0)
    ends = uses.last_steps + _BATCHES_BEHIND + 1
    held = np.zeros(ends.max(initial=0) + 1, dtype=np.int64)
    np.add.at(held, begins, sizes)
    np.add.at(held, ends, -sizes)
    return int(np.cumsum(held).max())


def peak_bytes(shards: tuple[ShardCard, ...], order: SampleOrder, epochs: int) -> int:
    """The most bytes of shards that are needed at once in any epoch.

    That is every shard of a block, and of those that the batches reach which are read ahead or
    were read last: in most cases the block being read, and the one after it.
    """
    sizes = np.array([shard.bytes for shard in shards])
    counts = np.bincount(order.shard_of, minlength=len(shards))
    if not order.block_shards:
        return int(sizes[counts > 0].sum())
    window = (_BATCHES_BEHIND + 1 + BATCHES_AHEAD) * order.global_batch
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
