"""Which sample comes when."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dinomm_train.data.order import (
    SampleOrder,
    block_order,
    epoch_order,
    rank_share,
    share_size,
    step_positions,
    steps_per_epoch,
)
from dinomm_train.errors import TrainError


@given(count=st.integers(0, 300), seed=st.integers(0, 2**32), epoch=st.integers(0, 1000))
def test_an_epoch_visits_every_sample_once(count: int, seed: int, epoch: int) -> None:
    assert sorted(epoch_order(count, seed, epoch).tolist()) == list(range(count))


def test_seeds_and_epochs_have_orders_of_their_own() -> None:
    orders = [tuple(epoch_order(50, seed, epoch)) for seed in range(3) for epoch in range(3)]
    assert len(set(orders)) == len(orders)
    assert orders[0] == tuple(epoch_order(50, 0, 0))


def test_every_place_is_as_likely_for_every_sample() -> None:
    places = np.array([np.argsort(epoch_order(5, seed=0, epoch=epoch)) for epoch in range(2000)])
    counts = np.array([np.bincount(column, minlength=5) for column in places.T])
    # Binomial(2000, 1/5): standard deviation 17.9.
    assert np.abs(counts - 400).max() < 5 * 17.9


@given(
    steps=st.integers(1, 5), share=st.integers(1, 4), world=st.integers(1, 4), extra=st.integers(0)
)
def test_ranks_together_see_the_global_batch_whatever_their_number(
    steps: int, share: int, world: int, extra: int
) -> None:
    global_batch = share * world
    count = steps * global_batch + extra % global_batch
    order = epoch_order(count, seed=3, epoch=1)
    assert steps_per_epoch(count, global_batch) == steps
    seen = []
    for step in range(steps):
        batch = step_positions(order, step, global_batch)
        shares = [rank_share(batch, rank, world) for rank in range(world)]
        assert {len(one) for one in shares} == {share}
        assert np.array_equal(np.concatenate(shares), batch)
        seen.extend(batch.tolist())
    assert len(set(seen)) == steps * global_batch


@pytest.mark.parametrize(
    ("batch", "world", "numbers"), [(10, 3, "2 or 5"), (8, 5, "4 or 8"), (8, 9, "8")]
)
def test_a_batch_that_ranks_cannot_share_evenly_is_refused_with_numbers_that_can(
    batch: int, world: int, numbers: str
) -> None:
    told = f"{batch} cannot be shared evenly by {world} processes; start {numbers} of them, or, for"
    with pytest.raises(TrainError, match=told):
        share_size(batch, world)


def test_a_split_smaller_than_one_batch_is_refused() -> None:
    with pytest.raises(TrainError, match="24 samples do not fill one global batch of 25"):
        steps_per_epoch(24, 25)
    assert steps_per_epoch(25, 25) == 1


shards = st.lists(st.integers(1, 9), min_size=1, max_size=12)


@given(counts=shards, block=st.integers(1, 5), seed=st.integers(0, 99), epoch=st.integers(0, 9))
def test_blocks_hold_every_sample_once_and_few_shards_at_a_time(
    counts: list[int], block: int, seed: int, epoch: int
) -> None:
    shard_of = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    order = SampleOrder(shard_of=shard_of, seed=seed, global_batch=1, block_shards=block)
    positions = order.epoch(epoch)
    assert sorted(positions.tolist()) == list(range(len(shard_of)))
    blocks = order.blocks(epoch)
    assert sorted(np.concatenate(blocks).tolist()) == list(range(len(counts)))
    assert all(len(one) <= block for one in blocks)
    start = 0
    for one in blocks:
        end = start + sum(counts[shard] for shard in one)
        assert set(shard_of[positions[start:end]]) == set(one)
        start = end


def test_each_epoch_mixes_other_shards_in_another_order() -> None:
    shard_of = np.repeat(np.arange(10, dtype=np.int32), 5)
    order = SampleOrder(shard_of=shard_of, seed=0, global_batch=1, block_shards=2)
    orders = {tuple(order.epoch(epoch)) for epoch in range(20)}
    assert len(orders) == 20
    together = {frozenset(map(int, one)) for epoch in range(20) for one in order.blocks(epoch)}
    # Of 45 pairs of shards; a block that stayed together would leave 5.
    assert len(together) > 30


def test_samples_are_mixed_within_a_block() -> None:
    order = block_order(np.repeat(np.arange(2, dtype=np.int32), 500), 0, 0, 2)
    changes = np.count_nonzero(np.diff(order >= 500))
    # Binomial(999, 1/2): standard deviation 15.8.
    assert abs(changes - 499.5) < 5 * 15.8


def test_a_block_of_all_shards_is_the_full_shuffle() -> None:
    shard_of = np.repeat(np.arange(4, dtype=np.int32), 25)
    assert np.array_equal(block_order(shard_of, 7, 3, 4), epoch_order(100, 7, 3))
