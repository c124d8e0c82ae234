"""Batches that are known beforehand, read one after the other; their shards are fetched ahead."""

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
from jaxtyping import Int64

from dinomm_train.data.batch_memory import BatchMemory
from dinomm_train.data.shard_plan import BATCHES_AHEAD, bytes_at_once, uses_of_batches
from dinomm_train.data.stored_split import StoredSplit
from dinomm_train.data.stream import ShardReader, StoredBatch
from dinomm_train.data.stream_terms import require_cache


def read_batches(
    split: StoredSplit, batches: Sequence[Int64[np.ndarray, " _"]], *, pinned: bool = False
) -> Generator[StoredBatch]:
    """The samples at each batch of positions, in this order; the next ones are read meanwhile.

    Closing the iterator ends its threads.

    Args:
        split: The samples.
        batches: Their positions.
        pinned: Whether batches lie in memory from which a GPU copies while the host goes on.

    Raises:
        TrainError: from the iterator, when a shard cannot be read, or the cache is too small for
            the shards that are needed at once.
    """
    uses = uses_of_batches(split.shards, split.shard_of, batches)
    require_cache(split.store, bytes_at_once(uses), f"reading split {split.name} in this order")
    reader = ShardReader(split, BatchMemory(pinned=pinned))
    # The store first: it wakes readers that wait for a shard, so that the pool can end.
    with (
        ThreadPoolExecutor(BATCHES_AHEAD, thread_name_prefix="read-ahead") as pool,
        split.store.expect(uses) as was_read,
    ):
        reads = (pool.submit(reader.read, positions) for positions in batches)
        waiting = deque(islice(reads, BATCHES_AHEAD))
        for step in range(len(batches)):
            batch = waiting.popleft().result()
            was_read(step)
            waiting.extend(islice(reads, 1))
            yield batch
