"""The batches of one rank, epoch by epoch, read ahead while the last one trains."""

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from dinomm_train.data.batch_memory import BatchMemory
from dinomm_train.data.order import SampleOrder, rank_share, share_size, step_positions
from dinomm_train.data.shard_plan import BATCHES_AHEAD, expected_uses
from dinomm_train.data.stored_split import StoredSplit
from dinomm_train.data.stream import PendingBatch, ShardReader, StoredBatch


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadOptions:
    """How batches are read; nothing of it changes what they hold."""

    threads: int = 2
    """Threads that read a rank's batches, each a part of one."""

    verify: bool = False
    """Whether each sample is held against its checksum in the manifest."""

    pinned: bool = False
    """Whether batches lie in memory from which a GPU copies while the host goes on."""

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise ValueError(f"threads must be positive, got {self.threads}")


class TrainingBatches:
    """This rank's share of every global batch; every rank has equally many, equally large."""

    def __init__(
        self,
        split: StoredSplit,
        order: SampleOrder,
        *,
        rank: int = 0,
        world: int = 1,
        options: ReadOptions | None = None,
    ) -> None:
        """Plan the batches.

        Args:
            split: The samples.
            order: Which of them comes when.
            rank: This process.
            world: How many processes there are.
            options: How they are read.

        Raises:
            TrainError: the ranks cannot share a batch evenly, or samples are to be held against
                checksums that the manifest lacks.
        """
        self.order = order
        self.share_size = share_size(order.global_batch, world)
        self._split = split
        self._options = options or ReadOptions()
        memory = BatchMemory(pinned=self._options.pinned)
        self._reader = ShardReader(split, memory, verify=self._options.verify)
        self._rank, self._world = rank, world

    @property
    def steps_per_epoch(self) -> int:
        """Whole global batches in an epoch."""
        return self.order.steps_per_epoch

    @property
    def dropped_per_epoch(self) -> int:
        """Samples at the end of each epoch's order that fill no batch: others each time."""
        return self.order.dropped_per_epoch

    def epoch(self, epoch: int, start_step: int = 0) -> Generator[StoredBatch]:
        """One epoch's batches from this step on, reading no sample of the steps before.

        Closing the iterator ends its threads.

        Raises:
            TrainError: from the iterator, when a shard cannot be read.
        """
        order = self.order.epoch(epoch)
        uses = expected_uses(self._split.shards, self.order, epoch, start_step)
        reading: deque[PendingBatch] = deque()
        pool = ThreadPoolExecutor(self._options.threads, thread_name_prefix="read-ahead")
        # The store first: it wakes readers that wait for a shard, so that the pool can end.
        with pool, self._split.store.expect(uses) as was_read:
            try:
                for step in range(start_step, self.steps_per_epoch + BATCHES_AHEAD):
                    if step < self.steps_per_epoch:
                        batch = step_positions(order, step, self.order.global_batch)
                        share = rank_share(batch, self._rank, self._world)
                        reading.append(self._reader.begin(share, pool, self._options.threads))
                    if (ready := step - BATCHES_AHEAD) >= start_step:
                        yield _taken(reading.popleft(), ready, was_read)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


def _taken(pending: PendingBatch, step: int, was_read: Callable[[int], None]) -> StoredBatch:
    # A function of its own, so that the generator keeps no batch while it waits.
    batch = pending.result()
    was_read(step)
    return batch
