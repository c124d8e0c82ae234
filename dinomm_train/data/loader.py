"""The batches of one rank, epoch by epoch, read ahead while the last one trains."""

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor

from dinomm_train.data.index import StoredSplit
from dinomm_train.data.order import (
    epoch_order,
    rank_share,
    share_size,
    step_positions,
    steps_per_epoch,
)
from dinomm_train.data.stream import ShardReader, StoredBatch

_BATCHES_AHEAD = 2
"""Batches being read while one trains, each by a thread of its own."""


class TrainingBatches:
    """This rank's share of every global batch; every rank has equally many, equally large."""

    def __init__(
        self,
        split: StoredSplit,
        *,
        seed: int,
        global_batch: int,
        rank: int = 0,
        world: int = 1,
        sample_limit: int = 0,
    ) -> None:
        """Plan the batches.

        Args:
            split: The samples.
            seed: The run's seed, which fixes the order of each epoch.
            global_batch: Samples per step over all ranks.
            rank: This process.
            world: How many processes there are.
            sample_limit: Samples used, from the first in stored order; zero uses all.

        Raises:
            TrainError: the split does not fill one global batch, or ranks cannot share it evenly.
        """
        used = split.first(sample_limit) if sample_limit else split
        self.steps_per_epoch = steps_per_epoch(len(used), global_batch)
        self.dropped_per_epoch = len(used) - self.steps_per_epoch * global_batch
        self.share_size = share_size(global_batch, world)
        self._sample_count = len(used)
        self._reader = ShardReader(used)
        self._seed, self._global_batch = seed, global_batch
        self._rank, self._world = rank, world

    def epoch(self, epoch: int, start_step: int = 0) -> Generator[StoredBatch]:
        """One epoch's batches from this step on, reading no sample of the steps before.

        Closing the iterator ends its threads.

        Raises:
            TrainError: from the iterator, when a shard cannot be read.
        """
        order = epoch_order(self._sample_count, self._seed, epoch)
        pool = ThreadPoolExecutor(_BATCHES_AHEAD, thread_name_prefix="read-ahead")
        reading: deque[Future[StoredBatch]] = deque()
        try:
            for step in range(start_step, self.steps_per_epoch):
                batch = step_positions(order, step, self._global_batch)
                share = rank_share(batch, self._rank, self._world)
                reading.append(pool.submit(self._reader.read, share))
                if len(reading) > _BATCHES_AHEAD:
                    yield reading.popleft().result()
            while reading:
                yield reading.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
