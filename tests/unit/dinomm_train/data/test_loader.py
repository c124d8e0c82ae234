"""The batches of one rank."""

import threading
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from bigearth_prep.card import ShardCard
from dinomm_train.config import SamplingConfig
from dinomm_train.data.index import StoredDataset
from dinomm_train.data.loader import ReadOptions, TrainingBatches
from dinomm_train.data.order import SampleOrder, block_order, epoch_order
from dinomm_train.data.shard_file import ShardFile, ShardFolder
from dinomm_train.data.stored_split import StoredSplit
from dinomm_train.errors import TrainError
from tests.shard_fixture import make_dataset


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> StoredSplit:
    dataset = make_dataset(tmp_path_factory.mktemp("dataset"), size_px=4)
    return StoredDataset.open(dataset).split("train")


def batches_of(
    split: StoredSplit,
    *,
    global_batch: int,
    seed: int = 0,
    sample_limit: int = 0,
    block_shards: int = 0,
    rank: int = 0,
    world: int = 1,
    threads: int = 3,
) -> TrainingBatches:
    sampling = SamplingConfig(
        seed=seed,
        global_batch=global_batch,
        sample_limit=sample_limit,
        shuffle="block" if block_shards else "full",
        block_shards=block_shards or 1,
    )
    order = SampleOrder.of(split, sampling)
    options = ReadOptions(threads=threads)
    return TrainingBatches(split, order, rank=rank, world=world, options=options)


def positions_of(batches: TrainingBatches, epoch: int, start_step: int = 0) -> list[list[int]]:
    return [batch.positions.tolist() for batch in batches.epoch(epoch, start_step)]


def joined(parts: Iterable[list[int]]) -> list[int]:
    return list(chain.from_iterable(parts))


def reading_threads() -> list[str]:
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith("read-ahead")]


def test_an_epoch_is_its_order_cut_into_whole_batches(split: StoredSplit) -> None:
    batches = batches_of(split, seed=4, global_batch=7)
    assert (batches.steps_per_epoch, batches.dropped_per_epoch) == (3, 3)
    assert joined(positions_of(batches, 2)) == epoch_order(24, 4, 2)[:21].tolist()
    blocks = batches_of(split, seed=4, global_batch=7, block_shards=2)
    expected = block_order(split.shard_of, 4, 2, 2)[:21].tolist()
    assert joined(positions_of(blocks, 2)) == expected


def test_starting_late_in_an_epoch_reads_nothing_of_the_steps_before(split: StoredSplit) -> None:
    batches = batches_of(split, global_batch=4, block_shards=1)
    opened = []

    class NotedFolder(ShardFolder):
        def open(self, shard: ShardCard) -> ShardFile:
            opened.append(shard.name)
            return super().open(shard)

    noted = replace(split, store=NotedFolder(split.folder))
    late = TrainingBatches(noted, batches.order)
    assert len(positions_of(late, 0, start_step=5)) == 1
    last_block = batches.order.blocks(0)[-1]
    assert set(opened) == {split.shards[index].name for index in last_block}


@pytest.mark.parametrize("block_shards", [0, 1, 2])
@pytest.mark.parametrize("world", [1, 2, 3, 6])
def test_ranks_share_what_one_process_would_see(
    split: StoredSplit, world: int, block_shards: int
) -> None:
    batches = partial(batches_of, split, global_batch=6, block_shards=block_shards)
    alone = positions_of(batches(), epoch=1)
    shares = [positions_of(batches(rank=rank, world=world), 1) for rank in range(world)]
    assert [joined(parts) for parts in zip(*shares, strict=True)] == alone


def test_ranks_and_threads_may_be_more_than_shards(split: StoredSplit) -> None:
    assert len(split.shards) == 3
    shares = [
        batches_of(split, global_batch=24, rank=rank, world=8, threads=5) for rank in range(8)
    ]
    seen = [positions_of(one, epoch=0) for one in shares]
    assert {len(steps) for steps in seen} == {1}
    assert sorted(joined(steps[0] for steps in seen)) == list(range(24))


@pytest.mark.parametrize("block_shards", [0, 2])
@pytest.mark.parametrize("start_step", range(7))
def test_an_epoch_continues_at_any_step(
    split: StoredSplit, start_step: int, block_shards: int
) -> None:
    batches = batches_of(split, global_batch=4, block_shards=block_shards)
    assert positions_of(batches, 3, start_step) == positions_of(batches, 3)[start_step:]


def test_a_limit_uses_the_first_stored_samples_alone(split: StoredSplit) -> None:
    batches = batches_of(split, global_batch=5, sample_limit=10)
    assert sorted(joined(positions_of(batches, 0))) == list(range(10))


def test_closing_an_epoch_ends_its_threads(split: StoredSplit) -> None:
    epoch = batches_of(split, global_batch=2).epoch(0)
    next(epoch)
    assert reading_threads()
    epoch.close()
    assert not reading_threads()


def test_a_failed_read_reaches_the_trainer_and_ends_the_threads(tmp_path: Path) -> None:
    split = StoredDataset.open(make_dataset(tmp_path, size_px=4)).split("train")
    for path in split.shard_paths:
        path.unlink()
    with pytest.raises(TrainError, match="cannot be opened"):
        next(batches_of(split, global_batch=2).epoch(0))
    assert not reading_threads()


def test_a_batch_larger_than_the_split_is_refused_at_once(split: StoredSplit) -> None:
    with pytest.raises(TrainError, match="do not fill"):
        batches_of(split, global_batch=32)


def test_a_batch_that_ranks_cannot_share_is_refused_at_once(split: StoredSplit) -> None:
    with pytest.raises(TrainError, match="evenly"):
        batches_of(split, global_batch=8, world=3)


def test_batches_hold_the_samples_at_their_positions(split: StoredSplit) -> None:
    for batch in batches_of(split, global_batch=8).epoch(0):
        assert np.array_equal(batch.sample_ids, split.sample_ids[batch.positions])
        assert batch.s2.shape == (8, 12, 4, 4)
